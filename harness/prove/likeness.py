"""How alike two terms are: the guess by which an explanation pairs operations of two programs. No proof uses it."""

from collections.abc import Sequence

from .primitives import COMMUTATIVE
from .sources import scopes
from .terms import Node

ALIKE = 0.6  # from here on two terms are taken for counterparts
_DEPTH = 4


class Likeness:
    """Between 0 (nothing in common) and 1 (equal terms). Remembers what it compared."""

    def __init__(self):
        self._known: dict[tuple[bytes, bytes, int], float] = {}
        self._scopes: dict[bytes, tuple[str, ...]] = {}

    def __call__(self, a: Node, b: Node, depth: int = _DEPTH) -> float:
        if a.digest == b.digest:
            return 1.0
        key = (a.digest, b.digest, depth)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._compute(a, b, depth)
        return found

    def _compute(self, a: Node, b: Node, depth: int) -> float:
        score = 0.1 * (a.shape == b.shape) + 0.05 * (a.dtype == b.dtype) + 0.15 * (self.stage(a) == self.stage(b))
        if a.op != b.op:
            return score
        score += 0.25 + 0.1 * (a.token == b.token)
        if not a.operands and not b.operands:
            return score + (0.3 if a.op == "variable" else 0.0)
        if depth and len(a.operands) == len(b.operands):
            pairs = self.pairs(a, b, depth - 1)
            score += 0.35 * sum(self(x, y, depth - 1) for x, y in pairs) / len(pairs)
        return min(score, 0.99)

    def stage(self, node: Node) -> tuple[str, ...]:
        """The named scopes of a term."""
        found = self._scopes.get(node.digest)
        if found is None:
            found = self._scopes[node.digest] = scopes(node.origin)
        return found

    def pairs(self, a: Node, b: Node, depth: int = _DEPTH) -> list[tuple[Node, Node]]:
        """The operands of two operations side by side; those of a commutative one in the better order."""
        straight = list(zip(a.operands, b.operands, strict=False))
        if a.op not in COMMUTATIVE or len(a.operands) != 2 or len(b.operands) != 2:
            return straight
        crossed = list(zip(a.operands, b.operands[::-1], strict=True))
        scores = [max(self(x, y, depth) for x, y in pairs) for pairs in (straight, crossed)]
        totals = [sum(self(x, y, depth) for x, y in pairs) for pairs in (straight, crossed)]
        return crossed if (totals[1], scores[1]) > (totals[0], scores[0]) else straight

    def best(self, a: Sequence[Node], b: Sequence[Node]) -> list[tuple[Node, Node]]:
        """Operands of unlike operations, each with its likeliest counterpart, if it has one at all."""
        rest, found = list(b), []
        for x in a:
            y = max(rest, key=lambda other: self(x, other), default=None)
            if y is not None and self(x, y) >= ALIKE:
                rest.remove(y)
                found.append((x, y))
        return found
