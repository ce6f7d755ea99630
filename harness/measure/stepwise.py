"""Op-by-op execution: every primitive on its own, loops in Python, and random draws that can be replayed.

With nothing fused across equations, equal denotation means equal bits. Two programs that derive their keys differently
are compared by replaying the draws of one into the other, paired by shape and order of first use.
"""

import typing
from collections.abc import Callable, Sequence

import jax
import numpy as np

from .. import settings
from ..program import Program
from .host_ops import run_on_host
from .interpreter import Interpreter, Scope, Values
from .truth import apply_float64, is_key, literal_float64, to_host, wide_params, widen

EXACT = frozenset({
    "abs", "broadcast_in_dim", "clamp", "concatenate", "copy", "copy_p", "dynamic_slice", "dynamic_update_slice",
    "gather", "iota", "max", "min", "neg", "pad", "reduce_max", "reduce_min", "reshape", "rev", "scatter", "select_n",
    "sign", "slice", "sort", "split", "squeeze", "stop_gradient", "transpose",
})  # fmt: skip
"""Primitives that never round."""


class DrawMismatch(ValueError):
    """The two programs do not make the same draws, so that none can be replayed."""


class Draws:
    """Numbers the distinct draws of a run by shape and order; replays another run's bits under the same numbers.

    A draw repeated with the same key, as recomputation does, is the same draw.
    """

    def __init__(self, replayed: "Draws | None" = None):
        self.bits: dict[tuple[typing.Any, ...], typing.Any] = {}
        self._numbers: dict[tuple[typing.Any, ...], int] = {}
        self._counts: dict[typing.Any, int] = {}
        self._replayed = replayed

    def __call__(self, eqn: typing.Any, key: typing.Any) -> typing.Any:
        kind = (tuple(eqn.outvars[0].aval.shape), eqn.params["bit_width"])
        identity = (kind, np.asarray(jax.random.key_data(key)).tobytes())
        if identity not in self._numbers:
            self._numbers[identity] = self._counts.get(kind, 0)
            self._counts[kind] = self._numbers[identity] + 1
        name = (kind, self._numbers[identity])
        if self._replayed is None:
            self.bits[name] = eqn.primitive.bind(key, **eqn.params)
        elif name in self._replayed.bits:
            self.bits[name] = self._replayed.bits[name]
        else:
            raise DrawMismatch(f"draw {name[1]} of shape {list(kind[0])} has no counterpart on the other side")
        return self.bits[name]

    def finish(self) -> None:
        """Checks, after a replay, that every draw was used.

        Raises:
            DrawMismatch: the other side makes more draws.
        """
        if self._replayed is not None and set(self._replayed.bits) != set(self.bits):
            raise DrawMismatch(f"one side makes {len(self._replayed.bits)} draws and the other {len(self.bits)}")


class Jitter:
    """Moves every element of a computed floating value by one rounding, up or down: what rounding may do, in float64.

    The spread of the outputs is the noise that an implementation must be granted, also where the true value cancels
    to nothing and no relative error can be stated.
    """

    def __init__(self, roundoff: float, seed: int):
        self._roundoff = roundoff
        self._random = np.random.default_rng(seed)

    def __call__(self, eqn: typing.Any, value: typing.Any) -> typing.Any:
        if eqn.primitive.name in EXACT or is_key(value) or not np.issubdtype(value.dtype, np.floating):
            return value
        signs = self._random.integers(0, 2, size=value.shape) * 2 - 1
        return np.asarray(value) * (1 + self._roundoff * signs)


def op_by_op(
    program: Program,
    flat: Sequence[typing.Any],
    *,
    draws: Draws | None = None,
    float64: bool = False,
    jitter: Jitter | None = None,
) -> list[np.ndarray]:
    """A program's flat outputs from flat arguments; with `float64`, its truth without a compile, jittered if asked.

    Raises:
        DrawMismatch: `draws` replays another run and the draws do not pair.
        Unsupported: the program cannot be run op by op.
    """
    step = step_float64 if float64 else step_as_is

    def apply(eqn: typing.Any, values: Values, scope: Scope) -> Values:
        del scope
        if draws is not None and eqn.primitive.name == "random_bits":
            return [draws(eqn, values[0])]
        results = step(eqn, values)
        return results if jitter is None else [jitter(eqn, value) for value in results]

    outputs = interpret(program, flat, apply, float64=float64)
    if draws is not None:
        draws.finish()
    return outputs


def interpret(
    program: Program, flat: Sequence[typing.Any], apply: Callable[..., Values], *, float64: bool
) -> list[np.ndarray]:
    """Runs a program with Python loops and the given meaning of an equation."""
    literal = {"literal": literal_float64} if float64 else {}
    interpreter = Interpreter(apply=apply, python_loops=True, **literal)
    values = [widen(value) for value in flat] if float64 else list(flat)
    with settings.tracing(), jax.enable_x64(float64):
        return [to_host(value) for value in interpreter.closed(program.trace().jaxpr, values)]


def step_as_is(eqn: typing.Any, values: Values) -> Values:
    """One first-order equation in its own dtypes."""
    results = run_on_host(eqn.primitive.name, eqn.params, values)
    if results is not None:
        for value, var in zip(results, eqn.outvars, strict=True):
            assert (value.shape, value.dtype) == (var.aval.shape, var.aval.dtype), (eqn.primitive.name, var.aval)
        return list(results)
    answer = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return list(answer) if eqn.primitive.multiple_results else [answer]


def step_float64(eqn: typing.Any, values: Values) -> Values:
    """One first-order equation in float64."""
    results = run_on_host(eqn.primitive.name, wide_params(eqn), values)
    return apply_float64(eqn, values, ()) if results is None else list(results)
