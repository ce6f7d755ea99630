"""Hugging Face's mixtures of experts: their `config.json` attributes and tensors, as data; the words are `hf_words.py`.

Tensors are named and arranged as the files hold them, an expert at a time where they do; transformers 5 fuses them when
it loads. Kimi K2 is DeepSeek-V3's class under another `model_type`.
"""

import typing
from collections.abc import Callable

from ..config import ConfigError, LatentAttention, ModelConfig, Moe, Score, preset
from .hf_layers import Json, Layers, all_alike, every, read_stretch
from .hf_words import (
    ACTIVATIONS,
    ATTENTION,
    BIAS,
    COMMON_FIXED,
    HEAD_NORMS,
    IGNORED,
    LAYER,
    NO_BIAS,
    OUTER,
    PRE_NORM_NAMES,
    REQUIRED,
    ROTARY_FIXED,
    SELF_ATTENTION,
    Architecture,
    Attribute,
    Derived,
    Tensor,
    gated,
    norms,
    only,
    rotary,
    size_of,
    width_over_heads,
)  # fmt: skip

BALANCE = frozenset({"output_router_logits", "router_aux_loss_coef", "router_jitter_noise"})
"""What only a training run of theirs reads."""
_MLP = f"{LAYER}.mlp"


def experts(block: str, names: tuple[str, str, str]) -> tuple[Tensor, ...]:
    """Router and experts, each expert's three kernels a tensor of its own."""
    expert = f"{block}.experts.{{e}}"
    first, second, out = names
    return (
        Tensor("moe{s}/gate/kernel", f"{block}.gate.weight", "E D -> D E", of=Moe),
        Tensor("moe{s}/wi_0", f"{expert}.{first}.weight", "M D -> D M", of=Moe),
        Tensor("moe{s}/wi_1", f"{expert}.{second}.weight", "M D -> D M", of=Moe),
        Tensor("moe{s}/wo", f"{expert}.{out}.weight", "D M -> M D", of=Moe),
    )


PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


MIXTRAL = Architecture(
    model_type="mixtral",
    class_name="MixtralForCausalLM",
    template=preset("mixtral-tiny"),
    attributes=(
        *rotary(kv_heads=8, epsilon=1e-5),
        Attribute("num_local_experts", "mlp.router.num_experts", 8),
        Attribute("num_experts_per_tok", "mlp.router.num_chosen", 2),
    ),
    fixed={**ROTARY_FIXED, **NO_BIAS},
    ignored=IGNORED | BALANCE,
    tensors=(
        *OUTER, *ATTENTION, *norms(*PRE_NORM_NAMES), *experts(f"{LAYER}.block_sparse_moe", ("w1", "w3", "w2")),
    ),
    layers=Layers(types=all_alike, window=0, theta=1_000_000.0),
)  # fmt: skip

QWEN3_MOE = Architecture(
    model_type="qwen3_moe",
    class_name="Qwen3MoeForCausalLM",
    template=preset("qwen3-moe-tiny"),
    attributes=(
        *rotary(kv_heads=4, hidden=Attribute("moe_intermediate_size", "mlp.hidden_dim", 768)),
        *BIAS,
        Attribute("num_experts", "mlp.router.num_experts", lambda keys: keys.get("num_local_experts") or 128),
        Attribute("num_experts_per_tok", "mlp.router.num_chosen", 8),
        Attribute("norm_topk_prob", "mlp.router.normalized", False),
    ),
    fixed={
        **ROTARY_FIXED,
        # Published files say `num_experts`; the class writes the other.
        "num_local_experts": lambda keys: (keys.get("num_experts") or keys["num_local_experts"],),
        "decoder_sparse_step": only(1),
        "mlp_only_layers": only(None, []),
    },
    # Its own MLP has `intermediate_size`, and no layer is left that has one; `max_window_layers` it does not read.
    ignored=IGNORED | BALANCE | {"intermediate_size", "max_window_layers"},
    tensors=(*OUTER, *ATTENTION, *HEAD_NORMS, *norms(*PRE_NORM_NAMES), *experts(_MLP, PROJECTIONS)),
    layers=Layers(types=all_alike, window=4096, switch=True),
)

_GPT_OSS_ROPE = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 4096,
}  # fmt: skip

GPT_OSS = Architecture(
    model_type="gpt_oss",
    class_name="GptOssForCausalLM",
    template=preset("gpt-oss-tiny"),
    attributes=(
        *rotary(
            kv_heads=8, head_dim=lambda keys: width_over_heads(keys) if "head_dim" in keys else 64, epsilon=1e-5,
            # The experts' activation is the class's own.
            activation=Attribute(None, "mlp.activation", lambda keys: "quick_gelu"),
        ),
        Attribute("attention_bias", "attention.qkv_bias", True),
        Attribute(None, "attention.out_bias", lambda keys: bool(keys.get("attention_bias", True))),
        Attribute("swiglu_limit", "mlp.clamp", 7.0),
        Attribute("num_local_experts", "mlp.router.num_experts", 128),
        Attribute("num_experts_per_tok", "mlp.router.num_chosen", 4),
    ),
    fixed={
        **ROTARY_FIXED,
        "hidden_act": only("silu"),
        "swiglu_alpha": only(1.702),
        "experts_per_token": lambda keys: (keys.get("num_experts_per_tok", 4),),
    },
    ignored=IGNORED | BALANCE | {"initial_context_length"},
    tensors=(
        *OUTER, *ATTENTION, *norms(*PRE_NORM_NAMES),
        Tensor("self_attention{s}/sinks", f"{SELF_ATTENTION}.sinks", "N -> N"),
        Tensor("moe{s}/gate/kernel", f"{_MLP}.router.weight", "E D -> D E", of=Moe),
        Tensor("moe{s}/gate/bias", f"{_MLP}.router.bias", "E -> E", of=Moe),
        # Columns of the two input kernels take turns.
        Tensor("moe{s}/wi_0", f"{_MLP}.experts.gate_up_proj", "E D (M G) -> G E D M", of=Moe, part=0),
        Tensor("moe{s}/wi_1", f"{_MLP}.experts.gate_up_proj", "E D (M G) -> G E D M", of=Moe, part=1),
        Tensor("moe{s}/wo", f"{_MLP}.experts.down_proj", "E M D -> E M D", of=Moe),
        Tensor("moe{s}/wi_0_bias", f"{_MLP}.experts.gate_up_proj_bias", "E (M G) -> G E M", of=Moe, part=0),
        Tensor("moe{s}/wi_1_bias", f"{_MLP}.experts.gate_up_proj_bias", "E (M G) -> G E M", of=Moe, part=1),
        Tensor("moe{s}/wo_bias", f"{_MLP}.experts.down_proj_bias", "E D -> E D", of=Moe),
    ),
    layers=Layers(types=every(2), window=128, listed=True, theta=150_000.0, scaling=_GPT_OSS_ROPE),
)  # fmt: skip


def _latent(hidden: int) -> tuple[Attribute, ...]:
    """What both of DeepSeek's classes read."""
    return (
        Attribute("vocab_size", "vocab_size", REQUIRED),
        Attribute("hidden_size", "embed_dim", REQUIRED),
        Attribute("num_hidden_layers", "num_layers", REQUIRED),
        Attribute("num_attention_heads", "attention.num_heads", REQUIRED),
        Attribute("kv_lora_rank", "attention.kv_rank", 512),
        Attribute("q_lora_rank", "attention.query_rank", 1536, null=True),
        Attribute("qk_nope_head_dim", "attention.nope_dim", 128),
        Attribute("qk_rope_head_dim", "attention.rope_dim", 64),
        Attribute("v_head_dim", "attention.value_dim", 128),
        Attribute("hidden_act", "mlp.activation", "silu", words=ACTIVATIONS),
        Attribute("moe_intermediate_size", "mlp.hidden_dim", hidden),
        Attribute("tie_word_embeddings", "tied_head", False),
    )


def _nope_and_rope(keys: Json) -> int:
    return keys.get("qk_nope_head_dim", 128) + keys.get("qk_rope_head_dim", 64)


_DEEPSEEK_FIXED = {
    **COMMON_FIXED,
    **NO_BIAS,
    # The latent vectors' norms have this one whatever the key says.
    "rms_norm_eps": only(1e-6),
    "num_key_value_heads": lambda keys: (None, keys["num_attention_heads"]),
    "head_dim": lambda keys: (None, keys.get("qk_rope_head_dim", 64)),
    "qk_head_dim": lambda keys: (_nope_and_rope(keys),),
    "moe_layer_freq": only(1),
}
# Their first code's placement and training; `auto_map` names that code, and the class here is Hugging Face's own.
_DEEPSEEK_IGNORED = IGNORED | BALANCE | {"auto_map", "aux_loss_alpha", "ep_size", "pretraining_tp", "seq_aux"}


def _read_stretch(keys: Json) -> dict[str, typing.Any]:
    return {"attention.query_scale": _nope_and_rope(keys) ** -0.5 * read_stretch(keys) ** 2}


def _shared(keys: Json, number: int, width: int) -> dict[str, typing.Any]:
    """The shared experts are one MLP of their joint width."""
    size = {"n_shared_experts": number, "moe_intermediate_size": width, **keys}
    return {"mlp.shared_hidden_dim": size_of(size, "n_shared_experts") * size_of(size, "moe_intermediate_size")}


_WRITTEN = frozenset({"n_shared_experts", "n_group", "topk_group"})


def _write_both(config: ModelConfig) -> dict[str, typing.Any]:
    shared = getattr(config.mlp, "shared_hidden_dim", None) or 0
    if not shared or shared % config.mlp.hidden_dim:
        rule = f"must be a multiple of mlp.hidden_dim = {config.mlp.hidden_dim} for this Hugging Face class"
        raise ConfigError("mlp.shared_hidden_dim", shared, rule, "set it to the shared experts' joint width")
    router = typing.cast(Moe, config.mlp).router
    return {
        "n_shared_experts": shared // config.mlp.hidden_dim, "n_group": router.num_groups,
        "topk_group": router.num_chosen_groups, "rms_norm_eps": 1e-6,
        # The one class takes 128 key heads where the key is absent, and repeats them.
        "num_key_value_heads": config.attention.num_heads,
    }  # fmt: skip


def _groups(keys: Json) -> dict[str, typing.Any]:
    return {
        "mlp.router.num_groups": size_of(keys, "n_group"), "mlp.router.num_chosen_groups": size_of(keys, "topk_group")
    }  # fmt: skip


def _read_v2(keys: Json) -> dict[str, typing.Any]:
    method = keys.get("topk_method", "greedy")
    if method not in ("greedy", "group_limited_greedy"):
        raise ConfigError("topk_method", method, "is not supported", "known: greedy, group_limited_greedy")
    groups = keys if method == "group_limited_greedy" else {"n_group": 1, "topk_group": 1}
    return {**_read_stretch(keys), **_shared(keys, 2, 1407), **_groups(groups)}


def _write_v2(config: ModelConfig) -> dict[str, typing.Any]:
    both = _write_both(config)
    return {**both, "topk_method": "group_limited_greedy" if both["n_group"] > 1 else "greedy"}


def _read_v3(keys: Json) -> dict[str, typing.Any]:
    if "num_key_value_heads" not in keys and keys["num_attention_heads"] != 128:
        rule = f"is 128 when it is absent, and must be num_attention_heads = {keys['num_attention_heads']}"
        raise ConfigError("num_key_value_heads", None, rule, "write it")
    groups = _groups({"n_group": 8, "topk_group": 4, **keys})
    top = 1 if groups["mlp.router.num_groups"] == 1 else 2
    return {**_read_stretch(keys), **_shared(keys, 1, 2048), **groups, "mlp.router.group_top": top}


def _write_v3(config: ModelConfig) -> dict[str, typing.Any]:
    return {**_write_both(config), "num_nextn_predict_layers": 0}


def _latent_part(
    name: str, theirs: str, arrange: str, given: Callable[[LatentAttention], bool] = lambda _: True
) -> Tensor:
    return Tensor(f"self_attention{{s}}/{name}", f"{SELF_ATTENTION}.{theirs}.weight", arrange, given, LatentAttention)


def _ranked(attention: LatentAttention) -> bool:
    return attention.query_rank is not None


_DEEPSEEK_TENSORS = (
    *OUTER,
    *norms(*PRE_NORM_NAMES),
    _latent_part("query/kernel", "q_proj", "(N H) D -> D N H", lambda attention: attention.query_rank is None),
    _latent_part("wq_a/kernel", "q_a_proj", "Q D -> D Q", _ranked),
    _latent_part("q_norm/scale", "q_a_layernorm", "Q -> Q", _ranked),
    _latent_part("wq_b/kernel", "q_b_proj", "(N H) Q -> Q N H", _ranked),
    _latent_part("wkv_a/kernel", "kv_a_proj_with_mqa", "A D -> D A"),
    _latent_part("kv_norm/scale", "kv_a_layernorm", "R -> R"),
    _latent_part("wkv_b/kernel", "kv_b_proj", "(N B) R -> R N B"),
    _latent_part("out/kernel", "o_proj", "D (N U) -> N U D"),
    *gated("mlp{s}", _MLP),
    *experts(_MLP, PROJECTIONS),
    *gated("moe{s}/shared_experts", f"{_MLP}.shared_experts", "S", Moe),
)

DEEPSEEK_V2 = Architecture(
    model_type="deepseek_v2",
    class_name="DeepseekV2ForCausalLM",
    template=preset("deepseek2-tiny"),
    attributes=(
        *_latent(1407),
        Attribute("n_routed_experts", "mlp.router.num_experts", 64),
        Attribute("num_experts_per_tok", "mlp.router.num_chosen", REQUIRED),
        Attribute("routed_scaling_factor", "mlp.router.scale", 1.0),
    ),
    # The class never divides by the sum, whatever `norm_topk_prob` says, and its weights are a softmax's.
    fixed={
        **_DEEPSEEK_FIXED,
        "mlp_bias": only(False),
        "norm_topk_prob": only(None, False),
        "scoring_func": only("softmax"),
    },
    ignored=_DEEPSEEK_IGNORED,
    tensors=_DEEPSEEK_TENSORS,
    layers=Layers(dense=0, interleaved=True, stretched=True),
    derived=Derived(_WRITTEN | {"topk_method"}, _read_v2, _write_v2),
    writes=lambda config: isinstance(config.mlp, Moe) and config.mlp.router.score is Score.SOFTMAX,
)  # fmt: skip


DEEPSEEK_V3 = Architecture(
    model_type="deepseek_v3",
    class_name="DeepseekV3ForCausalLM",
    template=preset("deepseek3-tiny"),
    attributes=(
        *_latent(2048),
        Attribute("n_routed_experts", "mlp.router.num_experts", 256),
        Attribute("num_experts_per_tok", "mlp.router.num_chosen", 8),
        Attribute("routed_scaling_factor", "mlp.router.scale", 2.5),
        Attribute("norm_topk_prob", "mlp.router.normalized", True),
    ),
    fixed={**_DEEPSEEK_FIXED, "scoring_func": only("sigmoid"), "topk_method": only("noaux_tc")},
    # Layers past the last predict tokens further on and change no logit; the class leaves out the published one.
    ignored=_DEEPSEEK_IGNORED | {"num_nextn_predict_layers"},
    tensors=(
        *_DEEPSEEK_TENSORS,
        Tensor("moe{s}/gate/choice_bias", f"{_MLP}.gate.e_score_correction_bias", "E -> E", of=Moe),
    ),
    layers=Layers(dense=3, interleaved=True, interleave_key="rope_interleave", stretched=True),
    derived=Derived(_WRITTEN, _read_v3, _write_v3),
    unread="model.layers.61.",
)
