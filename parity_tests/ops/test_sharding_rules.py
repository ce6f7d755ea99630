"""Logical names to mesh axes: published specs, the reference semantics, and the names the twins use."""

import flax.linen
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from models.config import ConfigError, ModelConfig, preset
from models.sharding import (
    DEFAULT_RULES,
    MESH_AXES,
    PRESET_RULES,
    Rules,
    check_vocabulary,
    override,
    resolve,
    rules_for,
)

from .inputs import few

EVERY_AXIS = dict.fromkeys(MESH_AXES, 2)
TENSOR = ("tensor", "tensor_sequence", "autoregressive")
FSDP = ("fsdp", "fsdp_transpose", "context", "context_usp_ulysses", "expert")
MLP = ("fsdp_transpose", *TENSOR)
FSDP_BESIDE_MLP = ("fsdp", "context", "context_usp_ulysses", "expert")
FSDP_OF_EXPERTS = ("fsdp", "context", "context_usp_ulysses")

# Facts: logical axes and specs of MaxText's parameter trees for llama3.1-8b, gpt3-175b, gemma2-2b and gemma3-4b (whose
# remainder is not scanned), deepseek3-671b, gpt-oss-20b, qwen3-30b-a3b, qwen3-next-80b-a3b and gemma4-26b on a 64-chip
# mesh.
PUBLISHED = {
    ("norm",): ("tensor",),
    ("norm", "layers"): ("tensor", "stage"),
    ("vocab", "embed_vocab"): (TENSOR, FSDP),
    ("embed_vocab", "vocab"): (FSDP, TENSOR),
    ("embed", "layers", "mlp"): (FSDP_BESIDE_MLP, "stage", MLP),
    ("mlp", "layers", "embed"): (MLP, "stage", FSDP_BESIDE_MLP),
    ("mlp", "layers"): (MLP, "stage"),
    ("embed", "layers"): (FSDP, "stage"),
    ("embed", "layers", "q_heads", "kv"): (FSDP, "stage", TENSOR, None),
    ("embed", "layers", "kv_heads", "kv_head_dim"): (FSDP, "stage", TENSOR, None),
    ("heads", "layers", "kv", "embed"): (TENSOR, "stage", None, FSDP),
    ("embed", "layers", "qkv", "heads", "kv"): (FSDP, "stage", None, TENSOR, None),
    ("qkv", "layers", "heads", "kv"): (None, "stage", TENSOR, None),
    ("embed", "mlp"): (FSDP_BESIDE_MLP, MLP),
    ("mlp", "embed"): (MLP, FSDP_BESIDE_MLP),
    ("embed", "q_heads", "kv"): (FSDP, TENSOR, None),
    ("embed", "kv_heads", "kv_head_dim"): (FSDP, TENSOR, None),
    ("heads", "kv", "embed"): (TENSOR, None, FSDP),
    ("exp", "layers", "embed_moe", "mlp_moe"): ("expert", "stage", FSDP_OF_EXPERTS, MLP),
    ("exp", "moe_layers", "mlp_moe", "embed_moe"): ("expert", None, MLP, FSDP_OF_EXPERTS),
    ("embed_moe", "moe_layers", None): (("fsdp", "fsdp_transpose", "context", "context_usp_ulysses"), None, None),
    (None, "layers"): (None, "stage"),
    (None, "moe_layers"): (None, None),
    ("exp", "layers", "activation_mlp"): ("expert", "stage", TENSOR[:2]),
    ("exp", "layers", "activation_embed"): ("expert", "stage", "tensor"),
    ("embed", "dense_layers", "mlp"): (FSDP_BESIDE_MLP, None, MLP),
    ("norm", "dense_layers"): ("tensor", None),
    ("embed", "layers", "gdn_head"): (FSDP_BESIDE_MLP, "stage", MLP),
    ("gdn_head", "layers", "embed"): (MLP, "stage", FSDP_BESIDE_MLP),
    ("embed", "layers", None): (FSDP, "stage", None),
    ("exp", "layers"): ("expert", "stage"),
    ("embed", "moe_layers", "kv_lora_up_proj"): (FSDP, None, None),
    ("embed", "moe_layers", "q_lora_up_proj"): (FSDP, None, None),
    ("kv_lora", "moe_layers", "kv_heads", "kv_head_dim"): (FSDP, None, TENSOR, None),
    ("q_lora", "moe_layers", "q_heads", "kv"): (FSDP, None, TENSOR, None),
}

ACTIVATIONS = {
    ("activation_batch", "activation_norm_length", "activation_embed"): (
        ("data", "fsdp", "fsdp_transpose", "expert"), ("tensor_sequence", "context", "context_usp_ulysses"), "tensor",
    ),
    ("activation_batch_attn", "activation_length_attn", "activation_heads", "activation_kv"): (
        ("data", "fsdp", "fsdp_transpose", "expert"), ("context", "context_usp_ulysses"), TENSOR, None,
    ),
    ("activation_batch_attn", "activation_length_attn", "activation_kv_heads", "activation_kv"): (
        ("data", "fsdp", "fsdp_transpose", "expert"), ("context", "context_usp_ulysses"), TENSOR[:2], None,
    ),
    ("activation_batch", "activation_length", "activation_mlp"): (
        ("data", "fsdp", "fsdp_transpose", "expert"), ("context", "context_usp_ulysses"), TENSOR[:2],
    ),
    ("activation_embed_and_logits_batch", "activation_norm_length", "activation_vocab"): (
        ("data", "stage", "fsdp", "fsdp_transpose", "expert"), None, TENSOR[:2],
    ),
    ("cache_batch", "cache_sequence", "cache_heads", "cache_kv"): (
        None, None, ("autoregressive", "tensor", "tensor_sequence"), None,
    ),
    ("cache_batch", "cache_sequence"): (None, None),
    ("cache_batch", None, "cache_kv"): (None, None, None),
    ("cache_batch", "cache_heads", None, None): (None, ("autoregressive", "tensor", "tensor_sequence"), None, None),
    ("layers", "cache_batch", "cache_sequence"): ("stage", None, None),
}


@pytest.mark.parametrize("axes", [*PUBLISHED, *ACTIVATIONS], ids=lambda axes: "-".join(map(str, axes)))
def test_rules_give_the_published_spec(axes: tuple[str, ...]) -> None:
    assert resolve(axes, DEFAULT_RULES, EVERY_AXIS) == PartitionSpec(*(PUBLISHED | ACTIVATIONS)[axes])


def test_llama2_shards_its_norms_over_fsdp_however_it_is_run() -> None:
    llama2 = preset("llama2-7b")
    for config in (llama2, llama2.replace(scan_layers=False, dropout_rate=0.1)):
        assert resolve(("norm", "layers"), rules_for(config), EVERY_AXIS) == PartitionSpec("fsdp", "stage")


PLAIN = ["llama3.1-8b", "gpt3-175b", "gemma2-2b", "gemma3-4b", "qwen3-0.6b", "olmo3-7b", "mixtral-8x7b", "gpt-oss-20b"]


@pytest.mark.parametrize("name", PLAIN)
def test_other_published_models_use_the_default_rules(name: str) -> None:
    assert rules_for(preset(name)) is DEFAULT_RULES


def test_a_variant_of_a_published_model_uses_the_default_rules() -> None:
    config: ModelConfig = preset("llama2-7b").replace(vocab_size=128)
    assert rules_for(config) is DEFAULT_RULES


names = st.lists(st.sampled_from([None, *sorted({name for name, _ in DEFAULT_RULES})]), max_size=5).filter(
    lambda drawn: len({n for n in drawn if n}) == sum(n is not None for n in drawn)
)


@few
@given(axes=names, rules=st.one_of(st.just(DEFAULT_RULES), st.permutations(DEFAULT_RULES).map(tuple)))
def test_resolution_agrees_with_flax_on_any_names_and_order_of_rules(axes: list[str | None], rules: Rules) -> None:
    reference = flax.linen.logical_to_mesh_axes(axes, rules)
    assert resolve(axes, rules, EVERY_AXIS) == reference


def test_a_mesh_axis_serves_a_tensor_once() -> None:
    rules = (("a", ("x", "y")), ("b", ("y",)), ("b", ("z",)), ("c", ("x",)))
    assert resolve(("c", "b", "a"), rules, {"x": 2, "y": 2, "z": 2}) == PartitionSpec(None, "z", ("x", "y"))


def test_axes_of_size_one_and_absent_axes_are_dropped() -> None:
    mesh = {"fsdp": 4, "tensor": 2, "stage": 1}
    assert resolve(("embed", "layers", "mlp"), DEFAULT_RULES, mesh) == PartitionSpec("fsdp", None, "tensor")
    assert resolve(("embed", "layers", "mlp"), DEFAULT_RULES, {}) == PartitionSpec(None, None, None)


def test_a_name_without_a_rule_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="'emebd'"):
        resolve(("emebd", "mlp"), DEFAULT_RULES, EVERY_AXIS)
    with pytest.raises(ConfigError, match="'emebd'"):
        check_vocabulary([None, "embed", "emebd"], DEFAULT_RULES)


def test_a_repeated_name_is_an_error() -> None:
    with pytest.raises(ConfigError, match="must not repeat"):
        resolve(("embed", "embed"), DEFAULT_RULES, EVERY_AXIS)


def test_rules_name_known_mesh_axes() -> None:
    for rules in (DEFAULT_RULES, *PRESET_RULES.values()):
        assert {axis for _, axes in rules for axis in axes} <= set(MESH_AXES)


def test_override_replaces_every_rule_of_a_name() -> None:
    rules = override(DEFAULT_RULES, "embed", ("data",), ())
    assert [axes for name, axes in rules if name == "embed"] == [("data",), ()]
    assert len(rules) == len(DEFAULT_RULES)
