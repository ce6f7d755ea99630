"""What a comparison of plain facts answers, and the one way such facts are compared: leaf by leaf, both ways."""

import dataclasses
import typing
from collections.abc import Callable, Mapping

from ..verdict import Certificate, Finding, Kind, LeafResult, Verdict


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """One fact that differs. An absent side is the empty text."""

    leaf: str
    fact: str
    a: str
    b: str

    def text(self, names: tuple[str, str]) -> str:
        """One line."""
        if not self.a or not self.b:
            return f"{self.leaf}: only in {names[1] if not self.a else names[0]} ({self.fact} {self.a or self.b})"
        return f"{self.leaf}: {self.fact} is {self.a} in {names[0]} and {self.b} in {names[1]}"


@dataclasses.dataclass(frozen=True)
class Observation:
    """The answer of one comparison. Truthy when something was compared and nothing differs.

    `kind` is `bitwise` when every fact is equal, `diverged` when one is not, `undecided` when nothing was compared.
    """

    observable: str
    kind: Kind
    num_leaves: int
    num_elements: int = 0
    mismatches: tuple[Mismatch, ...] = ()
    one_sided: Mapping[str, str] = dataclasses.field(default_factory=dict)
    names: tuple[str, str] = ("a", "b")
    reason: str = ""

    def __bool__(self) -> bool:
        return self.kind.agrees

    def explain(self) -> str:
        """The answer in words: headline, then one line per mismatch."""
        lines = [f"{self.kind}: {self.observable} of {' against '.join(self.names)}, {self.num_leaves} leaves compared"]
        if self.reason:
            lines.append(self.reason)
        lines += [f"  {mismatch.text(self.names)}" for mismatch in self.mismatches[:20]]
        if len(self.mismatches) > 20:
            lines.append(f"  and {len(self.mismatches) - 20} more")
        lines += [f"  {leaf} is on one side only: {why}" for leaf, why in self.one_sided.items()]
        return "\n".join(lines)

    def as_verdict(self) -> Verdict:
        """The same answer in the shape of a Verdict, for reports."""
        texts = [(found.leaf, found.text(self.names)) for found in self.mismatches]
        results = tuple(LeafResult(leaf, Kind.DIVERGED, detail=text) for leaf, text in texts)
        finding = Finding(f"{self.observable} differ", leaves=tuple(found.leaf for found in self.mismatches))
        return Verdict(
            self.kind,
            leaves=results,
            findings=(finding,) if results else (),
            certificate=Certificate(
                num_leaves=self.num_leaves, num_elements=self.num_elements, one_sided=dict(self.one_sided)
            ),
            reason=self.reason,
            programs=self.names,
        )

    def to_json(self) -> dict[str, typing.Any]:
        """Plain dicts, lists, strings and numbers."""
        data = dataclasses.asdict(self)
        return {**data, "kind": str(self.kind), "one_sided": dict(self.one_sided), "names": list(self.names)}


def observe(
    observable: str,
    a: Mapping[str, typing.Any],
    b: Mapping[str, typing.Any],
    facts: Callable[[typing.Any], Mapping[str, str]],
    *,
    one_sided: Mapping[str, str] | None = None,
    names: tuple[str, str] = ("a", "b"),
    num_elements: int = 0,
) -> Observation:
    """Compares two tables leaf by leaf.

    Args:
        observable: what is compared, for reports.
        a: leaf name to whatever `facts` understands.
        b: the other side.
        facts: the comparable facts of an entry as texts, by fact name; the first one also describes an absent leaf.
        one_sided: leaf name to the reason why it is meant to have no partner. A declared leaf that has one is an error.
        names: how reports call the sides.
        num_elements: array elements behind the leaves of `a`.
    """
    declared = dict(one_sided or {})
    mismatches: list[Mismatch] = []
    compared = 0
    for leaf in [*a, *(leaf for leaf in b if leaf not in a)]:
        ours, theirs = (facts(side[leaf]) if leaf in side else None for side in (a, b))
        if leaf in declared:
            if ours is not None and theirs is not None:
                mismatches.append(Mismatch(leaf, "presence", "declared one-sided", "present on both sides"))
            continue
        if ours is None or theirs is None:
            fact, value = next(iter((ours or theirs or {"leaf": "present"}).items()))
            mismatches.append(Mismatch(leaf, fact, value if ours is not None else "", value if ours is None else ""))
            continue
        compared += 1
        mismatches += [Mismatch(leaf, fact, ours[fact], theirs[fact]) for fact in ours if ours[fact] != theirs[fact]]
    absent = [leaf for leaf in declared if leaf not in a and leaf not in b]
    mismatches += [Mismatch(leaf, "presence", "declared one-sided", "on neither side") for leaf in absent]
    kind = Kind.DIVERGED if mismatches else Kind.BITWISE if compared else Kind.UNDECIDED
    return Observation(
        observable, kind, compared, num_elements, tuple(mismatches), declared, names,
        reason="" if compared else "nothing was compared",
    )  # fmt: skip
