"""Layouts as data: where each leaf of a train state lies on disk, and its canonical name. No file is touched here.

A layout is a list of rules. A rule pairs two path templates, the canonical one and the stored one, with the same
holes: `#` is one chain index of the optimizer, `**` is the rest of the path. Read one way it names a stored leaf,
read the other way it says where to store a name, so each layout is a bijection on the names it knows.

Canonical names: `params/<parameter>`, `opt_state/0/mu/<parameter>`, `opt_state/0/count`, `step`, and
`aux/<path in the model>` for what only an NNX model keeps (random streams, statistics).

LINEN is MaxText's to 2026, NNX_NATIVE that of its first NNX runs, FINAL that of later ones: Linen's, with the rest of
an NNX state under `nnx_aux`. NNX_NATIVE boxes the model's leaves as `{value: array}`, not the optimizer's; NNX_BOXED
boxes both, NNX_PLAIN none; NNX_INTEGER keeps the decoder's unscanned block 3 under `layers/3`, where all others say
`layers_3`. The layers inside a block (`decoder/layers/layers_0`, `decoder/layers_remainder/layers_0`) and the blocks of
a model with dense layers first (`decoder/dense_layers_0`, `decoder/moe_layers_0`) are attributes of their own and keep
their names in every layout.
"""

import dataclasses
import enum
import itertools
from collections.abc import Collection, Iterable

from .errors import CheckpointError

Path = tuple[str, ...]

RNG_LEAVES = ("count", "key")
DECODER, LAYERS = "decoder", "layers"


class Layout(enum.Enum):
    """How a train state is laid out as a tree of directories and lists."""

    LINEN = "linen"
    FINAL = "final"
    NNX_NATIVE = "nnx-native"
    NNX_INTEGER = "nnx-integer"
    NNX_BOXED = "nnx-boxed"
    NNX_PLAIN = "nnx-plain"


@dataclasses.dataclass(frozen=True)
class Rule:
    """Two path templates with the same holes. `kind` is the canonical name's first word."""

    canonical: Path
    stored: Path

    @property
    def kind(self) -> str:
        return self.canonical[0]


def _rule(canonical: str, stored: str) -> Rule:
    return Rule(tuple(canonical.split("/")), tuple(stored.split("/")))


_LINEN = (
    _rule("params/**", "params/params/**"),
    _rule("opt_state/#/mu/**", "opt_state/#/mu/params/**"),
    _rule("opt_state/#/nu/**", "opt_state/#/nu/params/**"),
    _rule("opt_state/#/count", "opt_state/#/count"),
    _rule("opt_state/mu/**", "opt_state/mu/params/**"),
    _rule("opt_state/nu/**", "opt_state/nu/params/**"),
    _rule("opt_state/count", "opt_state/count"),
    _rule("step", "step"),
)


def _nnx(model_box: str, optimizer_box: str) -> tuple[Rule, ...]:
    optimizer = (
        "opt_state/#/mu/**", "opt_state/#/nu/**", "opt_state/#/count", "opt_state/mu/**", "opt_state/nu/**",
        "opt_state/count", "step",
    )
    return (
        _rule("aux/**", f"model/**{model_box}"),
        _rule("params/**", f"model/**{model_box}"),
        *(_rule(name, f"optimizer/{name}{optimizer_box}") for name in optimizer),
    )


RULES: dict[Layout, tuple[Rule, ...]] = {
    Layout.LINEN: _LINEN,
    Layout.FINAL: (*_LINEN, _rule("aux/**", "nnx_aux/model/**")),
    Layout.NNX_NATIVE: _nnx("/value", ""),
    Layout.NNX_INTEGER: _nnx("/value", ""),
    Layout.NNX_BOXED: _nnx("/value", "/value"),
    Layout.NNX_PLAIN: _nnx("", ""),
}


def to_canonical(layout: Layout, path: Path, *, parameters: Collection[str] | None = None) -> str:
    """The canonical name of the leaf stored at `path`.

    `parameters`: the model's parameter names, which tell an NNX model's weights from its other leaves. Without them
    a leaf called `count` or `key` is taken for random state, as Flax names it.

    Raises:
        CheckpointError: if the layout has no such leaf.
    """
    for rule in RULES[layout]:
        holes = _match(rule.stored, path)
        if holes is None:
            continue
        rest = _layers_to_canonical(layout, holes.rest)
        if rest is None or (_shared(rule) and _is_aux(rest, parameters) != (rule.kind == "aux")):
            continue
        return "/".join(_fill(rule.canonical, _Holes(holes.index, rest)))
    fix = "name the layout it was written in"
    raise CheckpointError("/".join(path), f"is not a leaf of layout {layout.value!r}", fix)


def from_canonical(layout: Layout, name: str, *, parameters: Collection[str] | None = None) -> Path:
    """Where a layout stores the leaf of that canonical name: the inverse of `to_canonical`.

    Raises:
        CheckpointError: if the layout has no place for the name.
    """
    for rule in RULES[layout]:
        holes = _match(rule.canonical, tuple(name.split("/")))
        if holes is None:
            continue
        if _shared(rule) and _is_aux(holes.rest, parameters) != (rule.kind == "aux"):
            continue
        rest = _layers_from_canonical(layout, holes.rest)
        if rest is not None:
            return _fill(rule.stored, _Holes(holes.index, rest))
    fix = "store it in a layout that keeps such leaves"
    raise CheckpointError(name, f"has no place in layout {layout.value!r}", fix)


def detect(paths: Iterable[Path]) -> Layout:
    """The one layout in which every path is a leaf.

    Raises:
        CheckpointError: if none fits, with a path that fits nowhere, or if two do.
    """
    paths = list(paths)
    found = [layout for layout in Layout if _fits(layout, paths)]
    if len(found) == 1:
        return found[0]
    if found:
        raise CheckpointError(
            "layout", f"fits {' and '.join(layout.value for layout in found)} alike", "say which one it is"
        )
    strange = next((path for path in paths if not any(_knows(layout, path) for layout in Layout)), None)
    if strange is None:
        raise CheckpointError("layout", "mixes the leaves of two layouts, or has none", "save the state again, whole")
    raise CheckpointError(
        "/".join(strange), "is a leaf of no known layout",
        "expected params/params/... with opt_state and step, or model/... with optimizer/...",
    )


def _fits(layout: Layout, paths: list[Path]) -> bool:
    if not paths or not all(_knows(layout, path) for path in paths):
        return False
    # what sets a layout apart from its plainer sibling must be there
    if layout is Layout.FINAL:
        return any(path[0] == "nnx_aux" for path in paths)
    if layout is Layout.NNX_INTEGER:
        return any(_has_integer_layers(path) for path in paths)
    if layout is Layout.NNX_BOXED:
        return any(path[0] == "optimizer" for path in paths)
    return True


def _knows(layout: Layout, path: Path) -> bool:
    try:
        to_canonical(layout, path)
    except CheckpointError:
        return False
    return True


def _shared(rule: Rule) -> bool:
    """Whether weights and other leaves lie under the same stored template."""
    return rule.stored[0] == "model"


def _is_aux(rest: Path, parameters: Collection[str] | None) -> bool:
    return rest[-1] in RNG_LEAVES if parameters is None else "/".join(rest) not in parameters


@dataclasses.dataclass(frozen=True)
class _Holes:
    index: str
    rest: Path


def _match(template: Path, path: Path) -> _Holes | None:
    """What the holes of a template hold in a path, or None if it does not fit."""
    split = template.index("**") if "**" in template else len(template)
    tail = template[split + 1 :]
    rest_end = len(path) - len(tail)
    if rest_end < split + (split < len(template)) or (split == len(template) and len(path) != split):
        return None
    index = ""
    for word, part in zip((*template[:split], *tail), (*path[:split], *path[rest_end:]), strict=True):
        if word == "#" and part.isdecimal():
            index = part
        elif word != part:
            return None
    return _Holes(index, path[split:rest_end])


def _fill(template: Path, holes: _Holes) -> Path:
    filled: list[str] = []
    for word in template:
        filled.extend(holes.rest if word == "**" else (holes.index,) if word == "#" else (word,))
    return tuple(filled)


def _has_integer_layers(path: Path) -> bool:
    return any(path[at : at + 2] == (DECODER, LAYERS) and path[at + 2].isdecimal() for at in range(len(path) - 2))


def _has_numbered_blocks(path: Path) -> bool:
    return any(parent == DECODER and _block_number(part) for parent, part in itertools.pairwise(path))


def _layers_to_canonical(layout: Layout, rest: Path) -> Path | None:
    """`decoder/layers/3` as `decoder/layers_3` in the integer layout, which alone has integers and no `layers_3`."""
    if layout is not Layout.NNX_INTEGER:
        return None if _has_integer_layers(rest) or _boxed_name(layout, rest) else rest
    if _has_numbered_blocks(rest):
        return None
    joined: list[str] = []
    for part in rest:
        if joined[-2:] == [DECODER, LAYERS] and part.isdecimal():
            joined[-1] = f"{LAYERS}_{part}"
        else:
            joined.append(part)
    return tuple(joined)


def _layers_from_canonical(layout: Layout, rest: Path) -> Path | None:
    if _has_integer_layers(rest) or _boxed_name(layout, rest):
        return None
    if layout is not Layout.NNX_INTEGER:
        return rest
    split: list[str] = []
    for part in rest:
        number = _block_number(part) if split[-1:] == [DECODER] else ""
        split.extend((LAYERS, number) if number else (part,))
    return tuple(split)


def _block_number(part: str) -> str:
    """`3` of `layers_3`, else nothing."""
    head, _, number = part.rpartition("_")
    return number if head == LAYERS and number.isdecimal() else ""


def _boxed_name(layout: Layout, rest: Path) -> bool:
    """Whether a leaf would look boxed in a layout that boxes nothing."""
    return layout in (Layout.NNX_PLAIN, Layout.NNX_NATIVE, Layout.NNX_INTEGER) and bool(rest) and rest[-1] == "value"
