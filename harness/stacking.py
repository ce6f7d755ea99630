"""Stacked leaves: one array of one program that is several arrays of the other, as the layers of a scanned model are.

A program with such leaves is turned into one with the rows as leaves of their own: rows come in and are stacked before
the function runs, its stacked results go out as rows. The stacking is part of the trace, so nothing is taken on trust.
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Stacked:
    """Answer of a naming function: this leaf's rows along `axis` are the leaves of these names, in order."""

    names: tuple[str, ...]
    axis: int


@dataclasses.dataclass(frozen=True)
class Row:
    """Answer of a naming function made here: the name of one row, and of what it is a row."""

    name: str
    words: str


Stacks = Mapping[Path, Stacked]


def stacks(paths: Sequence[tuple[Path, typing.Any]], naming: Callable[[Path], typing.Any]) -> dict[Path, Stacked]:
    """The stacked leaves among those of a tree, by path.

    Raises:
        ValueError: a leaf has not as many rows as names.
    """
    found = {}
    for path, leaf in paths:
        answer = naming(path)
        if isinstance(answer, Stacked):
            shape = jnp.shape(leaf)
            if not -len(shape) <= answer.axis < len(shape) or shape[answer.axis] != len(answer.names):
                raise ValueError(
                    f"leaf {'/'.join(path)} has shape {shape}, not {len(answer.names)} rows along axis {answer.axis}:"
                    " give Stacked a name for each row, and their axis"
                )
            found[path] = answer
    return found


def naming(names: Callable[[Path], typing.Any], found: Stacks) -> Callable[[Path], typing.Any]:
    """The naming function of the tree whose stacked leaves are tuples of rows."""

    def name(path: Path) -> typing.Any:
        stacked = found.get(path[:-1])
        if stacked is None:
            return names(path)
        place = int(path[-1])
        words = f"row {place} of {len(stacked.names)} along axis {stacked.axis} of {'/'.join(path[:-1])}"
        return Row(stacked.names[place], words)

    return name


def apart(tree: typing.Any, found: Stacks, keys: Callable[[typing.Any], Path]) -> typing.Any:
    """The tree with each stacked leaf as a tuple of its rows."""

    def rows(path, leaf):
        stacked = found.get(keys(path))
        return leaf if stacked is None else tuple(_row(leaf, stacked.axis, k) for k in range(len(stacked.names)))

    return jax.tree_util.tree_map_with_path(rows, tree)


def _row(leaf: typing.Any, axis: int, place: int) -> typing.Any:
    axis %= len(leaf.shape)
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((*leaf.shape[:axis], *leaf.shape[axis + 1 :]), leaf.dtype)
    return leaf[(slice(None),) * axis + (place,)]


def together(tree: typing.Any, structure: typing.Any, found: Stacks, keys: Callable[[typing.Any], Path]) -> typing.Any:
    """The tree of the given structure, each tuple of rows stacked again."""
    paths, _ = jax.tree_util.tree_flatten_with_path(jax.tree.unflatten(structure, range(structure.num_leaves)))
    leaves = iter(jax.tree.leaves(tree))

    def leaf(path):
        stacked = found.get(keys(path))
        if stacked is None:
            return next(leaves)
        return jnp.stack([next(leaves) for _ in stacked.names], stacked.axis)

    return jax.tree.unflatten(structure, [leaf(path) for path, _ in paths])
