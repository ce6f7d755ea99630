"""Logical axis names, the rules that map them to mesh axes, and their resolution to a `PartitionSpec`.

Names, rules, specs and shardings only: no arrays, no framework. The rules are those of MaxText's `base.yml` for the
names this framework uses. How a twin attaches a spec to a variable or an activation is the twin's business.
"""

import typing
from collections.abc import Iterable, Mapping, Sequence

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .config import ConfigError, ModelConfig, preset

Rules = tuple[tuple[str, tuple[str, ...]], ...]

MESH_AXES = (
    "diloco", "data", "stage", "fsdp", "fsdp_transpose", "context", "context_usp_ulysses", "context_autoregressive",
    "tensor", "tensor_sequence", "expert", "autoregressive",
)

_BATCH = ("data", "fsdp", "fsdp_transpose", "expert")
_CONTEXT = ("context", "context_usp_ulysses")
_TENSOR = ("tensor", "tensor_sequence")
_HEADS = ("tensor", "tensor_sequence", "autoregressive")
_FSDP = ("fsdp", "fsdp_transpose", "context", "context_usp_ulysses", "expert")

# In order of precedence. A name occurs twice where a second choice exists: `embed` gives `fsdp_transpose` up to `mlp`
# and `gdn_head`, `embed_moe` to `mlp_moe`.
DEFAULT_RULES: Rules = (
    ("activation_embed_and_logits_batch", ("data", "stage", "fsdp", "fsdp_transpose", "expert")),
    ("activation_vocab", _TENSOR),
    ("activation_vocab", ("tensor",)),
    ("activation_vocab", ("tensor_sequence",)),
    ("vocab", _HEADS),
    ("embed_vocab", _FSDP),
    ("activation_batch_attn", _BATCH),
    ("activation_heads", _HEADS),
    ("activation_kv_heads", _TENSOR),
    ("activation_length_attn", _CONTEXT),
    ("activation_kv", _TENSOR),
    ("heads", _HEADS),
    ("q_heads", _HEADS),
    ("kv_heads", _HEADS),
    ("qkv", ()),
    ("kv", ()),
    ("kv_head_dim", ()),
    ("activation_mlp", _TENSOR),
    ("activation_batch", _BATCH),
    ("activation_length", _CONTEXT),
    ("activation_norm_length", ("tensor_sequence", "context", "context_usp_ulysses")),
    ("activation_embed", ("tensor",)),
    ("exp", ("expert",)),
    ("mlp", ("fsdp_transpose", "tensor", "tensor_sequence", "autoregressive")),
    ("mlp_moe", ("fsdp_transpose", "tensor", "tensor_sequence", "autoregressive")),
    ("gdn_head", ("fsdp_transpose", "tensor", "tensor_sequence", "autoregressive")),
    ("embed", _FSDP),
    ("embed", ("fsdp", "context", "context_usp_ulysses", "expert")),
    ("embed_moe", ("fsdp", "fsdp_transpose", "context", "context_usp_ulysses")),
    ("embed_moe", ("fsdp", "context", "context_usp_ulysses")),
    ("kv_lora", _FSDP),
    ("kv_lora_up_proj", ()),
    ("q_lora", _FSDP),
    ("q_lora_up_proj", ()),
    ("norm", ("tensor",)),
    ("layers", ("stage",)),
    ("dense_layers", ()),
    ("moe_layers", ()),
    ("cache_heads", ("autoregressive", "tensor", "tensor_sequence")),
    ("cache_batch", ()),
    ("cache_kv", ()),
    ("cache_sequence", ()),
)


def override(rules: Rules, name: str, *choices: tuple[str, ...]) -> Rules:
    """The rules with every rule of `name` replaced by these choices, which go last."""
    return tuple(rule for rule in rules if rule[0] != name) + tuple((name, choice) for choice in choices)


# Published models that are sharded by rules of their own.
PRESET_RULES: dict[str, Rules] = {"llama2-7b": override(DEFAULT_RULES, "norm", ("fsdp",))}


def rules_for(config: ModelConfig) -> Rules:
    """The published rules of the model that `config` describes, however it is run (dtypes, scan, remat, dropout)."""
    for name, rules in PRESET_RULES.items():
        published = preset(name)
        as_run = published.replace(
            dtype=config.dtype, weight_dtype=config.weight_dtype, scan_layers=config.scan_layers, remat=config.remat,
            dropout_rate=config.dropout_rate,
        )
        if config == as_run:
            return rules
    return DEFAULT_RULES


def check_vocabulary(logical_axes: Iterable[str | None], rules: Iterable[tuple[str, object]]) -> None:
    """Refuse a logical name that no rule mentions: a misspelt name would replicate in silence.

    Raises:
        ConfigError: naming the first such name.
    """
    known = {name for name, _ in rules}
    for name in logical_axes:
        if name is not None and name not in known:
            raise ConfigError(
                "logical axis", name, "must be mentioned by a sharding rule",
                "correct the name, or add a rule for it (no mesh axes: replicated)",
            )


def resolve(
    logical_axes: Sequence[str | None], rules: Rules, mesh_axis_sizes: Mapping[str, int]
) -> PartitionSpec:
    """The spec of an array whose dims have these logical names; `None` is a dim that is never sharded.

    Rules apply in order: a dim takes the first of its rules whose mesh axes are all still free, and replicates when
    none is. Mesh axes that the mesh lacks, or that have size 1, are dropped after that: the choice is the same on
    every mesh.

    Raises:
        ConfigError: for a name that no rule mentions, or that occurs twice.

    Source: the semantics of `flax.linen.logical_to_mesh_axes`.
    """
    check_vocabulary(logical_axes, rules)
    named = [name for name in logical_axes if name is not None]
    if len(set(named)) < len(named):
        raise ConfigError("logical axes", tuple(logical_axes), "must not repeat a name", "name each dim differently")
    chosen: dict[str, tuple[str, ...]] = {}
    taken: set[str] = set()
    for name, mesh_axes in rules:
        if name in named and name not in chosen and taken.isdisjoint(mesh_axes):
            chosen[name] = mesh_axes
            taken.update(mesh_axes)
    return PartitionSpec(*(_entry(chosen.get(name, ()) if name else (), mesh_axis_sizes) for name in logical_axes))


def _entry(mesh_axes: tuple[str, ...], mesh_axis_sizes: Mapping[str, int]) -> str | tuple[str, ...] | None:
    kept = tuple(axis for axis in mesh_axes if mesh_axis_sizes.get(axis, 1) > 1)
    if len(kept) > 1:
        return kept
    return kept[0] if kept else None


def is_axes(node: object) -> bool:
    """Whether a node of a tree is one leaf's tuple of logical names, and not a tuple of the tree itself."""
    return type(node) is tuple and all(word is None or isinstance(word, str) for word in node)


def named_shardings(axes: typing.Any, mesh: Mesh, rules: Rules = DEFAULT_RULES) -> typing.Any:
    """The tree of `NamedSharding`s for a tree of logical names (`Backend.state_axes`), over real devices."""
    sizes = dict(mesh.shape)
    return jax.tree.map(lambda names: NamedSharding(mesh, resolve(names, rules, sizes)), axes, is_leaf=is_axes)
