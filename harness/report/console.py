"""A run on a console: table of verdicts, certificate, failures by cause. It needs neither a terminal nor 80 columns."""

from collections.abc import Iterable, Mapping

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ..verdict import Kind
from .certificate import RunCertificate
from .record import CONTROL, Record
from .recorder import failures
from .stream import Outcome, Run

STYLES = {
    Kind.PROVED: "green",
    Kind.BITWISE: "green",
    Kind.CLOSE: "cyan",
    Kind.DIVERGED: "bold red",
    Kind.UNDECIDED: "yellow",
}
ORDER = (
    "logits", "loss", "grads", "state", "eval", "decode", "shardings", "checkpoints", "goldens", "census", "witness",
    "cost",
)  # fmt: skip
NARROW = 90
SHOWN_CAUSES = 12


def table(records: Iterable[Record], *, width: int = 120) -> RenderableType:
    """Family and layers by observable, each cell its verdicts counted; in a narrow console a block for each row."""
    records = [record for record in records if record.observable != CONTROL]
    observables = sorted({record.observable for record in records}, key=_rank)
    rows: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        rows.setdefault((record.family or "-", record.layers or "-"), []).append(record)
    if width < NARROW:
        return Group(*(_block(name, rows[name], observables) for name in sorted(rows)))
    made = Table(box=box.SIMPLE_HEAD, title="verdicts", title_justify="left", pad_edge=False)
    for heading in ("family", "layers", *observables):
        made.add_column(heading, overflow="fold")
    for name in sorted(rows):
        made.add_row(*name, *(_cell(rows[name], observable) for observable in observables))
    return made


def _block(name: tuple[str, str], records: list[Record], observables: list[str]) -> Text:
    lines = [Text(" ".join(part for part in name if part != "-") or "-", style="bold")]
    for observable in observables:
        cell = _cell(records, observable, separator=", ")
        if cell.plain != "-":
            lines.append(Text(f"  {observable}: ").append_text(cell))
    return Text("\n").join(lines)


def _rank(observable: str) -> tuple[int, str]:
    return (ORDER.index(observable) if observable in ORDER else len(ORDER), observable)


def _cell(records: Iterable[Record], observable: str, *, separator: str = "\n") -> Text:
    counts: dict[Kind, int] = {}
    for record in records:
        if record.observable == observable:
            counts[record.kind] = counts.get(record.kind, 0) + 1
    parts = [Text(f"{counts[kind]} {kind}", style=STYLES[kind]) for kind in Kind if kind in counts]
    return Text(separator).join(parts) if parts else Text("-", style="dim")


def certificate_lines(certificate: RunCertificate) -> list[tuple[str, str]]:
    """The certificate as label and text; a view chooses how to set them."""
    c, session = certificate, certificate.session
    lines = [("verdicts", _counts(c.verdicts) or "none")]
    for name, count in c.observables.items():
        extra = "" if count.finite is None else f", {count.finite:.1%} of the elements finite and not zero"
        extra += "" if count.worst_ratio is None else f", worst ratio {count.worst_ratio:.3g}"
        lines.append((name, f"{count.comparisons} compared, {count.leaves} leaves, {count.elements:,} elements{extra}"))
    lines.append(
        ("cases", f"{c.configs} cases, {c.fingerprints} distinct fingerprints, {c.knob_pairs} pairs of knob values")
    )
    steps = [f"{step} {proved} of {count} ({proved / count:.1%})" for step, (proved, count) in c.proved_cases.items()]
    lines += [("proved cases", ", ".join(steps))] if steps else []
    lines += [("proofs", _counts(c.strengths))] if c.strengths else []
    lines.append(("audit", f"{c.audited} proved comparisons were executed as well ({c.audited_share:.1%})"))
    for backend, files in c.sources.items():
        lines.append((f"{backend} traced", f"{len(files)} files: {_listed(files)}"))
    apart = (
        "no file of one backend is in the trace of another" if c.sides_checked else "not checked: nothing was declared"
    )
    lines.append(("wrong side", _listed(c.trespasses) or apart))
    lines += [("one-sided", f"{leaf}: {reason}") for leaf, reason in list(c.one_sided.items())[:20]]
    lines += [("converted", f"{leaf}: {what}") for leaf, what in list(c.conversions.items())[:20]]
    lines += [("rules", ", ".join(c.rules))] if c.rules else []
    lines += [(f"goldens {state}", f"{len(names)}" + _after(names, state)) for state, names in c.goldens.items()]
    lines.append(("controls", f"{c.controls} planted faults failed as they must" + _bad(c.controls_failed)))
    lines.append(("tests", _counts(c.tests)))
    lines += [("skipped", f"{count}: {reason}") for reason, count in sorted(c.skipped.items())]
    lines.append(("reused", f"{c.reused} records of an earlier run over the same sources"))
    versions = session.get("versions", {})
    lines.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    where = [f"{session[key]}" for key in ("platform", "device", "machine") if session.get(key)]
    lines.append(("platform", ", ".join(dict.fromkeys(where)) + f", {session.get('devices', 0)} devices"))
    settings = ", ".join(f"{key} {session[key]}" for key in ("profile", "seed", "budget", "seconds") if key in session)
    return [*lines, ("run", settings)]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _listed(names: Iterable[str], limit: int = 6) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _after(names: Iterable[str], state: str) -> str:
    return "" if state == "used" or not names else f": {_listed(names)}"


def _bad(names: Iterable[str]) -> str:
    return f", but these did not: {_listed(names)}" if names else ""


def certificate_panel(certificate: RunCertificate) -> Panel:
    """The certificate with one line for each fact."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in certificate_lines(certificate):
        grid.add_row(Text(label), Text(text, style="bold red" if _alarming(label, certificate) else ""))
    return Panel(grid, title="certificate", title_align="left")


def _alarming(label: str, certificate: RunCertificate) -> bool:
    if label == "wrong side":
        return bool(certificate.trespasses)
    if label == "controls":
        return bool(certificate.controls_failed)
    return label in ("goldens missing", "goldens unused", "goldens damaged") and bool(
        certificate.goldens[label.split()[1]]
    )


def failure_lines(run: Run) -> list[tuple[str, str]]:
    """Heading and text of each root cause: what failed how often, one explanation, and the command that repeats it."""
    explained = {record.nodeid for record in run.records if not record.passed}
    causes = []
    for cause, records in failures(run.records):
        first = min(records, key=lambda record: (record.num_elements or 0, record.case))
        cases = _listed(sorted({record.case for record in records}), 4)
        text = [f"{len(records)} comparison(s): {cases}", first.detail or f"{first.observable}: {first.kind}"]
        text += [f"rerun: paraflax repro {first.token}"] if first.token else []
        causes.append((cause, "\n".join(text)))
    lost = [outcome for outcome in run.outcomes if outcome.failed and outcome.nodeid not in explained]
    return causes + [(f"{_word(outcome)}: {outcome.nodeid}", _tail(outcome.reason)) for outcome in lost]


def _word(outcome: Outcome) -> str:
    return "crashed test" if outcome.crash else "failed test"


def _tail(text: str, lines: int = 25) -> str:
    kept = text.strip().splitlines()[-lines:]
    return "\n".join(kept) or "no explanation was recorded"


def show(console: Console, run: Run, certificate: RunCertificate) -> None:
    """Prints the table, the failures and the certificate."""
    console.print(table(run.records, width=console.width))
    causes = failure_lines(run)
    for heading, text in causes[:SHOWN_CAUSES]:
        console.print(Text(heading, style="bold red"))
        console.print(Text(text + "\n"))
    if len(causes) > SHOWN_CAUSES:
        console.print(Text(f"and {len(causes) - SHOWN_CAUSES} more causes; the report has all of them\n", style="bold"))
    console.print(certificate_panel(certificate))
