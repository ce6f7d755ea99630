"""The noise ratio: is the difference between two executions what rounding alone can do?

Two questions, both against the float64 truths. Do the truths agree (the same function, but for literals rounded to
float32)? Is each side's error at most `K` times the larger of the other side's error and one rounding of the largest
true value? `K` and the bounds are dimensionless, the same for every case, and come with their evidence from
`calibration.json`, which `python -m harness.measure.calibrate` writes.

Errors are the largest over several nearby inputs: one rounding error divided by another has heavy tails, the largest of
a handful has not.
"""

import dataclasses
import json
import pathlib
import typing
from collections.abc import Sequence

import numpy as np

from .localise import confined

_CALIBRATION = pathlib.Path(__file__).with_name("calibration.json")
CALIBRATION: dict[str, typing.Any] = json.loads(_CALIBRATION.read_text())

K: float = CALIBRATION["K"]
"""Largest noise ratio that counts as rounding."""
LITERAL_BOUND: float = CALIBRATION["literal_bound"]
"""Allowed conditioned difference of the two truths: what a literal held in float32 costs. Narrower ones get no more."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One leaf on one input: what both sides gave, and their truths, all float64, all of one shape."""

    a: np.ndarray
    b: np.ndarray
    truth_a: np.ndarray
    truth_b: np.ndarray


@dataclasses.dataclass(frozen=True)
class Worst:
    """Where a leaf differs most: index, what both sides and both truths hold there."""

    index: tuple[int, ...]
    a: float
    b: float
    truth_a: float
    truth_b: float


@dataclasses.dataclass(frozen=True)
class Noise:
    """One leaf over one group of nearby inputs. Errors, gap and scale are in the leaf's own unit.

    `gap` is the largest difference of the truths, `scale` the largest true value, `roundoff` the compute dtype's,
    `floor` the noise that one rounding in every operation makes, known where the ratio alone would fail.
    `confined` says along which axes the difference keeps to some indices; `fault` names what no ratio can express.
    """

    error_a: float
    error_b: float
    gap: float
    scale: float
    roundoff: float
    floor: float = 0.0
    mean_error: float = 0.0
    worst: Worst | None = None
    confined: str = ""
    fault: str = ""

    @property
    def ratio(self) -> float:
        """The larger of the two noise ratios."""
        floor = max(self.floor, self.roundoff * self.scale)
        return max(
            _divide(self.error_b, max(self.error_a, floor)),
            _divide(self.error_a, max(self.error_b, floor)),
        )

    @property
    def conditioned_gap(self) -> float:
        """Difference of the truths relative to the largest true value, or to what the leaf's condition makes of it.

        An error of many roundings says that the leaf amplifies small changes so many times, a literal's rounding too.
        """
        return _divide(self.gap, max(self.scale, max(self.error_a, self.error_b) / self.roundoff))

    @property
    def gap_ratio(self) -> float:
        """Difference of the truths in units of what is allowed; up to 1 is agreement."""
        return self.conditioned_gap / LITERAL_BOUND

    @property
    def severity(self) -> float:
        """For ranking: how far beyond what is allowed."""
        return float("inf") if self.fault else max(self.gap_ratio, self.ratio / K)

    @property
    def fails_by_ratio(self) -> bool:
        """Whether the errors alone speak against the leaf."""
        return not self.fault and self.gap_ratio <= 1 and self.ratio > K

    @property
    def agrees(self) -> bool:
        """Whether rounding explains the difference."""
        return not self.fault and self.gap_ratio <= 1 and self.ratio <= K

    def describe(self) -> str:
        """One line: what failed, where, both values, errors and ratio."""
        if self.fault:
            what = self.fault
        elif self.gap_ratio > 1:
            what = f"float64 truths differ by {self.gap:.3g}, {self.gap_ratio:.3g} times what literals can cost"
        elif self.ratio > K:
            side, larger = ("b", self.error_b) if self.error_b > self.error_a else ("a", self.error_a)
            what = f"error of {side} {larger:.3g} is {self.ratio:.3g} times the noise (allowed {K:g})"
        else:
            what = f"within rounding: ratio {self.ratio:.3g} of {K:g}"
        where = ""
        if self.worst is not None:
            w = self.worst
            where = f"; at {list(w.index)} a={w.a:.9g} b={w.b:.9g} truth a={w.truth_a:.9g} b={w.truth_b:.9g}"
        where += f" ({self.confined})" if self.confined else ""
        return f"{what}{where}; max difference {self.max_difference:.3g}, mean {self.mean_error:.3g}"

    @property
    def max_difference(self) -> float:
        """Difference of the two sides at the worst place."""
        return 0.0 if self.worst is None else abs(self.worst.a - self.worst.b)


def merge(parts: Sequence[Noise]) -> Noise:
    """The noise of one leaf over a group of nearby inputs from the noise on each."""
    for part in parts:
        if part.fault:
            return part
    whole = Noise(
        error_a=max(part.error_a for part in parts),
        error_b=max(part.error_b for part in parts),
        gap=max(part.gap for part in parts),
        scale=max(part.scale for part in parts),
        roundoff=parts[0].roundoff,
        mean_error=float(np.mean([part.mean_error for part in parts])),
    )
    by_gap = whole.gap_ratio > 1
    worst = max(parts, key=lambda part: part.gap if by_gap else max(part.error_a, part.error_b))
    return dataclasses.replace(whole, worst=worst.worst, confined=worst.confined)


def non_finite_mismatch(a: np.ndarray, b: np.ndarray) -> tuple[int, ...] | None:
    """The first index where one side is NaN, +inf or -inf and the other is not the same."""
    differs = _class(a) != _class(b)
    return tuple(int(i) for i in np.argwhere(differs)[0]) if differs.any() else None


def compare_one(sample: Sample, roundoff: float) -> Noise:
    """The noise of one leaf on one input; `roundoff` is the finer of the two sides'."""
    none = Noise(error_a=0.0, error_b=0.0, gap=0.0, scale=0.0, roundoff=roundoff)
    for left, right, what in ((sample.a, sample.b, "values"), (sample.truth_a, sample.truth_b, "float64 truths")):
        index = non_finite_mismatch(left, right)
        if index is not None:
            fault = f"{what} are not finite in the same places"
            return dataclasses.replace(none, worst=_worst(sample, index), fault=fault)
    finite = np.isfinite(sample.a) & np.isfinite(sample.truth_a)
    if not finite.any():
        return none
    error_a = np.where(finite, np.abs(_minus(sample.a, sample.truth_a)), 0.0)
    error_b = np.where(finite, np.abs(_minus(sample.b, sample.truth_b)), 0.0)
    gap = np.where(finite, np.abs(_minus(sample.truth_a, sample.truth_b)), 0.0)
    largest = np.abs(np.where(finite, sample.truth_a, 0.0)).max()
    whole = Noise(float(error_a.max()), float(error_b.max()), float(gap.max()), float(largest), roundoff)
    places = gap if whole.gap_ratio > 1 else np.maximum(error_a, error_b)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(places)), places.shape))
    mean = float(np.abs(_minus(sample.a, sample.b))[finite].mean())
    where = confined(places > places[index] / 100)
    return dataclasses.replace(whole, worst=_worst(sample, index), mean_error=mean, confined=where)


def _worst(sample: Sample, index: tuple[int, ...]) -> Worst:
    values = (sample.a, sample.b, sample.truth_a, sample.truth_b)
    return Worst(index, *(float(np.real(value[index])) for value in values))


def _minus(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return left - right


def _class(values: np.ndarray) -> np.ndarray:
    """0 finite, 1 NaN, 2 +inf, 3 -inf."""
    kinds = np.zeros(values.shape, np.int8)
    kinds[np.isnan(values)] = 1
    infinite = np.isinf(values)
    kinds[infinite] = np.where(np.signbit(np.real(values[infinite])), 3, 2)
    return kinds


def _divide(over: float, under: float) -> float:
    if over == 0:
        return 0.0
    return float("inf") if under == 0 else over / under
