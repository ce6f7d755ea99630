"""How the twins shard: logical axes as each declares them, specs on several meshes, and what the compiler chose.

Compared before and after a step, because a step may return a state whose metadata or placement has moved.
"""

import typing

import jax
from jax.sharding import NamedSharding, PartitionSpec

import models
from models.sharding import DEFAULT_RULES, resolve

from ...program import key_strings
from . import names, programs
from .setup import MESHES, Setup, device_mesh

Axes = dict[str, tuple[str | None, ...]]


def _named(backend_name: str, tree: typing.Any, *, is_leaf: typing.Any = None) -> dict[str, typing.Any]:
    """Leaves of a train-state-shaped tree by canonical name, without the one-sided ones."""
    layout = programs.LAYOUTS[backend_name]
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    named = [(names.state_name(layout, key_strings(path)), leaf) for path, leaf in flat]
    return {getattr(name, "name", name): leaf for name, leaf in named if not isinstance(name, names.OneSided)}


def _is_axes(node: typing.Any) -> bool:
    return type(node) is tuple and all(word is None or isinstance(word, str) for word in node)


def axes(backend_name: str, setup: Setup) -> Axes:
    """The logical axes of every state leaf, as this twin's own metadata says."""
    backend = models.backend(backend_name)
    return _named(backend_name, backend.state_axes(setup.model, setup.train), is_leaf=_is_axes)


def specs(axes_by_leaf: Axes, mesh: str) -> dict[str, PartitionSpec]:
    """Each leaf's spec on a named mesh."""
    return {leaf: resolve(names, DEFAULT_RULES, MESHES[mesh]) for leaf, names in axes_by_leaf.items()}


def shapes(backend_name: str, setup: Setup) -> dict[str, tuple[int, ...]]:
    """Each state leaf's shape."""
    state = models.backend(backend_name).abstract_state(setup.model, setup.train)
    return {name: tuple(leaf.shape) for name, leaf in _named(backend_name, state).items()}


def resolved(backend_name: str, setup: Setup, mesh: str) -> tuple[dict[str, PartitionSpec], dict[str, tuple[int, ...]]]:
    """Specs and shapes of a twin's state on a mesh."""
    return specs(axes(backend_name, setup), mesh), shapes(backend_name, setup)


def device_shardings(backend_name: str, setup: Setup, mesh: str) -> typing.Any:
    """The train state's tree of shardings over real or simulated devices; one-sided leaves are replicated."""
    backend, devices = models.backend(backend_name), device_mesh(mesh)
    tree = backend.state_axes(setup.model, setup.train)
    return jax.tree.map(
        lambda words: NamedSharding(devices, resolve(words, DEFAULT_RULES, MESHES[mesh])),
        tree,
        is_leaf=_is_axes,
    )
