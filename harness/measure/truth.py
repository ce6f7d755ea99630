"""The float64 truth: a program's own jaxpr, every floating value and operation widened to float64.

Explicit casts to narrower floats are widened too, so rounding is the only thing taken away. Integers keep their width,
and random draws are the run's own: the same keys give the same bits, turned into floats as the program does it.
Literals stay as the program holds them, rounded to its dtype, but for numbers that the caller names.
"""

import functools
import typing
from collections.abc import Callable, Collection, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from .. import settings
from ..program import Program
from .interpreter import Interpreter, Scope, Unsupported, Values

_DTYPE_PARAMS = ("new_dtype", "preferred_element_type", "dtype")
_UNREPLAYABLE = frozenset({"random_gamma", "rng_uniform", "nextafter", "approx_top_k"})
_SCATTERS = {
    "scatter": lax.scatter,
    "scatter-add": lax.scatter_add,
    "scatter_add": lax.scatter_add,
    "scatter_sub": lax.scatter_sub,
    "scatter-sub": lax.scatter_sub,
    "scatter-mul": lax.scatter_mul,
    "scatter_mul": lax.scatter_mul,
    "scatter_min": lax.scatter_min,
    "scatter-min": lax.scatter_min,
    "scatter_max": lax.scatter_max,
    "scatter-max": lax.scatter_max,
}


def truth(program: Program, args: Sequence[typing.Any], numbers: Collection[float] = ()) -> list[np.ndarray]:
    """The outputs of `program` in float64, in the order of its output leaves.

    Args:
        program: the program.
        args: its arguments, concrete, as `Program.draw` gives them.
        numbers: what its literals mean: a scalar one that is the rounding of such a number is read as that number.

    Raises:
        Unsupported: the program uses something that has no float64 reading.
    """
    return TruthRunner(program, numbers)(jax.tree.leaves(tuple(args)))


class TruthRunner:
    """A program's truth, compiled once: flat arguments to flat float64 outputs (keys and integers as they are)."""

    def __init__(self, program: Program, numbers: Collection[float] = ()):
        function = float64_function(program.trace().jaxpr, numbers)
        self._run = jax.jit(function, compiler_options=settings.compiler_options() or None)

    def __call__(self, flat: Sequence[typing.Any]) -> list[typing.Any]:
        with settings.tracing(), jax.enable_x64(True):
            return [to_host(value) for value in self._run(*[widen(value) for value in flat])]


def float64_function(closed: typing.Any, numbers: Collection[float] = ()) -> Callable[..., Values]:
    """The float64 reading of a closed jaxpr as a function of flat widened arguments; trace it with x64 on."""
    interpreter = Interpreter(apply=apply_float64, literal=functools.partial(literal_float64, numbers=numbers))
    return lambda *values: interpreter.closed(closed, values)


def wide(dtype: typing.Any) -> typing.Any:
    """float64 for any real floating dtype, complex128 for complex ones, others unchanged."""
    if jnp.issubdtype(dtype, jnp.floating):
        return np.dtype(np.float64)
    return np.dtype(np.complex128) if jnp.issubdtype(dtype, jnp.complexfloating) else dtype


def is_key(value: typing.Any) -> bool:
    """Whether an array (or struct) holds typed random keys."""
    return jnp.issubdtype(value.dtype, jax.dtypes.extended)


def widen(value: typing.Any) -> typing.Any:
    """An argument in its wide dtype; exact."""
    if hasattr(value, "dtype") and is_key(value):
        return value
    array = np.asarray(value)
    return array.astype(wide(array.dtype))


def to_host(value: typing.Any) -> np.ndarray:
    """A NumPy array; typed keys as their raw data."""
    return np.asarray(jax.random.key_data(value) if is_key(value) else value)


def literal_float64(value: typing.Any, aval: typing.Any, numbers: Collection[float] = ()) -> typing.Any:
    """A literal, first rounded to the program's own dtype, then widened, or the one of `numbers` that it rounds."""
    if aval.dtype == jax.dtypes.float0:
        return np.asarray(value)
    held = np.asarray(value, dtype=aval.dtype)
    if held.ndim == 0 and jnp.issubdtype(aval.dtype, jnp.floating):
        held = next((np.asarray(number) for number in numbers if np.asarray(number, aval.dtype) == held), held)
    return held.astype(wide(aval.dtype))


def apply_float64(eqn: typing.Any, values: Values, scope: Scope) -> Values:
    """One first-order equation on widened operands."""
    del scope
    name, primitive = eqn.primitive.name, eqn.primitive
    if name in _UNREPLAYABLE:
        raise Unsupported(f"primitive {name} has no float64 reading that keeps the run's own draws or choices")
    if name in _SCATTERS:
        results = [_scatter(eqn, values)]
    elif name == "bitcast_convert_type":
        results = [_bitcast(eqn, values[0])]
    elif name == "reduce_precision":
        results = [values[0]]
    elif name == "reduce":
        results = _reduce(eqn, values)
    elif any(True for _ in core.jaxprs_in_params(eqn.params)):
        raise Unsupported(f"primitive {name} holds a function that the float64 truth cannot rebuild")
    else:
        answer = primitive.bind(*values, **wide_params(eqn))
        results = list(answer) if primitive.multiple_results else [answer]
    for value, var in zip(results, eqn.outvars, strict=True):
        if value.shape != var.aval.shape or value.dtype != wide(var.aval.dtype):
            raise Unsupported(
                f"primitive {name} gave {value.dtype}{list(value.shape)} for {var.aval.str_short()} in float64"
            )
    return results


def wide_params(eqn: typing.Any) -> dict[str, typing.Any]:
    """The parameters of a first-order equation, every floating dtype widened."""
    params = dict(eqn.primitive.get_bind_params(eqn.params))
    for key in _DTYPE_PARAMS:
        if params.get(key) is not None:
            params[key] = wide(params[key])
    if "weak_type" in params:
        params["weak_type"] = False
    if isinstance(params.get("precision"), lax.DotAlgorithm | lax.DotAlgorithmPreset):
        params["precision"] = lax.Precision.HIGHEST
    return params


def _scatter(eqn: typing.Any, values: Values) -> typing.Any:
    keys = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
    return _SCATTERS[eqn.primitive.name](*values, **{key: eqn.params[key] for key in keys})


def _bitcast(eqn: typing.Any, value: typing.Any) -> typing.Any:
    """Bits mean what they mean in the program's own dtype: go back to it, reinterpret, widen."""
    narrow = lax.convert_element_type(value, eqn.invars[0].aval.dtype)
    result = lax.bitcast_convert_type(narrow, eqn.params["new_dtype"])
    return lax.convert_element_type(result, wide(result.dtype))


def _reduce(eqn: typing.Any, values: Values) -> Values:
    count = len(values) // 2
    interpreter = Interpreter(apply=apply_float64, literal=literal_float64)
    body = eqn.params["jaxpr"]

    def computation(left: Values, right: Values) -> Values:
        return interpreter.closed(body, [*left, *right])

    return list(lax.reduce(values[:count], values[count:], computation, tuple(eqn.params["dimensions"])))
