"""Hugging Face configs and weights to ours and back: a bijection, byte for byte, that refuses what it does not know."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from models import backend, preset, presets
from models.checkpoints.huggingface import (
    config_from_hf,
    config_to_hf,
    load_hf,
    params_from_hf,
    params_to_hf,
    save_hf,
)
from models.config import Activation, DType, LayerNorm, Rope

from .cases import RECORDED

GPT2 = preset("gpt3-tiny").replace(norm=LayerNorm(1e-5, zero_centered=False))
CONFIGS = {"llama": preset("llama-tiny"), "gemma2": preset("gemma2-tiny"), "gpt2": GPT2}


def _params(config):
    rng = np.random.default_rng(3)
    return {
        name: rng.standard_normal(spec.shape).astype(jnp.dtype(spec.dtype))
        for name, spec in backend("nnx").param_specs(config).items()
    }


def _same(left, right):
    return left.keys() == right.keys() and all(
        left[key].dtype == right[key].dtype
        and left[key].shape == right[key].shape
        and np.asarray(left[key]).tobytes() == np.asarray(right[key]).tobytes()
        for key in left
    )


@pytest.fixture
def llama(tmp_path):
    """A small llama of ours, its tensors and a directory of it."""
    config = CONFIGS["llama"]
    params = _params(config)
    save_hf(config, params, tmp_path / "llama")
    return config, params_to_hf(config, params), tmp_path / "llama"


@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize("tied_head", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("scan_layers", [True, False], ids=["scanned", "unscanned"])
@pytest.mark.parametrize("name", CONFIGS)
def test_weights_survive_the_way_there_and_back(name, scan_layers, tied_head, dtype):
    config = CONFIGS[name].replace(scan_layers=scan_layers, tied_head=tied_head, weight_dtype=dtype)
    params = _params(config)
    tensors = params_to_hf(config, params)
    assert sum(value.size for value in tensors.values()) == sum(value.size for value in params.values())
    assert _same(params_from_hf(config, tensors), params)
    assert _same(params_to_hf(config, params_from_hf(config, tensors)), tensors)


@pytest.mark.parametrize("name", [name for name in presets() if not name.startswith("gpt3")])
def test_config_survives_the_way_there_and_back(name):
    assert config_from_hf(config_to_hf(preset(name))) == preset(name)


@pytest.mark.parametrize("name", [name for name in presets() if name.startswith("gpt3")])
def test_scales_centred_on_zero_are_refused_by_field(name):
    with pytest.raises(ValueError, match=r"^norm = .*GPT2LMHeadModel"):
        config_to_hf(preset(name))


@pytest.mark.parametrize("name", RECORDED)
def test_absent_keys_mean_what_they_mean_there(name):
    given = RECORDED[name]
    required = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    short = {key: value for key, value in given.items() if key in (*required, "model_type") or key.startswith("n_")}
    config = config_from_hf(short)
    assert config.attention.num_kv_heads == {"llama": 4, "gemma2": 4, "gpt2": 4}[name]
    assert config.attention.head_dim == {"llama": 12, "gemma2": 256, "gpt2": 12}[name]
    assert config.norm.epsilon == {"llama": 1e-6, "gemma2": 1e-6, "gpt2": 1e-5}[name]
    assert config.tied_head == {"llama": False, "gemma2": True, "gpt2": True}[name]


def test_both_spellings_of_rotary_parameters_are_read():
    plain = {key: value for key, value in RECORDED["llama"].items() if key != "rope_theta"}
    new = {**plain, "rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}
    old = {**plain, "rope_theta": 300.0, "rope_scaling": None}
    assert config_from_hf(new) == config_from_hf(old)
    assert config_from_hf(new).positions == Rope(300.0)


REFUSED = {
    "model_type": ("llama", "mamba"),
    "rope_scaling": ("llama", {"rope_type": "llama3", "factor": 8.0}),
    "rope_parameters": ("gemma2", {"rope_type": "default", "rope_theta": 1e4, "beta_fast": 2}),
    "partial_rotary_factor": ("llama", 0.5),
    "attention_bias": ("llama", True),
    "mlp_bias": ("llama", True),
    "hidden_act": ("llama", "gelu"),
    "sliding_window": ("llama", 64),
    "quantization_config": ("llama", {"bits": 8}),
    "dtype": ("llama", "float16"),
    "vocab_size": ("llama", None),
    "hidden_activation": ("gemma2", "relu"),
    "layer_types": ("gemma2", ["full_attention"] * 4),
    "use_bidirectional_attention": ("gemma2", True),
    "scale_attn_by_inverse_layer_idx": ("gpt2", True),
    "scale_attn_weights": ("gpt2", False),
    "add_cross_attention": ("gpt2", True),
    "activation_function": ("gpt2", "gelu"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_an_attribute_that_could_change_the_result_is_refused_by_name(key):
    name, value = REFUSED[key]
    with pytest.raises(ValueError, match=rf"^{key} = "):
        config_from_hf({**RECORDED[name], key: value})


def test_a_missing_size_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^hidden_size = None: is required"):
        config_from_hf({key: value for key, value in RECORDED["llama"].items() if key != "hidden_size"})


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("final_soft_cap", {"final_soft_cap": 3.0}),
        ("norm", {"norm": LayerNorm(1e-5)}),
        ("scale_embedding", {"scale_embedding": True}),
        ("family", {"family": "mine"}),
    ],
)
def test_a_model_that_they_cannot_say_is_refused_by_field(field, change):
    with pytest.raises(ValueError, match=f"^{field} = "):
        config_to_hf(CONFIGS["llama"].replace(**change))


def test_both_gelu_and_silu_llamas_are_written():
    config = CONFIGS["llama"]
    gelu = config.replace(mlp=dataclasses.replace(config.mlp, activation=Activation.GELU))
    assert config_to_hf(config)["hidden_act"] == "silu"
    assert config_from_hf(config_to_hf(gelu)) == gelu


@pytest.mark.parametrize("shard_bytes", [10**9, 20_000], ids=["whole", "sharded"])
@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize("name", CONFIGS)
def test_directory_survives_the_way_there_and_back(name, dtype, shard_bytes, tmp_path):
    config = CONFIGS[name].replace(weight_dtype=dtype, dtype=dtype)
    params = _params(config)
    save_hf(config, params, tmp_path / "model", shard_bytes=shard_bytes)
    found_config, found = load_hf(tmp_path / "model")
    assert found_config == config
    assert _same(found, params)
    assert (len(list((tmp_path / "model").glob("*.safetensors"))) > 1) == (shard_bytes == 20_000)


Q_PROJ = "model.layers.1.self_attn.q_proj.weight"
BAD_TENSORS = {
    "missing": lambda tensors: {key: value for key, value in tensors.items() if key != Q_PROJ},
    "not a parameter": lambda tensors: {**tensors, "model.extra": tensors[Q_PROJ]},
    "shape": lambda tensors: {**tensors, Q_PROJ: tensors[Q_PROJ].T[:-1].copy()},
    "dtype": lambda tensors: {**tensors, Q_PROJ: tensors[Q_PROJ].astype(np.float16)},
}


@pytest.mark.parametrize("word", BAD_TENSORS)
def test_a_bad_tensor_is_refused_by_name(word, llama):
    import safetensors.numpy

    config, tensors, directory = llama
    bad = BAD_TENSORS[word](tensors)
    name = "model.extra" if word == "not a parameter" else Q_PROJ
    with pytest.raises(ValueError, match=rf"^tensor {name}: .*{word}"):
        params_from_hf(config, bad)
    safetensors.numpy.save_file(bad, directory / "model.safetensors")
    with pytest.raises(ValueError, match=rf"^tensor {name}: .*{word}"):
        load_hf(directory)


@pytest.mark.parametrize("kept", [0, 7, 200, -1])
def test_a_truncated_file_is_refused_by_name(kept, llama):
    _, _, directory = llama
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors: is truncated or damaged"):
        load_hf(directory)


def test_a_shard_that_is_gone_is_refused_by_name(tmp_path):
    config = CONFIGS["llama"]
    save_hf(config, _params(config), tmp_path / "model", shard_bytes=20_000)
    shard = sorted((tmp_path / "model").glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ValueError, match=f"{shard.name}: is missing"):
        load_hf(tmp_path / "model")


def test_an_index_that_promises_too_much_is_refused_by_tensor(tmp_path):
    config = CONFIGS["llama"]
    save_hf(config, _params(config), tmp_path / "model", shard_bytes=20_000)
    index = tmp_path / "model" / "model.safetensors.index.json"
    data = json.loads(index.read_text(encoding="utf-8"))
    data["weight_map"]["model.extra"] = next(iter(data["weight_map"].values()))
    index.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ValueError, match=r"^tensor model\.extra: is missing from the file"):
        load_hf(tmp_path / "model")


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_config_that_is_no_object_is_refused_by_name(text, llama):
    _, _, directory = llama
    (directory / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json: is not "):
        load_hf(directory)


def test_nothing_is_written_over_or_half(llama):
    config, _, directory = llama
    params = _params(config)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(ValueError, match="exists already"):
        save_hf(config, params, directory)
    params.popitem()
    with pytest.raises(ValueError, match=r"^parameter .* is missing"):
        save_hf(config, params, directory.parent / "new")
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert not (directory.parent / "new").exists()
