"""Digests of equation parameters and constants: by structure, never by `repr` of an object or by a function's name.

What is not understood raises `Unmodelled`, and the equation that holds it can then not be proved equal to anything.
"""

import dataclasses
import enum
import functools
import hashlib
import struct
import typing

import jax
import numpy as np
from jax.extend import random as jax_random
from jax.extend.core import Primitive

from .primitives import EVERY

_DIGEST_SIZE = 16


class Unmodelled(Exception):
    """Something whose meaning the prover does not know. The message names it."""


def digest(*parts: bytes) -> bytes:
    """128 bits of the parts; each part's length is part of the message."""
    hasher = hashlib.blake2b(digest_size=_DIGEST_SIZE)
    for part in parts:
        hasher.update(struct.pack("<q", len(part)))
        hasher.update(part)
    return hasher.digest()


def token(value: typing.Any) -> bytes:
    """An injective encoding of a parameter value.

    Raises:
        Unmodelled: for an object of an unknown type.
    """
    encode = _ENCODERS.get(type(value))
    return encode(value) if encode is not None else _other(value)


def _sequence(value: typing.Sequence[typing.Any]) -> bytes:
    for item in value:
        if type(item) is not int:
            break
    else:  # shapes, axes and dimension numbers, formatted at once
        return (b"(" + b"i%d;" * len(value) + b")") % tuple(value)
    return b"(" + b"".join([token(item) for item in value]) + b")"


def _text(value: str) -> bytes:
    data = value.encode()
    return b"s%d:" % len(data) + data


def _set(value: frozenset[typing.Any]) -> bytes:
    return b"{" + b"".join(sorted(token(item) for item in value)) + b"}"


_ENCODERS: dict[type, typing.Callable[[typing.Any], bytes]] = {
    type(None): lambda value: b"N",
    bool: lambda value: b"T" if value else b"F",
    int: lambda value: b"i%d;" % value,
    float: lambda value: b"f" + struct.pack("<d", value),
    complex: lambda value: b"c" + struct.pack("<dd", value.real, value.imag),
    str: _text,
    bytes: lambda value: b"b%d:" % len(value) + value,
    tuple: _sequence,
    list: lambda value: b"L" + _sequence(value),
    frozenset: _set,
    set: _set,
}


def _other(value: typing.Any) -> bytes:
    if isinstance(value, _PRNGImpl):
        return b"P" + _text(_prng_name(value))
    if isinstance(value, np.dtype) or _is_key_dtype(value):
        _ENCODERS[type(value)] = dtype_token
        return dtype_token(value)
    if isinstance(value, enum.Enum):
        kind = b"E" + _text(type(value).__qualname__)
        _ENCODERS[type(value)] = lambda member: kind + _text(member.name)
        return kind + _text(value.name)
    if isinstance(value, _SCALAR_TYPE) or (isinstance(value, type) and issubclass(value, np.generic)):
        return dtype_token(np.dtype(value))
    if isinstance(value, np.integer):
        return b"i%d;" % int(value)
    if isinstance(value, np.generic | np.ndarray):
        return b"A" + array_token(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return b"n" + _text(type(value).__qualname__) + _sequence(tuple(value))
    if isinstance(value, Primitive) and EVERY.get(value.name) is value:
        return b"p" + _text(value.name)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return b"D" + _text(type(value).__qualname__) + _sequence(fields)
    raise Unmodelled(f"a parameter of type {type(value).__name__}")


def _is_key_dtype(value: typing.Any) -> bool:
    kind = getattr(value, "type", None)
    return isinstance(kind, type) and issubclass(kind, jax.dtypes.prng_key)


def _prng_name(impl: typing.Any) -> str:
    for known, spec in _KNOWN_PRNGS.items():
        if impl is spec:
            return known
    raise Unmodelled("a random number generator that is not one of jax's own")


# `jnp.float32` is no type of NumPy's; some primitives keep it as it was given.
_SCALAR_TYPE = type(jax.numpy.float32)
_PRNGImpl = type(jax_random.threefry_prng_impl)
_KNOWN_PRNGS = {
    "threefry2x32": jax_random.threefry_prng_impl,
    "rbg": jax_random.rbg_prng_impl,
    "unsafe_rbg": jax_random.unsafe_rbg_prng_impl,
}

_DTYPE_TOKENS: dict[typing.Any, bytes] = {}


def dtype_token(dtype: typing.Any) -> bytes:
    """A dtype by name; a key dtype by its generator."""
    found = _DTYPE_TOKENS.get(dtype)
    if found is None:
        if _is_key_dtype(dtype):
            found = b"k" + _text(_prng_name(dtype._impl))
        elif isinstance(dtype, np.dtype):
            found = b"d" + _text(dtype.name)
        else:
            raise Unmodelled(f"the dtype {dtype}")
        _DTYPE_TOKENS[dtype] = found
    return found


def array_token(value: typing.Any) -> bytes:
    """A constant by dtype, shape and bytes. Weak types are no part of a value: see `canonical`."""
    dtype = getattr(value, "dtype", None)
    if _is_key_dtype(dtype):
        return dtype_token(dtype) + array_token(jax.random.key_data(value))
    array = np.asarray(value)
    if array.dtype == object:
        raise Unmodelled(f"a constant of type {type(value).__name__}")
    return dtype_token(array.dtype) + _sequence(array.shape) + digest(np.ascontiguousarray(array).tobytes())


class Params(dict[str, typing.Any]):
    """Parameters that are never changed, with what `params_token` says of them: rules pass them on many times."""

    __slots__ = ("token",)

    def __init__(self, params: typing.Mapping[str, typing.Any], data: bytes):
        super().__init__(params)
        self.token = data


def params_token(params: typing.Mapping[str, typing.Any], ignored: frozenset[str] = frozenset()) -> bytes:
    """All parameters by name, but those that a per-primitive table gives a reason to ignore."""
    if not params:
        return b""
    return b"".join([name + token(params[key]) for key, name in _counted(tuple(params), ignored)])


@functools.cache
def _counted(names: tuple[str, ...], ignored: frozenset[str]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, _text(name)) for name in sorted(names) if name not in ignored)
