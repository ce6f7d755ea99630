"""Short scans as copies of their body, so that a scanned program can be held against one whose loop ran in Python.

A copy reads the rows of the scanned arrays and writes rows of the results; the rules do the rest: a row of what was put
together of rows is that row, wherever it went in between.
"""

import typing
from collections.abc import Mapping, Sequence

from . import rules
from .terms import Node, Origin


def run(
    evaluator, params: Mapping[str, typing.Any], consts, carry: Sequence[Node], arrays: Sequence[Node], origin: Origin
) -> list[Node]:
    """The outputs of a scan: the last carry, and the stacked results."""
    graph, length, num_carry = evaluator.graph, params["length"], params["num_carry"]
    results: list[list[Node]] = [[] for _ in range(length)]
    for place in reversed(range(length)) if params["reverse"] else range(length):
        rows = [_row(graph, array, place, origin) for array in arrays]
        outs = evaluator.closed(params["jaxpr"], [*consts, *carry, *rows], origin)
        carry, results[place] = outs[:num_carry], outs[num_carry:]
    return [*carry, *(_stacked(graph, column, origin) for column in zip(*results, strict=True))]


def _row(graph, array: Node, place: int, origin: Origin) -> Node:
    cuts = [(place, 1, 1), *((0, size, 1) for size in array.shape[1:])]
    return rules.reshape(graph, rules.cut(graph, array, cuts, origin), array.shape[1:], origin)


def _stacked(graph, rows: Sequence[Node], origin: Origin) -> Node:
    wide = [rules.reshape(graph, row, (1, *row.shape), origin) for row in rows]
    return rules.concatenate(graph, wide, 0, origin)
