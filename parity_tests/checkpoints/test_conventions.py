"""A checkpoint in MaxText's names and numbers gives the model it was stored from."""

import jax
import numpy as np
import pytest

import models
from models.checkpoints import items, load_maxtext, maxtext_convention, maxtext_name

from .states import assert_same_bytes, config


def _params(model, seed=0):
    rng = np.random.default_rng(seed)
    specs = models.backend("nnx").param_specs(model)
    return {name: jax.numpy.array(0.3 * rng.standard_normal(spec.shape), "float32") for name, spec in specs.items()}


STORED_PLAIN = (
    "gpt3-tiny", "qwen2-tiny", "qwen3-tiny", "olmo3-tiny", "qwen3-moe-tiny", "gpt-oss-tiny", "deepseek2-tiny",
    "deepseek3-tiny", "llama4-tiny",
)  # fmt: skip
# What MaxText's checkpoints of a family hold otherwise than ours, from its conversion hooks.
FOLDS_QUERY_SCALE = ("llama", "mistral", "mixtral", "gemma", "gemma2")
ADDS_ONE = ("gemma", "gemma2", "gemma3")
NUMBERS_THROUGH = ("gemma3", "olmo3", "gpt_oss", "llama4")
MODULES = {
    "olmo3": {"/self_attention/": "/attention/"},
    "mixtral": {"/moe/": "/MoeBlock_0/"},
    "qwen3_moe": {"/moe/": "/moe_block/"},
    "gpt_oss": {"/self_attention/": "/GptOssAttention/", "/moe/": "/GptOssMlp/"},
    "llama4": {
        "/moe/shared_experts/": "/Llama4MoEBlock_0/shared_experts/", "/moe/": "/Llama4MoEBlock_0/MoeBlock_0/",
    },
    "deepseek": {
        "/moe/shared_experts/": "/DeepSeekMoeBlock_0/shared_experts/", "/moe/": "/DeepSeekMoeBlock_0/MoeBlock_0/",
        "/choice_bias": "/bias",
    },
}  # fmt: skip


PRESETS = models.presets()


def _as_maxtext_stores(model, params):
    """Our numbers under MaxText's conventions."""
    stored = {}
    for name, array in params.items():
        if name.endswith("/query/kernel") and model.family in FOLDS_QUERY_SCALE:
            array = array * model.attention.scale
        elif name.endswith("/scale") and model.family in ADDS_ONE:
            array = array + 1
        elif name == "token_embedder/embedding" and model.family in ADDS_ONE:
            array = array * np.sqrt(model.embed_dim)
        stored[_maxtext_name(model, name)] = np.asarray(array, np.float32)
    return stored


def _maxtext_name(model, name):
    """Unscanned layers with names of their own are counted through; some models have names of their own for a part."""
    if model.family in NUMBERS_THROUGH and not model.scan_layers and "/layers_" in name:
        decoder, block, layer, *rest = name.split("/")
        block = model.num_blocks if block == "layers_remainder" else int(block.removeprefix("layers_"))
        number = block * len(model.cycle) + int(layer.removeprefix("layers_"))
        name = "/".join([decoder, f"layers_{number}", *rest])
    for ours, theirs in MODULES.get(model.family, {}).items():
        name = name.replace(ours, theirs)
    return name


def _write(path, params):
    leaves = {("params", "params", *name.split("/")): array for name, array in params.items()}
    items.write(path / "0" / "items", leaves | {("step",): np.int32(0)})
    return path


@pytest.mark.parametrize("name", ["llama-tiny", "gemma2-tiny", "gemma3-tiny", "mixtral-tiny"])
def test_weights_in_maxtexts_numbers_are_the_same_model(name, tmp_path):
    model = config(name, num_layers=3, cycle=models.preset(name).cycle[:2], scan_layers=False)
    params, backend = _params(model), models.backend("nnx")
    found, loaded = load_maxtext(_write(tmp_path, _as_maxtext_stores(model, params)), model)
    tokens = jax.numpy.asarray(np.random.default_rng(1).integers(0, model.vocab_size, (2, 7)))
    logits, same = backend.apply(model, params, tokens), backend.apply(found, loaded, tokens)
    # the factors round each weight once, so logits agree to some float32 units of their own size
    assert np.max(np.abs(logits - same)) <= 1e-5 * np.max(np.abs(logits))
    assert np.max(np.abs(logits - backend.apply(model, loaded, tokens))) > 0.01


@pytest.mark.parametrize("scan", [True, False], ids=["scanned", "unscanned"])
@pytest.mark.parametrize("name", STORED_PLAIN)
def test_these_are_stored_number_for_number(name, scan, tmp_path):
    model = config(name, scan_layers=scan)
    params = _params(model)
    convention = maxtext_convention(model)
    assert (convention.config, dict(convention.factors)) == (model, {})
    _, loaded = load_maxtext(_write(tmp_path, _as_maxtext_stores(model, params)), model)
    expected = {name: np.asarray(array) for name, array in params.items()}
    assert_same_bytes({name: np.asarray(array) for name, array in loaded.items()}, expected)


def test_the_query_scale_is_folded_in_where_nothing_norms_or_shifts_the_query():
    scales = {name: (maxtext_convention(it).config.attention.scale, it.attention.scale) for name, it in PRESETS.items()}
    folded = {name for name, (stored, ours) in scales.items() if stored != ours}
    assert {scales[name][0] for name in folded} == {1.0}
    assert {config(name).family for name in folded} == set(FOLDS_QUERY_SCALE)
    assert folded == {name for name in models.presets() if config(name).family in FOLDS_QUERY_SCALE}


@pytest.mark.parametrize("name", [
    "gemma3-tiny", "olmo3-tiny", "gpt-oss-tiny", "llama4-tiny", "qwen3-next-tiny", "gemma4-tiny",
])
def test_unscanned_layers_are_numbered_through_in_maxtext(name):
    model = config(name, scan_layers=False)
    names = [maxtext_name(model, ours) for ours in models.backend("nnx").param_specs(model)]
    assert len(set(names)) == len(names)
    blocks = {stored.split("/")[1] for stored in names} - {"decoder_norm", "logits_dense", "embedding"}
    assert blocks == {f"layers_{number}" for number in range(model.num_layers)}
    assert not any("layers_remainder" in stored for stored in names)


# lines of MaxText's own parameter trees
STORED = {
    ("mixtral-8x7b", "decoder/layers/moe/gate/kernel"): "decoder/layers/MoeBlock_0/gate/kernel",
    ("qwen3-30b-a3b", "decoder/layers/moe/wi_0"): "decoder/layers/moe_block/wi_0",
    ("gpt-oss-20b", "decoder/layers/layers_1/moe/gate/bias"): "decoder/layers/layers_1/GptOssMlp/gate/bias",
    ("gpt-oss-20b", "decoder/layers/layers_0/self_attention/sinks"): "decoder/layers/layers_0/GptOssAttention/sinks",
    ("llama4-17b-16e", "decoder/layers/layers_3/moe/gate/kernel"):
        "decoder/layers/layers_3/Llama4MoEBlock_0/MoeBlock_0/gate/kernel",
    ("qwen3-next-80b-a3b", "decoder/layers/layers_3/moe/wo"): "decoder/layers/layer_3/mlp/routed_experts/wo",
    ("gemma4-26b", "decoder/layers/layers_5/moe/gate/scale"):
        "decoder/scanned_blocks/global_layer/mlp/pre_forward_scale_2",
    ("deepseek2-16b", "decoder/dense_layers/mlp/wo/kernel"): "decoder/dense_layers/mlp/wo/kernel",
    ("deepseek3-671b", "decoder/moe_layers/moe/gate/choice_bias"):
        "decoder/moe_layers/DeepSeekMoeBlock_0/MoeBlock_0/gate/bias",
    ("kimi-k2-1t", "decoder/moe_layers/moe/shared_experts/wi_1/kernel"):
        "decoder/moe_layers/DeepSeekMoeBlock_0/shared_experts/wi_1/kernel",
}  # fmt: skip


@pytest.mark.parametrize(("name", "ours"), STORED)
def test_mixtures_of_experts_have_the_names_that_maxtext_gives_them(name, ours):
    model = config(name)
    names = [maxtext_name(model, parameter) for parameter in models.backend("nnx").param_specs(model)]
    assert len(set(names)) == len(names)
    assert maxtext_name(model, ours) == STORED[name, ours]
    assert STORED[name, ours] in names


def test_the_one_is_added_to_the_stored_scales_of_the_first_gemmas_alone():
    added = {it.family for it in PRESETS.values() if maxtext_convention(it).config.norm != it.norm}
    assert added == set(ADDS_ONE)


def test_only_the_meaning_changes_never_the_tree():
    for name in models.presets():
        model = models.preset(name)
        found = maxtext_convention(model).config
        assert found.replace(attention=model.attention, norm=model.norm) == model
