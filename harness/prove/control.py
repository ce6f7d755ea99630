"""Loops and branches of a program: their bodies read as terms over carries, indices and conditions.

References and side effects that a body touches are carried like any other value. How recurrences are solved is in
`loops` and `counted`.
"""

import collections
import typing
from collections.abc import Iterable, Sequence

from . import counted, effects, loops, unrolled
from .params import Unmodelled
from .primitives import COND, SCAN, WHILE
from .refs import Cell
from .terms import Graph, Node


def handlers(evaluator) -> dict[typing.Any, typing.Any]:
    """`scan`, `while` and `cond`."""
    control = _Control(evaluator)
    return {SCAN: control.scan, WHILE: control.loop, COND: control.choice}


class _Control:
    def __init__(self, evaluator):
        self.evaluator = evaluator
        self._nesting = 0

    def _carries(self, loop: loops.Loop, inits: Sequence[Node]) -> list[Node]:
        """A variable for each carry, named by initial value, so that a twin's loop finds the terms of the first one."""
        alike: collections.Counter[bytes] = collections.Counter()
        carries = []
        for init in inits:
            alike[init.digest] += 1
            identity = (self._nesting, init.digest, alike[init.digest])
            carries.append(loops.variable(self.evaluator.graph, "carry", loop.depth, identity, init))
        return carries

    def _enter(self) -> int:
        self._nesting += 1
        return len(self.evaluator.early.pending) if self.evaluator.early is not None else 0

    def _leave(self, start: int, carries: Sequence[Node], values: Sequence[Node]) -> None:
        self._nesting -= 1
        if self.evaluator.early is not None:
            self.evaluator.early.settle(self.evaluator.graph, start, carries, values)

    def scan(self, equation, operands, origin, used) -> list[Node]:
        """A loop of known length; a short one as copies of its body, if that was asked for."""
        params = _only(equation.params, ("reverse", "length", "jaxpr", "num_consts", "num_carry", "unroll", "linear",
                                         "_split_transpose"))  # fmt: skip
        self.evaluator.facts.at = origin
        self.evaluator.facts.scan(params)
        graph, num_consts, num_carry = self.evaluator.graph, params["num_consts"], params["num_carry"]
        consts, inits, arrays = _split(operands, num_consts, num_carry)
        if 0 < params["length"] <= self.evaluator.unroll:
            return unrolled.run(self.evaluator, params, consts, inits, arrays, origin)
        cells = effects.touched(self.evaluator, equation, operands)
        inits += [cell.value for cell in cells]
        loop = loops.Loop(loops.depth_of([*effects.contents(operands), *inits]), params["length"], params["reverse"])
        carries = self._carries(loop, inits)
        _put(cells, carries[num_carry:])
        rows = [loops.slice_at(graph, loop.depth, array, origin) for array in arrays]
        keep = [True] * num_carry + used[num_carry:]
        start = self._enter()
        outs = self.evaluator.closed(params["jaxpr"], [*consts, *carries[:num_carry], *rows], origin, keep)
        nexts = outs[:num_carry] + [cell.value for cell in cells]
        ran = counted.run(graph, loop, inits, carries, nexts, outs[num_carry:], origin)
        self._leave(start, carries, ran.values)
        _put(cells, ran.finals[num_carry:])
        return ran.finals[:num_carry] + [loops.stack(graph, loop, term, origin) for term in ran.extras]

    def loop(self, equation, operands, origin, used) -> list[Node]:
        """A while loop: the body first, then the condition over the same carries."""
        del used
        params = _only(equation.params, ("cond_nconsts", "cond_jaxpr", "body_nconsts", "body_jaxpr"))
        graph = self.evaluator.graph
        cond_consts, body_consts, inits = _split(operands, params["cond_nconsts"], params["body_nconsts"])
        cells, num_carry = effects.touched(self.evaluator, equation, operands), len(inits)
        inits += [cell.value for cell in cells]
        loop = loops.Loop(loops.depth_of([*effects.contents(operands), *inits]), None, False)
        carries = self._carries(loop, inits)
        _put(cells, carries[num_carry:])
        start = self._enter()
        outs = self.evaluator.closed(params["body_jaxpr"], [*body_consts, *carries[:num_carry]], origin)
        outs += [cell.value for cell in cells]
        _put(cells, carries[num_carry:])
        condition = self.evaluator.closed(params["cond_jaxpr"], [*cond_consts, *carries[:num_carry]], origin)
        if any(cell.value is not carry for cell, carry in zip(cells, carries[num_carry:], strict=True)):
            raise Unmodelled("the condition of a while loop has side effects")
        ran = counted.run_while(graph, loop, inits, carries, outs, condition[0], origin)
        self._leave(start, carries, ran.values)
        _put(cells, ran.finals[num_carry:])
        return ran.finals[:num_carry]

    def choice(self, equation, operands, origin, used) -> list[Node]:
        """Each branch over the same operands, and a choice for each output."""
        params = _only(equation.params, ("branches", "branches_platforms"))
        index, *rest = operands
        if params.get("branches_platforms") is not None and index.op != "platform_index":
            raise Unmodelled("a choice by platform whose index is computed")
        cells = effects.touched(self.evaluator, equation, operands)
        before, branches = [cell.value for cell in cells], []
        for branch in params["branches"]:
            _put(cells, before)
            outs = self.evaluator.closed(branch, rest, origin, used)
            branches.append([*outs, *(cell.value for cell in cells)])
        graph = self.evaluator.graph
        chosen = [_choose(graph, index, list(options), origin) for options in zip(*branches, strict=True)]
        _put(cells, chosen[len(equation.outvars) :])
        return chosen[: len(equation.outvars)]


def _put(cells: Sequence[Cell], values: Iterable[Node]) -> None:
    for cell, value in zip(cells, values, strict=True):
        cell.value = value


def _only(params, names: Iterable[str]):
    unknown = set(params) - set(names)
    if unknown:
        raise Unmodelled(f"the parameter {sorted(unknown)[0]} is not known to the prover")
    return params


def _split(operands, *sizes: int) -> list[list[Node]]:
    parts, start = [], 0
    for size in sizes:
        parts.append(operands[start : start + size])
        start += size
    return [*parts, operands[start:]]


def _choose(graph: Graph, index: Node, options: list[Node], origin) -> Node:
    """One output of a conditional. Branches that agree need no choice."""
    first = options[0]
    if all(option is first for option in options):
        return first
    return graph.raw("cond", b"", {}, (index, *options), first.shape, first.dtype, origin)


def rebuild_cond(graph: Graph, node: Node, operands: tuple[Node, ...]) -> Node:
    """A conditional with other operands."""
    return _choose(graph, operands[0], list(operands[1:]), node.origin)
