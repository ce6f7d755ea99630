"""Loops that count: a while loop whose number of trips is known is a scan, a counter is a function of the index.

A while loop counts when its condition compares one integer carry with a constant, and its body adds a constant to that
carry. The number of trips follows, unless the carry would wrap on its way: then nothing is said. Whatever else the loop
carries makes no difference to it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from . import loops, rules
from .loops import Loop
from .terms import Graph, Node

Step = tuple[int, int]  # initial value, difference from one trip to the next


def trips(inits: Sequence[Node], carries: Sequence[Node], nexts: Sequence[Node], condition: Node) -> int | None:
    """How often the body runs while the condition holds, if that can be read off."""
    if condition.op not in ("lt", "le"):
        return None
    left, right = condition.operands
    for place, carry in enumerate(carries):
        if carry is left or carry is right:
            bound = _integer(right if carry is left else left)
            step = _step(inits[place], carry, nexts[place])
            if bound is None or step is None:
                return None
            return _count(step, bound, rising=carry is left, inclusive=condition.op == "le", dtype=carry.dtype)
    return None


def _count(step: Step, bound: int, *, rising: bool, inclusive: bool, dtype) -> int | None:
    first, difference = step
    sign = 1 if rising else -1
    distance = (bound - first) * sign + inclusive  # the condition holds while this is above zero
    if distance <= 0:
        return 0
    if difference * sign <= 0:
        return None
    count = -(-distance // abs(difference))
    last, limits = first + count * difference, np.iinfo(dtype)
    return count if limits.min <= last <= limits.max else None


def _integer(node: Node) -> int | None:
    value = rules.uniform(node)
    return int(value) if value is not None and value.dtype.kind in "iu" else None


def _step(init: Node, carry: Node, following: Node) -> Step | None:
    if carry.shape or getattr(carry.dtype, "kind", "") not in ("i", "u") or following.op not in ("add", "sub"):
        return None
    first = _integer(init)
    left, right = following.operands
    difference = _integer(right if left is carry else left)
    if (
        first is None
        or difference is None
        or carry not in (left, right)
        or (following.op == "sub" and left is not carry)
    ):
        return None
    return first, -difference if following.op == "sub" else difference


@dataclasses.dataclass(frozen=True, slots=True)
class Ran:
    """Each carry at index i and when the loop has ended, and the other terms of the body at index i."""

    values: list[Node]
    finals: list[Node]
    extras: list[Node]


def run(graph: Graph, loop: Loop, inits, carries, nexts, extras, origin) -> Ran:
    """A loop of known length: its counters as functions of the index, the other carries solved."""
    if loop.length == 0:
        return Ran(list(inits), list(inits), list(extras))
    counters = _counters(graph, loop, inits, carries, nexts, origin)
    rest = [place for place in range(len(carries)) if place not in counters]
    if counters:
        known = {carries[place].attrs: value for place, (value, _) in counters.items()}
        terms = graph.substitute([*(nexts[place] for place in rest), *extras], known)
        open_terms, extras = terms[: len(rest)], terms[len(rest) :]
    else:
        open_terms = list(nexts)
    solved = loops.solve(
        graph, loop, [inits[place] for place in rest], [carries[place] for place in rest], open_terms, extras, origin
    )
    pairs = {
        place: (value, loops.after(graph, loop, value, None, origin))
        for place, value in zip(rest, solved.values, strict=True)
    }
    pairs |= counters
    ordered = [pairs[place] for place in range(len(carries))]
    return Ran([value for value, _ in ordered], [final for _, final in ordered], solved.extras)


def run_while(graph: Graph, loop: Loop, inits, carries, nexts, condition: Node, origin) -> Ran:
    """A while loop, as a loop of known length if it counts."""
    length = trips(inits, carries, nexts, condition)
    if length is not None:
        return run(graph, dataclasses.replace(loop, length=length), inits, carries, nexts, (), origin)
    solved = loops.solve(graph, loop, inits, carries, nexts, (condition,), origin)
    trip = loops.trips(graph, loop, solved.extras[0], origin)
    return Ran(solved.values, [loops.after(graph, loop, value, trip, origin) for value in solved.values], [])


def _counters(graph: Graph, loop: Loop, inits, carries, nexts, origin) -> dict[int, tuple[Node, Node]]:
    """By place: the carry at index i, and in the end."""
    found = {}
    for place, carry in enumerate(carries):
        if carry.dtype in (np.int32, np.uint32) and nexts[place] is not carry:
            step = _step(inits[place], carry, nexts[place])
            if step is not None:
                found[place] = _at_index(graph, loop, step, carry.dtype, origin)
    return found


def _at_index(graph: Graph, loop: Loop, step: Step, dtype, origin) -> tuple[Node, Node]:
    (first, difference), length = step, loop.length
    assert length is not None
    base, slope = (first + difference * (length - 1), -difference) if loop.reverse else (first, difference)

    def number(value: int) -> Node:
        return rules.constant(graph, np.asarray(value % 2**32, np.uint32).astype(dtype), origin)

    def apply(op: str, left: Node, right: Node) -> Node:
        attrs = {"out_dtype": None} if op == "mul" else {}
        return graph.build(op, rules.params(attrs), attrs, (left, right), (), dtype, origin)

    final = number(first + difference * length)
    if length == 1:
        return number(base), final
    row = loops.slice_at(graph, loop.depth, rules.iota(graph, length, dtype, origin), origin)
    return apply("add", apply("mul", row, number(slope)), number(base)), final
