"""Randomness lifted: each draw becomes a named variable, so that two programs may derive their keys differently.

Within one program two draws are the same variable exactly when their keys are the same term; a program that reuses a
key and one that splits it are told apart. Names pair the draws of two programs, and any pairing is sound: if the
programs agree for all values of the paired variables, they are the same function of the same noise.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

from .params import token
from .sources import scopes
from .terms import Graph, Node

_Group = tuple[bytes, ...]


@dataclasses.dataclass(frozen=True)
class Draws:
    """The draws that a program's outputs depend on, in groups whose members are in program order."""

    by_stage: dict[_Group, list[Node]]
    by_order: dict[_Group, list[Node]]

    @property
    def count(self) -> int:
        """Draws of distinct keys."""
        return sum(len(group) for group in self.by_order.values())


def find(nodes: Iterable[Node]) -> Draws:
    """Every draw among the nodes whose key does not depend on a loop's own data."""
    draws = [node for node in nodes if _liftable(node)]
    draws.sort(key=lambda node: (node.origin.order, node.digest))
    by_stage, by_order = collections.defaultdict(list), collections.defaultdict(list)
    for node in draws:
        kind = token((node.shape, str(node.dtype), tuple(sorted(depth for _, depth, _ in node.free))))
        by_order[(kind,)].append(node)
        by_stage[(kind, token(scopes(node)))].append(node)
    return Draws(dict(by_stage), dict(by_order))


def _liftable(node: Node) -> bool:
    return node.op == "random_bits" and all(kind == "index" for kind, _, _ in node.free)


def same_stages(a: Draws, b: Draws) -> bool:
    """Whether both programs draw equally often, in equal shapes, at the same stages."""
    return {group: len(nodes) for group, nodes in a.by_stage.items()} == {
        group: len(nodes) for group, nodes in b.by_stage.items()
    }


def lift(graph: Graph, roots: Sequence[Node], draws: Draws, *, stages: bool) -> list[Node]:
    """The roots with each draw exchanged for its variable, named by its group and its place within."""
    variables: dict[bytes, Node] = {}
    for group, nodes in (draws.by_stage if stages else draws.by_order).items():
        for place, node in enumerate(nodes):
            name = token((*group, place))
            variables[node.digest] = graph.leaf(
                "draw", name, node.shape, node.dtype, attrs=place, free=node.free, origin=node.origin
            )
    return graph.rewrite(roots, lambda node: variables.get(node.digest)) if variables else list(roots)
