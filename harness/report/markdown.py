"""A run as Markdown for a step summary, which is dropped whole beyond 1 MiB: so it is cut, visibly, below that."""

from ..verdict import Kind
from .certificate import RunCertificate
from .console import ORDER, certificate_lines, failure_lines
from .exits import MEANINGS, Exit
from .record import CONTROL, Record
from .stream import Run

LIMIT_BYTES = 1 << 20
CUT = "\n\n*(cut: the full report is in records.jsonl)*\n"


def markdown(run: Run, certificate: RunCertificate, code: Exit) -> str:
    """Headline, table, failures by cause, certificate; at most 1 MiB."""
    parts = [f"## Parity: {MEANINGS[code]}\n", _table([r for r in run.records if r.observable != CONTROL])]
    for heading, text in failure_lines(run):
        parts.append(f"### {_escape(heading)}\n\n{_fenced(text)}")
    rows = "\n".join(f"| {_escape(label)} | {_escape(text)} |" for label, text in certificate_lines(certificate))
    parts.append(f"### Certificate\n\n| | |\n|---|---|\n{rows}\n")
    return _cut("\n".join(parts))


def _table(records: list[Record]) -> str:
    names = {record.observable for record in records}
    observables = [name for name in ORDER if name in names] + sorted(names - set(ORDER))
    rows: dict[tuple[str, str], dict[str, dict[Kind, int]]] = {}
    for record in records:
        cell = rows.setdefault((record.family or "-", record.layers or "-"), {}).setdefault(record.observable, {})
        cell[record.kind] = cell.get(record.kind, 0) + 1
    lines = ["| family | layers | " + " | ".join(observables) + " |", "|---|---|" + "---|" * len(observables)]
    for (family, layers), cells in sorted(rows.items()):
        texts = [
            ", ".join(f"{cells.get(o, {})[k]} {k}" for k in Kind if k in cells.get(o, {})) or "-" for o in observables
        ]
        lines.append(f"| {_escape(family)} | {layers} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _fenced(text: str) -> str:
    fence = "````"
    return f"{fence}\n{text.replace(fence, '```')}\n{fence}\n"


def _cut(text: str) -> str:
    """Cuts at a line end, and closes a code block that was open there."""
    raw = text.encode("utf-8")
    if len(raw) <= LIMIT_BYTES:
        return text
    kept = raw[: LIMIT_BYTES - 200].decode("utf-8", errors="ignore").rpartition("\n")[0]
    return kept + ("\n````" if kept.count("````") % 2 else "") + CUT
