"""Hugging Face's Llama 4 and Qwen3-Next as data, whose layers differ in more than a window (the words: `hf_words.py`).

Which layer has which attention, feed-forward part or positions is said by keys of their own, read and written here.
"""

import typing

from ..config import ConfigError, GatedDelta, Layer, Mlp, ModelConfig, Moe, QkNorm, Unrotated, preset
from .hf_layers import FULL, SIZE, Json, Layers, all_layers, shortest
from .hf_mixtures import BALANCE, PROJECTIONS, experts
from .hf_words import (
    ATTENTION,
    BIAS,
    COMMON_FIXED,
    HEAD_NORMS,
    IGNORED,
    LAYER,
    OUTER,
    PRE_NORM_NAMES,
    ROTARY_FIXED,
    Architecture,
    Attribute,
    Derived,
    Tensor,
    Varied,
    flag,
    gated,
    norms,
    only,
    rotary,
    size_of,
    width_over_heads,
)  # fmt: skip

CHUNKED, LINEAR = "chunked_attention", "linear_attention"


def _listed(keys: Json, name: str, absent: typing.Sequence[typing.Any], known: tuple[typing.Any, ...]) -> list:
    """A word for each layer."""
    given = absent if keys.get(name) is None else keys[name]
    if not isinstance(given, list | tuple) or len(given) != keys[SIZE]:
        raise ConfigError(name, given, f"must list {SIZE} = {keys[SIZE]} layers", "name each once")
    unknown = [word for word in given if word not in known]
    if unknown:
        raise ConfigError(name, unknown[0], "is not supported", f"known: {', '.join(map(str, known))}")
    return list(given)


def _every(keys: Json, name: str, period: int, others: typing.Any, last: typing.Any) -> list:
    """The last of each `keys[name]` layers is another one."""
    period = size_of({name: period, **keys}, name)
    return [others if (index + 1) % period else last for index in range(keys[SIZE])]


_LLAMA4_MOE = f"{LAYER}.feed_forward"
_LLAMA4_SIZES = {"attention_chunk_size": 8192, "floor_scale": 8192, "intermediate_size_mlp": 16_384}


def _read_llama4(config: ModelConfig, keys: Json) -> ModelConfig:
    sizes = {**_LLAMA4_SIZES, **keys}
    # An empty list is an absent one.
    rotated = _listed(
        {**keys, "no_rope_layers": keys.get("no_rope_layers") or None}, "no_rope_layers",
        _every(keys, "no_rope_layer_interval", 4, 1, 0), (0, 1),
    )  # fmt: skip
    types = _listed(keys, "layer_types", [CHUNKED if turns else FULL for turns in rotated], (CHUNKED, FULL))
    step = size_of({"interleave_moe_layer_step": 1, **keys}, "interleave_moe_layer_step")
    mixed = range(step - 1, keys[SIZE], step) if keys.get("moe_layers") is None else keys["moe_layers"]
    temperature = float(keys.get("attn_scale", 0.1)) if flag(keys, "attn_temperature_tuning", absent=True) else 0.0
    # The class makes both masks, whether or not a layer uses them.
    chunk = size_of(sizes, "attention_chunk_size")
    nope = Unrotated(temperature, size_of(sizes, "floor_scale"))
    dense = Mlp(size_of(sizes, "intermediate_size_mlp"), config.mlp.activation, gated=True)
    layers = [
        Layer(
            chunk=chunk if kind == CHUNKED else None,
            rope=None if turns else nope,
            mlp=None if index in mixed else dense,
        )
        for index, (kind, turns) in enumerate(zip(types, rotated, strict=True))
    ]
    return config.replace(cycle=shortest(layers))


def _write_llama4(config: ModelConfig) -> dict[str, typing.Any]:
    layers = all_layers(config)
    chunk = next((layer.chunk for layer in layers if layer.chunk is not None), None)
    nope = next((layer.rope for layer in layers if isinstance(layer.rope, Unrotated)), None)
    dense = next((layer.mlp for layer in layers if isinstance(layer.mlp, Mlp)), None)
    keys: dict[str, typing.Any] = {
        "no_rope_layers": [int(not isinstance(layer.rope, Unrotated)) for layer in layers],
        "layer_types": [FULL if layer.chunk is None else CHUNKED for layer in layers],
        "moe_layers": [index for index, layer in enumerate(layers) if isinstance(config.mlp_of(layer), Moe)],
    }
    # What no layer uses has no value.
    keys |= {"attention_chunk_size": chunk} if chunk is not None else {}
    keys |= {"intermediate_size_mlp": dense.hidden_dim} if dense is not None else {}
    if nope is None:
        return keys
    temperature = {"attn_temperature_tuning": nope.temperature > 0, "attn_scale": nope.temperature}
    return {**keys, **temperature, "floor_scale": nope.length}


def _read_l2(keys: Json) -> dict[str, typing.Any]:
    return {
        "attention.qk_norm": QkNorm.L2.value if flag(keys, "use_qk_norm", absent=True) else None,
        "mlp.shared_hidden_dim": keys.get("intermediate_size", 8192),
    }


def _write_l2(config: ModelConfig) -> dict[str, typing.Any]:
    return {"use_qk_norm": getattr(config.attention, "qk_norm", None) is not None}


LLAMA4 = Architecture(
    model_type="llama4_text",
    class_name="Llama4ForCausalLM",
    template=preset("llama4-tiny").replace(cycle=(Layer(),), num_layers=1),
    attributes=(
        *rotary(
            kv_heads=8, head_dim=lambda keys: width_over_heads(keys) if "head_dim" in keys else 128, epsilon=1e-5,
            hidden=Attribute("intermediate_size", "mlp.hidden_dim", 8192),
        ),
        *BIAS,
        Attribute("num_local_experts", "mlp.router.num_experts", 16),
        Attribute("num_experts_per_tok", "mlp.router.num_chosen", 1),
    ),
    fixed=ROTARY_FIXED,
    ignored=IGNORED | BALANCE | {"for_llm_compressor"},
    tensors=(
        *OUTER, *ATTENTION, *norms(*PRE_NORM_NAMES), *gated("mlp{s}", _LLAMA4_MOE),
        Tensor("moe{s}/gate/kernel", f"{_LLAMA4_MOE}.router.weight", "E D -> D E", of=Moe),
        Tensor("moe{s}/wi_0", f"{_LLAMA4_MOE}.experts.gate_up_proj", "E D (G M) -> G E D M", of=Moe, part=0),
        Tensor("moe{s}/wi_1", f"{_LLAMA4_MOE}.experts.gate_up_proj", "E D (G M) -> G E D M", of=Moe, part=1),
        Tensor("moe{s}/wo", f"{_LLAMA4_MOE}.experts.down_proj", "E M D -> E M D", of=Moe),
        *gated("moe{s}/shared_experts", f"{_LLAMA4_MOE}.shared_expert", "S", Moe),
    ),
    layers=Layers(theta=500_000.0, interleaved=True),
    derived=Derived(frozenset({"use_qk_norm"}), _read_l2, _write_l2),
    varied=Varied(
        frozenset({
            "attn_scale", "attn_temperature_tuning", "interleave_moe_layer_step", "layer_types", "moe_layers",
            "no_rope_layer_interval", "no_rope_layers", *_LLAMA4_SIZES,
        }),
        _read_llama4,
        _write_llama4,
    ),
)  # fmt: skip

_DELTA = {
    "linear_num_key_heads": ("num_key_heads", 16), "linear_num_value_heads": ("num_value_heads", 32),
    "linear_key_head_dim": ("key_dim", 128), "linear_value_head_dim": ("value_dim", 128),
    "linear_conv_kernel_dim": ("conv_width", 4),
}  # fmt: skip
"""By their key: our field, and what its absence means."""


def _read_qwen3_next(config: ModelConfig, keys: Json) -> ModelConfig:
    absent = _every(keys, "full_attention_interval", 4, LINEAR, FULL)
    types = _listed(keys, "layer_types", absent, (LINEAR, FULL))
    delta = GatedDelta(**{field: size_of({key: default, **keys}, key) for key, (field, default) in _DELTA.items()})
    return config.replace(cycle=shortest([Layer(attention=delta) if kind == LINEAR else Layer() for kind in types]))


def _write_qwen3_next(config: ModelConfig) -> dict[str, typing.Any]:
    layers = all_layers(config)
    deltas = [layer.attention for layer in layers if isinstance(layer.attention, GatedDelta)]
    types = [LINEAR if isinstance(layer.attention, GatedDelta) else FULL for layer in layers]
    # What no layer uses has no value.
    return {"layer_types": types, **{key: getattr(deltas[0], field) for key, (field, _) in _DELTA.items() if deltas}}


def _of_delta(name: str, theirs: str, arrange: str) -> Tensor:
    return Tensor(f"self_attention{{s}}/{name}", f"{LAYER}.linear_attn.{theirs}", arrange, of=GatedDelta)


_QWEN_MOE = f"{LAYER}.mlp"

QWEN3_NEXT = Architecture(
    model_type="qwen3_next",
    class_name="Qwen3NextForCausalLM",
    template=preset("qwen3-next-tiny").replace(cycle=(Layer(),), num_layers=1),
    attributes=(
        *rotary(
            kv_heads=2, head_dim=256, hidden=Attribute("moe_intermediate_size", "mlp.hidden_dim", 512),
            # The gated delta rule has this one in two more places.
            activation=Attribute(None, "mlp.activation", lambda keys: "silu"),
        ),
        *BIAS,
        Attribute("num_experts", "mlp.router.num_experts", 512),
        Attribute("num_experts_per_tok", "mlp.router.num_chosen", 10),
        Attribute("norm_topk_prob", "mlp.router.normalized", True),
        Attribute("shared_expert_intermediate_size", "mlp.shared_hidden_dim", 512),
    ),
    fixed={
        **COMMON_FIXED, "hidden_act": only("swish", "silu"), "decoder_sparse_step": only(1),
        "mlp_only_layers": only(None, []),
    },
    # Its own MLP has `intermediate_size`, and no layer is left that has one.
    ignored=IGNORED | BALANCE | {"intermediate_size"},
    tensors=(
        *OUTER, *ATTENTION, *HEAD_NORMS, *norms(*PRE_NORM_NAMES),
        _of_delta("in_proj_qkvz/kernel", "in_proj_qkvz.weight", "Z D -> D Z"),
        _of_delta("in_proj_ba/kernel", "in_proj_ba.weight", "Y D -> D Y"),
        _of_delta("conv1d/kernel", "conv1d.weight", "X () W -> W () X"),
        _of_delta("A_log", "A_log", "L -> L"),
        _of_delta("dt_bias", "dt_bias", "L -> L"),
        _of_delta("norm/scale", "norm.weight", "U -> U"),
        _of_delta("out_proj/kernel", "out_proj.weight", "D (L U) -> (L U) D"),
        *experts(_QWEN_MOE, PROJECTIONS),
        *gated("moe{s}/shared_experts", f"{_QWEN_MOE}.shared_expert", "S", Moe),
        Tensor("moe{s}/shared_gate/kernel", f"{_QWEN_MOE}.shared_expert_gate.weight", "() D -> D ()", of=Moe),
    ),
    layers=Layers(fraction=0.25),
    varied=Varied(
        frozenset({"layer_types", "full_attention_interval", *_DELTA}), _read_qwen3_next, _write_qwen3_next
    ),
    unread="mtp.",
)  # fmt: skip
