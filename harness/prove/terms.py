"""The term graph: what an array is as an expression over named inputs. Equal digests denote equal functions.

A `Node` is built once per digest (hash-consing), so duplicated, renamed and reordered code collapses by itself. Nodes
may have free variables: the index of an enclosing loop, a carry of a loop that is being solved. Variables carry the
depth of their loop, so that an inner loop never captures an outer variable; see `loops`.
"""

import dataclasses
import functools
import operator
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b

from .params import dtype_token

Variable = tuple[str, int, typing.Any]  # kind ("index", "carry", "self"), depth, identity
_CLOSED: frozenset[Variable] = frozenset()
_EMPTY = blake2b(digest_size=16)
_FEW = 3  # operands by whose operations rules are kept ready; there are too many ways to concatenate a hundred
_digest = operator.attrgetter("digest")


class Node:
    """One operation applied to operands. `attrs` are its parameters for rules and readers, `token` their digest input.

    `origin` is the equation (with its chain of calls) that first made the node: never part of its identity.
    """

    __slots__ = ("attrs", "digest", "dtype", "free", "op", "operands", "origin", "shape", "token")

    def __init__(self, identity, shape, dtype, free, digest, origin):
        self.op, self.token, self.attrs, self.operands = identity
        self.shape = shape
        self.dtype = dtype
        self.free = free
        self.digest = digest
        self.origin = origin

    def __repr__(self) -> str:
        return f"Node({self.op}, {self.dtype}{list(self.shape)})"


@dataclasses.dataclass(eq=False, slots=True)
class Origin:
    """Where an operation was written: its equation, the call it was inlined from, and its place in program order.

    One is made for nearly every equation, so it is not frozen, which would double what that costs; nothing changes it.
    """

    equation: typing.Any
    caller: "Origin | None"
    order: int


Rebuild = Callable[["Graph", Node, tuple[Node, ...]], Node]


class Table:
    """The rewrites tried when an operation is built, in order."""

    def __init__(self, rules: Mapping[str, Sequence[typing.Any]]):
        self.rules = rules
        self._known: dict[tuple[str, ...], tuple[typing.Any, ...]] = {}

    def of(self, op: str, operands: Sequence[Node]) -> Sequence[typing.Any]:
        """The rules that may say something: without those that read operations of which no operand is one."""
        if len(operands) > _FEW:
            return self.rules.get(op, ())
        kinds = (op, *[operand.op for operand in operands])
        found = self._known.get(kinds)
        if found is None:
            rules = self.rules.get(op, ())
            found = tuple(rule for rule in rules if not rule.reads or not rule.reads.isdisjoint(kinds[1:]))
            self._known[kinds] = found
        return found


class Graph:
    """All terms of one program, built by the rewrites of a table."""

    def __init__(self, rules: Table):
        self.nodes: dict[bytes, Node] = {}
        self.rules = rules
        self.rules_used: set[str] = set()
        self.rebuilders: dict[str, Rebuild] = {}
        self.solved: dict[tuple[typing.Any, ...], typing.Any] = {}  # systems of recurrences, see `loops`
        self.repeated: dict[tuple[Node, tuple[int, ...]], Node] = {}  # scalar operands, see `rules.elementwise`
        self.written: dict[bytes, list[Origin]] | None = None  # every place of a term; kept for explanations only
        self._counter = 0

    def fresh(self) -> int:
        """A number never returned before by this graph."""
        self._counter += 1
        return self._counter

    def build(self, op, token, attrs, operands, shape, dtype, origin) -> Node:
        """The canonical node for this operation: rewritten if a rule applies, shared if it exists."""
        for rule in self.rules.of(op, operands):
            found = rule.apply(self, op, attrs, operands, shape, dtype, origin)
            if found is not None:
                self.rules_used.add(rule.name)
                return found
        return self.raw(op, token, attrs, operands, shape, dtype, origin)

    def raw(self, op, token, attrs, operands, shape, dtype, origin, free=None) -> Node:
        """The node as given, without rewriting. `free` overrides the union of the operands' variables (binders)."""
        head = b"%b%d|%d|%b%b" % (op.encode(), len(token), len(operands), token, _aval(shape, dtype))
        hasher = _EMPTY.copy()  # cheaper than a new one
        hasher.update(head + b"".join(map(_digest, operands)))
        digest = hasher.digest()
        node = self.nodes.get(digest)
        if node is None:
            if free is None:
                free = free_variables(operands)
            node = Node((op, token, attrs, tuple(operands)), shape, dtype, free, digest, origin)
            self.nodes[digest] = node
        return node

    def leaf(self, op: str, token: bytes, shape, dtype, *, attrs=None, free=_CLOSED, origin=None) -> Node:
        """A node without operands: an input, a constant or a variable."""
        return self.raw(op, token, attrs, (), shape, dtype, origin, free)

    def substitute(self, roots: Sequence[Node], mapping: Mapping[Variable, Node]) -> list[Node]:
        """The roots with variables replaced by terms, rebuilt through the rules."""
        wanted = frozenset(mapping)

        def replace(node: Node) -> Node | None:
            if node.free.isdisjoint(wanted):
                return node
            return mapping.get(node.attrs) if node.op == "variable" else None

        return self.rewrite(roots, replace)

    def rewrite(self, roots: Sequence[Node], replace: Callable[[Node], Node | None]) -> list[Node]:
        """The roots with every node for which `replace` answers exchanged, the rest rebuilt from the leaves up."""
        done: dict[Node, Node] = {}
        stack = list(roots)
        while stack:
            node = stack[-1]
            if node in done:
                stack.pop()
                continue
            answer = replace(node)
            if answer is None:
                before = len(stack)
                for operand in node.operands:
                    if operand not in done:
                        stack.append(operand)
                if len(stack) > before:
                    continue
                answer = self._rebuilt(node, tuple([done[operand] for operand in node.operands]))
            done[node] = answer
            stack.pop()
        if self.written is not None:
            for node, answer in done.items():
                digest = node.digest
                if digest in self.written and digest != answer.digest:
                    places = self.written.setdefault(answer.digest, [])
                    held = {id(place) for place in places}  # terms rewritten there and back would double their places
                    places.extend(place for place in self.written[digest] if id(place) not in held)
        return [done[root] for root in roots]

    def _rebuilt(self, node: Node, operands: tuple[Node, ...]) -> Node:
        if all(new is old for new, old in zip(operands, node.operands, strict=True)):
            return node
        rebuild = self.rebuilders.get(node.op)
        if rebuild is not None:
            return rebuild(self, node, operands)
        return self.build(node.op, node.token, node.attrs, operands, node.shape, node.dtype, node.origin)


@functools.lru_cache(maxsize=4096)
def _aval(shape, dtype) -> bytes:
    return dtype_token(dtype) + b"%r" % (tuple(int(size) for size in shape),)


def free_variables(operands: Iterable[Node]) -> frozenset[Variable]:
    """The union of the operands' free variables."""
    free = _CLOSED
    for operand in operands:
        other = operand.free
        if other and other is not free:
            free = other if not free else free | other
    return free


def reachable(roots: Iterable[Node]) -> dict[bytes, Node]:
    """Every node under the roots, by digest."""
    seen: dict[bytes, Node] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node.digest not in seen:
            seen[node.digest] = node
            stack.extend(node.operands)
    return seen


def reads_input(root: Node, leaves: Collection[str] = ("input",)) -> bool:
    """Whether a term depends on an input of its program, or another leaf; the search ends at the first one."""
    seen, stack = {root.digest}, [root]
    while stack:
        node = stack.pop()
        if node.op in leaves:
            return True
        for operand in node.operands:
            if operand.digest not in seen:
                seen.add(operand.digest)
                stack.append(operand)
    return False
