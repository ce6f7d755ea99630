"""What is saved comes back byte for byte: in every layout, from and into both twins."""

import jax
import numpy as np
import pytest

import models
from models.checkpoints import (
    CheckpointError,
    Layout,
    load,
    read_manifest,
    read_tree,
    restore,
    restore_report,
    save,
    saved_steps,
    step_of,
)
from models.training.batch import Batch

from .states import STEP, TRAIN, assert_same_bytes, by_name, config, random_state

TWINS = ("linen", "nnx")
PRESETS = ("llama-tiny", "gpt3-tiny", "gemma2-tiny")
NESTED = ("gemma3-tiny", "olmo3-tiny", "gpt-oss-tiny")  # layers with names of their own, and a remainder
PREFIXED = "deepseek3-tiny"  # two stacks, and a parameter that no gradient reaches
VARIED = ("llama4-tiny", "qwen3-next-tiny", "gemma4-tiny")  # a cycle's layers hold other parameters


def other(twin):
    return TWINS[1 - TWINS.index(twin)]


def _saved(path, twin, model, **options):
    backend = models.backend(twin)
    state = random_state(backend, model)
    directory = save(path, state, backend=backend, config=model, train=TRAIN, **options)
    return directory, by_name(backend, model, state)


def _without_aux(leaves):
    return {name: array for name, array in leaves.items() if not name.startswith("aux/")}


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("twin", TWINS)
def test_a_state_comes_back_byte_for_byte(twin, layout, tmp_path):
    model, backend = config(dropout_rate=0.1), models.backend(twin)
    directory, expected = _saved(tmp_path, twin, model, layout=layout)
    report = restore_report(directory, backend=backend, config=model, train=TRAIN)
    found = by_name(backend, model, report.state)
    if layout is Layout.LINEN:  # has no room for random state
        assert set(report.defaulted) == {name for name in expected if name.startswith("aux/")}
        found, expected = _without_aux(found), _without_aux(expected)
    else:
        assert report.defaulted == ()
    assert_same_bytes(found, expected)
    assert report.layout is layout
    assert report.step == step_of(report.state) == STEP


@pytest.mark.parametrize("twin", TWINS)
def test_bfloat16_weights_come_back_byte_for_byte(twin, tmp_path):
    model = config(weight_dtype=models.config.DType.BFLOAT16)
    directory, expected = _saved(tmp_path, twin, model)
    backend = models.backend(twin)
    assert_same_bytes(by_name(backend, model, restore(directory, backend=backend, config=model, train=TRAIN)), expected)


WRITTEN = [(name, scan) for name in PRESETS for scan in (True, False)] + [(name, True) for name in NESTED]
WRITTEN += [(PREFIXED, scan) for scan in (True, False)] + [(name, True) for name in VARIED]


@pytest.mark.parametrize(("name", "scan"), WRITTEN)
@pytest.mark.parametrize("twin", TWINS)
def test_linen_and_nnx_write_the_same_bytes_in_the_final_layout(name, twin, scan, tmp_path):
    model = config(name, scan_layers=scan)
    written = read_tree(_saved(tmp_path / "a", twin, model)[0])
    state = restore(tmp_path / "a", backend=models.backend(other(twin)), config=model, train=TRAIN)
    save(tmp_path / "b", state, backend=models.backend(other(twin)), config=model, train=TRAIN)
    assert_same_bytes(read_tree(tmp_path / "b"), written)


def test_the_linen_layout_is_the_one_that_maxtext_writes(tmp_path):
    model = config()
    tree = read_tree(_saved(tmp_path, "nnx", model, layout=Layout.LINEN)[0])
    assert tree["step",].dtype == np.int32
    assert {path[:4] for path in tree if path[0] == "opt_state"} == {
        ("opt_state", "0", "count"), ("opt_state", "2", "count"),
        *(("opt_state", "0", moment, "params") for moment in ("mu", "nu")),
    }
    assert ("params", "params", "decoder", "layers", "mlp", "wi_0", "kernel") in tree
    assert {path[0] for path in tree} == {"params", "opt_state", "step"}


def test_the_final_layout_adds_only_the_random_state(tmp_path):
    model = config(dropout_rate=0.1)
    linen = read_tree(_saved(tmp_path / "linen", "linen", model)[0])
    nnx = read_tree(_saved(tmp_path / "nnx", "nnx", model)[0])
    assert linen.keys() < nnx.keys()
    assert {path[:2] for path in nnx.keys() - linen.keys()} == {("nnx_aux", "model")}


class _WithTable:
    """A twin whose model keeps a leaf that is neither a parameter nor random state."""

    name = "with a table"

    def params_of(self, state):
        return {"decoder/norm/scale": state["model"]["decoder"]["norm"]["scale"]}


def test_a_leaf_of_any_other_kind_is_kept_and_never_dropped(tmp_path):
    table = jax.numpy.arange(6).reshape(2, 3)
    state = {
        "model": {"decoder": {"norm": {"scale": jax.numpy.ones(3)}, "routing": {"table": table}}},
        "optimizer": {"step": jax.numpy.uint32(STEP)},
    }
    save(tmp_path / "final", state, backend=_WithTable(), config=config())
    kept = read_tree(tmp_path / "final")["nnx_aux", "model", "decoder", "routing", "table"]
    np.testing.assert_array_equal(kept, table)
    with pytest.raises(CheckpointError, match="aux/decoder/routing/table: has no place in layout 'linen'"):
        save(tmp_path / "linen", state, backend=_WithTable(), config=config(), layout=Layout.LINEN)
    assert not saved_steps(tmp_path / "linen")


def test_the_step_is_int32_on_disk_and_uint32_in_nnx(tmp_path):
    model = config()
    directory, _ = _saved(tmp_path, "nnx", model)
    assert read_tree(directory)["step",].dtype == np.int32
    state = restore(directory, backend=models.backend("nnx"), config=model, train=TRAIN)
    assert by_name(models.backend("nnx"), model, state)["step"].dtype == np.uint32


def test_a_linen_run_starts_an_nnx_run_with_fresh_random_state_and_says_so(tmp_path):
    model = config(dropout_rate=0.1)
    directory, expected = _saved(tmp_path, "linen", model)
    report = restore_report(directory, backend=models.backend("nnx"), config=model, train=TRAIN)
    found = by_name(models.backend("nnx"), model, report.state)
    assert set(report.defaulted) == {name for name in found if name.startswith("aux/")}
    fresh = models.backend("nnx").create_state(model, TRAIN, models.backend("nnx").params_of(report.state))
    fresh_leaves = by_name(models.backend("nnx"), model, fresh)
    assert_same_bytes({name: found[name] for name in report.defaulted},
                      {name: fresh_leaves[name] for name in report.defaulted})
    found["step"] = found["step"].astype(np.int32)
    assert_same_bytes(_without_aux(found), expected)


@pytest.mark.parametrize("layout", [Layout.LINEN, Layout.NNX_NATIVE])
def test_load_gives_config_and_parameters_of_any_layout(layout, tmp_path):
    model = config("gemma2-tiny", scan_layers=False)
    directory, expected = _saved(tmp_path, "nnx", model, layout=layout)
    found, params = load(directory)
    assert found == model
    assert_same_bytes(
        {f"params/{name}": np.asarray(array) for name, array in params.items()},
        {name: array for name, array in expected.items() if name.startswith("params/")},
    )


@pytest.mark.parametrize("name", VARIED)
def test_the_description_of_each_layers_own_attention_comes_back(name, tmp_path):
    model = config(name, num_layers=len(models.preset(name).cycle))
    _, expected = _saved(tmp_path, "nnx", model)
    found, params = load(tmp_path)
    assert found == model
    assert {f"params/{name}" for name in params} == {name for name in expected if name.startswith("params/")}


def test_a_layers_own_positions_are_described_as_before_a_layer_could_go_without():
    turning, some = (models.config.to_json(config(name)) for name in ("gemma3-tiny", "llama4-tiny"))
    assert "kind" not in turning["cycle"][0]["rope"]
    assert some["cycle"][3]["rope"]["kind"] == "Unrotated"
    for name, data in (("gemma3-tiny", turning), ("llama4-tiny", some)):
        assert models.config.from_json(models.config.ModelConfig, data) == config(name)


def test_a_run_directory_means_its_last_step_and_nothing_is_overwritten(tmp_path):
    model, backend = config(), models.backend("linen")
    state = random_state(backend, model)
    for step in (9, 10, 2):
        save(tmp_path, state.replace(step=jax.numpy.int32(step)), backend=backend, config=model, train=TRAIN)
    assert saved_steps(tmp_path) == [2, 9, 10]
    assert restore_report(tmp_path, backend=backend, config=model, train=TRAIN).step == 10
    assert read_manifest(tmp_path / "9").step == 9


def _one_step(twin, model, state, batch):
    """A train step, compiled without optimization: what is tested is what the step is given."""
    lowered = jax.jit(models.backend(twin).train_step(model, TRAIN)).lower(state, batch)
    return lowered.compile(compiler_options={"xla_backend_optimization_level": 0})(state, batch)[0]


def _batch(model, *, rows=2, length=8):
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, model.vocab_size, (rows, length + 1), dtype=np.int32)
    segments = np.ones((rows, length), np.int32)
    segments[-1, -3:] = 0
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
    return Batch(tokens[:, :-1], tokens[:, 1:], positions, segments, segments)


@pytest.mark.parametrize("twin", TWINS)
def test_a_model_with_dense_layers_first_comes_back_in_the_twins_own_layout(twin, tmp_path):
    model, backend = config(PREFIXED), models.backend(twin)
    layout = {"linen": Layout.LINEN, "nnx": Layout.NNX_NATIVE}[twin]
    directory, expected = _saved(tmp_path, twin, model, layout=layout)
    assert any("/dense_layers/" in name for name in expected)
    assert "params/decoder/moe_layers/moe/gate/choice_bias" in expected
    assert_same_bytes(by_name(backend, model, restore(directory, backend=backend, config=model, train=TRAIN)), expected)


@pytest.mark.parametrize("scan", [True, False], ids=["scanned", "unscanned"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_step_after_cross_loading_is_the_step_of_the_other_twin(name, scan, tmp_path):
    # one block is enough to compile where blocks differ in nothing
    model = config(name, scan_layers=scan, num_layers=2 if scan else len(models.preset(name).cycle))
    batch, after = _batch(model), {}
    _saved(tmp_path, "linen", model)
    for twin in TWINS:
        backend = models.backend(twin)
        state = _one_step(twin, model, restore(tmp_path, backend=backend, config=model, train=TRAIN), batch)
        after[twin] = _without_aux(by_name(backend, model, state))
    assert after["linen"].keys() == after["nnx"].keys()
    for leaf, expected in after["linen"].items():
        # the programs are proved equal elsewhere; compiled apart, they may round apart by some units in the last place
        scale = max(float(np.max(np.abs(expected))), 1e-30)
        assert np.max(np.abs(after["nnx"][leaf].astype(np.float64) - expected)) <= 64 * 2.0**-24 * scale, leaf
    assert after["linen"]["step"] == STEP + 1
