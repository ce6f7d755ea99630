"""A twin's own train state as canonical leaves, and back. Its own paths tell its layout: no twin is named."""

import dataclasses
import typing
from collections.abc import Collection, Mapping

import jax
import numpy as np

from .errors import CheckpointError
from .items import StoredLeaf, path_strings
from .layouts import Layout, detect, to_canonical

STEP = "step"
STEP_DTYPE = {Layout.LINEN: "int32", Layout.FINAL: "int32"}
"""The step's dtype on disk: int32 where the layout is Linen's, else the uint32 that NNX counts in."""


@dataclasses.dataclass(frozen=True)
class NativeLeaf:
    """One leaf of a train state: its canonical name, and the array or its `ShapeDtypeStruct`."""

    name: str
    value: typing.Any

    @property
    def prng(self) -> str | None:
        """The generator's name if the leaf is a typed key, else None."""
        return str(self.value.dtype) if jax.numpy.issubdtype(self.value.dtype, jax.dtypes.prng_key) else None


def step_of(state: object) -> int:
    """The step of a train state: how many updates it has taken."""
    found, _ = jax.tree_util.tree_flatten_with_path(state)
    paths = [path_strings(path) for path, _ in found]
    layout = detect(paths)
    return next(int(leaf) for path, (_, leaf) in zip(paths, found, strict=True) if to_canonical(layout, path) == STEP)


def native_leaves(state: object, parameters: Collection[str]) -> list[NativeLeaf]:
    """The leaves of a train state in tree order."""
    found, _ = jax.tree_util.tree_flatten_with_path(state)
    paths = [path_strings(path) for path, _ in found]
    layout = detect(paths)
    names = [to_canonical(layout, path, parameters=parameters) for path in paths]
    return [NativeLeaf(name, leaf) for name, (_, leaf) in zip(names, found, strict=True)]


def stored_form(layout: Layout, leaf: NativeLeaf) -> StoredLeaf:
    """Shape and dtype with which a layout stores a leaf: keys as their data, the step in the layout's dtype."""
    if leaf.prng is not None:
        data = jax.eval_shape(jax.random.key_data, leaf.value)
        return StoredLeaf(tuple(data.shape), str(data.dtype))
    dtype = str(np.dtype(leaf.value.dtype))
    if leaf.name == STEP:
        dtype = STEP_DTYPE.get(layout, "uint32")
    return StoredLeaf(tuple(leaf.value.shape), dtype)


def to_stored(layout: Layout, leaf: NativeLeaf) -> jax.Array:
    """The array that goes to disk."""
    if leaf.prng is not None:
        return jax.random.key_data(leaf.value)
    if leaf.name == STEP:
        return jax.numpy.asarray(leaf.value).astype(STEP_DTYPE.get(layout, "uint32"))
    return leaf.value


def from_stored(leaf: NativeLeaf, array: np.ndarray) -> jax.Array:
    """The inverse of `to_stored`, for the leaf's place in a state. Only the step changes its dtype."""
    if leaf.prng is not None:
        return jax.random.wrap_key_data(jax.numpy.array(array), impl=_generator(leaf.value))
    if leaf.name == STEP:
        if array < 0:
            raise CheckpointError(STEP, f"is {int(array)}, and no step is negative", "save the state again")
        return jax.numpy.array(array.astype(leaf.value.dtype))
    return jax.numpy.array(array)  # a copy: a donated buffer must not be NumPy's


def _generator(key: typing.Any) -> typing.Hashable:
    """The generator of a typed key, which an abstract key tells only while it is traced."""
    found = []
    jax.eval_shape(lambda traced: found.append(jax.random.key_impl(traced)), key)
    return found[0]


def rebuild(state: object, leaves: list[NativeLeaf], values: Mapping[str, jax.Array]) -> object:
    """The train state's tree with these values in the leaves' places."""
    return jax.tree.unflatten(jax.tree.structure(state), [values[leaf.name] for leaf in leaves])
