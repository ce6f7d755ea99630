"""Arguments of a function by words: `float32[4,8] int32[3]`, JSON with such words as leaves, a name, annotations.

What comes out is a tuple of pytrees of shapes, or of arrays where a name led to some. Nothing here loads a module.
"""

import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping

import jax
import numpy as np

from . import settings

ARRAY = re.compile(r"(\w+)\s*\[([\d,\s]*)\]")
EXAMPLE = '--args "float32[4,8] int32[3]"'
SHORT = {
    "f16": "float16", "f32": "float32", "bf16": "bfloat16", "i8": "int8", "i16": "int16", "i32": "int32",
    "u8": "uint8", "u16": "uint16", "u32": "uint32", "pred": "bool", "c64": "complex64",
}  # fmt: skip
# What an annotation such as Float or Int, which allows several, is taken to mean: the types of 32 bits.
USUAL = ("float32", "int32", "uint32", "bool", "bool_", "complex64")


class ArgumentsError(ValueError):
    """Arguments that cannot be understood."""


def read(text: str, option: str = "--args") -> tuple[typing.Any, ...]:
    """The arguments that a text means: arrays one after the other, or a JSON list with arrays as strings.

    Raises:
        ArgumentsError: it is neither, or an array in it is not understood.
    """
    if text.lstrip()[:1] not in ("[", "{", '"'):
        return tuple(array(word, option) for word in _words(text, option))
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ArgumentsError(
            f'{option} {text}: is not JSON ({error}); write for example \'[{{"w": "float32[4,8]"}}, "int32[3]"]\'.'
        ) from None
    if not isinstance(data, list):
        raise ArgumentsError(f"{option} {text}: is no list of arguments; put [ ] around it.")
    return tuple(_tree(item, option) for item in data)


def _words(text: str, option: str) -> list[str]:
    words = [match.group() for match in ARRAY.finditer(text)]
    rest = ARRAY.sub("", text).replace(",", " ").split()
    if rest or not words:
        wrong = repr(rest[0]) if rest else "nothing"
        raise ArgumentsError(f"{option} {text!r}: {wrong} is no array; write dtype[sizes], for example {EXAMPLE}.")
    return words


def _tree(item: typing.Any, option: str) -> typing.Any:
    if isinstance(item, dict):
        return {key: _tree(value, option) for key, value in item.items()}
    if isinstance(item, list):
        return [_tree(value, option) for value in item]
    if item is None or isinstance(item, str):
        return item if item is None else array(item, option)
    raise ArgumentsError(f'{option}: the leaf {json.dumps(item)} is no array; write a string such as "float32[]".')


def array(word: str, option: str = "--args") -> jax.ShapeDtypeStruct:
    """The array that `float32[4,8]`, `bf16[3]` or `key[]` means.

    Raises:
        ArgumentsError: it means none, or one of 64 bits, which no trace of the harness holds.
    """
    match = ARRAY.fullmatch(word.strip())
    if match is None:
        raise ArgumentsError(f"{option}: {word!r} is no array; write dtype[sizes], for example float32[4,8].")
    name, sizes = match.group(1), tuple(int(size) for size in match.group(2).split(",") if size.strip())
    if name == "key":
        with settings.tracing():
            return jax.ShapeDtypeStruct(sizes, jax.eval_shape(lambda: jax.random.key(0)).dtype)
    try:
        dtype = jax.numpy.dtype(SHORT.get(name, name))
        known = dtype.kind not in "OSUMmV" or jax.numpy.issubdtype(dtype, np.number)
    except TypeError:
        dtype, known = None, False
    if dtype is None or not known:
        raise ArgumentsError(f"{option}: {word!r} has no known dtype; name one of jax's, for example float32 or key.")
    with settings.tracing():
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise ArgumentsError(f"{option}: {word!r} has 64-bit elements and programs are traced in 32 bits; use 32.")
    return jax.ShapeDtypeStruct(sizes, dtype)


def infer(fn: Callable[..., typing.Any]) -> tuple[typing.Any, ...] | None:
    """Arguments by jaxtyping annotations with fixed sizes, else by defaults that are arrays; None where that fails.

    A parameter whose default is anything else keeps it, and so do all that follow.
    """
    found = []
    for parameter in parameters(fn):
        annotated = _annotated(parameter.annotation)
        if annotated is not None:
            found.append(annotated)
        elif _holds_arrays(parameter.default):
            found.append(parameter.default)
        elif parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            return None
        else:
            break
    return tuple(found) or None


def parameters(fn: Callable[..., typing.Any]) -> list[inspect.Parameter]:
    """The parameters of a function; none where Python cannot tell."""
    try:
        return list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        return []


def _annotated(annotation: typing.Any) -> jax.ShapeDtypeStruct | None:
    sizes, dtypes = getattr(annotation, "dim_str", None), getattr(annotation, "dtypes", None)
    if not isinstance(sizes, str) or not isinstance(dtypes, list | tuple):
        return None
    dims = [size.rpartition("=")[2] for size in sizes.split()]
    names = [name for name in dtypes if isinstance(name, str)]
    name = names[0] if len(names) == 1 else next((usual for usual in USUAL if usual in names), None)
    if name is None or not all(size.isdigit() for size in dims):
        return None
    return array(f"{name.rstrip('_')}[{','.join(dims)}]", "annotation")


def _holds_arrays(default: typing.Any) -> bool:
    leaves = jax.tree.leaves(default) if default is not inspect.Parameter.empty else []
    return bool(leaves) and all(isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct) for leaf in leaves)


def in_words(tree: typing.Any) -> str:
    """A pytree of arrays as `read` understands it."""
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{key}: {in_words(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list | tuple) and not hasattr(tree, "_fields"):
        return "[" + ", ".join(map(in_words, tree)) + "]"
    shape, dtype = getattr(tree, "shape", None), getattr(tree, "dtype", None)
    return type(tree).__name__ if shape is None else f"{dtype}[{','.join(map(str, shape))}]"
