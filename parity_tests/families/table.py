"""The table: a line for each family and twin."""

import functools
import pathlib
from collections.abc import Mapping

from models import presets

from . import cells
from .cells import Cell

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
START, END = "<!-- families -->", "<!-- end of families -->"
TWINS = ("linen", "nnx")
FAMILIES = tuple(dict.fromkeys(config.family for config in presets().values()))
# No published tree of MaxText's is kept for these; the reason stands in the cell.
NO_TREE = {"qwen2": "none published here"}
HEAD = (
    "| family | twin | ops against oracles | logits against Hugging Face | tree of MaxText | decode = forward, float64 "
    "| full size, 256 chips |"
)


def measured(family: str) -> tuple[Cell, ...]:
    """All cells of a family, twin by twin, then what both share."""
    own = [kind(family, twin) for twin in TWINS for kind in (cells.oracle, cells.witness, _tree, cells.decode)]
    return (*own, cells.full_size(family))


def _tree(family: str, twin: str) -> Cell:
    if family in NO_TREE:
        return Cell(f"{twin} tree", NO_TREE[family], True)
    return cells.maxtext(family, twin)


def rows(family: str, found: tuple[Cell, ...]) -> list[str]:
    """One line a twin. A cell that fails is bold."""
    *own, full = found
    per_twin = len(own) // len(TWINS)
    return [
        _row(family, twin, (*own[index * per_twin : (index + 1) * per_twin], full)) for index, twin in enumerate(TWINS)
    ]


def _row(family: str, twin: str, found: tuple[Cell, ...]) -> str:
    texts = (cell.text if cell.holds else f"**{cell.text}**" for cell in found)
    return f"| `{family}` | {twin} | {' | '.join(texts)} |"


def page(readme: str, found: Mapping[str, tuple[Cell, ...]]) -> str:
    """The README with the table between its marks."""
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise SystemExit(f"README.md has no place for the table; put {START} and {END} where it belongs.")
    lines = functools.reduce(lambda made, family: made + rows(family, found[family]), found, [])
    return "\n".join([before + START, "", HEAD, "|---|---|---|---|---|---|---|", *lines, "", END + after])
