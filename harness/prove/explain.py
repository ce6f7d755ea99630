"""Where two programs part, in words: causes in program order, one for each pair of lines, with what they spoil.

`align` finds the partings. A parting in a backward pass that mirrors one of the forward pass is told under that one. If
the walk finds none, the operations whose operands are all equal and that differ themselves are told instead.
"""

import dataclasses
import re
import typing
from collections.abc import Iterable, Mapping, Sequence

from harness.verdict import Finding

from .align import Aligner, Parting, is_constant, unwrapped
from .sources import FRAMES, is_backward, lines, loops_around, scopes
from .terms import Node, Origin, reachable
from .words import describe, thing, title

_MAX_FINDINGS = 12
_SHOWN = 4  # lines of what one side computes alone
_WALKED = 400

Written = Mapping[bytes, Sequence[Origin]]
Outputs = Mapping[str, tuple[Node, Node]]


def findings(
    outputs: Outputs, names: tuple[str, str] = ("a", "b"), written: tuple[Written, Written] = ({}, {})
) -> tuple[Finding, ...]:
    """The causes of every unequal pair of outputs, first in program order first.

    `written` says for each side where each term was written, at every one of its places.
    """
    unequal = {name: pair for name, pair in outputs.items() if pair[0].digest != pair[1].digest}
    sides = _Side([a for a, _ in outputs.values()], written[0]), _Side([b for _, b in outputs.values()], written[1])
    for side, other in (sides, sides[::-1]):
        side.part_from(other)
    partings = Aligner(sides[0].nodes, sides[1].nodes).run(unequal.values())
    partings = partings or _frontier(sides, unequal)
    causes = _grouped([_placed(parting, sides, names) for parting in partings])
    spoilt = _spoilt(unequal, sides, causes)
    causes.sort(key=lambda cause: (cause.members[0].backward, -len(spoilt[id(cause)])))  # stable: then by time
    made = [_finding(cause, spoilt[id(cause)], sides, names) for cause in causes]
    if len(made) > _MAX_FINDINGS:
        last = made[_MAX_FINDINGS - 1]
        more = f"and {len(made) - _MAX_FINDINGS} more causes after this one"
        made[_MAX_FINDINGS - 1] = dataclasses.replace(last, detail="; ".join(filter(None, (last.detail, more))))
    return tuple(made[:_MAX_FINDINGS])


class _Side:
    """One program: its terms, where they are written, and how long it is."""

    def __init__(self, roots: Sequence[Node], written: Written):
        self.nodes = reachable(roots)
        self.written = written
        orders = [node.origin.order for node in self.nodes.values() if node.origin is not None]
        self.length = max(orders, default=1) or 1
        self.alone: frozenset[bytes] = frozenset()

    def part_from(self, other: "_Side") -> None:
        """Learn which operations the other side lacks."""
        self.alone = frozenset(self.nodes.keys() - other.nodes.keys())

    def place(self, node: Node | None, like: Node | None) -> Origin | None:
        """Where a term is written; of several places the one in the stage of its counterpart."""
        if node is None:
            return None
        places = self.written.get(node.digest, ())
        if like is not None and len(places) > 1:
            wanted = scopes(like.origin)
            return next((place for place in places if scopes(place) == wanted), node.origin)
        return node.origin if node.origin is not None or not places else places[0]

    def elsewhere(self, node: Node | None, place: Origin | None) -> list[str]:
        """The other lines where the same term is written: equal terms are one."""
        others = [lines(other)[0] for other in self.written.get(node.digest, ()) if lines(other)] if node else []
        return [line for line in dict.fromkeys(others) if line not in lines(place)[:1]]

    def when(self, place: Origin) -> float:
        """Its share of the program that comes before."""
        return place.order / self.length


@dataclasses.dataclass(frozen=True, eq=False)
class _Placed:
    """A parting with its two places, in lines, stage and time."""

    parting: Parting
    nodes: tuple[Node | None, Node | None]
    title: str
    lines: tuple[tuple[str, ...], tuple[str, ...]]
    stages: tuple[str, ...]
    origins: tuple[Origin | None, ...]
    when: float
    backward: bool

    @property
    def key(self) -> tuple[typing.Any, ...]:
        """Partings of one key are one cause: one pair of lines, one kind. Layers differ in their number."""
        return (*(line[:1] for line in self.lines), re.sub(r"\d+", "#", self.title))


def _placed(parting: Parting, sides: tuple[_Side, _Side], names: tuple[str, str]) -> _Placed:
    nodes = parting.places
    others = nodes[::-1]
    if parting.how in ("input", "reads"):  # two values, each written where its own name says
        others = (None, None)
    elif parting.how == "added":  # the other side may have it too, elsewhere
        others = parting.readers
    places = [side.place(node, other) for side, node, other in zip(sides, nodes, others, strict=True)]
    readers = [reader if node is None else None for node, reader in zip(nodes, parting.readers, strict=True)]
    for k, (side, reader) in enumerate(zip(sides, readers, strict=True)):
        places[k] = places[k] or side.place(reader, None)
    known = [(side, place) for side, place, node in zip(sides, places, nodes, strict=True) if place and node]
    return _Placed(
        parting, nodes, title(parting, names), (tuple(lines(places[0])), tuple(lines(places[1]))),
        tuple(dict.fromkeys("/".join(scopes(place)) for place in places if place is not None)),
        tuple(places), min((side.when(place) for side, place in known), default=1.0),
        any(is_backward(place) for _, place in known) or _read_backward(parting),
    )  # fmt: skip


def _read_backward(parting: Parting) -> bool:
    """Whether only a backward pass came upon it: the forward pass tells the same in its own place."""
    readers = [reader for reader in parting.readers if reader is not None]
    return bool(readers) and all(is_backward(reader.origin) for reader in readers)


@dataclasses.dataclass(eq=False)
class _Cause:
    """Partings of one pair of lines, in program order, and how many of the backward pass mirror them."""

    members: list[_Placed]
    echoes: int = 0


def _grouped(placed: Iterable[_Placed]) -> list[_Cause]:
    groups: dict[typing.Any, list[_Placed]] = {}
    for one in sorted(placed, key=lambda one: (one.backward, one.when)):
        groups.setdefault(one.key, []).append(one)
    causes: list[_Cause] = []
    for members in groups.values():
        cause = _mirrored(causes, members[0]) if members[0].backward else None
        if cause is None:
            forward = [one for one in members if one.backward == members[0].backward]
            causes.append(_Cause(forward, len(members) - len(forward)))
        else:
            cause.echoes += len(members)
    return causes


def _mirrored(causes: Iterable[_Cause], one: _Placed) -> _Cause | None:
    """The cause in the forward pass that a parting of the backward pass follows from: of its line or of its stage."""
    for cause in causes:
        first = cause.members[0]
        lines_of = {side[0] for side in first.lines if side}
        if not first.backward and (
            not lines_of.isdisjoint(side[0] for side in one.lines if side) or set(first.stages) & set(one.stages) - {""}
        ):
            return cause
    return None


def _finding(cause: _Cause, leaves: tuple[str, ...], sides: tuple["_Side", "_Side"], names: tuple[str, str]) -> Finding:
    first = cause.members[0]
    detail = []
    if any(node is not None and node.free for node in first.nodes) or first.parting.how == "carry":
        around = next((found for found in map(loops_around, first.origins) if found), [])
        detail.append("inside a loop body" + (f": {', in '.join(around)}" if around else ""))
    count = len({one.origins for one in cause.members})
    if count > 1:
        detail.append(f"{count} operations from this line differ")
    if cause.echoes:
        detail.append(f"and {cause.echoes} later operations that mirror it in the backward pass")
    for side, name, node, place in zip(sides, names, first.nodes, first.origins, strict=True):
        more = side.elsewhere(node, place)
        if more:
            detail.append(f"{name} has the same operation at {', '.join(more[:_SHOWN])}")
    for side, name, node in zip(sides, names, first.parting.above, strict=True):
        place = side.place(node, None)
        if node is not None and place is not None and lines(place):
            detail.append(f"{name} reads it in {node.op} at {' < '.join(lines(place)[:_SHOWN])}")
    detail += _only_there(first.parting, sides, names)
    stages = [stage for stage in first.stages if stage]
    rest = {stage for one in cause.members for stage in one.stages if stage} - set(stages)
    return Finding(
        title=first.title,
        operations=_operations(first),
        sources=(" < ".join(first.lines[0][:FRAMES]), " < ".join(first.lines[1][:FRAMES])),
        scope=" | ".join(stages) + (f" and {len(rest)} more stages" if rest else ""),
        leaves=leaves,
        detail="; ".join(detail),
        kind="unmodelled" if any(node is not None and node.op == "unmodelled" for node in first.nodes) else "value",
    )


def _only_there(parting: Parting, sides: tuple["_Side", "_Side"], names: tuple[str, str]) -> list[str]:
    """Lines of the operations below a parting that one side has alone: what was computed there and is not here."""
    told = []
    if parting.how not in ("reads", "added", "operation"):
        return told
    for side, name, node in zip(sides, names, parting.chain or parting.pair, strict=False):
        if parting.chain:
            side, name = (sides[0], names[0]) if parting.pair[0] is not None else (sides[1], names[1])
        below = _alone_below(node, side) if node is not None and not is_constant(node) else []
        places = list(dict.fromkeys(lines(one.origin)[0] for one in below if lines(one.origin)))
        if places:
            told.append(f"{name} alone computes, at {', '.join(places[:_SHOWN])}")
        if parting.chain:
            break
    return told


def _alone_below(root: Node, side: "_Side") -> list[Node]:
    """The operations at and below a term that only this side has and that no loop hides, in program order."""
    found, stack = {}, [root]
    while stack and len(found) < _WALKED:
        node = stack.pop()
        if node.digest in side.alone and node.digest not in found:
            found[node.digest] = node
            stack.extend(node.operands)
    return sorted(found.values(), key=lambda node: node.origin.order if node.origin is not None else 0)


def _operations(one: _Placed) -> tuple[str, str]:
    shown = []
    for node, reader in zip(one.nodes, one.parting.readers, strict=True):
        if node is None and reader is not None:
            shown.append(f"(no counterpart: {describe(reader)} reads {_kept(one.parting.kept)})")
        else:
            shown.append(describe(node))
    return shown[0], shown[1]


def _kept(node: Node | None) -> str:
    """What the side without an operation has in its place, and where that was written."""
    if node is None:
        return "its operands"
    at = lines(node.origin)[:3]
    return thing(node) + (f" of {' < '.join(at)}" if at else "")


def _spoilt(unequal: Outputs, sides: tuple[_Side, _Side], causes: Sequence[_Cause]) -> dict[int, tuple[str, ...]]:
    """For each cause the outputs that depend on one of its operations, on the side that has it."""
    spoilt = {}
    for cause in causes:
        reached: set[str] = set()
        for k in (0, 1):
            wanted = {one.nodes[k].digest for one in cause.members if one.nodes[k] is not None}  # pyright: ignore
            wanted |= {
                one.parting.readers[k].digest  # pyright: ignore
                for one in cause.members
                if one.nodes[k] is None and one.parting.readers[k] is not None
            }
            above = _above([pair[k] for pair in unequal.values()], wanted)
            reached |= {name for name, pair in unequal.items() if above[pair[k].digest]}
        spoilt[id(cause)] = tuple(name for name in unequal if name in reached)
    return spoilt


def _above(roots: Iterable[Node], wanted: set[bytes]) -> dict[bytes, bool]:
    """For every term under the roots, whether it is or depends on a wanted one."""
    answers: dict[bytes, bool] = {}
    stack = list(roots)
    while stack:
        node = stack[-1]
        waiting = [operand for operand in node.operands if operand.digest not in answers]
        if node.digest in answers or not waiting:
            stack.pop()
            answers[node.digest] = node.digest in wanted or any(answers[operand.digest] for operand in node.operands)
        else:
            stack.extend(waiting)
    return answers


def _frontier(sides: tuple[_Side, _Side], unequal: Outputs) -> list[Parting]:
    """Operations that the other side lacks and whose operands it has: what is told when the walk finds nothing."""
    found = []
    for k in (0, 1):
        other = sides[1 - k].nodes
        for node in reachable(pair[k] for pair in unequal.values()).values():
            known = [operand.digest in other or is_constant(operand) for operand in node.operands]
            if node.digest not in other and all(known) and unwrapped(node).op not in ("constant", "variable"):
                pair = (node, None) if k == 0 else (None, node)
                found.append(Parting("added", pair, (None, None), (node,)))
    return found
