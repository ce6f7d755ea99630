"""Damage and misuse: each is refused in one sentence that names the leaf or the file, and nothing on disk is lost."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

import models
from models.checkpoints import (
    CheckpointError,
    items,
    load,
    manifest,
    read_tree,
    restore,
    save,
    saved_steps,
    store,
)

from .states import STEP, TRAIN, assert_same_bytes, by_name, config, random_state

MODEL = config(num_layers=2)
KERNEL = ("params", "params", "decoder", "layers", "mlp", "wo", "kernel")
MOMENT = ("opt_state", "0", "nu", "params", "decoder", "decoder_norm", "scale")
NAMES = {KERNEL: "params/decoder/layers/mlp/wo/kernel", MOMENT: "opt_state/0/nu/decoder/decoder_norm/scale"}
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One checkpoint of the Linen twin; tests copy it."""
    directory = tmp_path_factory.mktemp("saved")
    backend = models.backend("linen")
    save(directory, random_state(backend, MODEL), backend=backend, config=MODEL, train=TRAIN)
    return directory / str(STEP)


@pytest.fixture
def copied(saved, tmp_path):
    """A copy to damage."""
    return pathlib.Path(shutil.copytree(saved, tmp_path / "run" / str(STEP)))


def _restore(path, *, twin="linen", model=MODEL):
    return restore(path, backend=models.backend(twin), config=model, train=TRAIN)


def _bare(tmp_path, leaves):
    """A checkpoint of these leaves as MaxText leaves it: `<step>/items` and no config.json."""
    items.write(tmp_path / "bare" / "3" / "items", leaves)
    return tmp_path / "bare"


def _message(error):
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.mark.parametrize("twin", ["linen", "nnx"])
@pytest.mark.parametrize("leaf", NAMES)
def test_a_missing_leaf_is_named(leaf, twin, saved, tmp_path):
    path = _bare(tmp_path, {place: array for place, array in read_tree(saved).items() if place != leaf})
    with pytest.raises(CheckpointError) as error:
        _restore(path, twin=twin)
    assert f"{NAMES[leaf]}: is missing" in _message(error)


def test_a_missing_weight_is_named_when_weights_alone_are_loaded(saved, tmp_path):
    path = _bare(tmp_path, {place: array for place, array in read_tree(saved).items() if place != KERNEL})
    with pytest.raises(CheckpointError) as error:
        load(path, config=MODEL)
    assert f"{NAMES[KERNEL]}: is missing" in _message(error)


DELTA = "decoder/layers/layers_1/self_attention"
SCALE = "decoder/layers/layers_5/layer_scale"
BY_ATTENTION = [
    ("qwen3-next-tiny", f"{DELTA}/A_log", None, "is missing"),
    ("qwen3-next-tiny", f"{DELTA}/conv1d/kernel", (2, 4, 1, 64), "has shape"),  # blocks on the first axis
    ("gemma4-tiny", SCALE, (2,), "has shape"),
    ("gemma4-tiny", SCALE, None, "is missing"),
]


@pytest.mark.parametrize(("name", "leaf", "shape", "words"), BY_ATTENTION)
def test_damage_of_what_only_some_layers_have_is_named(name, leaf, shape, words, tmp_path):
    model, backend = config(name), models.backend("nnx")
    state = random_state(backend, model)
    leaves = read_tree(save(tmp_path / "whole", state, backend=backend, config=model, train=TRAIN))
    place = ("params", "params", *leaf.split("/"))
    array = leaves.pop(place)
    if shape is not None:
        leaves[place] = array.reshape(shape)
    with pytest.raises(CheckpointError) as error:
        _restore(_bare(tmp_path, leaves), twin="nnx", model=model)
    assert f"params/{leaf}: {words}" in _message(error)


def test_an_extra_leaf_is_named(saved, tmp_path):
    extra = (*KERNEL[:-1], "bias")
    path = _bare(tmp_path, {**read_tree(saved), extra: np.zeros(3, np.float32)})
    with pytest.raises(CheckpointError) as error:
        _restore(path)
    assert "params/decoder/layers/mlp/wo/bias: is in" in _message(error)


@pytest.mark.parametrize("leaf", NAMES)
def test_a_wrong_shape_is_named_and_never_repeated_or_padded(leaf, saved, tmp_path):
    tree = read_tree(saved)
    path = _bare(tmp_path, {**tree, leaf: tree[leaf][: tree[leaf].shape[0] // 2]})
    with pytest.raises(CheckpointError) as error:
        _restore(path)
    assert f"{NAMES[leaf]}: has shape" in _message(error)


@pytest.mark.parametrize("leaf", NAMES)
def test_a_wrong_dtype_is_named_and_never_cast(leaf, saved, tmp_path):
    tree = read_tree(saved)
    path = _bare(tmp_path, {**tree, leaf: tree[leaf].astype(jax.numpy.bfloat16)})
    with pytest.raises(CheckpointError) as error:
        _restore(path)
    assert f"{NAMES[leaf]}: has dtype bfloat16" in _message(error)


def test_a_step_of_another_dtype_is_named(saved, tmp_path):
    path = _bare(tmp_path, {**read_tree(saved), ("step",): np.uint32(3)})
    with pytest.raises(CheckpointError) as error:
        _restore(path)
    assert "step: has dtype uint32" in _message(error)


def test_half_of_the_random_state_is_no_default(tmp_path):
    model, backend = MODEL.replace(dropout_rate=0.1), models.backend("nnx")
    save(tmp_path / "whole", random_state(backend, model), backend=backend, config=model, train=TRAIN)
    tree = read_tree(tmp_path / "whole")
    gone = next(place for place in tree if place[0] == "nnx_aux" and place[-1] == "count")
    path = _bare(tmp_path, {place: array for place, array in tree.items() if place != gone})
    with pytest.raises(CheckpointError) as error:
        _restore(path, twin="nnx", model=model)
    assert f"aux/{'/'.join(gone[2:])}: is missing" in _message(error)


def test_a_key_of_another_generator_is_refused(tmp_path):
    model, backend = MODEL.replace(dropout_rate=0.1), models.backend("nnx")
    directory = save(tmp_path, random_state(backend, model), backend=backend, config=model, train=TRAIN)
    body = json.loads((directory / manifest.FILE).read_text())
    text = json.dumps({key: value for key, value in body.items() if key != "digest"}).replace("key<fry>", "key<rbg>")
    body = json.loads(text)
    (directory / manifest.FILE).write_text(json.dumps({**body, "digest": manifest._digest(body)}))
    with pytest.raises(CheckpointError) as error:
        _restore(directory, twin="nnx", model=model)
    assert "was saved as key<rbg> and is key<fry> here" in _message(error)


@pytest.mark.parametrize(
    ("change", "field"), [({"num_layers": 3}, "num_layers"), ({"scan_layers": False}, "scan_layers"),
                          ({"norm": models.config.RmsNorm(epsilon=1e-6)}, "norm.epsilon")],
)
def test_a_checkpoint_of_another_model_is_refused(change, field, saved):
    with pytest.raises(CheckpointError) as error:
        _restore(saved, model=MODEL.replace(**change))
    assert f"a model with {field} = " in _message(error)


def test_what_touches_no_array_may_change(saved):
    model = MODEL.replace(dropout_rate=0.2, dtype=models.config.DType.BFLOAT16, remat=models.config.Remat.FULL)
    assert _restore(saved, model=model) is not None


DAMAGES = {
    "truncated": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
}


@pytest.mark.parametrize("damage", [*DAMAGES, "deleted"])
def test_every_damaged_file_is_named(damage, copied):
    files = [path for path in copied.rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) > 5
    for path in files:
        if damage == "deleted" and path.name == manifest.FILE:
            continue  # then it is a checkpoint without one
        data = path.read_bytes()
        path.write_bytes(DAMAGES.get(damage, lambda data: data)(data))
        if damage == "deleted":
            path.unlink()
        for use in (_restore, load, read_tree):
            with pytest.raises(CheckpointError) as error:
                use(copied)
            assert str(path) in _message(error)
        path.write_bytes(data)
    assert _restore(copied) is not None


def test_without_a_config_file_structure_is_still_checked(copied):
    (copied / manifest.FILE).unlink()
    assert _restore(copied) is not None
    with pytest.raises(CheckpointError) as error:
        load(copied)
    assert "has no config.json" in _message(error)
    assert load(copied, config=MODEL)[0] == MODEL


def test_a_broken_checkpoint_without_a_config_file_is_named(copied):
    (copied / manifest.FILE).unlink()
    index = copied / "items" / "_METADATA"
    index.write_bytes(index.read_bytes()[:100])
    with pytest.raises(CheckpointError) as error:
        _restore(copied)
    assert f"{copied / 'items'}: is not a readable Orbax checkpoint" in _message(error)


def test_a_first_moment_read_as_the_second_is_noticed(saved, monkeypatch):
    expected = by_name(models.backend("linen"), MODEL, _restore(saved))
    swapped = {"mu": "nu", "nu": "mu"}
    honest = store.to_canonical
    monkeypatch.setattr(store, "to_canonical", lambda layout, path, **options: honest(
        layout, tuple(swapped.get(part, part) for part in path), **options
    ))
    found = by_name(models.backend("linen"), MODEL, _restore(saved))
    with pytest.raises(AssertionError, match="opt_state/0/mu"):
        assert_same_bytes(found, expected)


def test_moments_exchanged_on_disk_are_named(copied):
    tree, record = read_tree(copied), manifest.read(copied)
    swapped = {"mu": "nu", "nu": "mu"}
    shutil.rmtree(copied / "items")
    places = {place: tuple(swapped.get(part, part) for part in place) for place in tree}
    items.write(copied / "items", {places[place]: array for place, array in tree.items()})
    manifest.write(copied, manifest.Manifest(
        record.layout, record.backend, record.step, record.model, record.train, record.leaves,
        manifest.file_table(copied),
    ))
    with pytest.raises(CheckpointError) as error:
        _restore(copied)
    assert "opt_state/0/mu/params/" in _message(error)
    assert "has other bytes than were saved" in _message(error)


@pytest.mark.parametrize("where", ["nothing", "empty", "file", "no checkpoint"])
def test_what_is_no_checkpoint_is_named(where, tmp_path):
    path = tmp_path / where
    if where == "empty":
        path.mkdir()
    elif where == "file":
        path.write_text("weights")
    elif where == "no checkpoint":
        (path / "3" / "items").mkdir(parents=True)
        (path / "3" / "items" / "weights.bin").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError) as error:
        _restore(path)
    assert str(path) in _message(error)


def test_an_existing_step_is_refused_and_kept(copied):
    backend, before = models.backend("linen"), read_tree(copied)
    with pytest.raises(CheckpointError) as error:
        save(copied.parent, random_state(backend, MODEL, seed=1), backend=backend, config=MODEL, train=TRAIN)
    assert f"{copied}: exists already" in _message(error)
    assert_same_bytes(read_tree(copied), before)


def test_a_negative_step_is_refused(saved, tmp_path):
    path = _bare(tmp_path, {**read_tree(saved), ("step",): np.int32(-1)})
    with pytest.raises(CheckpointError) as error:
        _restore(path, twin="nnx")
    assert "no step is negative" in _message(error)


@pytest.mark.parametrize("place", ["items.write", "manifest.write", "atomic._flush", "atomic._publish"])
def test_an_error_while_saving_leaves_what_was_there(place, copied, monkeypatch):
    room, name = place.split(".")
    module, before, listed = getattr(store, room), read_tree(copied), sorted(copied.parent.iterdir())
    honest = getattr(module, name)

    def fail(*arguments):
        if name != "_publish":
            honest(*arguments)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, name, fail)
    backend = models.backend("linen")
    state = random_state(backend, MODEL).replace(step=jax.numpy.int32(STEP + 1))
    with pytest.raises(CheckpointError) as error:
        save(copied.parent, state, backend=backend, config=MODEL, train=TRAIN)
    assert "No space left on device" in _message(error)
    assert sorted(set(copied.parent.iterdir()) - {copied.parent / ".lock"}) == listed
    assert_same_bytes(read_tree(copied.parent), before)


KILLED = """
import os, pathlib, signal, sys
from models.checkpoints import atomic
target, moment = pathlib.Path(sys.argv[1]), sys.argv[2]
def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
if moment != "writing":
    setattr(atomic, moment, die)
with atomic.new_directory(target, "8") as writing:
    (writing / "items").mkdir()
    (writing / "items" / "half").write_bytes(b"half")
    if moment == "writing":
        die()
"""


@pytest.mark.parametrize("moment", ["writing", "_publish"])
def test_a_killed_writer_leaves_what_was_there_and_the_next_one_cleans_up(moment, copied):
    before = read_tree(copied)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(copied.parent), moment], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert saved_steps(copied.parent) == [STEP]
    assert_same_bytes(read_tree(copied.parent), before)
    assert [path for path in copied.parent.iterdir() if path.name.startswith(".writing-")]
    backend = models.backend("linen")
    state = random_state(backend, MODEL).replace(step=jax.numpy.int32(8))
    save(copied.parent, state, backend=backend, config=MODEL, train=TRAIN)
    assert saved_steps(copied.parent) == [STEP, 8]
    assert not [path for path in copied.parent.iterdir() if path.name.startswith(".writing-")]


def test_of_two_writers_one_gets_an_error(copied):
    backend = models.backend("linen")
    state = random_state(backend, MODEL).replace(step=jax.numpy.int32(8))
    with store.atomic.new_directory(copied.parent, "9") as first:
        (first / "items").mkdir()
        with pytest.raises(CheckpointError) as error:
            save(copied.parent, state, backend=backend, config=MODEL, train=TRAIN)
    assert "is being written by another process" in _message(error)
    assert saved_steps(copied.parent) == [STEP, 9]
