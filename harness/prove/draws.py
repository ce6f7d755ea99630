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
        kind = _kind(node, node.operands[0], node.free)
        by_order[(kind,)].append(node)
        by_stage[(kind, token(scopes(node.origin)))].append(node)
    return Draws(dict(by_stage), dict(by_order))


def _kind(like, key: Node, free) -> bytes:
    repeats = _repeats(key)
    kind = (like.shape, str(like.dtype), tuple(sorted(depth for _, depth, _ in free)))
    return token((*kind, repeats) if repeats else kind)


_KEEPING = frozenset({"random_wrap", "random_unwrap", "reshape", "transpose", "slice_at"})


def _repeats(key: Node) -> tuple[int, ...]:
    """How an array of keys repeats itself: one key for all layers is not one for each, though both draw once."""
    while key.op in _KEEPING:
        key = key.operands[0]
    if key.op == "broadcast_in_dim":
        return (-1,)
    if key.op not in ("concatenate", "stack_arrays"):
        return ()
    first: dict[bytes, int] = {}
    places = tuple(first.setdefault(part.digest, place) for place, part in enumerate(key.operands))
    return places if len(first) < len(places) else ()


def _variable(graph: Graph, group: _Group, place: int, like, free, origin) -> Node:
    name = token((*group, place))
    return graph.leaf("draw", name, like.shape, like.dtype, attrs=place, free=free, origin=origin)


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
            variables[node.digest] = _variable(graph, group, place, node, node.free, node.origin)
    return graph.rewrite(roots, lambda node: variables.get(node.digest)) if variables else list(roots)


class Early:
    """Draws lifted while a program is read, which spares rewriting it afterwards.

    Inside a loop a key may still mention open carries, so what it will be is a guess: it varies with the loop. When the
    program has been read, `holds` says whether every guess was right; if not, the program is read again and its
    draws are lifted afterwards.
    """

    def __init__(self):
        self.names: dict[bytes, Node] = {}
        self.pending: list[tuple[Node, Node, bytes]] = []  # variable, key, parameters
        self._known: dict[tuple[Node, bytes], Node] = {}
        self._places: collections.Counter[_Group] = collections.Counter()

    def draw(self, graph: Graph, key: Node, data: bytes, like, origin) -> Node:
        """The variable for a draw from this key."""
        found = self._known.get((key, data))
        if found is None:
            free = frozenset(("index", depth, None) for _, depth, _ in key.free)
            group = (_kind(like, key, free), token(scopes(origin)))
            found = _variable(graph, group, self._places[group], like, free, origin)
            self._places[group] += 1
            self._known[(key, data)] = self.names[found.digest] = found
            self.pending.append((found, key, data))
        return found

    def settle(self, graph: Graph, start: int, carries: Sequence[Node], values: Sequence[Node]) -> None:
        """Tell the keys met since `start` what the carries of a loop that has been solved are."""
        inside = self.pending[start:]
        if not inside:
            return
        mapping = {carry.attrs: value for carry, value in zip(carries, values, strict=True)}
        keys = graph.substitute([key for _, key, _ in inside], mapping)
        self.pending[start:] = [(node, key, data) for (node, _, data), key in zip(inside, keys, strict=True)]
        for _, key, data in inside:  # the next loop may call a carry of its own by the same name
            self._known.pop((key, data), None)
        for node, key, data in self.pending[start:]:
            self._known.setdefault((key, data), node)

    def holds(self) -> bool:
        """Whether each variable varies as its key does, and no two of them have one key."""
        keys = {(key, data) for _, key, data in self.pending}
        return len(keys) == len(self.pending) and all(node.free == key.free for node, key, _ in self.pending)
