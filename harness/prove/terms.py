"""The term graph: what an array is as an expression over named inputs. Equal digests denote equal functions.

A `Node` is built once per digest (hash-consing), so duplicated, renamed and reordered code collapses by itself. Nodes
may have free variables: the index of an enclosing loop, a carry of a loop that is being solved. Variables carry the
depth of their loop, so that an inner loop never captures an outer variable; see `loops`.
"""

import dataclasses
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b

from .params import dtype_token

Variable = tuple[str, int, typing.Any]  # kind ("index", "carry", "self"), depth, identity
_CLOSED: frozenset[Variable] = frozenset()


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


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where an operation was written: its equation, the call it was inlined from, and its place in program order."""

    equation: typing.Any
    caller: "Origin | None"
    order: int


Rebuild = Callable[["Graph", Node, tuple[Node, ...]], Node]


class Graph:
    """All terms of one program. `rules` maps an operation to the rewrites tried when one is built."""

    def __init__(self, rules: Mapping[str, Sequence[typing.Any]]):
        self.nodes: dict[bytes, Node] = {}
        self.rules = rules
        self.rules_used: set[str] = set()
        self.rebuilders: dict[str, Rebuild] = {}
        self.solved: dict[tuple[typing.Any, ...], typing.Any] = {}  # systems of recurrences, see `loops`
        self.written: dict[bytes, list[Origin]] | None = None  # every place of a term; kept for explanations only
        self._avals: dict[tuple[typing.Any, typing.Any], bytes] = {}
        self._counter = 0

    def fresh(self) -> int:
        """A number never returned before by this graph."""
        self._counter += 1
        return self._counter

    def build(self, op, token, attrs, operands, shape, dtype, origin) -> Node:
        """The canonical node for this operation: rewritten if a rule applies, shared if it exists."""
        for rule in self.rules.get(op, ()):
            found = rule.apply(self, op, attrs, operands, shape, dtype, origin)
            if found is not None:
                self.rules_used.add(rule.name)
                return found
        return self.raw(op, token, attrs, operands, shape, dtype, origin)

    def raw(self, op, token, attrs, operands, shape, dtype, origin, free=None) -> Node:
        """The node as given, without rewriting. `free` overrides the union of the operands' variables (binders)."""
        aval = self._avals.get((shape, dtype)) or self._aval(shape, dtype)
        head = b"%b%d|%d|%b%b" % (op.encode(), len(token), len(operands), token, aval)
        digest = blake2b(head + b"".join([operand.digest for operand in operands]), digest_size=16).digest()
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
        done: dict[bytes, Node] = {}
        stack = list(roots)
        while stack:
            node = stack[-1]
            if node.digest in done:
                stack.pop()
                continue
            answer = replace(node)
            if answer is None:
                waiting = [operand for operand in node.operands if operand.digest not in done]
                if waiting:
                    stack.extend(waiting)
                    continue
                answer = self._rebuilt(node, tuple([done[operand.digest] for operand in node.operands]))
            done[node.digest] = answer
            stack.pop()
        if self.written is not None:
            for digest, answer in done.items():
                if digest in self.written and digest != answer.digest:
                    places = self.written.setdefault(answer.digest, [])
                    held = {id(place) for place in places}  # terms rewritten there and back would double their places
                    places.extend(place for place in self.written[digest] if id(place) not in held)
        return [done[root.digest] for root in roots]

    def _rebuilt(self, node: Node, operands: tuple[Node, ...]) -> Node:
        if all(new is old for new, old in zip(operands, node.operands, strict=True)):
            return node
        rebuild = self.rebuilders.get(node.op)
        if rebuild is not None:
            return rebuild(self, node, operands)
        return self.build(node.op, node.token, node.attrs, operands, node.shape, node.dtype, node.origin)

    def _aval(self, shape, dtype) -> bytes:
        found = self._avals[(shape, dtype)] = dtype_token(dtype) + b"%r" % (tuple(int(size) for size in shape),)
        return found


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
