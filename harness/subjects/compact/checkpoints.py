"""Checkpoints of the twins' train states: saved by each, read back byte by byte, loaded by the other, and stepped on.

Both states hold the same values by canonical name, so a layout's tree on disk must be the same whoever wrote it.
"""

import dataclasses
import pathlib
import typing
from collections.abc import Iterator

import jax
import numpy as np

import models
from models import checkpoints
from models.checkpoints.layouts import Layout

from ...measure import compiled
from ...observe import Observation
from ...observe.census import Variable, compare_census
from ...observe.checkpoints import Stored, compare_trees, stored
from ...program import Program
from ..case import Case
from . import names

LAYOUTS = (Layout.LINEN, Layout.FINAL, Layout.NNX_NATIVE)
KINDS = {"params": "parameter", "opt_state": "optimizer", "step": "counter", "aux": "rng"}


@dataclasses.dataclass(frozen=True)
class Saved:
    """One twin's state in memory and the directory it was saved to."""

    backend: str
    state: typing.Any
    path: pathlib.Path


def draw_state(program: Program) -> tuple[typing.Any, ...]:
    """A train step's concrete arguments, the same by canonical name for both twins."""
    return program.draw(jax.random.key(0))


def save(directory: pathlib.Path, program: Program, case: Case, layout: Layout) -> Saved:
    """Saves the state that a train step would start from."""
    state = draw_state(program)[0]
    return Saved(program.name, state, save_state(directory, program, case, state, layout))


def save_state(
    directory: pathlib.Path, program: Program, case: Case, state: typing.Any, layout: Layout
) -> pathlib.Path:
    """Saves a state of the program's twin below `directory` and returns the step's own directory."""
    where = directory / f"{program.name}-{layout.value}"
    model, train = case.config.model, case.config.train
    backend = models.backend(program.name)
    return checkpoints.save(where, state, backend=backend, config=model, train=train, layout=layout)


def tree(path: pathlib.Path) -> dict[str, Stored]:
    """Every stored array: shape, dtype and digest of its bytes."""
    return {"/".join(place): stored(array) for place, array in checkpoints.read_tree(path).items()}


def one_sided(*trees: dict[str, Stored]) -> dict[str, str]:
    """What only an NNX state stores: its random streams, under `nnx_aux` or among the model's own leaves."""
    both = set.symmetric_difference(*(set(one) for one in trees))
    marks = ("nnx_aux/", "/rngs/", "rngs/")
    return {path: names.AUX for path in both if any(mark in path for mark in marks)}


def compare_saved(a: Saved, b: Saved) -> Observation:
    """Both twins' trees on disk, byte by byte."""
    first, second = tree(a.path), tree(b.path)
    declared = one_sided(first, second)
    return compare_trees(first, second, one_sided=declared, names=(a.backend, b.backend))


def restored(case: Case, saved: Saved, backend_name: str) -> typing.Any:
    """A saved state as the named twin loads it."""
    model, train = case.config.model, case.config.train
    return checkpoints.restore(saved.path, backend=models.backend(backend_name), config=model, train=train)


def held(program: Program, state: typing.Any) -> dict[str, Stored]:
    """A train state's values by canonical name; random streams are one-sided and left out."""
    leaves = program.inputs[: len(jax.tree.leaves(state))]
    pairs = zip(leaves, jax.tree.leaves(state), strict=True)
    return {leaf.name: stored(np.asarray(value)) for leaf, value in pairs if leaf.one_sided is None}


def stepped(program: Program, state: typing.Any) -> dict[str, Stored]:
    """State and metrics after one step from exactly this state, on the batch that the program draws."""
    outputs = compiled(program)(jax.tree.leaves((state, *draw_state(program)[1:])))
    pairs = zip(program.outputs, outputs, strict=True)
    return {leaf.name: stored(value) for leaf, value in pairs if leaf.one_sided is None}


def compare_crossed(reader: Program, crossed: typing.Any) -> Iterator[Observation]:
    """Holds a state loaded from the other twin against the reader's own of the same values, then a step of each."""
    own, names_ = draw_state(reader)[0], ("its own state", "the loaded one")
    yield compare_trees(held(reader, own), held(reader, crossed), names=names_)
    yield compare_trees(stepped(reader, own), stepped(reader, crossed), names=names_)


def census(program: Program, leaves: typing.Any) -> list[Variable]:
    """The variables behind a program's state leaves, one-sided ones included."""
    found = []
    for leaf in leaves:
        group = leaf.name.split("/")[0] if leaf.one_sided is None else "aux"
        if group in KINDS:
            size = int(np.prod(leaf.shape)) * jax.numpy.dtype(leaf.dtype).itemsize if group != "aux" else 0
            dtype = str(leaf.compared_dtype)
            found.append(Variable(leaf.name, KINDS[group], leaf.shape, dtype, size))
    return found


def compare_variables(a: Program, b: Program, *, when: str) -> Observation:
    """Both twins' variables before (`at init`) or after a step."""
    leaves = [program.inputs if when == "at init" else program.outputs for program in (a, b)]
    tables = [census(program, side) for program, side in zip((a, b), leaves, strict=True)]
    listed = [{variable.name for variable in table if variable.kind == "rng"} for table in tables]
    declared = dict.fromkeys(sorted(set.union(*listed)), names.AUX)
    return compare_census(*tables, one_sided=declared, names=(a.name, b.name), when=when)
