"""Where a divergence sits: the part of a leaf it is confined to, and the first stage whose values differ.

A stage is a path of `named_scope` words with loop iterations; both sides are walked equation by equation in float64.
"""

import dataclasses
import typing

import jax
import numpy as np
from jax.extend import source_info_util

from .. import settings
from ..program import Program
from ..verdict import Finding
from .host_ops import run_on_host
from .inputs import draw_inputs
from .interpreter import Interpreter, Scope, Values
from .truth import apply_float64, is_key, literal_float64, wide_params, widen

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

    Returns None when every common stage agrees, or when the programs name no stages.
    """
    drawn = draw_inputs(a, b, seed)
    ours, theirs = _stages(a, drawn.a), _stages(b, drawn.b)
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


def _stages(program: Program, flat: tuple[typing.Any, ...]) -> dict[str, Stage]:
    """Stage name with its visit -> last floating value computed in it, in order of the stages' ends."""
    record: dict[str, Stage] = {}

    def apply(eqn: typing.Any, values: Values, scope: Scope) -> Values:
        on_host = run_on_host(eqn.primitive.name, wide_params(eqn), values)
        results = apply_float64(eqn, values, scope) if on_host is None else list(on_host)
        name = "/".join(word for word in scope if word)
        value = results[0]
        if name and not is_key(value) and np.issubdtype(value.dtype, np.floating):
            record.pop(name, None)
            source = source_info_util.summarize(eqn.source_info)
            record[name] = Stage(np.asarray(value), source, f"{eqn.primitive.name} {eqn.outvars[0].aval.str_short()}")
        return results

    interpreter = Interpreter(apply=apply, literal=literal_float64, python_loops=True)
    with settings.tracing(), jax.enable_x64(True):
        interpreter.closed(program.trace().jaxpr, [widen(value) for value in flat])
    return record
