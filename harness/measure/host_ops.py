"""Primitives that the audit runs in NumPy, where one call costs microseconds and nothing is compiled.

Only operations whose every result is fixed by IEEE arithmetic, or that move elements about. Transcendental functions,
contractions, gathers and the rest go through jax. Both sides of an audit use the same table.
"""

import typing
from collections.abc import Callable

import jax
import numpy as np

Params = dict[str, typing.Any]


def run_on_host(name: str, params: Params, values: list[typing.Any]) -> list[np.ndarray] | None:
    """The results of primitive `name`, or None when it is not for the host."""
    operation = _OPERATIONS.get(name)
    if operation is None or any(_is_special(value) for value in values):
        return None
    arrays = [np.asarray(value) for value in values]
    with np.errstate(all="ignore"):
        answer = operation(params, *arrays)
    if answer is None:
        return None
    results = answer if isinstance(answer, list) else [answer]
    return [np.ascontiguousarray(value).reshape(np.shape(value)) for value in results]


def _is_special(value: typing.Any) -> bool:
    return jax.numpy.issubdtype(value.dtype, jax.dtypes.extended) or value.dtype == jax.dtypes.float0


def _is_float(array: np.ndarray) -> bool:
    return jax.numpy.issubdtype(array.dtype, jax.numpy.floating)


def _plain(function: Callable[..., typing.Any]) -> Callable[..., typing.Any]:
    return lambda params, *arrays: function(*arrays)


def _float_only(function: Callable[..., typing.Any]) -> Callable[..., typing.Any]:
    return lambda params, *arrays: function(*arrays) if all(map(_is_float, arrays)) else None


def _convert(params: Params, array: np.ndarray) -> np.ndarray | None:
    """Float to integer is left to jax, which says what happens out of range."""
    to_float = jax.numpy.issubdtype(params["new_dtype"], jax.numpy.floating)
    return array.astype(params["new_dtype"]) if to_float or not _is_float(array) else None


def _select(params: Params, which: np.ndarray, *cases: np.ndarray) -> np.ndarray | None:
    return np.where(which, cases[1], cases[0]) if which.dtype == bool and len(cases) == 2 else None


def _broadcast(params: Params, array: np.ndarray, *dynamic: np.ndarray) -> np.ndarray | None:
    if dynamic:
        return None
    shape = [1] * len(params["shape"])
    for size, dim in zip(array.shape, params["broadcast_dimensions"], strict=True):
        shape[dim] = size
    return np.broadcast_to(array.reshape(shape), params["shape"])


def _slice(params: Params, array: np.ndarray) -> np.ndarray:
    strides = params["strides"] or (1,) * array.ndim
    starts, limits = params["start_indices"], params["limit_indices"]
    return array[tuple(slice(*bounds) for bounds in zip(starts, limits, strides, strict=True))]


def _reshape(params: Params, array: np.ndarray) -> np.ndarray | None:
    return array.reshape(params["new_sizes"]) if params.get("dimensions") is None else None


def _iota(params: Params) -> np.ndarray:
    shape = [1] * len(params["shape"])
    shape[params["dimension"]] = -1
    counted = np.arange(params["shape"][params["dimension"]]).astype(params["dtype"])
    return np.broadcast_to(counted.reshape(shape), params["shape"])


def _integer_pow(params: Params, base: np.ndarray) -> np.ndarray | None:
    """Squares and multiplies, as the compiler expands it."""
    exponent = abs(params["y"])
    if not _is_float(base) or exponent == 0:
        return None
    result, power = None, base
    while exponent:
        if exponent & 1:
            result = power if result is None else result * power
        exponent >>= 1
        power = power * power
    return np.asarray(1, base.dtype) / result if params["y"] < 0 else result


def _reduce_sum(params: Params, array: np.ndarray) -> np.ndarray | None:
    return np.sum(array, axis=tuple(params["axes"]), dtype=array.dtype) if array.dtype == np.float32 else None


def _split(params: Params, array: np.ndarray) -> list[np.ndarray]:
    return np.split(array, np.cumsum(params["sizes"])[:-1], axis=params["axis"])


_OPERATIONS: dict[str, Callable[..., typing.Any]] = {
    "add": _plain(np.add), "add_any": _plain(np.add), "sub": _float_only(np.subtract), "mul": _plain(np.multiply),
    "div": _float_only(np.divide), "neg": _float_only(np.negative), "sqrt": _float_only(np.sqrt),
    "square": _float_only(np.square), "abs": _float_only(np.abs), "is_finite": _float_only(np.isfinite),
    "eq": _plain(np.equal), "ne": _plain(np.not_equal), "lt": _plain(np.less), "le": _plain(np.less_equal),
    "gt": _plain(np.greater), "ge": _plain(np.greater_equal),
    "and": _plain(np.bitwise_and), "or": _plain(np.bitwise_or), "xor": _plain(np.bitwise_xor),
    "not": _plain(np.invert), "stop_gradient": _plain(lambda array: array), "copy": _plain(lambda array: array),
    "copy_p": _plain(lambda array: array), "select_n": _select, "convert_element_type": _convert,
    "broadcast_in_dim": _broadcast, "reshape": _reshape, "iota": _iota, "slice": _slice, "split": _split,
    "integer_pow": _integer_pow, "reduce_sum": _reduce_sum,
    "squeeze": lambda params, array: np.squeeze(array, tuple(params["dimensions"])),
    "expand_dims": lambda params, array: np.expand_dims(array, tuple(params["dimensions"])),
    "transpose": lambda params, array: np.transpose(array, params["permutation"]),
    "concatenate": lambda params, *arrays: np.concatenate(arrays, axis=params["dimension"]),
    "rev": lambda params, array: np.flip(array, tuple(params["dimensions"])),
}  # fmt: skip
