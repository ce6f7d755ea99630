"""Scanned and unscanned layers hold the same weights: every stack is split and put together again, byte for byte."""

import dataclasses

import jax
import numpy as np
import pytest

import models
from models.checkpoints import CheckpointError, Layout, items, read_tree, rescan, restore, save, to_canonical
from models.checkpoints.layouts import from_canonical
from models.training.batch import Batch

from .states import TRAIN, assert_same_bytes, by_name, config, random_state

TINY = tuple(name for name in models.presets() if name.endswith("-tiny"))


def _params(model, seed=0):
    rng = np.random.default_rng(seed)
    specs = models.backend("nnx").param_specs(model)
    return {name: rng.standard_normal(spec.shape).astype(np.float32) for name, spec in specs.items()}


@pytest.mark.parametrize("name", TINY)
def test_there_and_back_is_the_same_bytes(name):
    model = config(name)
    params = _params(model)
    flat, apart = rescan(model, params, scan_layers=False)
    assert flat == model.replace(scan_layers=False)
    assert {leaf: array.shape for leaf, array in apart.items()} == {
        leaf: spec.shape for leaf, spec in models.backend("nnx").param_specs(flat).items()
    }
    same, together = rescan(flat, apart, scan_layers=True)
    assert same == model
    assert_same_bytes(together, params)


def test_every_block_gets_its_own_slice_and_the_remainder_stays():
    model = config("gemma3-tiny")
    params = _params(model)
    _, apart = rescan(model, params, scan_layers=False)
    for index in range(model.num_blocks):
        expected = params["decoder/layers/layers_4/self_attention/out/kernel"][:, index]
        np.testing.assert_array_equal(apart[f"decoder/layers_{index}/layers_4/self_attention/out/kernel"], expected)
    kept = [name for name in params if "layers_remainder" in name]
    assert kept
    assert all(apart[name] is params[name] for name in kept)


def test_two_stacks_are_split_each_by_its_own_length():
    model = config("deepseek3-tiny")
    params = _params(model)
    _, apart = rescan(model, params, scan_layers=False)
    part = "self_attention/wkv_b/kernel"
    for stack, length in (("dense_layers", 3), ("moe_layers", 2)):
        assert {f"decoder/{stack}_{index}/{part}" for index in range(4)} & apart.keys() == {
            f"decoder/{stack}_{index}/{part}" for index in range(length)
        }
        for index in range(length):
            expected = params[f"decoder/{stack}/{part}"][:, index]
            np.testing.assert_array_equal(apart[f"decoder/{stack}_{index}/{part}"], expected)


@pytest.mark.parametrize(
    ("name", "leaf", "shape"),
    [
        ("gemma4-tiny", "layers_5/layer_scale", (1,)),
        ("gemma4-tiny", "layers_2/moe/gate/expert_scale", (5,)),
        ("qwen3-next-tiny", "layers_1/self_attention/A_log", (4,)),
        ("qwen3-next-tiny", "layers_2/self_attention/conv1d/kernel", (4, 1, 64)),
    ],
)
def test_vectors_and_what_lies_in_no_module_are_split_by_blocks(name, leaf, shape):
    model = config(name)
    params = _params(model)
    _, apart = rescan(model, params, scan_layers=False)
    for index in range(model.num_blocks):
        found = apart[f"decoder/layers_{index}/{leaf}"]
        assert found.shape == shape
        np.testing.assert_array_equal(found, params[f"decoder/layers/{leaf}"][:, index])


def test_another_number_of_dense_layers_is_named():
    model = config("deepseek3-tiny")
    other = dataclasses.replace(model, num_layers=4, num_prefix_layers=2)
    with pytest.raises(CheckpointError, match=r"decoder/dense_layers/.* not 2 blocks on axis 1"):
        rescan(other, _params(model), scan_layers=False)


def test_asking_for_what_it_is_changes_nothing():
    model = config("gemma3-tiny")
    params = _params(model)
    for scan in (True, False):
        held, leaves = rescan(model, params, scan_layers=scan)
        assert rescan(held, leaves, scan_layers=scan) == (held, leaves)


@pytest.mark.parametrize("name", ["gemma2-tiny", "gemma3-tiny"])
def test_the_unscanned_model_computes_the_same(name):
    model = config(name, num_layers=len(models.preset(name).cycle[:2]) * 2 + 1, cycle=models.preset(name).cycle[:2])
    params = {leaf: jax.numpy.asarray(0.3 * array) for leaf, array in _params(model).items()}
    rows = jax.random.randint(jax.random.key(1), (2, 9), 0, model.vocab_size)
    ones = jax.numpy.ones_like(rows)
    batch = Batch(rows, rows, jax.numpy.cumsum(ones, axis=1) - 1, ones, ones)
    backend, (flat, apart) = models.backend("nnx"), rescan(model, params, scan_layers=False)
    scanned, unscanned = jax.jit(backend.forward(model))(params, batch), jax.jit(backend.forward(flat))(apart, batch)
    # the same operations on the same numbers; a loop's body is compiled apart and may round apart
    assert np.max(np.abs(scanned - unscanned)) <= 64 * 2.0**-24 * np.max(np.abs(scanned))


def _rewritten(source, target, model, backend, *, layout):
    """A train state of the scanned model as a checkpoint of the unscanned one, leaf by leaf through canonical names."""
    parameters = frozenset(backend.param_specs(model))
    leaves = {to_canonical(layout, path, parameters=parameters): array for path, array in read_tree(source).items()}
    flat, apart = rescan(model, leaves, scan_layers=False)
    parameters = frozenset(backend.param_specs(flat))
    paths = {from_canonical(layout, name, parameters=parameters): array for name, array in apart.items()}
    items.write(target / "0" / "items", paths)
    return flat


RUNS = [
    *(("nnx", "gemma3-tiny", layout) for layout in Layout),
    *(("nnx", "deepseek3-tiny", layout) for layout in (Layout.FINAL, Layout.NNX_INTEGER)),
    ("nnx", "qwen3-next-tiny", Layout.NNX_INTEGER), ("linen", "gemma4-tiny", Layout.FINAL),
    ("linen", "deepseek3-tiny", Layout.LINEN),
    ("linen", "gemma3-tiny", Layout.LINEN), ("linen", "olmo3-tiny", Layout.FINAL),
]


@pytest.mark.parametrize(("twin", "name", "layout"), RUNS)
def test_a_scanned_run_goes_on_unscanned_in_every_layout(twin, name, layout, tmp_path):
    model, backend = config(name), models.backend(twin)
    state = random_state(backend, model)
    source = save(tmp_path / "a", state, backend=backend, config=model, train=TRAIN, layout=layout)
    flat = _rewritten(source, tmp_path / "b", model, backend, layout=layout)
    found = by_name(backend, flat, restore(tmp_path / "b", backend=backend, config=flat, train=TRAIN))
    _, expected = rescan(model, by_name(backend, model, state), scan_layers=False)
    assert_same_bytes(found, expected)
    for stack in flat.stacks:
        assert any(name.startswith(f"opt_state/0/nu/decoder/{stack.names[-1]}/") for name in found)


def _with(params, name, value):
    return params | {name: value}


def test_a_missing_block_is_named():
    model = config("gemma2-tiny", scan_layers=False)
    params = _params(model)
    del params["decoder/layers_1/mlp_local/wo/kernel"]
    with pytest.raises(CheckpointError, match="decoder/layers_1/mlp_local/wo/kernel: is missing"):
        rescan(model, params, scan_layers=True)


def test_a_block_of_another_shape_is_named():
    model = config("gemma2-tiny", scan_layers=False)
    params = _with(_params(model), "decoder/layers_1/mlp_local/wo/kernel", np.zeros((2, 3), np.float32))
    with pytest.raises(CheckpointError, match=r"decoder/layers_1/mlp_local/wo/kernel: has shape \[2, 3\]"):
        rescan(model, params, scan_layers=True)


def test_another_number_of_blocks_is_named():
    model = config("llama-tiny")
    with pytest.raises(CheckpointError, match=r"has shape \[32, 3, 48\], not 2 blocks on axis 1"):
        rescan(dataclasses.replace(model, num_layers=2), _params(model), scan_layers=False)


@pytest.mark.parametrize("scan", [True, False], ids=["scanned", "unscanned"])
def test_leaves_of_the_other_form_are_refused(scan):
    model = config("llama-tiny", scan_layers=scan)
    foreign = _params(model.replace(scan_layers=not scan))
    with pytest.raises(CheckpointError, match="is no leaf of the config"):
        rescan(model, foreign, scan_layers=not scan)
