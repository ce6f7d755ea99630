"""How the twins shard: logical axes as each declares them, specs on several meshes, and what the compiler chose.

Compared before and after a step, because a step may return a state whose metadata or placement has moved.
"""

import typing

import jax
from jax.sharding import PartitionSpec

import models
from models.nnx import state as nnx_state
from models.sharding import DEFAULT_RULES, is_axes, resolve

from ...observe import Observation
from ...observe import shardings as observe
from ...program import Converted, OneSided, Program, key_strings
from ..case import Case
from . import inputs, names, programs
from .setup import MESHES, Setup, abstract_mesh, device_mesh

Axes = dict[str, tuple[str | None, ...]]


def _named(backend_name: str, tree: typing.Any, *, is_leaf: typing.Any = None) -> dict[str, typing.Any]:
    """Leaves of a train-state-shaped tree by canonical name, without the one-sided ones."""
    layout = programs.LAYOUTS[backend_name]
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    named = [(names.state_name(layout, key_strings(path)), leaf) for path, leaf in flat]
    return {_text(name): leaf for name, leaf in named if not isinstance(name, OneSided)}


def _text(name: str | Converted) -> str:
    return name.name if isinstance(name, Converted) else name


def axes(backend_name: str, setup: Setup) -> Axes:
    """The logical axes of every state leaf, as this twin's own metadata says."""
    backend = models.backend(backend_name)
    return _named(backend_name, backend.state_axes(setup.model, setup.train), is_leaf=is_axes)


def specs(axes_by_leaf: Axes, mesh: str) -> dict[str, PartitionSpec]:
    """Each leaf's spec on a named mesh."""
    return {leaf: resolve(words, DEFAULT_RULES, MESHES[mesh]) for leaf, words in axes_by_leaf.items()}


def shapes(backend_name: str, setup: Setup) -> dict[str, tuple[int, ...]]:
    """Each state leaf's shape."""
    state = models.backend(backend_name).abstract_state(setup.model, setup.train)
    return {name: tuple(leaf.shape) for name, leaf in _named(backend_name, state).items()}


def resolved(backend_name: str, setup: Setup, mesh: str) -> tuple[dict[str, PartitionSpec], dict[str, tuple[int, ...]]]:
    """Specs and shapes of a twin's state on a mesh."""
    return specs(axes(backend_name, setup), mesh), shapes(backend_name, setup)


def after_a_step(setup: Setup) -> Axes:
    """The axes that NNX's own variables carry once a step has returned them. Linen's plain arrays carry none."""
    backend = models.backend("nnx")
    batch = inputs.abstract_batch(inputs.extent_of(setup.model))
    state, _ = jax.eval_shape(
        backend.train_step(setup.model, setup.train), backend.abstract_state(setup.model, setup.train), batch
    )
    return _named("nnx", nnx_state.state_axes(state), is_leaf=is_axes)


def compare_axes(case: Case, names: tuple[str, str]) -> Observation:
    """The twins' logical axes, leaf by leaf."""
    return observe.compare_axes(*(axes(name, case.config) for name in names), names=names)


def compare_specs(case: Case, mesh: str, names: tuple[str, str]) -> Observation:
    """The twins' specs on a mesh, leaf by leaf."""
    ours, theirs = (specs(axes(name, case.config), mesh) for name in names)
    return observe.compare_specs(ours, theirs, MESHES[mesh], names=names)


def compiled(program: Program, case: Case, mesh: str) -> dict[str, tuple[typing.Any, ...]]:
    """What the compiler chose for every leaf of a step on simulated devices, given the resolved specs of the state."""
    table, sizes = resolved(program.name, case.config, mesh)
    return observe.compiled_shardings(program, device_mesh(mesh), observe.fitting(table, sizes, MESHES[mesh]))


def lowered(program: Program, case: Case, platform: str) -> str:
    """A case's program for the chips of its mesh: the state placed by the rules, a batch by its rows."""
    mesh = case.mesh or ""
    table, sizes = resolved(program.name, case.config, mesh)
    rows = resolve(("activation_batch", "activation_length"), DEFAULT_RULES, MESHES[mesh])
    for leaf in program.inputs:
        if leaf.name is not None and leaf.name not in table and len(leaf.shape) == 2:
            table[leaf.name], sizes[leaf.name] = rows, leaf.shape
    given = observe.fitting(table, sizes, MESHES[mesh])
    return observe.lowered(program, abstract_mesh(mesh), given, platform)


def kept(chosen: dict[str, tuple[typing.Any, ...]], mesh: str) -> Observation:
    """Holds each state leaf's placement after the step against the one before."""
    before = {name[3:]: spec for name, spec in chosen.items() if name.startswith("in/")}
    after = {name[4:]: spec for name, spec in chosen.items() if name.startswith("out/")}
    both = sorted(set(before) & set(after))
    left, right = ({leaf: table[leaf] for leaf in both} for table in (before, after))
    return observe.compare_specs(left, right, MESHES[mesh], names=("before the step", "after it"))
