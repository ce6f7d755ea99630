"""Golden against golden: a list of differences in meaning, never a text diff. Each says whether it decides."""

import dataclasses
import math
from collections.abc import Iterable, Mapping

from ..verdict import Certificate, Finding, Kind, LeafResult, Verdict
from .golden import INFORMING, Golden, GoldenError, read_number

# Truths are float64 whatever the machine; library functions differ in the last bits and a sum of thousands of terms
# in a few more. Two honest machines stay below 1e-10 of the magnitude; one float32 rounding anywhere already makes
# 1e-8 (platform facts).
NUMBER_BOUND = 1e-9
VERSIONED = ("fingerprints", "cost")
RENEW = "paraflax goldens regen"


@dataclasses.dataclass(frozen=True)
class Difference:
    """One entry that differs: stored and current text (None where absent); `kind` is diverged or undecided."""

    section: str
    key: str
    old: str | None
    new: str | None
    kind: Kind = Kind.DIVERGED
    detail: str = ""

    @property
    def text(self) -> str:
        """One line for a console."""
        old, new = (("absent" if side is None else side) for side in (self.old, self.new))
        return f"[{self.section}] {self.key}: recorded {old}, now {new}" + (f" ({self.detail})" if self.detail else "")


def compare(golden: Golden, current: Golden) -> list[Difference]:
    """What changed in meaning since the golden was recorded.

    A fingerprint or a cost from other library versions is `undecided` with the command that renews it; numbers are
    compared by their ratio to the magnitude; digests and the environment never decide.
    """
    changed = _changed(golden.sections.get("environment", {}), current.sections.get("environment", {}))
    differences = []
    for section in sorted({*golden.sections, *current.sections} - set(INFORMING)):
        old, new = golden.sections.get(section, {}), current.sections.get(section, {})
        for key in sorted({*old, *new}):
            difference = _difference(section, key, old.get(key), new.get(key))
            if difference is not None and changed and section in VERSIONED:
                why = f"recorded under {changed}: renew it with `{RENEW}`"
                difference = dataclasses.replace(difference, kind=Kind.UNDECIDED, detail=why)
            if difference is not None:
                differences.append(difference)
    return differences


def verdict_of(differences: Iterable[Difference], golden: Golden, current: Golden | None = None) -> Verdict:
    """The differences as a Verdict: `bitwise` when there is none, else diverged, else undecided.

    Where a value fingerprint differs and `current` can say why, the operations that changed come first.
    """
    differences = list(differences)
    kinds = {difference.kind for difference in differences}
    kind = Kind.DIVERGED if Kind.DIVERGED in kinds else Kind.UNDECIDED if kinds else Kind.BITWISE
    leaves = tuple(LeafResult(f"{d.section}/{d.key}", d.kind, detail=d.text) for d in differences)
    causes: tuple[Finding, ...] = ()
    if current is not None and current.explain is not None and any(d.key.startswith("value of ") for d in differences):
        causes = current.explain(golden)
    findings = causes + tuple(
        Finding(f"golden {section} differ", leaves=tuple(d.key for d in group), detail=group[0].text)
        for section, group in _by_section(differences).items()
    )
    reason = ""
    if differences:
        count = f"{len(differences)} of {golden.num_facts} entries differ from the code"
        reason = f"golden {golden.filename}: {count}; if the change is meant, run `{RENEW}` and review it."
    certificate = Certificate(num_leaves=golden.num_facts, num_elements=golden.num_facts)
    return Verdict(
        kind, leaves=leaves, findings=findings, certificate=certificate, reason=reason, programs=("golden", "code")
    )


def _by_section(differences: Iterable[Difference]) -> dict[str, list[Difference]]:
    groups: dict[str, list[Difference]] = {}
    for difference in differences:
        groups.setdefault(difference.section, []).append(difference)
    return groups


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """The library versions and settings that differ, in words."""
    keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    return ", ".join(f"{key} {old.get(key, 'absent')} (now {new.get(key, 'absent')})" for key in keys)


def _difference(section: str, key: str, old: str | None, new: str | None) -> Difference | None:
    if old == new:
        return None
    if section != "numbers" or old is None or new is None:
        return Difference(section, key, old, new)
    try:
        (a, scale), (b, other) = read_number(old), read_number(new)
    except ValueError:
        raise GoldenError(key, f"numbers hold no number: {old[:40]!r} and {new[:40]!r}") from None
    if math.isnan(a) and math.isnan(b):
        return None
    magnitude = max(scale, other)
    ratio = abs(a - b) / (NUMBER_BOUND * magnitude) if magnitude else math.inf
    return (
        None
        if ratio <= 1
        else Difference(section, key, old, new, detail=f"ratio {ratio:.3g} of the bound {NUMBER_BOUND:g}")
    )
