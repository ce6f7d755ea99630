"""Saving and restoring train states: `<directory>/<step>/{items/, config.json}`, whole or not at all.

A step is written into a hidden sibling directory, flushed to disk, and renamed. Nothing is ever cast, repeated,
padded or filled in silently; the one default is random state that a Linen run never had (`Restored.defaulted`).
"""

import dataclasses
import json
import pathlib
import typing
from collections.abc import Callable, Mapping

import jax
import numpy as np

from ..config import ModelConfig, TrainConfig
from . import atomic, items, manifest
from .errors import RESTORE_FILES, CheckpointError
from .layouts import RNG_LEAVES, Layout, Path, detect, from_canonical, to_canonical
from .native import NativeLeaf, from_stored, native_leaves, rebuild, stored_form, to_stored

if typing.TYPE_CHECKING:
    from ..protocol import Backend, Params, State

ITEMS = "items"
AUX = "aux"
PARAMS = "params"


@dataclasses.dataclass(frozen=True)
class Restored:
    """A restored train state. `defaulted` names the auxiliary leaves that kept their fresh value."""

    state: typing.Any
    step: int
    layout: Layout
    defaulted: tuple[str, ...]


def save(
    path: str | pathlib.Path,
    state: "State",
    *,
    backend: "Backend",
    config: ModelConfig,
    train: TrainConfig | None = None,
    layout: Layout = Layout.FINAL,
    extras: Mapping[str, object] | None = None,
) -> pathlib.Path:
    """Saves a train state as step `<path>/<step>` and returns that directory.

    `extras` is plain JSON that belongs to the step, such as where the data stands.

    Layout LINEN has no room for random state, so an NNX run saved in it resumes with fresh streams.

    Raises:
        CheckpointError: if the step exists, another writer is at work, or a leaf has no place in the layout.
    """
    parameters = frozenset(backend.params_of(state))
    leaves = [leaf for leaf in native_leaves(state, parameters) if not _dropped(layout, leaf)]
    places = {leaf.name: from_canonical(layout, leaf.name, parameters=parameters) for leaf in leaves}
    arrays = {places[leaf.name]: to_stored(layout, leaf) for leaf in leaves}
    prng = {places[leaf.name]: leaf.prng for leaf in leaves}
    step = int(arrays[places["step"]])
    with atomic.new_directory(pathlib.Path(path), str(step)) as writing:
        items.write(writing / ITEMS, arrays)
        records = {"/".join(place): _record(np.asarray(array), prng[place]) for place, array in arrays.items()}
        files = manifest.file_table(writing)
        record = manifest.Manifest(layout, backend.name, step, config, train, records, files, extras or {})
        manifest.write(writing, record)
    return pathlib.Path(path) / str(step)


def restore(path: str | pathlib.Path, *, backend: "Backend", config: ModelConfig, train: TrainConfig) -> "State":
    """The twin's own train state from any layout that either twin wrote. See `restore_report`."""
    return restore_report(path, backend=backend, config=config, train=train).state


def restore_report(
    path: str | pathlib.Path, *, backend: "Backend", config: ModelConfig, train: TrainConfig
) -> Restored:
    """A train state, and what was not on disk. `path`: a step directory, or a run's, which means its last step.

    Raises:
        CheckpointError: for a missing, extra, damaged leaf, a wrong shape or dtype, another model, or no checkpoint.
    """
    stored = open_step(path)
    if stored.manifest is not None:
        manifest.verify_model(stored.directory / manifest.FILE, stored.manifest.model, config)
    abstract = backend.abstract_state(config, train)
    parameters = frozenset(backend.param_specs(config))
    leaves = native_leaves(abstract, parameters)
    names = stored.names(parameters)
    defaulted = _absent_aux(leaves, names)
    wanted = [leaf for leaf in leaves if leaf.name not in defaulted]
    has_aux = any(leaf.name.startswith(f"{AUX}/") for leaf in leaves)
    _check(stored, names, {leaf.name: stored_form(stored.layout, leaf) for leaf in wanted}, ignore_aux=not has_aux)
    _check_prng(stored, names, wanted)
    arrays = stored.read([names[leaf.name] for leaf in wanted])
    values = {leaf.name: from_stored(leaf, arrays[names[leaf.name]]) for leaf in wanted}
    if defaulted:
        params = {name: values[f"{PARAMS}/{name}"] for name in parameters}
        fresh = native_leaves(backend.create_state(config, train, params), parameters)
        values |= {leaf.name: leaf.value for leaf in fresh if leaf.name in defaulted}
    return Restored(rebuild(abstract, leaves, values), int(values["step"]), stored.layout, tuple(sorted(defaulted)))


def load(
    path: str | pathlib.Path,
    *,
    config: ModelConfig | None = None,
    backend: "Backend | None" = None,
    rename: Callable[[str], str] = lambda name: name,
) -> "tuple[ModelConfig, Params]":
    """The configuration and the parameters of a checkpoint of any layout.

    `config` is needed for a checkpoint without `config.json` (one that MaxText wrote); the parameters must be exactly
    the ones that it describes. `backend` says what those are; the twins agree on it, and NNX is asked by default.
    `rename` turns our name of a parameter into the one that it has in the checkpoint.

    Raises:
        CheckpointError: as `restore_report`.
    """
    from .. import backend as backend_named

    stored = open_step(path)
    recorded = None if stored.manifest is None else stored.manifest.model
    asked = config or recorded
    if asked is None:
        raise CheckpointError(stored.directory, "has no config.json", "pass the config of the model that wrote it")
    if recorded is not None:
        manifest.verify_model(stored.directory / manifest.FILE, recorded, asked)
    specs = (backend or backend_named("nnx")).param_specs(asked)
    there = {name: rename(name) for name in specs}
    stored_names = stored.names(frozenset(there.values()))
    names = {name: place for name, place in stored_names.items() if name.startswith(f"{PARAMS}/")}
    forms = {name: items.StoredLeaf(tuple(spec.shape), str(np.dtype(spec.dtype))) for name, spec in specs.items()}
    expected = {f"{PARAMS}/{there[name]}": form for name, form in forms.items()}
    _check(stored, names, expected, ignore_aux=True)
    arrays = stored.read(list(names.values()))
    return asked, {name: jax.numpy.asarray(arrays[names[f"{PARAMS}/{there[name]}"]]) for name in specs}


def read_tree(path: str | pathlib.Path) -> dict[Path, np.ndarray]:
    """Every leaf of a checkpoint by stored path, byte for byte, checked against `config.json` where there is one."""
    stored = open_step(path)
    return stored.read(list(stored.leaves))


def read_manifest(path: str | pathlib.Path) -> manifest.Manifest | None:
    """What a checkpoint says of itself, or None if it has no `config.json`. The arrays are not looked at."""
    return manifest.read(atomic.find_step(pathlib.Path(path), ITEMS))


def saved_steps(path: str | pathlib.Path) -> list[int]:
    """The steps in a run's directory, ascending; none if there is no such directory."""
    return atomic.steps(pathlib.Path(path), ITEMS) if pathlib.Path(path).is_dir() else []


@dataclasses.dataclass(frozen=True)
class StoredStep:
    """One step on disk whose files are intact. `leaves`: shape and dtype by stored path."""

    directory: pathlib.Path
    items: pathlib.Path
    manifest: manifest.Manifest | None
    layout: Layout
    leaves: Mapping[Path, items.StoredLeaf]

    def names(self, parameters: frozenset[str]) -> dict[str, Path]:
        """The stored path of each canonical name."""
        return {to_canonical(self.layout, place, parameters=parameters): place for place in self.leaves}

    def read(self, places: list[Path]) -> dict[Path, np.ndarray]:
        """The arrays at these paths, each compared with its recorded hash."""
        arrays = items.read(self.items, None if len(places) == len(self.leaves) else places)
        for place, array in arrays.items():
            name = "/".join(place)
            if self.manifest is not None and manifest.digest(array) != self.manifest.leaves[name].sha256:
                raise CheckpointError(name, f"has other bytes than were saved in {self.items}", "choose another step")
        return arrays


def open_step(path: str | pathlib.Path) -> StoredStep:
    """Finds a step, verifies its files and its list of leaves, and tells its layout.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    directory = atomic.find_step(pathlib.Path(path), ITEMS)
    where = directory / ITEMS if (directory / ITEMS).is_dir() else directory
    found = manifest.read(directory)
    if found is not None:
        manifest.verify_files(directory, found)
    leaves = items.describe(where)
    layout = detect(leaves) if found is None else found.layout
    if found is not None:
        _compare_with_record(where, leaves, found)
    return StoredStep(directory, where, found, layout, leaves)


def _compare_with_record(
    where: pathlib.Path, leaves: Mapping[Path, items.StoredLeaf], found: manifest.Manifest
) -> None:
    stored = {"/".join(place): leaf for place, leaf in leaves.items()}
    for name in sorted(stored.keys() ^ found.leaves.keys()):
        rule = "was saved and is not there" if name in found.leaves else "is there and was never saved"
        raise CheckpointError(name, f"{rule} in {where}", RESTORE_FILES)
    for name, record in found.leaves.items():
        if (record.shape, record.dtype) != (stored[name].shape, stored[name].dtype):
            raise CheckpointError(
                name, f"is {_form(stored[name])} in {where} and was saved as {record.dtype}{list(record.shape)}",
                RESTORE_FILES,
            )


def _dropped(layout: Layout, leaf: NativeLeaf) -> bool:
    """Random state has no place in the Linen layout; any other auxiliary leaf is refused there, not dropped."""
    return layout is Layout.LINEN and leaf.name.startswith(f"{AUX}/") and leaf.name.rsplit("/", 1)[-1] in RNG_LEAVES


def _record(array: np.ndarray, prng: str | None) -> manifest.LeafRecord:
    return manifest.LeafRecord(array.shape, str(array.dtype), manifest.digest(array), prng)


def _absent_aux(leaves: list[NativeLeaf], names: Mapping[str, Path]) -> frozenset[str]:
    """Every auxiliary leaf of the state, if the checkpoint has none at all (a Linen run wrote it), else nothing."""
    if any(name.startswith(f"{AUX}/") for name in names):
        return frozenset()
    return frozenset(leaf.name for leaf in leaves if leaf.name.startswith(f"{AUX}/"))


def _check(
    stored: StoredStep, names: Mapping[str, Path], expected: Mapping[str, items.StoredLeaf], *, ignore_aux: bool
) -> None:
    """Every expected leaf is there in its shape and dtype, and no other leaf is."""
    fix = "restore it under the config and optimizer it was saved with"
    for name in sorted(expected):
        if name not in names:
            raise CheckpointError(name, f"is missing in {stored.items}", fix)
        found, want = stored.leaves[names[name]], expected[name]
        if found.shape != want.shape:
            raise CheckpointError(name, f"has shape {list(found.shape)} in {stored.items}, not {list(want.shape)}", fix)
        if found.dtype != want.dtype:
            raise CheckpointError(name, f"has dtype {found.dtype} in {stored.items}, not {want.dtype}", fix)
    for name in sorted(names.keys() - expected.keys()):
        if not (ignore_aux and name.startswith(f"{AUX}/")):
            raise CheckpointError(name, f"is in {stored.items} and not in the train state asked for", fix)


def _check_prng(stored: StoredStep, names: Mapping[str, Path], leaves: list[NativeLeaf]) -> None:
    if stored.manifest is None:
        return
    for leaf in leaves:
        recorded = stored.manifest.leaves["/".join(names[leaf.name])].prng
        if recorded != leaf.prng:
            raise CheckpointError(
                leaf.name, f"was saved as {recorded or 'plain numbers'} and is {leaf.prng or 'plain numbers'} here",
                "set jax_default_prng_impl to the generator of the run",
            )


def _form(leaf: items.StoredLeaf) -> str:
    return f"{leaf.dtype}{json.dumps(list(leaf.shape))}"
