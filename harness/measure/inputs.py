"""Concrete inputs for two programs, matched by canonical name: one set of values, fed to both sides.

Groups of nearby inputs: as drawn, larger and smaller; inside a group every floating value moves by one rounding.
"""

import dataclasses
import typing
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from .. import settings
from ..program import Program, ProgramError
from .truth import is_key

NEARBY = 6
"""Inputs per group."""
SCALES = (("as drawn", 1.0), ("larger", 4.0), ("smaller", 0.25))


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Flat arguments of both sides, in their own order and dtypes. `group` says which kind of input it is."""

    group: str
    a: tuple[typing.Any, ...]
    b: tuple[typing.Any, ...]


def draw_inputs(a: Program, b: Program, seed: int) -> Inputs:
    """One draw from `a` (from `b` where only `b` can draw), given to the other side by name.

    Leaves of one side only keep that side's own draw.

    Raises:
        ProgramError: neither side can draw, a draw does not fit the program, or both hold other values for a leaf.
    """
    key = jax.random.key(seed)
    try:
        flat_a = _flat(a, key)
    except ProgramError:
        flat_b = _flat(b, key)
        return Inputs("as drawn", _fill(a, b, flat_b, None), flat_b)
    own = _flat(b, key) if b.sample is not None or b.is_concrete else None
    filled = _fill(b, a, flat_a, own)
    if own is not None and a.sample is None and b.sample is None:
        _refuse_other_values(a, b, filled, own)
    return Inputs("as drawn", flat_a, filled)


def _refuse_other_values(a: Program, b: Program, filled: tuple[typing.Any, ...], own: tuple[typing.Any, ...]) -> None:
    """Both sides run on one set of inputs: a value that only one side was given would silently be replaced."""
    for leaf, value, given in zip(b.inputs, filled, own, strict=True):
        if is_key(value) or value is given:
            continue
        if np.asarray(value).tobytes() != np.asarray(given).tobytes():
            raise ProgramError(
                f"input {leaf.name} holds other values in '{b.name}' than in '{a.name}': both sides run on the same"
                " inputs, so give both the same values, or name the leaf OneSided(reason) if it is meant to differ"
            )


def variants(a: Program, b: Program, drawn: Inputs, seed: int, *, nearby: int = NEARBY) -> Iterator[Inputs]:
    """The groups of inputs around one draw."""
    random = np.random.default_rng(seed)
    for group, scale in SCALES:
        for number in range(nearby):
            moved = tuple(_move(value, scale, random if number else None) for value in drawn.a)
            yield Inputs(group, moved, _fill(b, a, moved, drawn.b))


def _flat(program: Program, key: jax.Array) -> tuple[typing.Any, ...]:
    with settings.tracing():
        leaves = jax.tree.leaves(program.draw(key))
    if len(leaves) != len(program.inputs):
        raise ProgramError(
            f"program '{program.name}': sample gave {len(leaves)} leaves, its arguments have {len(program.inputs)}"
        )
    for value, leaf in zip(leaves, program.inputs, strict=True):
        if np.shape(value) != leaf.shape or jnp.result_type(value) != leaf.dtype:
            raise ProgramError(
                f"program '{program.name}': sample gave {jnp.result_type(value)}{list(np.shape(value))} for"
                f" {leaf.name}, whose argument is {leaf.dtype}{list(leaf.shape)}"
            )
    return tuple(leaves)


def _fill(
    program: Program, other: Program, values: tuple[typing.Any, ...], own: tuple[typing.Any, ...] | None
) -> tuple[typing.Any, ...]:
    """The arguments of `program` from the other side's by name, in its own dtypes; what is missing comes from `own`."""
    by_name = {
        leaf.name: value
        for leaf, value in zip(other.inputs, values, strict=True)
        if leaf.one_sided is None
    }  # fmt: skip
    filled = []
    for position, leaf in enumerate(program.inputs):
        if leaf.name in by_name and leaf.one_sided is None:
            value = by_name[leaf.name]
            filled.append(value if value.dtype == leaf.dtype else np.asarray(value).astype(leaf.dtype))
        elif own is not None:
            filled.append(own[position])
        else:
            raise ProgramError(
                f"program '{program.name}': input {leaf.name} has no partner in '{other.name}' and no value of its"
                " own: give the program sample=... or concrete arguments"
            )
    return tuple(filled)


def _move(value: typing.Any, scale: float, random: np.random.Generator | None) -> typing.Any:
    """Scales a floating array and moves each element by up to one rounding; whole numbers (ones, masks) stay."""
    if not hasattr(value, "dtype") or is_key(value) or not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    array = np.asarray(value)
    wide = array.astype(np.float64)
    if np.array_equal(wide, np.round(wide)):
        return array
    if random is not None:
        steps = random.integers(-1, 2, size=array.shape)
        wide = wide * (1.0 + steps * float(jnp.finfo(array.dtype).eps))
    return (wide * scale).astype(array.dtype)
