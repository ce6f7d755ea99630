"""Where a divergence sits: the part of a leaf it is confined to, and the first stage whose values differ.

A stage is a path of `named_scope` words on one loop iteration, forwards or backwards; both sides are walked equation by
equation in float64.
"""

import dataclasses
import re
import typing

import numpy as np
from jax.extend import source_info_util

from ..program import Program
from ..verdict import Finding
from .inputs import draw_inputs
from .interpreter import Scope, Values
from .stepwise import Draws, interpret, step_float64
from .truth import is_key

STAGE_BOUND = 1e-7
"""Relative difference of two float64 stage values that counts: a literal held in float32 costs less."""


def confined(mask: np.ndarray) -> str:
    """In words, the axes along which `mask` is true at some indices only: `axis 1 at 2 (of 3)`."""
    words = []
    for axis, size in enumerate(mask.shape):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        where = np.flatnonzero(mask.any(axis=others))
        if 0 < len(where) < size:
            listed = ", ".join(map(str, where[:4])) + (", ..." if len(where) > 4 else "")
            words.append(f"axis {axis} at {listed} (of {size})")
    return "; ".join(words)


class Visit(typing.NamedTuple):
    """Which stage and when: scope words without what transformations added, loop iterations, and the direction."""

    words: tuple[str, ...]
    iterations: tuple[str, ...]
    backward: bool

    @classmethod
    def of(cls, scope: Scope) -> "Visit":
        """The visit behind the name stacks of nested equations."""
        text = "/".join(scope)
        words = [word for word in re.sub(r"\w+\(|\)", "", text).split("/") if word]
        iterations = tuple(word for word in words if word.startswith("["))
        return cls(tuple(word for word in words if not word.startswith("[")), iterations, "transpose(" in text)

    def __str__(self) -> str:
        words = "/".join(self.words) + "".join(self.iterations)
        return f"{words} (backward)" if self.backward else words


@dataclasses.dataclass(frozen=True)
class Stage:
    """The value that a stage ended with on one visit, and the source line of the operation that made it."""

    value: np.ndarray
    source: str
    operation: str


Stages = dict[Visit, Stage]


def first_difference(a: Program, b: Program, *, seed: int = 0) -> Finding | None:
    """The first stage of `a`, in order of execution, that `b` has too, in the same shape, with other values.

    One leading word, the module at the top, may be missing on either side. Draws are replayed from `a` into `b`.
    Returns None when every common stage agrees, or when none is named.

    Raises:
        DrawMismatch: the two sides do not make the same draws.
        Unsupported: a program has no float64 truth.
    """
    drawn = draw_inputs(a, b, seed)
    draws = Draws()
    ours = _stages(a, drawn.a, draws)
    theirs = _stages(b, drawn.b, Draws(draws))
    for visit, stage in ours.items():
        other = _counterpart(visit, theirs)
        differs = None if other is None else _difference(stage.value, other.value)
        if other is not None and differs is not None:
            return Finding(
                title=f"the first stage that differs is {visit}",
                operations=(stage.operation, other.operation),
                sources=(stage.source, other.source),
                scope=str(visit),
                detail=f"largest relative difference {differs:.3g} in float64",
            )
    return None


def _counterpart(visit: Visit, theirs: Stages) -> Stage | None:
    if visit in theirs:
        return theirs[visit]
    if len(visit.words) > 1 and visit._replace(words=visit.words[1:]) in theirs:
        return theirs[visit._replace(words=visit.words[1:])]
    longer = [other for other in theirs if visit.words and visit == other._replace(words=other.words[1:])]
    return theirs[longer[0]] if len(longer) == 1 else None


def _difference(a: np.ndarray, b: np.ndarray) -> float | None:
    """The largest relative difference, None when it is within the bound or the shapes are not comparable."""
    if a.shape != b.shape:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        gap = np.abs(np.where(same, 0.0, a - b))
        scale = np.abs(np.where(np.isfinite(a), a, 0.0)).max(initial=0.0)
    if not np.isfinite(gap).all():
        return float("inf")
    largest = float(gap.max(initial=0.0))
    if largest <= STAGE_BOUND * scale:
        return None
    return largest / scale if scale else float("inf")


def _stages(program: Program, flat: tuple[typing.Any, ...], draws: Draws) -> Stages:
    """Each stage's last floating value on each visit, in order of the stages' ends."""
    record: Stages = {}

    def apply(eqn: typing.Any, values: Values, scope: Scope) -> Values:
        results = [draws(eqn, values[0])] if eqn.primitive.name == "random_bits" else step_float64(eqn, values)
        visit, value = Visit.of(scope), results[0]
        if visit.words and not is_key(value) and np.issubdtype(value.dtype, np.floating):
            record.pop(visit, None)
            source = source_info_util.summarize(eqn.source_info)
            record[visit] = Stage(np.asarray(value), source, f"{eqn.primitive.name} {eqn.outvars[0].aval.str_short()}")
        return results

    interpret(program, flat, apply, float64=True)
    return record
