"""The `items` directory of a checkpoint through Orbax: leaves by stored path, in and out. Knows no layout's meaning.

Orbax casts and fills silently when it is handed a target, so it never is: shapes and dtypes are read from its metadata
first, and arrays come back as NumPy arrays exactly as stored.
"""

import dataclasses
import pathlib
import typing
from collections.abc import Collection, Mapping

import jax
import numpy as np
import orbax.checkpoint as ocp

from .errors import RESTORE_FILES, CheckpointError
from .layouts import Path

CHAIN = "opt_state"


@dataclasses.dataclass(frozen=True)
class StoredLeaf:
    """Shape and dtype of a leaf on disk."""

    shape: tuple[int, ...]
    dtype: str


def nest(leaves: Mapping[Path, object]) -> dict[str, typing.Any]:
    """Leaves by path as nested dictionaries. The optimizer chain at the top is a list, with None for an empty slot."""
    tree: dict[str, typing.Any] = {}
    for path, leaf in leaves.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = leaf
    chain = tree.get(CHAIN)
    if isinstance(chain, dict) and all(key.isdecimal() for key in chain):
        length = max(map(int, chain)) + 1
        tree[CHAIN] = [chain.get(str(index)) for index in range(length)]
    return tree


def flatten(tree: object) -> dict[Path, typing.Any]:
    """The inverse of `nest`: every leaf by path; empty slots and empty containers are no leaves."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_strings(path): leaf for path, leaf in found}


def path_strings(path: tuple[object, ...]) -> Path:
    """A jax key path as plain strings."""
    return tuple(str(getattr(entry, "key", getattr(entry, "idx", getattr(entry, "name", entry)))) for entry in path)


def write(items: pathlib.Path, leaves: Mapping[Path, object]) -> None:
    """Writes the leaves into a new directory."""
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as writer:
        writer.save(items, args=ocp.args.StandardSave(nest(leaves)))


def describe(items: pathlib.Path) -> dict[Path, StoredLeaf]:
    """Shape and dtype of every leaf, from metadata alone.

    Raises:
        CheckpointError: if this is no Orbax tree, or its metadata is broken.
    """
    leaves = flatten(_metadata(items))
    for path, leaf in leaves.items():
        if not hasattr(leaf, "shape") or leaf.dtype is None:
            raise CheckpointError("/".join(path), f"is no array in {items}", "checkpoints hold arrays only")
    return {path: StoredLeaf(tuple(leaf.shape), str(np.dtype(leaf.dtype))) for path, leaf in leaves.items()}


def read(items: pathlib.Path, paths: Collection[Path] | None = None) -> dict[Path, np.ndarray]:
    """The arrays as stored, all of them or those at `paths`.

    Raises:
        CheckpointError: if the data cannot be read.
    """
    tree = _metadata(items)
    if paths is not None:
        tree = nest({path: leaf for path, leaf in flatten(tree).items() if path in paths})
    restore_args = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    target = jax.tree.map(lambda leaf: 0, tree)
    arguments = ocp.args.PyTreeRestore(item=target, restore_args=restore_args, partial_restore=paths is not None)
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            restored = reader.restore(items, args=arguments)
    except Exception as error:  # Orbax and TensorStore raise every kind of error for broken files
        raise _unreadable(items, error) from error
    return {path: np.asarray(leaf) for path, leaf in flatten(restored).items()}


def _metadata(items: pathlib.Path) -> typing.Any:
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            found = reader.metadata(items).item_metadata
    except Exception as error:  # as above
        raise _unreadable(items, error) from error
    if found is None:
        raise _unreadable(items, "no readable tree metadata")
    return found.tree


def _unreadable(items: pathlib.Path, error: object) -> CheckpointError:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return CheckpointError(items, f"is not a readable Orbax checkpoint ({reason})", RESTORE_FILES)
