"""Where two programs part: the operations whose operands are all proved equal and that differ themselves.

Constants are read as part of the operation that uses them. Operations inside loop bodies are found like any others,
since a body is a term over the loop's index and carries. Differences from one pair of source lines are one finding.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from harness.verdict import Finding

from .sources import scopes, source_line
from .terms import Node, reachable

_MAX_FINDINGS = 12


def findings(outputs: Mapping[str, tuple[Node, Node]]) -> tuple[Finding, ...]:
    """The causes of every unequal pair of outputs, first in program order first."""
    unequal = {
        name: pair for name, pair in outputs.items() if pair[0] is not pair[1] and pair[0].digest != pair[1].digest
    }
    sides = [_Side([pair[k] for pair in outputs.values()], [pair[k] for pair in unequal.values()]) for k in (0, 1)]
    for side, other in (sides, sides[::-1]):
        side.mark(other.all)
    pairs = _pair(sides[0].frontier, sides[1].frontier)
    grouped: dict[tuple[str, str, str], list[tuple[Node | None, Node | None]]] = {}
    for pair in pairs:
        left, right = (source_line(node) if node else "" for node in pair)
        key = (left, right, _scope(pair))
        grouped.setdefault(key, []).append(pair)
    marks = [_marks(side) for side in sides]
    spoilt = {name: marks[0][a.digest] | marks[1][b.digest] for name, (a, b) in unequal.items()}
    found = [_finding(key, group, spoilt) for key, group in grouped.items()]
    found = [finding for finding in found if finding.leaves]
    return tuple(found[:_MAX_FINDINGS])


@dataclasses.dataclass
class _Side:
    roots: Sequence[Node]
    unequal: Sequence[Node]

    def __post_init__(self):
        self.all = reachable(self.roots)
        self.frontier: list[Node] = []

    def mark(self, other: Mapping[bytes, Node]) -> None:
        """Find this side's frontier: unmatched, all operands matched, constant, carried or the program's own input.

        An input, moved or not, is no operation to blame, unless it is an output as it stands: what reads it is.
        """

        def known(node: Node) -> bool:
            return node.digest in other or node.op == "variable" or is_input(node) or is_constant(node)

        returned = {node.digest for node in self.unequal if node.digest not in other}
        self.frontier = sorted(
            (
                node
                for node in reachable(self.unequal).values()
                if (node.digest in returned if known(node) else all(known(operand) for operand in node.operands))
            ),
            key=_order,
        )


def _marks(side: _Side) -> dict[bytes, frozenset[bytes]]:
    """For every unmatched node the frontier operations under it."""
    frontier = {node.digest for node in side.frontier}
    marks: dict[bytes, frozenset[bytes]] = {}
    stack = list(side.unequal)
    while stack:
        node = stack[-1]
        waiting = [operand for operand in node.operands if operand.digest not in marks]
        if node.digest in marks or not waiting:
            stack.pop()
            own = frozenset((node.digest,)) if node.digest in frontier else frozenset()
            below = {marks[operand.digest] for operand in node.operands} - {frozenset()}
            marks[node.digest] = own.union(*below) if own or len(below) != 1 else next(iter(below))
        else:
            stack.extend(waiting)
    return marks


def _order(node: Node) -> tuple[int, bytes]:
    return (node.origin.order if node.origin is not None else 0, node.digest)


def is_constant(node: Node) -> bool:
    """A literal, or a literal repeated, reshaped or converted."""
    while node.op in ("broadcast_in_dim", "reshape", "convert_element_type"):
        node = node.operands[0]
    return node.op in ("constant", "iota")


def is_input(node: Node) -> bool:
    """An input, or one that was only moved: sliced, transposed, reshaped, repeated."""
    while node.op in ("slice_at", "transpose", "reshape", "broadcast_in_dim"):
        node = node.operands[0]
    return node.op == "input"


def _pair(left: Sequence[Node], right: Sequence[Node]) -> list[tuple[Node | None, Node | None]]:
    """Each operation with its likeliest counterpart: same stage, same operation, same operands, same shape."""
    rest, pairs = list(right), []
    for a in left:
        best = max(rest, key=lambda b: _likeness(a, b), default=None)
        if best is not None:
            rest.remove(best)
        pairs.append((a, best))
    return pairs + [(None, b) for b in rest]


def _likeness(a: Node, b: Node) -> tuple[int, int]:
    shared = len({node.digest for node in a.operands} & {node.digest for node in b.operands})
    score = 4 * (a.op == b.op) + 3 * (scopes(a.origin) == scopes(b.origin)) + 2 * shared + (a.shape == b.shape)
    return score, -abs(_order(a)[0] - _order(b)[0])


def _scope(pair: tuple[Node | None, Node | None]) -> str:
    paths = ["/".join(scopes(node.origin)) for node in pair if node is not None]
    return " | ".join(dict.fromkeys(path for path in paths if path))


def _finding(key, group, spoilt) -> Finding:
    a, b = group[0]
    causes = {node.digest for pair in group for node in pair if node is not None}
    leaves = tuple(name for name, reached in spoilt.items() if not causes.isdisjoint(reached))
    loop = any(node is not None and node.free for node in (a, b))
    detail = []
    if loop:
        detail.append("inside a loop body")
    if len(group) > 1:
        detail.append(f"{len(group)} operations from this line differ")
    title = f"{_verb(a, b)} on equal operands" if a and b else "an operation that the other program lacks"
    return Finding(
        title=title,
        operations=(describe(a), describe(b)),
        sources=(key[0], key[1]),
        scope=key[2],
        leaves=leaves,
        detail="; ".join(detail),
        kind="unmodelled" if any(node is not None and node.op == "unmodelled" for node in (a, b)) else "value",
    )


def _verb(a: Node, b: Node) -> str:
    return f"different {a.op}" if a.op == b.op else f"{a.op} against {b.op}"


def describe(node: Node | None) -> str:
    """One line: result type, operation, parameters, operands (constants by value)."""
    if node is None:
        return "(no counterpart)"
    if node.op == "unmodelled":
        return f"{_type(node)} = not modelled ({node.attrs})"
    if node.op == "input":
        return f"input {node.attrs}: {_type(node)}"
    params = ""
    if isinstance(node.attrs, Mapping) or hasattr(node.attrs, "items"):
        shown = {name: value for name, value in node.attrs.items() if value is not None and name not in _UNSAID}
        params = ", ".join(f"{name}={_short(value)}" for name, value in shown.items())
    operands = ", ".join(_operand(operand) for operand in node.operands)
    return f"{_type(node)} = {node.op}" + (f"[{params}]" if params else "") + f"({operands})"


_UNSAID = frozenset({"weak_type", "sharding", "out_sharding", "jaxpr", "update_jaxpr", "update_consts"})


def _short(value) -> str:
    text = str(value)
    return text if len(text) <= 90 else text[:87] + "..."


def _type(node: Node) -> str:
    return f"{node.dtype}[{','.join(str(size) for size in node.shape)}]"


def _operand(node: Node) -> str:
    inner = node
    while inner.op in ("broadcast_in_dim", "reshape", "convert_element_type"):
        inner = inner.operands[0]
    if inner.op == "constant" and np.ndim(inner.attrs) == 0:
        return f"{inner.attrs}"
    if node.op == "input":
        return f"{node.attrs}: {_type(node)}"
    return _type(node) if node.op == "variable" else f"{node.op}: {_type(node)}"
