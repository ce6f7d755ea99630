"""Hugging Face's Llama 4, Qwen3-Next and Gemma 4 to ours and back: layers of several kinds, and what is refused."""

import dataclasses

import numpy as np
import pytest

from models import preset
from models.checkpoints.huggingface import config_from_hf, config_to_hf, load_hf, params_from_hf, params_to_hf, save_hf
from models.config import (
    DType,
    GatedDelta,
    Layer,
    LinearScaling,
    Llama3Scaling,
    Mlp,
    Moe,
    QkNorm,
    Rope,
    Score,
    Unrotated,
)

from .cases import RECORDED
from .mapping import random_params, same

# Without the chunk, of which theirs says nothing and on which no result depends.
NEXT = preset("qwen3-next-tiny")
NEXT = NEXT.replace(
    cycle=tuple(
        dataclasses.replace(layer, attention=layer.attention and dataclasses.replace(layer.attention, chunk=64))
        for layer in NEXT.cycle
    )
)
# Two whole cycles: theirs has no last layer that slides.
GEMMA4 = preset("gemma4-tiny").replace(num_layers=12)
CONFIGS = {
    "llama4": preset("llama4-tiny"),
    "qwen3_next": NEXT,
    "gemma4": GEMMA4,
    "gemma4, dense": GEMMA4.replace(mlp=Mlp(40, GEMMA4.mlp.activation, gated=True)),
}
NAMES = ("llama4", "qwen3_next", "gemma4")


def _without(attributes, *keys):
    return {key: value for key, value in attributes.items() if key not in keys}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_survives_the_way_there_and_back(name):
    assert config_from_hf(config_to_hf(CONFIGS[name])) == CONFIGS[name]


@pytest.mark.parametrize("scan_layers", [True, False], ids=["scanned", "unscanned"])
@pytest.mark.parametrize("name", CONFIGS)
def test_weights_survive_the_way_there_and_back(name, scan_layers):
    config = CONFIGS[name].replace(scan_layers=scan_layers)
    params = random_params(config)
    tensors = params_to_hf(config, params)
    assert sum(value.size for value in tensors.values()) == sum(value.size for value in params.values())
    assert same(params_from_hf(config, tensors), params)
    assert same(params_to_hf(config, params_from_hf(config, tensors)), tensors)


@pytest.mark.parametrize("name", CONFIGS)
def test_directory_survives_the_way_there_and_back(name, tmp_path):
    config = CONFIGS[name].replace(weight_dtype=DType.BFLOAT16, dtype=DType.BFLOAT16)
    params = random_params(config)
    save_hf(config, params, tmp_path / "model", shard_bytes=20_000)
    found_config, found = load_hf(tmp_path / "model")
    assert found_config == config
    assert same(found, params)


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_model_is_its_own_image(name):
    from .recordings import load

    heard = load(name)
    config = config_from_hf(heard.attributes)
    assert config_from_hf(config_to_hf(config)) == config
    assert same(params_to_hf(config, params_from_hf(config, heard.tensors)), heard.tensors)


def test_the_input_kernels_of_an_expert_are_halves():
    params = random_params(CONFIGS["llama4"])
    fused = params_to_hf(CONFIGS["llama4"], params)["model.layers.3.feed_forward.experts.gate_up_proj"]
    for half in (0, 1):
        ours = params[f"decoder/layers/layers_3/moe/wi_{half}"][:, 0]
        np.testing.assert_array_equal(fused[:, :, 24 * half : 24 * (half + 1)], ours)
    params = random_params(GEMMA4)
    fused = params_to_hf(GEMMA4, params)["model.layers.7.experts.gate_up_proj"]
    for half in (0, 1):
        ours = params[f"decoder/layers/layers_1/moe/wi_{half}"][:, 1]
        np.testing.assert_array_equal(fused[:, 24 * half : 24 * (half + 1)], ours.transpose(0, 2, 1))


def test_a_convolution_is_read_tap_by_tap():
    params = random_params(NEXT)
    kernel = params_to_hf(NEXT, params)["model.layers.6.linear_attn.conv1d.weight"]
    ours = params["decoder/layers/layers_2/self_attention/conv1d/kernel"][:, 1]
    assert (kernel.shape, ours.shape) == ((64, 1, 4), (4, 1, 64))
    np.testing.assert_array_equal(kernel[:, 0], ours[:, 0].T)


def test_a_full_layer_of_gemma4_has_no_value_and_heads_of_its_own():
    tensors = params_to_hf(GEMMA4, random_params(GEMMA4))
    heads = {name: value.shape for name, value in tensors.items() if name.endswith(("k_proj.weight", "v_proj.weight"))}
    full = [index for index in range(12) if f"model.layers.{index}.self_attn.v_proj.weight" not in heads]
    assert full == [5, 11]
    assert heads["model.layers.5.self_attn.k_proj.weight"] == (1 * 16, 32)
    assert heads["model.layers.4.self_attn.k_proj.weight"] == (2 * 8, 32)
    assert tensors["model.layers.11.layer_scalar"].shape == (1,)


def test_llama4s_layers_are_chunked_unrotated_and_mixed_as_its_keys_say():
    config = config_from_hf(RECORDED["llama4"])
    nope = Unrotated(0.3, 64)
    dense = Mlp(24, config.mlp.activation, gated=True)
    turning = [Layer(chunk=24, mlp=mlp, name=f"layers_{index}") for index, mlp in enumerate((dense, None, dense))]
    assert config.cycle == (*turning, Layer(rope=nope, name="layers_3"))
    assert [stack.length * len(stack.cycle) for stack in config.stacks] == [8, 1]
    scaling = Llama3Scaling(4.0, 1.0, 1.0, 64)
    assert config.positions == Rope(10_000.0, interleaved=True, scaling=scaling)
    assert (config.mlp.hidden_dim, config.mlp.shared_hidden_dim, config.mlp.scale_inputs) == (12, 12, True)
    assert (config.mlp.router.score, config.attention.qk_norm) == (Score.SIGMOID, QkNorm.L2)
    listed = {"no_rope_layers": [0] + [1] * 8, "layer_types": ["full_attention"] * 9, "moe_layers": [8]}
    odd = config_from_hf({**RECORDED["llama4"], **listed, "use_qk_norm": False, "attn_temperature_tuning": False})
    assert [layer.chunk for layer in odd.cycle] == [None] * 9
    assert [layer.rope for layer in odd.cycle] == [Unrotated(0.0, 64)] + [None] * 8
    assert [layer.mlp is None for layer in odd.cycle] == [False] * 8 + [True]
    assert odd.attention.qk_norm is None


def test_qwen3_nexts_layers_are_linear_as_its_keys_say():
    config = config_from_hf(RECORDED["qwen3_next"])
    delta = GatedDelta(2, 4, 6, 10, 4)
    assert [layer.attention for layer in config.cycle] == [delta] * 3 + [None]
    assert (config.positions.fraction, config.attention.out_gate, config.norm.zero_centered) == (0.25, True, True)
    assert (config.mlp.shared_gate, config.mlp.shared_hidden_dim) == (True, 14)
    assert config_from_hf({**RECORDED["qwen3_next"], "full_attention_interval": 1}).cycle == (Layer(),)
    whole = {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0, "partial_rotary_factor": 1.0}}
    assert config_from_hf({**RECORDED["qwen3_next"], **whole}).positions == Rope(7.0)


def test_gemma4s_full_layers_are_wide_as_its_keys_say():
    given = RECORDED["gemma4"]
    config = config_from_hf(given)
    wide = dataclasses.replace(config.attention, num_kv_heads=1, head_dim=16, share_kv=True)
    full = Layer(attention=wide, rope=Rope(1_000_000.0, 0.25, proportional=True), name="layers_5")
    assert config.cycle == (*(Layer(24, name=f"layers_{index}") for index in range(5)), full)
    assert (config.attention.scale, config.attention.value_norm, config.layer_scale) == (1.0, True, True)
    assert (config.mlp.hidden_dim, config.mlp.shared_hidden_dim) == (8, 20)
    plain = config_from_hf({**given, "attention_k_eq_v": False, "enable_moe_block": False})
    assert (plain.cycle[5].attention.num_kv_heads, plain.cycle[5].attention.share_kv) == (2, False)
    assert plain.mlp == Mlp(20, config.mlp.activation, gated=True)
    own = {"per_layer_config": {f"{index:02}": {"num_key_value_heads": 4} for index in (5, 11)}}
    told = config_from_hf({**given, **own, "attention_k_eq_v": False})
    assert (told.cycle[5].attention.num_kv_heads, told.cycle[5].attention.head_dim) == (4, 8)
    assert config_from_hf(config_to_hf(told)) == told
    slow = {"full_attention": {"rope_type": "proportional", "rope_theta": 100.0, "factor": 2.0}}
    slow["sliding_attention"] = {"rope_type": "default", "rope_theta": 50.0}
    turned = config_from_hf({**given, "rope_parameters": slow})
    assert turned.positions == Rope(50.0)
    assert turned.cycle[5].rope == Rope(100.0, scaling=LinearScaling(2.0), proportional=True)


def test_the_last_layer_of_gemma4_is_made_a_full_one():
    config = config_from_hf({**RECORDED["gemma4"], "num_hidden_layers": 2})
    assert [layer.window for layer in config.cycle] == [24, None]
    with pytest.raises(ValueError, match=r"^num_layers = 13: makes the last layer a sliding one"):
        config_to_hf(preset("gemma4-tiny"))


def test_the_absent_keys_mean_what_they_mean_there():
    sizes = {"vocab_size": 9, "hidden_size": 16, "num_hidden_layers": 8, "num_attention_heads": 16}
    llama4 = config_from_hf({"model_type": "llama4_text", **sizes})
    assert (llama4.attention.num_kv_heads, llama4.attention.head_dim, llama4.norm.epsilon) == (8, 128, 1e-5)
    assert (llama4.positions, llama4.mlp.router.num_experts) == (Rope(500_000.0, interleaved=True), 16)
    assert (llama4.cycle[0].chunk, llama4.cycle[3].rope) == (8192, Unrotated(0.1, 8192))
    assert [isinstance(llama4.mlp_of(layer), Moe) for layer in llama4.cycle] == [True] * 4
    qwen = config_from_hf({"model_type": "qwen3_next", **sizes})
    assert qwen.cycle[0].attention == GatedDelta(16, 32, 128, 128)
    assert (qwen.attention.num_kv_heads, qwen.attention.head_dim, qwen.positions) == (2, 256, Rope(fraction=0.25))
    assert (qwen.mlp.router.num_experts, qwen.mlp.router.num_chosen, qwen.mlp.router.normalized) == (512, 10, True)
    assert (qwen.mlp.hidden_dim, qwen.mlp.shared_hidden_dim, qwen.tied_head) == (512, 512, False)
    gemma = {"model_type": "gemma4_text", **sizes, "intermediate_size": 8, "hidden_size_per_layer_input": 0}
    found = config_from_hf(gemma)
    assert (found.attention.num_kv_heads, found.attention.head_dim, found.cycle[0].window) == (4, 256, 512)
    assert (found.cycle[5].attention.num_kv_heads, found.cycle[5].attention.head_dim) == (4, 512)
    assert (found.final_soft_cap, found.tied_head, isinstance(found.mlp, Mlp)) == (None, True, True)
    with pytest.raises(ValueError, match=r"^hidden_size_per_layer_input = 256: .* 256 if absent"):
        config_from_hf(_without(gemma, "hidden_size_per_layer_input"))


def test_what_the_class_leaves_out_is_left_out():
    tensors = params_to_hf(NEXT, random_params(NEXT))
    extra = tensors["model.norm.weight"]
    assert same(params_from_hf(NEXT, {**tensors, "mtp.norm.weight": extra}), params_from_hf(NEXT, tensors))


@pytest.mark.parametrize("model_type", ["llama4", "gemma4"])
def test_a_model_with_pictures_is_refused_and_its_text_named(model_type):
    nested = {"model_type": model_type, "text_config": RECORDED["llama4"], "vision_config": {}}
    with pytest.raises(ValueError, match=rf"^model_type = '{model_type}': is not supported; give its text_config"):
        config_from_hf(nested)


ROPES = {"full_attention": {"rope_type": "proportional", "rope_theta": 1e4}}
REFUSED = {
    "attention_chunk_size": [("llama4", None), ("llama4", 0)],
    "attn_temperature_tuning": [("llama4", 4)],
    "use_qk_norm": [("llama4", None)],
    "interleave_moe_layer_step": [("llama4", 0)],
    "no_rope_layers": [("llama4", [1] * 8), ("llama4", [2] * 9)],
    "layer_types": [
        ("llama4", ["sliding_attention"] * 9), ("qwen3_next", ["chunked_attention"] * 5), ("gemma4", ["full"] * 12),
        ("qwen3_next", ["full_attention"]),
    ],
    "rope_parameters": [
        ("llama4", {"rope_type": "default", "partial_rotary_factor": 0.5}),
        ("llama4", {"rope_type": "proportional", "partial_rotary_factor": 0.5}),
        ("qwen3_next", {"rope_type": "default", "mrope_section": [1]}),
        ("gemma4", ROPES),
        ("gemma4", {**ROPES, "sliding_attention": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
        ("gemma4", {"rope_type": "default", "rope_theta": 1e4}),
    ],
    "rope_theta": [("gemma4", 1e4)],
    "partial_rotary_factor": [("llama4", 0.5), ("gemma4", 0.5)],
    "decoder_sparse_step": [("qwen3_next", 2)],
    "mlp_only_layers": [("qwen3_next", [0])],
    "hidden_act": [("qwen3_next", "gelu_new"), ("llama4", "gelu")],
    "linear_conv_kernel_dim": [("qwen3_next", None)],
    "sliding_window": [("llama4", 8), ("qwen3_next", 8), ("gemma4", None)],
    "hidden_size_per_layer_input": [("gemma4", 8)],
    "num_kv_shared_layers": [("gemma4", 2)],
    "use_bidirectional_attention": [("gemma4", "all")],
    "per_layer_config": [
        ("gemma4", {"5": {"head_dim": 16}, "11": {"head_dim": 8}}), ("gemma4", {"5": {"sliding_window": 3}}),
        ("gemma4", [1]),
    ],
    "attn_logit_softcapping": [("gemma4", 50.0)],
    "query_pre_attn_scalar": [("gemma4", 256)],
    "num_experts": [("gemma4", None)],
    "quantization_config": [("llama4", {"quant_method": "fbgemm_fp8"})],
}  # fmt: skip


@pytest.mark.parametrize(("key", "name", "value"), [(key, *case) for key in REFUSED for case in REFUSED[key]])
def test_an_attribute_that_could_change_the_result_is_refused_by_name(key, name, value):
    with pytest.raises(ValueError, match=rf"^{key} = "):
        config_from_hf({**RECORDED[name], key: value})


def test_what_changes_no_result_is_read_over():
    for name, keys in {
        "llama4": {"for_llm_compressor": False, "router_jitter_noise": 0.1},
        "qwen3_next": {"intermediate_size": 5632},
        # The double width is that of layers that share keys, and none does.
        "gemma4": {"use_double_wide_mlp": True, "use_bidirectional_attention": "vision"},
    }.items():
        assert config_from_hf({**RECORDED[name], **keys}) == config_from_hf(RECORDED[name])


def _layers(config, **changes):
    return config.replace(cycle=tuple(dataclasses.replace(layer, **changes) for layer in config.cycle))


def _attention(config, **changes):
    return config.replace(attention=dataclasses.replace(config.attention, **changes))


UNSAYABLE = {
    "halves turn together": ("llama4", "positions", lambda config: config.replace(positions=Rope(10_000.0))),
    "a window": ("llama4", "cycle", lambda config: _layers(config, chunk=None, window=3)),
    "weights on outputs": (
        "llama4", "mlp", lambda config: config.replace(mlp=dataclasses.replace(config.mlp, scale_inputs=False)),
    ),
    "no gate on heads": ("qwen3_next", "attention", lambda config: _attention(config, out_gate=False)),
    "a norm around scales": (
        "qwen3_next", "norm", lambda config: config.replace(norm=dataclasses.replace(config.norm, zero_centered=False)),
    ),
    "no norm on values": ("gemma4", "attention", lambda config: _attention(config, value_norm=False)),
    "layers not scaled": ("gemma4", "layer_scale", lambda config: config.replace(layer_scale=False)),
    "one kind of heads, scaled": ("gemma4", "attention", lambda config: _attention(config, query_scale=None)),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSAYABLE)
def test_a_model_that_they_cannot_say_is_refused_by_field(case):
    name, field, change = UNSAYABLE[case]
    with pytest.raises(ValueError, match=f"^{field} = "):
        config_to_hf(change(CONFIGS[name]))
