"""Where a divergence sits: the part of a leaf it is confined to, and the first stage whose values differ.

A stage is a path of `named_scope` words with loop iterations; both sides are walked equation by equation in float64.
"""

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Stage:
    """The value that a stage ended with on one visit, and the source line of the operation that made it."""

    value: np.ndarray
    source: str
    operation: str


def first_difference(a: Program, b: Program, *, seed: int = 0) -> Finding | None:
    """The first stage of `a`, in order of execution, that `b` has too, in the same shape, with other values.

    Draws are replayed from `a` into `b`. Returns None when every common stage agrees, or when none is named.

    Raises:
        DrawMismatch: the two sides do not make the same draws.
    """
    drawn = draw_inputs(a, b, seed)
    draws = Draws()
    ours = _stages(a, drawn.a, draws)
    theirs = _stages(b, drawn.b, Draws(draws))
    for name, stage in ours.items():
        other = theirs.get(name)
        if other is None or other.value.shape != stage.value.shape:
            continue
        differs = _difference(stage.value, other.value)
        if differs is not None:
            return Finding(
                title=f"the first stage that differs is {name}",
                operations=(stage.operation, other.operation),
                sources=(stage.source, other.source),
                scope=name,
                detail=f"largest relative difference {differs:.3g} in float64",
            )
    return None


def _difference(a: np.ndarray, b: np.ndarray) -> float | None:
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


def _stages(program: Program, flat: tuple[typing.Any, ...], draws: Draws) -> dict[str, Stage]:
    """Stage name with its visit -> last floating value computed in it, in order of the stages' ends."""
    record: dict[str, Stage] = {}

    def apply(eqn: typing.Any, values: Values, scope: Scope) -> Values:
        results = [draws(eqn, values[0])] if eqn.primitive.name == "random_bits" else step_float64(eqn, values)
        name = "/".join(word for word in scope if word)
        value = results[0]
        if name and not is_key(value) and np.issubdtype(value.dtype, np.floating):
            record.pop(name, None)
            source = source_info_util.summarize(eqn.source_info)
            record[name] = Stage(np.asarray(value), source, f"{eqn.primitive.name} {eqn.outvars[0].aval.str_short()}")
        return results

    interpret(program, flat, apply, float64=True)
    return record
