"""Which Python function an operation calls, as digest input: the same object is the same function, never a name.

Every function met is kept alive, so that no number is given twice. Numbers hold within one process: a fingerprint that
contains one is not stored.
"""

import functools
import sys
import types
import typing

from jax.tree_util import PyTreeDef

from .params import Unmodelled, token

_NUMBERS: dict[int, tuple[bytes, typing.Any]] = {}
_TREES: dict[PyTreeDef, bytes] = {}
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def callable_token(value: typing.Any) -> bytes:
    """A function by identity; partial application, bound methods and jax's own wrappers by what they wrap."""
    if type(value) is functools.partial:
        parts = [value.func, *value.args, *(item for pair in sorted(value.keywords.items()) for item in pair)]
        return b"partial%d(" % len(value.args) + b"".join(map(callable_token, parts)) + b")"
    if type(value) is types.MethodType:
        return b"method(" + callable_token(value.__func__) + _number(value.__self__) + b")"
    if type(value) is PyTreeDef:
        return _TREES.setdefault(value, b"tree%d;" % len(_TREES))
    if type(value) is tuple:
        return b"(" + b"".join(map(callable_token, value)) + b")"
    if type(value) in _PLAIN:
        return token(value)
    wrapped = _wrapped(value)
    return _number(value) if wrapped is None else b"wrapper(" + b"".join(map(callable_token, wrapped)) + b")"


def _number(value: typing.Any) -> bytes:
    return _NUMBERS.setdefault(id(value), (b"object%d;" % len(_NUMBERS), value))[0]


def _wrapped(value: typing.Any) -> tuple[typing.Any, ...] | None:
    """What a wrapper of jax's own holds: it is made anew for each trace. None for anything else."""
    kind = type(value)
    if kind.__module__ == "jax._src.callback" and kind.__name__ == "_FlatCallback":
        return (kind, value.callback_func, value.in_tree)
    if isinstance(value, types.FunctionType) and value.__globals__ is vars(sys.modules.get("jax._src.debugging", sys)):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        cells = [tuple(sorted(cell.items())) if type(cell) is dict else cell for cell in cells]
        return (value.__code__, value.__defaults__, *cells)
    return None


def loose_token(params: typing.Mapping[str, typing.Any]) -> bytes:
    """Parameters by name, functions and other objects by identity."""
    parts = [token(name) + _either(value) for name, value in sorted(params.items())]
    return b"".join(parts)


def name_of(value: typing.Any) -> str:
    """A function as a reader knows it, with the number that tells it from its namesakes."""
    inner = next((cell for cell in _wrapped(value) or () if callable(cell) and not isinstance(cell, type)), value)
    words = getattr(inner, "__qualname__", None) or getattr(inner, "__name__", type(inner).__name__)
    return f"{words} ({callable_token(inner).decode(errors='replace').rstrip(';')})"


def _either(value: typing.Any) -> bytes:
    try:
        return token(value)
    except Unmodelled:
        return callable_token(value)
