"""Two unequal terms side by side, from the outputs down to where they part. What reads a parting is no parting itself.

Equal terms need no look. Operations that are alike are paired and their operands compared; loops are paired carry by
carry, as their bodies read them. Where one side has operations that the other lacks, the walk goes on below them. It
explains and never proves: a wrong guess makes a poor explanation, no wrong verdict.
"""

import dataclasses
import typing
from collections.abc import Iterable, Mapping

import numpy as np

from .likeness import ALIKE, Likeness
from .primitives import COMMUTATIVE
from .terms import Node

MOVES = frozenset({"slice_at", "transpose", "reshape", "broadcast_in_dim", "convert_element_type", "stack", "after"})
_SHAPES = frozenset({"transpose", "reshape", "broadcast_in_dim"})
_LOOPS = frozenset({"at", "after", "stack", "trips"})
_REACH, _VISITS = 24, 600  # how far below a term its counterpart is looked for

Pair = tuple[Node | None, Node | None]
Known = Mapping[bytes, Node]
Context = tuple[tuple[int, Node, Node], ...]  # for each enclosing loop: its depth and the two systems


@dataclasses.dataclass(frozen=True, eq=False)
class Parting:
    """One place where two programs part.

    `how`: `literal`, `input`, `parameter`, `operation`, `order` (operands exchanged), `added` (one side has it alone;
    `chain` from the last operation to the first), `moved`, `reads` (both sides have both values), `loop`, `carry`.
    """

    how: str
    pair: Pair
    readers: Pair
    chain: tuple[Node, ...] = ()
    kept: Node | None = None  # of an addition: what the other side has instead of it
    above: Pair = (None, None)  # of values that were exchanged: who reads the exchanged ones, above the readers

    @property
    def places(self) -> Pair:
        """The operations to show: the pair, or who reads it where the pair is no operation; an addition's first."""
        if self.how in ("literal", "input", "reads", "carry"):
            return self.readers[0] or self.pair[0], self.readers[1] or self.pair[1]
        if self.how == "added":
            first = self.chain[-1]
            return (first, None) if self.pair[1] is None else (None, first)
        return self.pair


class Aligner:
    """Walks unequal outputs of two programs; `left` and `right` hold every term of each."""

    def __init__(self, left: Known, right: Known):
        self.left, self.right = left, right
        self.likeness = Likeness()
        self.partings: list[Parting] = []
        self._seen: set[typing.Any] = set()
        self._stack: list[tuple[Node, Node, Pair, Context]] = []
        self._carries: dict[typing.Any, bytes] = {}

    def run(self, outputs: Iterable[tuple[Node, Node]]) -> list[Parting]:
        """Every parting below the outputs, each once."""
        self._stack = [(a, b, (None, None), ()) for a, b in outputs]
        while self._stack:
            self._align(*self._stack.pop())
        return _moved(self.partings)

    def _align(self, a: Node, b: Node, readers: Pair, context: Context) -> None:
        if a.digest == b.digest:
            return
        shared = is_constant(a) or a.op in ("input", "draw", "variable") or a.digest in self.right
        readers_too = tuple(reader and reader.digest for reader in readers) if shared else ()
        key = (a.digest, b.digest, readers_too, context if a.free or b.free else ())
        if key in self._seen:
            return
        self._seen.add(key)
        if a.op == b.op == "variable":
            self._variables(a, b, readers, context)
        elif is_constant(a) and is_constant(b):
            if not same_constant(a, b):
                self._part("literal", a, b, readers)
        elif a.op == b.op and a.op in ("input", "draw"):
            self._part("input", a, b, readers)
        elif a.op == b.op == "at":
            self._systems(a, b, readers, context)
        elif a.digest in self.right and b.digest in self.left:
            self._rewired(a, b, readers)
        else:
            self._operations(a, b, readers, context)

    def _part(self, how: str, a: Node, b: Node, readers: Pair) -> None:
        self.partings.append(Parting(how, (a, b), readers))

    def _added(self, pair: Pair, path: list[Node], readers: Pair, kept: Node) -> None:
        """One side alone has the operations from its first to the one before the last of the path."""
        chain = path[:-1]
        while len(chain) > 1 and chain[-1].op in _SHAPES:
            chain.pop()
        self.partings.append(Parting("added", pair, readers, tuple(chain), kept))

    def _below(self, a: Node, b: Node, readers: Pair, context: Context) -> None:
        inner = readers if a.op in MOVES and readers[0] is not None else (a, b)
        for x, y in self.likeness.pairs(a, b):
            self._stack.append((x, y, inner, context))

    # --- loops ---

    def _systems(self, a: Node, b: Node, readers: Pair, context: Context) -> None:
        if not _same_loop(a.attrs.loop, b.attrs.loop):
            self._part("loop", a, b, readers)
        inner = (*context, (a.attrs.loop.depth, a, b))
        self._carry(a, b, a.attrs.label, b.attrs.label, inner, readers)
        for label in set(a.attrs.labels) & set(b.attrs.labels) - {a.attrs.label}:
            self._carry(a, b, label, label, inner, readers)

    def _carry(self, a: Node, b: Node, left: bytes, right: bytes, context: Context, readers: Pair) -> None:
        """Two carries taken for each other: compare how they start and how they go on."""
        pair = (a.attrs.labels, b.attrs.labels, context[-1][0], left)
        known = self._carries.setdefault(pair, right)
        if known != right:
            self._part("carry", a, b, readers)
            return
        x, y = (_class(node, label) for node, label in ((a, left), (b, right)))
        for p, q in zip(x, y, strict=True):
            self._stack.append((p, q, (a, b), context))

    def _variables(self, a: Node, b: Node, readers: Pair, context: Context) -> None:
        systems = {depth: pair for depth, *pair in context}
        (kind, depth, left), (other, elsewhere, right) = a.attrs, b.attrs
        if kind == other == "self" and depth == elsewhere and depth in systems:
            outer = tuple(entry for entry in context if entry[0] <= depth)
            one, two = systems[depth]
            if left in one.attrs.labels and right in two.attrs.labels:
                self._carry(one, two, left, right, outer, readers)
                return
        if a.digest != b.digest:
            self._part("carry", a, b, readers)

    # --- both values exist on both sides ---

    def _rewired(self, a: Node, b: Node, readers: Pair) -> None:
        """Each side has both values and reads another one: name the values where they come apart."""
        start = len(self.partings)
        above = readers
        while a.op == b.op and a.token == b.token and len(a.operands) == len(b.operands):
            unlike = [(x, y) for x, y in self.likeness.pairs(a, b) if x.digest != y.digest]
            if len(unlike) != 1:
                break
            readers = readers if a.op in MOVES and readers[0] is not None else (a, b)
            ((a, b),) = unlike
        if is_constant(a) and is_constant(b):
            self._part("literal", a, b, readers)
        elif a.op == b.op and [x.digest for x in a.operands] == [y.digest for y in b.operands] and a.operands:
            self._part("parameter", a, b, readers)
        elif a.op == b.op and _crossed(a, b):
            self._part("order", a, b, readers)
        elif a.op == b.op == "input":
            self._part("input", a, b, readers)
        elif self._anchor(a, b, self.left)[0] > 1:
            self._added((a, None), self._anchor(a, b, self.left)[1], readers, b)
        elif self._anchor(b, a, self.right)[0] > 1:
            self._added((None, b), self._anchor(b, a, self.right)[1], readers, a)
        else:
            self._part("reads", a, b, readers)
        if above[0] is not readers[0]:
            self.partings[start:] = [dataclasses.replace(one, above=above) for one in self.partings[start:]]

    # --- operations ---

    def _operations(self, a: Node, b: Node, readers: Pair, context: Context) -> None:
        if is_literal(a) != is_literal(b) and readers[0] is not None and not self._inside(a, b):
            self._part("reads", a, b, readers)
            return
        if a.op != b.op and (a.op in _SHAPES or b.op in _SHAPES):
            x, y = unmoved(a), unmoved(b)
            if x.digest != y.digest:
                self._stack.append((x, y, readers, context))
                return
        same = a.op == b.op and len(a.operands) == len(b.operands) > 0
        if same and self._like_operands(a, b) and not self._inside(a, b):
            self._same(a, b, readers, context)
            return
        left, right = self._anchor(a, b, self.left), self._anchor(b, a, self.right)
        pairs = self.likeness.best(a.operands, b.operands)
        replaced = sum(self.likeness(x, y) for x, y in pairs) / max(len(a.operands), len(b.operands), 1)
        if same:
            replaced = max(replaced, 0.3)
        best = max(left[0], right[0])
        if best > replaced and best >= ALIKE:
            score, path = max(left, right, key=lambda found: found[0])
            del score
            if path is left[1]:
                self._added((a, None), path, readers, b)
                self._stack.append((path[-1], b, (path[-2], readers[1] or b), context))
            else:
                self._added((None, b), path, readers, a)
                self._stack.append((a, path[-1], (readers[0] or a, path[-2]), context))
        elif same:
            self._same(a, b, readers, context)
        else:
            self._part("reads" if "input" in (a.op, b.op) and readers[0] else "operation", a, b, readers)
            self._stack += [(x, y, (a, b), context) for x, y in pairs]

    def _like_operands(self, a: Node, b: Node) -> bool:
        pairs = self.likeness.pairs(a, b)
        return sum(self.likeness(x, y) for x, y in pairs) / len(pairs) >= ALIKE - 0.1

    def _inside(self, a: Node, b: Node) -> bool:
        """Whether one side is a stage before the other: it occurs below it as it stands."""
        return (b.digest in self.left and self._anchor(a, b, self.left)[0] > 1) or (
            a.digest in self.right and self._anchor(b, a, self.right)[0] > 1
        )

    def _same(self, a: Node, b: Node, readers: Pair, context: Context) -> None:
        """One operation on both sides: its parameters, its operands' order, then its operands."""
        if _crossed(a, b) or self._exchanged(a, b):
            self._part("order", a, b, readers)
            if len(a.operands) == 2:  # of more, each is one of the other side's as it stands
                self._stack += [(x, y, (a, b), context) for x, y in zip(a.operands, b.operands[::-1], strict=True)]
            return
        if a.op in _LOOPS and not _same_loop(a.attrs, b.attrs):
            self._part("loop", a, b, readers)
        elif a.token != b.token and [x.shape for x in a.operands] == [y.shape for y in b.operands]:
            self._part("parameter", a, b, readers)
        self._below(a, b, readers, context)

    def _exchanged(self, a: Node, b: Node) -> bool:
        """Whether the operands of an operation that minds their order fit better crossed."""
        if a.op in COMMUTATIVE or len(a.operands) != 2:
            return False
        (x, y), (p, q) = a.operands, b.operands
        straight = self.likeness(x, p) + self.likeness(y, q)
        crossed = self.likeness(x, q) + self.likeness(y, p)
        return crossed > straight + 0.3 and max(self.likeness(x, q), self.likeness(y, p)) > 0.9

    def _anchor(self, top: Node, wanted: Node, known: Known) -> tuple[float, list[Node]]:
        """Below `top`, the term most like `wanted`, and the way there; above 1 when it is that very term."""
        exact = wanted.digest in known
        best: tuple[float, list[Node]] = (0.0, [])
        level, seen = [[top, operand] for operand in top.operands], {top.digest}
        for depth in range(_REACH):
            following = []
            for path in level:
                node = path[-1]
                if node.digest in seen or len(seen) > _VISITS:
                    continue
                seen.add(node.digest)
                if node.digest == wanted.digest:
                    return 2.0 - 0.02 * depth, path
                score = 0.0 if exact or is_constant(node) else self.likeness(node, wanted) - 0.02 * depth
                best = max(best, (score, path), key=lambda found: found[0])
                following += [[*path, operand] for operand in node.operands]
            level = following
        return best


def _class(node: Node, label: bytes) -> tuple[Node, Node]:
    """The initial value and the body term of one class of a loop's system."""
    count = len(node.attrs.labels)
    place = node.attrs.labels.index(label)
    return node.operands[place], node.operands[count + place]


def _same_loop(a, b) -> bool:
    return (a.length, a.reverse) == (b.length, b.reverse)


def _crossed(a: Node, b: Node) -> bool:
    first, second = [x.digest for x in a.operands], [y.digest for y in b.operands]
    return first != second and sorted(first) == sorted(second)


def _moved(partings: list[Parting]) -> list[Parting]:
    """An operation that each side alone has, in another place, is one that moved."""
    kept = list(partings)
    for one in [parting for parting in partings if parting.how == "added" and parting.pair[1] is None]:
        for two in [parting for parting in kept if parting.how == "added" and parting.pair[0] is None]:
            if one in kept and _signature(one.chain) == _signature(two.chain):
                kept[kept.index(one)] = Parting("moved", (one.chain[0], two.chain[0]), (None, None))
                kept.remove(two)
    return kept


def _signature(chain: tuple[Node, ...]) -> list[typing.Any]:
    """What makes an operation the same one in another place: parameters, shape, and the numbers and inputs it reads."""
    return [
        (node.op, node.token if node.op not in _SHAPES else b"", node.shape, _own_operands(node)) for node in chain
    ]


def _own_operands(node: Node) -> frozenset[bytes]:
    cores = [unmoved(operand) for operand in node.operands]
    return frozenset(core.digest for core in cores if core.op in ("constant", "input"))


def is_constant(node: Node) -> bool:
    """A literal, or a literal repeated, reshaped or converted."""
    return unwrapped(node).op in ("constant", "iota")


def is_literal(node: Node) -> bool:
    """A number, or one repeated, reshaped or converted."""
    return unwrapped(node).op == "constant"


def unwrapped(node: Node) -> Node:
    """What is repeated, reshaped or converted."""
    while node.op in ("broadcast_in_dim", "reshape", "convert_element_type"):
        node = node.operands[0]
    return node


def unmoved(node: Node) -> Node:
    """What is repeated, reshaped or transposed."""
    while node.op in _SHAPES:
        node = node.operands[0]
    return node


def same_constant(a: Node, b: Node) -> bool:
    """Whether two constants differ in shape alone."""
    a, b = unwrapped(a), unwrapped(b)
    if a.digest == b.digest:
        return True
    if a.op != b.op or a.op == "iota" or a.dtype != b.dtype or not hasattr(a.attrs, "dtype"):
        return False
    return np.array_equal(np.asarray(a.attrs), np.asarray(b.attrs), equal_nan=True)
