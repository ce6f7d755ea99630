"""Hugging Face's Gemma 4 as data, whose full layers have heads unlike its sliding ones; the words are `hf_words.py`.

The class of text alone; its configs name the heads of full layers by keys of their own or layer by layer.
"""

import dataclasses
import typing
from collections.abc import Mapping

from ..config import Attention, BranchNorms, ConfigError, Layer, Mlp, ModelConfig, Moe, Rope, Router, preset
from .hf_layers import (
    FULL,
    SLIDING,
    Json,
    Layers,
    all_layers,
    every,
    read_rope,
    read_types,
    read_window,
    refuse_untruncated,
    shortest,
    spell_rope,
)
from .hf_words import (
    BIAS,
    GEMMA_ACTIVATION,
    HEAD_NORMS,
    IGNORED,
    KV_HEADS,
    LAYER,
    ROTARY_FIXED,
    SANDWICH_NAMES,
    Architecture,
    Attribute,
    Tensor,
    Varied,
    flag,
    gated,
    only,
    rotary,
    rotary_tensors,
    size_of,
)  # fmt: skip

_LAYERS = Layers(types=every(6), window=512, listed=True)
_ROPES = {
    SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
    FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
}
_HEADS = ("head_dim", KV_HEADS)
_KEYS = frozenset({
    "sliding_window", "layer_types", "rope_parameters", "global_head_dim", "num_global_key_value_heads",
    "per_layer_config", "attention_k_eq_v", "hidden_size_per_layer_input", "enable_moe_block", "num_experts",
    "top_k_experts", "moe_intermediate_size",
})  # fmt: skip


def _read(config: ModelConfig, keys: Json) -> ModelConfig:
    vectors = keys.get("hidden_size_per_layer_input", 256)
    if vectors != 0:
        fix = "write 0: these layers read no vectors of their own"
        raise ConfigError("hidden_size_per_layer_input", vectors, "is supported only as 0, and is 256 if absent", fix)
    config = config.replace(mlp=_mlp(config, keys))
    window = read_window(_LAYERS, keys)
    types = list(read_types(_LAYERS, keys, window))
    types[-1] = FULL  # the class makes it so
    ropes, heads = _ropes(keys, types), _heads(config, keys, types)
    wide = dataclasses.replace(heads[FULL], share_kv=flag(keys, "attention_k_eq_v", absent=False))
    layers = [Layer(window) if kind == SLIDING else Layer(attention=wide, rope=ropes[FULL]) for kind in types]
    return config.replace(attention=heads[SLIDING], positions=ropes[SLIDING], cycle=shortest(layers))


def _mlp(config: ModelConfig, keys: Json) -> Mlp | Moe:
    mlp = config.mlp
    if not flag(keys, "enable_moe_block", absent=False):
        return mlp
    chosen = size_of(keys, "num_experts"), size_of(keys, "top_k_experts")
    router = Router(*chosen, normalized=True, expert_scale=True, input_scale=True)
    width = size_of(keys, "moe_intermediate_size")
    return Moe(router, width, mlp.activation, shared_hidden_dim=mlp.hidden_dim, branch_norms=_NORMS)


def _ropes(keys: Json, types: list[str]) -> dict[str, Rope]:
    name = "rope_parameters"
    entries = _ROPES if keys.get(name) is None else keys[name]
    if not isinstance(entries, dict) or set(types) - set(entries) or set(entries) - set(_ROPES):
        raise ConfigError(name, entries, f"must have an entry for each of {FULL} and {SLIDING}", "write both")
    found = {}
    for kind, absent in _ROPES.items():
        entry = entries.get(kind, absent)
        found[kind] = read_rope(name, entry, _ROPES[SLIDING]["rope_theta"], keys, proportional=True)
        refuse_untruncated(name, kind, found[kind])
    return found


def _heads(config: ModelConfig, keys: Json, types: list[str]) -> dict[str, Attention]:
    """The attention of each type of layer: the key heads and the head's width that it has."""
    given = keys.get("per_layer_config")
    overrides = _widened(keys, types) if given is None else _by_layer(given)
    plain = typing.cast(Attention, config.attention)
    found = {SLIDING: plain}
    for kind in dict.fromkeys(types):
        owned = [overrides.get(index, {}) for index, its in enumerate(types) if its == kind]
        sizes = [(own.get("head_dim", plain.head_dim), own.get(KV_HEADS, plain.num_kv_heads)) for own in owned]
        if len(set(sizes)) > 1:
            rule = f"gives layers of type {kind} different heads, and the class turns them all alike"
            raise ConfigError("per_layer_config", given, rule, "give layers of one type the same")
        found[kind] = dataclasses.replace(plain, head_dim=sizes[0][0], num_kv_heads=sizes[0][1])
    return found


def _by_layer(given: typing.Any) -> Mapping[int, Json]:
    """What `per_layer_config` says of each layer, whose numbers JSON writes as text."""
    try:
        overrides = {int(layer): dict(own) for layer, own in given.items()}
    except (AttributeError, TypeError, ValueError):
        rule = "must have the number of a layer for each object"
        raise ConfigError("per_layer_config", given, rule, "write it as the class does") from None
    unknown = {key for own in overrides.values() for key in own} - set(_HEADS)
    if unknown:
        rule = f"holds {sorted(unknown)[0]!r}, which is supported only alike in every layer"
        raise ConfigError("per_layer_config", given, rule, f"known: {', '.join(_HEADS)}")
    return overrides


def _widened(keys: Json, types: list[str]) -> Mapping[int, Json]:
    """What the class puts in `per_layer_config` where it is absent."""
    own: dict[str, int] = {"head_dim": size_of({"global_head_dim": 512, **keys}, "global_head_dim")}
    if flag(keys, "attention_k_eq_v", absent=False) and keys.get("num_global_key_value_heads") is not None:
        own[KV_HEADS] = size_of(keys, "num_global_key_value_heads")
    return {index: own for index, kind in enumerate(types) if kind == FULL}


def _write(config: ModelConfig) -> dict[str, typing.Any]:
    layers = all_layers(config)
    if layers[-1].window is not None:
        rule = "makes the last layer a sliding one, which the Hugging Face class makes a full one"
        raise ConfigError("num_layers", config.num_layers, rule, "end with a full layer")
    full = layers[-1]
    plain, wide = config.attention, config.attention_of(full)
    if not isinstance(plain, Attention) or not isinstance(wide, Attention):
        rule = "must be an Attention in every layer for this Hugging Face class"
        raise ConfigError("attention", plain, rule, "use Attention")
    ropes = {SLIDING: config.positions, FULL: config.positions_of(full)}
    window = next((layer.window for layer in layers if layer.window is not None), None)
    keys: dict[str, typing.Any] = {
        "layer_types": [FULL if layer.window is None else SLIDING for layer in layers],
        "rope_parameters": {
            kind: {**spell_rope(rope), "rope_theta": rope.max_timescale}
            for kind, rope in ropes.items()
            if isinstance(rope, Rope)
        },
        "global_head_dim": wide.head_dim,
        "attention_k_eq_v": wide.share_kv,
        "hidden_size_per_layer_input": 0,
        **({"sliding_window": window} if window is not None else {}),
        **_write_mlp(config),
    }
    if wide.share_kv:
        return {**keys, "num_global_key_value_heads": wide.num_kv_heads}
    if wide.num_kv_heads == plain.num_kv_heads:
        return keys
    # The two keys say key heads of their own only where they are values, too.
    own = {"head_dim": wide.head_dim, KV_HEADS: wide.num_kv_heads}
    return {**keys, "per_layer_config": {str(index): own for index, layer in enumerate(layers) if layer.window is None}}


def _write_mlp(config: ModelConfig) -> dict[str, typing.Any]:
    mlp = config.mlp
    if not isinstance(mlp, Moe):
        return {"enable_moe_block": False}
    return {
        "enable_moe_block": True, "num_experts": mlp.router.num_experts, "top_k_experts": mlp.router.num_chosen,
        "moe_intermediate_size": mlp.hidden_dim, "intermediate_size": mlp.shared_hidden_dim,
    }  # fmt: skip


_NORMS = BranchNorms(
    "post_feedforward_layernorm_1", "pre_feedforward_layernorm_2", "post_feedforward_layernorm_2"
)
_FUSED = f"{LAYER}.experts.gate_up_proj"

GEMMA4 = Architecture(
    model_type="gemma4_text",
    class_name="Gemma4ForCausalLM",
    template=preset("gemma4-31b").replace(cycle=(Layer(),), num_layers=1),
    attributes=(
        *rotary(kv_heads=4, head_dim=256, tied=True, activation=GEMMA_ACTIVATION),
        *BIAS,
        Attribute("final_logit_softcapping", "final_soft_cap", None, null=True),
    ),
    fixed={
        **ROTARY_FIXED,
        # In text without pictures "vision" is causal, too.
        "use_bidirectional_attention": only("vision", None),
        "num_kv_shared_layers": only(0),
    },
    # The double width is that of layers which share keys, and the table's size that of vectors which are not there.
    ignored=IGNORED | {"use_double_wide_mlp", "vocab_size_per_layer_input"},
    tensors=(
        *rotary_tensors(*SANDWICH_NAMES), *HEAD_NORMS,
        Tensor("layer_scale{s}", f"{LAYER}.layer_scalar", "() -> ()"),
        *gated("moe{s}/shared_experts", f"{LAYER}.mlp", "S", Moe),
        Tensor("moe{s}/gate/kernel", f"{LAYER}.router.proj.weight", "E D -> D E", of=Moe),
        Tensor("moe{s}/gate/scale", f"{LAYER}.router.scale", "D -> D", of=Moe),
        Tensor("moe{s}/gate/expert_scale", f"{LAYER}.router.per_expert_scale", "E -> E", of=Moe),
        Tensor("moe{s}/wi_0", _FUSED, "E (G M) D -> G E D M", of=Moe, part=0),
        Tensor("moe{s}/wi_1", _FUSED, "E (G M) D -> G E D M", of=Moe, part=1),
        Tensor("moe{s}/wo", f"{LAYER}.experts.down_proj", "E D M -> E M D", of=Moe),
        *(
            Tensor(f"moe{{s}}/{name}/scale", f"{LAYER}.{name}.weight", "D -> D", of=Moe)
            for name in dataclasses.astuple(_NORMS)
        ),
    ),
    varied=Varied(_KEYS, _read, _write),
)  # fmt: skip
