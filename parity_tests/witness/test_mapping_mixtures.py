"""The mixtures of experts of Hugging Face to ours and back: the same bijection as the dense ones, and its refusals."""

import dataclasses

import numpy as np
import pytest

from models import preset
from models.checkpoints.huggingface import config_from_hf, config_to_hf, load_hf, params_from_hf, params_to_hf, save_hf
from models.config import DType, LatentAttention, Layer, Mlp, Rope, Score, YarnScaling

from .cases import RECORDED
from .mapping import random_params, same

CONFIGS = {
    name: preset(name)
    for name in ("mixtral-tiny", "qwen3-moe-tiny", "gpt-oss-tiny", "deepseek2-tiny", "deepseek3-tiny")
}
MIXTURES = ("mixtral", "qwen3_moe", "gpt_oss", "deepseek_v2", "deepseek_v3")
LATENT = MIXTURES[3:]


def _without(attributes, *keys):
    return {key: value for key, value in attributes.items() if key not in keys}


@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize("scan_layers", [True, False], ids=["scanned", "unscanned"])
@pytest.mark.parametrize("name", CONFIGS)
def test_weights_survive_the_way_there_and_back(name, scan_layers, dtype):
    config = CONFIGS[name].replace(scan_layers=scan_layers, weight_dtype=dtype)
    params = random_params(config)
    tensors = params_to_hf(config, params)
    assert sum(value.size for value in tensors.values()) == sum(value.size for value in params.values())
    assert same(params_from_hf(config, tensors), params)
    assert same(params_to_hf(config, params_from_hf(config, tensors)), tensors)


@pytest.mark.parametrize("shard_bytes", [10**9, 20_000], ids=["whole", "sharded"])
@pytest.mark.parametrize("name", CONFIGS)
def test_directory_survives_the_way_there_and_back(name, shard_bytes, tmp_path):
    config = CONFIGS[name].replace(weight_dtype=DType.BFLOAT16, dtype=DType.BFLOAT16)
    params = random_params(config)
    save_hf(config, params, tmp_path / "model", shard_bytes=shard_bytes)
    found_config, found = load_hf(tmp_path / "model")
    assert found_config == config
    assert same(found, params)


@pytest.mark.parametrize("name", MIXTURES)
def test_a_recorded_model_is_its_own_image(name):
    from .recordings import load

    heard = load(name)
    config = config_from_hf(heard.attributes)
    assert config_from_hf(config_to_hf(config)) == config
    assert same(params_to_hf(config, params_from_hf(config, heard.tensors)), heard.tensors)


def test_an_expert_is_the_tensor_of_its_number_and_layer():
    config = CONFIGS["deepseek3-tiny"]
    params = random_params(config)
    tensors = params_to_hf(config, params)
    down = tensors["model.layers.4.mlp.experts.5.down_proj.weight"]
    np.testing.assert_array_equal(down, params["decoder/moe_layers/moe/wo"][5, 1].T)
    gate = tensors["model.layers.2.mlp.gate_proj.weight"]
    np.testing.assert_array_equal(gate, params["decoder/dense_layers/mlp/wi_0/kernel"][:, 2].T)


def test_the_two_input_kernels_of_gpt_oss_take_turns():
    config = CONFIGS["gpt-oss-tiny"]
    params = random_params(config)
    fused = params_to_hf(config, params)["model.layers.3.mlp.experts.gate_up_proj"]
    for half in (0, 1):
        ours = params[f"decoder/layers/layers_1/moe/wi_{half}"][:, 1]
        np.testing.assert_array_equal(fused[:, :, half::2], ours)


# Key heads, head dim, epsilon, base, window of the first layer, experts, chosen, hidden width.
ABSENT = {
    "mixtral": (8, 12, 1e-5, 1_000_000.0, None, 8, 2, 20),
    "qwen3_moe": (4, 12, 1e-6, 10_000.0, None, 128, 8, 768),
    "gpt_oss": (8, 64, 1e-5, 150_000.0, 128, 128, 4, 16),
}
"""Read in the classes of transformers 5.23; the live run asks them."""


@pytest.mark.parametrize("name", ABSENT)
def test_absent_keys_mean_what_they_mean_there(name):
    given = RECORDED[name]
    required = ("vocab_size", "intermediate_size", "model_type")
    heads = ABSENT[name][0]
    short = {key: given[key] for key in required if key in given}
    short |= {"hidden_size": 12 * heads, "num_attention_heads": heads, "num_hidden_layers": 4}
    config = config_from_hf(short)
    found = (config.attention.num_kv_heads, config.attention.head_dim, config.norm.epsilon)
    found += (config.positions.max_timescale, config.cycle[0].window)
    found += (config.mlp.router.num_experts, config.mlp.router.num_chosen, config.mlp.hidden_dim)
    assert found == ABSENT[name]
    if name == "gpt_oss":
        assert config.positions.scaling == YarnScaling(32.0, 4096, truncate=False)
        assert (config.mlp.clamp, config.attention.qkv_bias, config.attention.out_bias) == (7.0, True, True)


def test_the_absent_keys_of_deepseek_mean_what_they_mean_there():
    sizes = {"vocab_size": 9, "hidden_size": 128, "num_attention_heads": 128, "intermediate_size": 5}
    v2 = config_from_hf({"model_type": "deepseek_v2", **sizes, "num_hidden_layers": 4, "num_experts_per_tok": 6})
    v3 = config_from_hf({"model_type": "deepseek_v3", **sizes, "num_hidden_layers": 4})
    for config in (v2, v3):
        assert config.attention == LatentAttention(128, 512, 128, 64, 128, 1536)
        assert config.positions == Rope(interleaved=True)
        assert not config.tied_head
    assert (v2.num_prefix_layers, v2.mlp.hidden_dim, v2.mlp.shared_hidden_dim) == (0, 1407, 2 * 1407)
    assert (v3.num_prefix_layers, v3.mlp.hidden_dim, v3.mlp.shared_hidden_dim) == (3, 2048, 2048)
    router = v3.mlp.router
    assert (router.num_experts, router.num_groups, router.num_chosen_groups, router.group_top) == (256, 8, 4, 2)
    assert (router.num_chosen, router.scale, router.normalized, router.score) == (8, 2.5, True, Score.SIGMOID)
    assert (v2.mlp.router.num_experts, v2.mlp.router.num_groups, v2.mlp.router.scale) == (64, 1, 1.0)


def test_key_heads_that_the_class_would_repeat_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^num_key_value_heads = None: is 128 when it is absent"):
        config_from_hf(_without(RECORDED["deepseek_v3"], "num_key_value_heads"))


def test_kimi_k2_is_deepseek_v3_by_another_name():
    kimi = {**RECORDED["deepseek_v3"], "model_type": "kimi_k2", "auto_map": {"AutoModel": "modeling_deepseek.X"}}
    assert config_from_hf(kimi) == config_from_hf(RECORDED["deepseek_v3"])


def test_the_factor_on_the_logits_is_in_the_querys_scale():
    given = RECORDED["deepseek_v3"]
    config = config_from_hf(given)
    stretch = 0.1 * 0.8 * np.log(8.0) + 1.0
    assert config.attention.scale == pytest.approx(20**-0.5 * stretch**2, rel=1e-15)
    assert config.positions.scaling.attention_factor == pytest.approx((0.1 * np.log(8.0) + 1.0) / stretch, rel=1e-15)
    plain = config_from_hf({**given, "rope_scaling": {"rope_type": "yarn", "factor": 8.0}})
    assert (plain.attention.query_scale, plain.positions.scaling.attention_factor) == (None, None)


def test_what_the_class_leaves_out_is_left_out():
    config = config_from_hf(RECORDED["deepseek_v3"])
    params = random_params(config)
    tensors = params_to_hf(config, params)
    extra = tensors["model.layers.0.input_layernorm.weight"]
    assert same(params_from_hf(config, {**tensors, "model.layers.61.enorm.weight": extra}), params)
    with pytest.raises(ValueError, match=r"^tensor model\.layers\.5\.enorm\.weight: "):
        params_from_hf(config, {**tensors, "model.layers.5.enorm.weight": extra})


EXPERT = "model.layers.1.block_sparse_moe.experts.3.w2.weight"


def test_a_bad_expert_is_refused_by_name():
    config = CONFIGS["mixtral-tiny"]
    tensors = params_to_hf(config, random_params(config))
    with pytest.raises(ValueError, match=rf"^tensor {EXPERT}: is missing"):
        params_from_hf(config, _without(tensors, EXPERT))
    with pytest.raises(ValueError, match=rf"^tensor {EXPERT}: has shape"):
        params_from_hf(config, {**tensors, EXPERT: tensors[EXPERT].T.copy()})
    with pytest.raises(ValueError, match=r"experts\.5\.w2\.weight: is not a parameter"):
        params_from_hf(config, {**tensors, EXPERT.replace("experts.3", "experts.5"): tensors[EXPERT]})


REFUSED = {
    "attention_bias": [("mixtral", True), ("deepseek_v2", True), ("deepseek_v3", True)],
    "decoder_sparse_step": [("qwen3_moe", 2)],
    "mlp_only_layers": [("qwen3_moe", [0])],
    "num_local_experts": [("qwen3_moe", 4)],
    "swiglu_alpha": [("gpt_oss", 1.0)],
    "hidden_act": [("gpt_oss", "gelu_new"), ("mixtral", "gelu"), ("deepseek_v3", "relu")],
    "experts_per_token": [("gpt_oss", 3)],
    "swiglu_limit": [("gpt_oss", None)],
    "sliding_window": [("mixtral", 0), ("gpt_oss", "24")],
    "rms_norm_eps": [("deepseek_v2", 1e-5), ("deepseek_v3", 1e-5)],
    "num_key_value_heads": [("deepseek_v2", 2), ("deepseek_v3", 2)],
    "head_dim": [("deepseek_v2", 20), ("deepseek_v3", 20)],
    "qk_head_dim": [("deepseek_v3", 19)],
    "mlp_bias": [("deepseek_v2", True), ("deepseek_v3", True)],
    "norm_topk_prob": [("deepseek_v2", True)],
    "scoring_func": [("deepseek_v2", "sigmoid"), ("deepseek_v3", "softmax")],
    "topk_method": [("deepseek_v2", "noaux_tc"), ("deepseek_v3", "greedy")],
    "n_group": [("deepseek_v2", None), ("deepseek_v3", "3")],
    "n_shared_experts": [("deepseek_v2", 0), ("deepseek_v3", None)],
    "first_k_dense_replace": [("deepseek_v2", 4), ("deepseek_v3", None)],
    "moe_layer_freq": [("deepseek_v2", 2), ("deepseek_v3", 2)],
    "rope_interleave": [("deepseek_v2", False)],
    "num_experts_per_tok": [("deepseek_v2", None)],
    "quantization_config": [("gpt_oss", {"quant_method": "mxfp4"}), ("deepseek_v3", {"quant_method": "fp8"})],
    "rope_scaling": [
        ("deepseek_v3", {"rope_type": "dynamic", "factor": 2.0}),
        ("deepseek_v3", {"rope_type": "linear", "factor": 2.0, "mscale_all_dim": 1.0}),
        ("deepseek_v2", {"rope_type": "yarn", "mscale_all_dim": 1.0, "original_max_position_embeddings": 64}),
    ],
}


@pytest.mark.parametrize(("key", "name", "value"), [(key, *case) for key in REFUSED for case in REFUSED[key]])
def test_an_attribute_that_could_change_the_result_is_refused_by_name(key, name, value):
    with pytest.raises(ValueError, match=rf"^{key} = "):
        config_from_hf({**RECORDED[name], key: value})


def _mlp(config, **changes):
    return config.replace(mlp=dataclasses.replace(config.mlp, **changes))


def _router(config, **changes):
    return _mlp(config, router=dataclasses.replace(config.mlp.router, **changes))


UNSAYABLE = {
    "tokens are dropped": ("mixtral-tiny", "mlp", lambda config: _mlp(config, capacity_factor=1.5)),
    "weights do not sum to one": ("mixtral-tiny", "mlp", lambda config: _router(config, normalized=False)),
    "a bias on the choice": ("qwen3-moe-tiny", "mlp", lambda config: _router(config, choice_bias=True)),
    "a dense layer first": (
        "qwen3-moe-tiny",
        "prefix",
        lambda config: config.replace(
            prefix=Layer(mlp=Mlp(8, config.mlp.activation, gated=True)), num_prefix_layers=1
        ),
    ),
    "another offset": ("gpt-oss-tiny", "mlp", lambda config: _mlp(config, linear_offset=0.5)),
    "no sinks": (
        "gpt-oss-tiny",
        "attention",
        lambda config: config.replace(attention=dataclasses.replace(config.attention, sinks=False)),
    ),
    "halves turn together": (
        "deepseek2-tiny",
        "positions",
        lambda config: config.replace(positions=dataclasses.replace(config.positions, interleaved=False)),
    ),
    "part of a shared expert": ("deepseek2-tiny", "mlp.shared_hidden_dim", lambda c: _mlp(c, shared_hidden_dim=25)),
    "another epsilon": (
        "deepseek3-tiny",
        "norm",
        lambda config: config.replace(norm=dataclasses.replace(config.norm, epsilon=1e-5)),
    ),
    "a group's best expert alone": ("deepseek3-tiny", "mlp", lambda config: _router(config, group_top=1)),
    "a softmax with a bias": ("deepseek3-tiny", "mlp", lambda config: _router(config, score=Score.SOFTMAX)),
}


@pytest.mark.parametrize("case", UNSAYABLE)
def test_a_model_that_they_cannot_say_is_refused_by_field(case):
    name, field, change = UNSAYABLE[case]
    with pytest.raises(ValueError, match=f"^{field} = "):
        config_to_hf(change(CONFIGS[name]))
