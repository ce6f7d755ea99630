"""Loops as systems of recurrences. A carry's value at iteration `i` is a term; so is everything computed from it.

A loop binds the index of its depth. `at(loop, system)` is a carry at the start of the iteration that handles index i,
`after` the carry when the loop has ended, `stack` the array of a term over all indices, `slice` row i of an array. A
stacked term read back by another loop of the same depth is the term itself, so what is saved for a backward pass and
what is recomputed there are one. A carry that never changes is its initial value, one that nobody reads vanishes.

Carries are first merged by partition refinement: labels start as the initial values and are refined by the body's
output over the labels until the number of classes is stable (bisimilar carries hold equal values at every iteration).
The merged carries are solved one strongly connected component at a time; what a component reads from another is a term
like any other. A component's identity is the quotient itself: for each class its label, initial value and body term
over the labels, so no number of rounds is trusted. Labels are only names: distinct, and independent of the carries'
order.
"""

import dataclasses
import typing
from collections.abc import Sequence

from .params import digest, token
from .rules import broadcast, reshape
from .terms import Graph, Node, free_variables


@dataclasses.dataclass(frozen=True, slots=True)
class Loop:
    """`length` is None for a while loop, whose number of trips is a term of its own."""

    depth: int
    length: int | None
    reverse: bool

    @property
    def token(self) -> bytes:
        """Digest input: everything the recurrence depends on beside its terms."""
        return token((self.depth, self.length, self.reverse))


def depth_of(operands: Sequence[Node]) -> int:
    """One deeper than every loop whose index or carries the operands mention."""
    return 1 + max((variable[1] for variable in free_variables(operands)), default=-1)


def variable(graph: Graph, kind: str, depth: int, identity, like: Node) -> Node:
    """A leaf that stands for a carry (`carry`, while solving) or for a class of the loop's own quotient (`self`)."""
    name = (kind, depth, identity)
    return graph.leaf("variable", token(name), like.shape, like.dtype, attrs=name, free=frozenset((name,)))


def slice_at(graph: Graph, depth: int, array: Node, origin) -> Node:
    """Row i of an array, i the index of the loop at this depth."""
    if array.op == "stack" and array.attrs.depth == depth:
        return array.operands[0]
    shape = array.shape[1:]
    if array.op == "broadcast_in_dim" and 0 not in array.attrs["broadcast_dimensions"]:
        dims = tuple(dim - 1 for dim in array.attrs["broadcast_dimensions"])
        return broadcast(graph, array.operands[0], shape, dims, origin)
    if array.op == "reshape" and array.operands[0].shape[:1] == array.shape[:1]:
        return reshape(graph, slice_at(graph, depth, array.operands[0], origin), shape, origin)
    if array.op == "convert_element_type":
        row = slice_at(graph, depth, array.operands[0], origin)
        return graph.build(array.op, array.token, array.attrs, (row,), shape, array.dtype, array.origin)
    free = array.free | {("index", depth, None)}
    return graph.raw("slice_at", token(depth), depth, (array,), shape, array.dtype, origin, free)


def stack(graph: Graph, loop: Loop, term: Node, origin) -> Node:
    """The array whose row i is the term."""
    index = ("index", loop.depth, None)
    assert loop.length is not None  # a while loop stacks nothing
    shape = (loop.length, *term.shape)
    if index not in term.free:
        return broadcast(graph, term, shape, tuple(range(1, len(shape))), origin)
    if term.op == "slice_at" and term.attrs == loop.depth and index not in term.operands[0].free:
        return term.operands[0]
    return graph.raw(
        "stack", token((loop.depth, loop.length)), loop, (term,), shape, term.dtype, origin, term.free - {index}
    )


def after(graph: Graph, loop: Loop, value: Node, trip: Node | None, origin) -> Node:
    """A carry when the loop has ended. A while loop's result always depends on its ending at all."""
    index = ("index", loop.depth, None)
    if trip is None and index not in value.free:
        return value
    operands = (value,) if trip is None else (value, trip)
    free = free_variables(operands) - {index}
    return graph.raw("after", loop.token, loop, operands, value.shape, value.dtype, origin, free)


def trips(graph: Graph, loop: Loop, condition: Node, origin) -> Node:
    """The first index at which the condition is false."""
    free = condition.free - {("index", loop.depth, None)}
    return graph.raw("trips", loop.token, loop, (condition,), (), condition.dtype, origin, free)


@dataclasses.dataclass(frozen=True, slots=True)
class System:
    """Attributes of an `at` node: the loop, the class that is read, and the label of every class in operand order."""

    loop: Loop
    label: bytes
    labels: tuple[bytes, ...]


_ALONE = b"self"


def _at(graph: Graph, system: System, inits, terms, origin) -> Node:
    loop = system.loop
    operands = (*inits, *terms)
    own = {("self", loop.depth, label) for label in system.labels}
    free = (free_variables(operands) - own) | {("index", loop.depth, None)}
    init = inits[system.labels.index(system.label)]
    data = loop.token + token((system.label, system.labels))
    return graph.raw("at", data, system, operands, init.shape, init.dtype, origin, free)


@dataclasses.dataclass(slots=True)
class Solved:
    """Each carry at index i, and the other terms of the body (outputs, condition) over these."""

    values: list[Node]
    extras: list[Node]


def solve(graph: Graph, loop: Loop, inits, variables, terms, extras, origin) -> Solved:
    """The recurrences `variable = init, then term`, solved component by component, once for each system of a graph."""
    key = (loop, frozenset(zip(variables, inits, terms, strict=True)), tuple(extras))
    solved = graph.solved.get(key)
    if solved is None:
        solved = graph.solved[key] = _solve(graph, loop, inits, variables, terms, extras, origin)
    known, extras = solved
    return Solved([known[var.attrs] for var in variables], list(extras))


def _solve(graph: Graph, loop: Loop, inits, variables, terms, extras, origin):
    problem = _Problem(graph, loop, list(inits), list(variables), list(terms), list(extras), origin)
    problem.drop_invariants()
    problem.merge()
    for component in _components(problem.dependencies()):
        problem.close(component)
    values = typing.cast(list[Node], problem.values)  # every component is closed: no value is open
    return {var.attrs: value for var, value in zip(variables, values, strict=True)}, problem.extras


class _Problem:
    def __init__(self, graph, loop, inits, variables, terms, extras, origin):
        self.graph, self.loop, self.origin = graph, loop, origin
        self.inits, self.variables, self.terms, self.extras = inits, variables, terms, extras
        self.values: list[Node | None] = [None] * len(inits)
        self.merged: dict[int, int] = {}

    def open(self) -> list[int]:
        return [j for j, value in enumerate(self.values) if value is None and j not in self.merged]

    def assign(self, mapping) -> None:
        """Replace variables in every term that is still open and in the extras."""
        rest = self.open()
        found = self.graph.substitute([self.terms[j] for j in rest] + self.extras, mapping)
        for j, term in zip(rest, found, strict=False):
            self.terms[j] = term
        self.extras = found[len(rest) :]

    def drop_invariants(self) -> None:
        while True:
            still = [j for j in self.open() if self.terms[j] in (self.variables[j], self.inits[j])]
            if not still:
                return
            for j in still:
                self.values[j] = self.inits[j]
            self.assign({self.variables[j].attrs: self.inits[j] for j in still})

    def merge(self) -> None:
        rest = self.open()
        labels = [self.inits[j].digest for j in rest]
        if len(set(labels)) == len(labels):
            return
        labels = self.refine(rest, labels)
        first: dict[bytes, int] = {}
        for j, label in zip(rest, labels, strict=True):
            keeper = first.setdefault(label, j)
            if keeper != j:
                self.merged[j] = keeper
        if self.merged:
            self.assign({self.variables[j].attrs: self.variables[k] for j, k in self.merged.items()})

    def refine(self, members: list[int], labels: list[bytes]) -> list[bytes]:
        """Split classes by their body terms over the labels until nothing splits."""
        while True:
            terms = self.over(members, labels)
            finer = [digest(label, term.digest) for label, term in zip(labels, terms, strict=True)]
            if len(set(finer)) == len(set(labels)):
                return labels
            labels = finer

    def over(self, members: list[int], labels: list[bytes]) -> list[Node]:
        mapping = {
            self.variables[j].attrs: variable(self.graph, "self", self.loop.depth, label, self.variables[j])
            for j, label in zip(members, labels, strict=True)
        }
        return self.graph.substitute([self.terms[j] for j in members], mapping)

    def dependencies(self) -> dict[int, list[int]]:
        rest = self.open()
        return {j: [k for k in rest if self.variables[k].attrs in self.terms[j].free] for j in rest}

    def close(self, component: list[int]) -> None:
        """Give every carry of the component its value, and tell the other terms."""
        if len(component) == 1:
            self.close_alone(component[0])
        else:
            labels = self.refine(component, [digest(self.inits[j].digest) for j in component])
            terms = dict(zip(labels, self.over(component, labels), strict=True))
            inits = dict(zip(labels, (self.inits[j] for j in component), strict=True))
            order = tuple(sorted(terms))
            for j, label in zip(component, labels, strict=True):
                system = System(self.loop, label, order)
                self.values[j] = _at(
                    self.graph, system, [inits[x] for x in order], [terms[x] for x in order], self.origin
                )
        known = {self.variables[j].attrs: self.values[j] for j in component}
        self.assign(known)
        for j, keeper in self.merged.items():
            if keeper in component:
                self.values[j] = self.values[keeper]

    def close_alone(self, j: int) -> None:
        if self.terms[j] in (self.variables[j], self.inits[j]):
            self.values[j] = self.inits[j]
            return
        (term,) = self.over([j], [_ALONE])
        system = System(self.loop, _ALONE, (_ALONE,))
        self.values[j] = _at(self.graph, system, [self.inits[j]], [term], self.origin)


def _components(edges: dict[int, list[int]]) -> list[list[int]]:
    """Strongly connected components, each after those it depends on (Tarjan, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    path: list[int] = []
    result: list[list[int]] = []
    done: set[int] = set()
    for root in edges:
        work = [(root, iter(edges[root]))] if root not in index else []
        while work:
            node, pending = work[-1]
            if node not in index:
                index[node] = low[node] = len(index)
                path.append(node)
            child = next((k for k in pending if k not in done), None)
            if child is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    members = path[path.index(node) :]
                    del path[path.index(node) :]
                    done.update(members)
                    result.append(members)
            elif child in index:
                low[node] = min(low[node], index[child])
            else:
                work.append((child, iter(edges[child])))
    return result


def _rebuild_at(graph: Graph, node: Node, operands: tuple[Node, ...]) -> Node:
    system: System = node.attrs
    count = len(system.labels)
    inits, terms = operands[:count], operands[count:]
    fresh = [
        variable(graph, "carry", system.loop.depth, graph.fresh(), init) for init in inits
    ]  # the rebuilt terms may sort, merge or cancel differently, so the system is solved anew
    names = {("self", system.loop.depth, label): var for label, var in zip(system.labels, fresh, strict=True)}
    opened = graph.substitute(terms, names)
    solved = solve(graph, system.loop, inits, fresh, opened, [], node.origin)
    return solved.values[system.labels.index(system.label)]


def _rebuild_slice(graph: Graph, node: Node, operands: tuple[Node, ...]) -> Node:
    return slice_at(graph, node.attrs, operands[0], node.origin)


def _rebuild_stack(graph: Graph, node: Node, operands: tuple[Node, ...]) -> Node:
    return stack(graph, node.attrs, operands[0], node.origin)


def _rebuild_after(graph: Graph, node: Node, operands: tuple[Node, ...]) -> Node:
    return after(graph, node.attrs, operands[0], operands[1] if len(operands) == 2 else None, node.origin)


def _rebuild_trips(graph: Graph, node: Node, operands: tuple[Node, ...]) -> Node:
    return trips(graph, node.attrs, operands[0], node.origin)


REBUILDERS = {
    "at": _rebuild_at,
    "slice_at": _rebuild_slice,
    "stack": _rebuild_stack,
    "after": _rebuild_after,
    "trips": _rebuild_trips,
}
