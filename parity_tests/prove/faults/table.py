"""The table of explained faults: every row of the list, what its first finding says, and the line it names."""

import pathlib

from .mathematics import MATHEMATICS
from .objectives import OBJECTIVES
from .planting import ROOT, Span
from .rows import Outcome, Room, Row, Twin, Untraced
from .running import RUNNING
from .twins import TWINS
from .untraced import UNTRACED

PAGE = ROOT / "docs" / "explained-faults.md"
PLANTED: tuple[Room | Twin, ...] = (*TWINS, *MATHEMATICS, *OBJECTIVES, *RUNNING)
ROWS: tuple[Row, ...] = (*PLANTED, *UNTRACED)

_HEAD = """# Explained faults

Bugs of real migrations, planted, and what the prover's first finding says of each. Written by
`python -m parity_tests.prove.faults`; `parity_tests/prove/test_explained.py` holds it against the code.

A fault of something the twins have is planted in the twins (`twins`) and proved against the other twin, or, where it
is one that both would share, against the program as it was. Other faults are planted in a few lines as a model would
have them (`rooms`), against the same thing by another hand, which is proved equal to the unharmed lines. The line
named is the planted one, or where the fault leaves something out or is made before anything is traced, the line that
has no counterpart or that reads the value.

"""


def outcomes() -> dict[str, Outcome]:
    """Every planted fault's outcome by ID. Takes about half a minute."""
    return {row.id: row.outcome() for row in PLANTED}


def page(found: dict[str, Outcome]) -> str:
    """The whole page."""
    lines = [planted_line(row, found[row.id]) for row in sorted(PLANTED, key=lambda row: row.id)]
    right = sum(bool(outcome.named) for outcome in found.values())
    head = f"{right} of {len(PLANTED)} planted faults: the first finding names the line.\n\n"
    table = ["| ID | where | fault | first finding | names |", "|---|---|---|---|---|", *lines]
    rest = [
        "", "## Faults that change no trace", "",
        "| ID | fault | why no trace differs | what notices it |", "|---|---|---|---|",
        *(f"| {row.id} | {row.what} | {row.why} | {row.caught} |" for row in sorted(UNTRACED, key=lambda row: row.id)),
    ]  # fmt: skip
    return _HEAD + head + "\n".join(table + rest) + "\n"


def planted_line(row: Room | Twin, outcome: Outcome) -> str:
    """One row of the table."""
    where = "twins" if isinstance(row, Twin) else "rooms"
    finding = outcome.finding
    said = finding.title if finding is not None else outcome.verdict.reason
    place = next((k for k, span in enumerate(outcome.lines) if str(span) == outcome.named), None)
    shown = f"`{_statement(row, place, outcome.lines[place])}`" if place is not None else "**another line**"
    return f"| {row.id} | {where} | {row.what} | {_cell(said)} | {_cell(shown)} |"


def _statement(row: Room | Twin, place: int, span: Span) -> str:
    """What stands in the line that is named, without its number: the planted text, or the honest line's."""
    lines = pathlib.Path(ROOT / span.path).read_text(encoding="utf-8").splitlines()
    words = row.new.strip().splitlines()
    text = words[-1].strip() if place == 0 and words and words[0] != "pass" else lines[span.first - 1].strip()
    return text if len(text) <= 100 else text[:97] + "..."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


__all__ = ["PAGE", "PLANTED", "ROWS", "Untraced", "outcomes", "page", "planted_line"]
