"""What fits together in a `ModelConfig`. Each rule names the field, its value, the rule and the fix."""

import typing

from .errors import ConfigError
from .words import (
    LearnedPositions,
    Llama3Scaling,
    Projection,
    QkNorm,
    RmsNorm,
    Rope,
    Score,
    Unrotated,
    YarnScaling,
)

if typing.TYPE_CHECKING:
    from .schema import Attention, GatedDelta, LatentAttention, Layer, ModelConfig, Moe


def validate(config: "ModelConfig") -> None:
    """Refuses a configuration that no model could have.

    Raises:
        ConfigError: with the first rule that is broken.
    """
    _sizes(config)
    _attention(config)
    _norm_names(config)
    _mlps(config)
    _positions(config)
    _prefix(config)
    _layers(config)
    _numbers(config)


def _positive(field: str, value: int) -> None:
    if value < 1:
        raise ConfigError(field, value, "must be at least 1", "set a positive whole number")


def _sizes(config: "ModelConfig") -> None:
    for field in ("vocab_size", "embed_dim", "num_layers"):
        _positive(field, getattr(config, field))
    if config.norm.epsilon <= 0:
        raise ConfigError("norm.epsilon", config.norm.epsilon, "must be positive", "1e-5 and 1e-6 are usual")


def _all_layers(config: "ModelConfig") -> "list[tuple[str, Layer]]":
    """Every layer that is described, with the field that holds it."""
    prefix = [] if config.prefix is None else [("prefix", config.prefix)]
    return [*((f"cycle[{index}]", layer) for index, layer in enumerate(config.cycle)), *prefix]


def _attention(config: "ModelConfig") -> None:
    """The model's own attention with the model's own positions, then each layer's with its own."""
    from .schema import GatedDelta

    if isinstance(config.attention, GatedDelta):
        rule = "is the model's own attention and reads by a state"
        raise ConfigError("attention", config.attention, rule, "set it on layers of the cycle")
    uses: list[tuple[str, typing.Any, str, typing.Any]] = [
        ("attention", config.attention, "positions", config.positions)
    ]
    for field, layer in _all_layers(config):
        if layer.attention is None and layer.rope is None:
            continue
        owner = "attention" if layer.attention is None else f"{field}.attention"
        at = "positions" if layer.rope is None else f"{field}.rope"
        uses.append((owner, config.attention_of(layer), at, config.positions_of(layer)))
    for owner, attention, at, positions in uses:
        _one_attention(config, owner, attention, at, positions)
    for field, layer in _all_layers(config):
        if isinstance(layer.attention, GatedDelta) and (layer.window, layer.chunk, layer.rope) != (None, None, None):
            rule = "reads by a state, which has no window, chunk or positions"
            raise ConfigError(f"{field}.attention", layer.attention, rule, "set these three to None")


def _one_attention(config: "ModelConfig", owner: str, attention: typing.Any, at: str, positions: typing.Any) -> None:
    from .schema import GatedDelta, LatentAttention

    if isinstance(attention, GatedDelta):
        _delta(config, owner, attention)
        return
    if isinstance(attention, LatentAttention):
        _latent(config, owner, attention, at, positions)
    else:
        _grouped(config, owner, attention, at, positions)
    if attention.query_scale is not None and attention.query_scale <= 0:
        fix = "None is the root of one over the head's width"
        raise ConfigError(f"{owner}.query_scale", attention.query_scale, "must be positive", fix)


def _delta(config: "ModelConfig", owner: str, delta: "GatedDelta") -> None:
    for field in ("num_key_heads", "num_value_heads", "key_dim", "value_dim", "chunk"):
        _positive(f"{owner}.{field}", getattr(delta, field))
    if delta.conv_width < 2:
        raise ConfigError(f"{owner}.conv_width", delta.conv_width, "must be at least 2", "4 is usual")
    if delta.num_value_heads % delta.num_key_heads:
        rule = f"must divide {owner}.num_value_heads = {delta.num_value_heads}"
        raise ConfigError(f"{owner}.num_key_heads", delta.num_key_heads, rule, "choose a divisor")
    if not isinstance(config.norm, RmsNorm):
        raise ConfigError(owner, delta, "needs norm to be an RmsNorm", "use an RmsNorm, or Attention")


def _latent(config: "ModelConfig", owner: str, attention: "LatentAttention", at: str, positions: typing.Any) -> None:
    for field in ("num_heads", "kv_rank", "nope_dim", "rope_dim", "value_dim"):
        _positive(f"{owner}.{field}", getattr(attention, field))
    if attention.query_rank is not None:
        _positive(f"{owner}.query_rank", attention.query_rank)
    if not isinstance(config.norm, RmsNorm):
        raise ConfigError(owner, attention, "needs norm to be an RmsNorm", "use an RmsNorm, or Attention")
    if not isinstance(positions, Rope):
        raise ConfigError(at, positions, "must be rotary for latent attention", "set it to Rope(), or use Attention")
    if positions.fraction != 1 or attention.rope_dim % 2:
        rule = f"must be even, and {at}.fraction = {positions.fraction} must be 1"
        raise ConfigError(f"{owner}.rope_dim", attention.rope_dim, rule, "rope_dim is all that turns")


def _grouped(config: "ModelConfig", owner: str, attention: "Attention", at: str, positions: typing.Any) -> None:
    for field in ("num_heads", "num_kv_heads", "head_dim"):
        _positive(f"{owner}.{field}", getattr(attention, field))
    if attention.num_heads % attention.num_kv_heads:
        rule = f"must divide {owner}.num_heads = {attention.num_heads}"
        raise ConfigError(f"{owner}.num_kv_heads", attention.num_kv_heads, rule, "choose a divisor")
    if isinstance(positions, Rope):
        _turning(owner, attention, at, positions)
    if (attention.qk_norm is not None or attention.value_norm) and not isinstance(config.norm, RmsNorm):
        field = "value_norm" if attention.qk_norm is None else "qk_norm"
        fix = f"use an RmsNorm, or no {field}"
        raise ConfigError(f"{owner}.{field}", getattr(attention, field), "needs norm to be an RmsNorm", fix)
    _fused(owner, attention)
    _positive_or_none(f"{owner}.soft_cap", attention.soft_cap)


def _turning(owner: str, attention: "Attention", at: str, rope: Rope) -> None:
    """The part of a head that turns is made of pairs; so is all of the head where only some of its pairs turn."""
    turned = attention.head_dim * rope.fraction
    if turned < 2 or turned % 2 or (rope.proportional and attention.head_dim % 2):
        rule = f"must leave {at}.fraction = {rope.fraction} of it a whole even number of dimensions"
        raise ConfigError(f"{owner}.head_dim", attention.head_dim, rule, "make that part even")


def _fused(owner: str, attention: "Attention") -> None:
    """What a single kernel for query, key and value cannot have."""
    if attention.projection is not Projection.FUSED:
        return
    if attention.num_heads != attention.num_kv_heads:
        rule = f"needs as many key heads as query heads, found {attention.num_kv_heads} and {attention.num_heads}"
        fix = "set num_kv_heads = num_heads, or use Projection.SEPARATE"
        raise ConfigError(f"{owner}.projection", attention.projection, rule, fix)
    if attention.qk_norm is QkNorm.WIDTH:
        rule, fix = "needs separate projections", "use QkNorm.HEAD"
        raise ConfigError(f"{owner}.qk_norm", attention.qk_norm, rule, fix)
    for field in ("out_gate", "share_kv"):
        if getattr(attention, field):
            rule, fix = "needs separate projections", "set it to False, or use Projection.SEPARATE"
            raise ConfigError(f"{owner}.{field}", True, rule, fix)


def _mlps(config: "ModelConfig") -> None:
    from .schema import Moe

    owners = [("mlp", config.mlp), *((f"cycle[{index}].mlp", layer.mlp) for index, layer in enumerate(config.cycle))]
    for field, mlp in [*owners, ("prefix.mlp", config.prefix and config.prefix.mlp)]:
        if mlp is None:
            continue
        _positive(f"{field}.hidden_dim", mlp.hidden_dim)
        if isinstance(mlp, Moe):
            _moe(field, mlp)
        elif mlp.input_norm is not None and config.block_norms.pre_mlp is not None:
            rule = f"doubles block_norms.pre_mlp = {config.block_norms.pre_mlp!r}"
            raise ConfigError(f"{field}.input_norm", mlp.input_norm, rule, "set one of them to None")


def _moe(field: str, moe: "Moe") -> None:
    router, at = moe.router, f"{field}.router"
    _positive(f"{at}.num_experts", router.num_experts)
    if not 1 <= router.num_chosen <= router.num_experts:
        rule = f"must lie between 1 and num_experts = {router.num_experts}"
        raise ConfigError(f"{at}.num_chosen", router.num_chosen, rule, "choose fewer experts")
    if router.scale <= 0:
        raise ConfigError(f"{at}.scale", router.scale, "must be positive", "1.0 leaves the weights as they are")
    if router.score is Score.SOFTMAX_OF_CHOSEN and (router.normalized or router.choice_bias):
        rule = "already sums to one and chooses by the logits"
        raise ConfigError(f"{at}.score", router.score, rule, "set normalized and choice_bias to False")
    if router.num_groups < 1 or router.num_experts % router.num_groups:
        rule = f"must divide num_experts = {router.num_experts}"
        raise ConfigError(f"{at}.num_groups", router.num_groups, rule, "1 has no groups")
    size = router.num_experts // router.num_groups
    if not 1 <= router.num_chosen_groups <= router.num_groups or router.num_chosen > router.num_chosen_groups * size:
        rule = f"must leave num_chosen = {router.num_chosen} experts in some of {router.num_groups} groups"
        raise ConfigError(f"{at}.num_chosen_groups", router.num_chosen_groups, rule, "choose more groups")
    if not 1 <= router.group_top <= size:
        rule = f"must lie between 1 and the {size} experts of a group"
        raise ConfigError(f"{at}.group_top", router.group_top, rule, "1 is the best expert's score")
    for name, value in (("clamp", moe.clamp), ("capacity_factor", moe.capacity_factor)):
        _positive_or_none(f"{field}.{name}", value)
    _shared(field, moe)


def _shared(field: str, moe: "Moe") -> None:
    if moe.shared_hidden_dim is not None:
        _positive(f"{field}.shared_hidden_dim", moe.shared_hidden_dim)
        return
    for name in ("shared_gate", "branch_norms"):
        if getattr(moe, name):
            rule = "is for the shared MLP, and there is none"
            raise ConfigError(f"{field}.{name}", getattr(moe, name), rule, "set shared_hidden_dim, or leave it out")


def _norm_names(config: "ModelConfig") -> None:
    norms = config.block_norms
    named = [name for name in (norms.pre_attention, norms.post_attention, norms.pre_mlp, norms.post_mlp) if name]
    if len(set(named)) < len(named):
        raise ConfigError("block_norms", norms, "gives two norms the same name", "rename one")
    clash = {"self_attention", "mlp"} & set(named)
    if clash:
        raise ConfigError("block_norms", norms, f"takes the name of the part {sorted(clash)[0]!r}", "rename the norm")


def _positions(config: "ModelConfig") -> None:
    if isinstance(config.positions, LearnedPositions):
        _positive("positions.length", config.positions.length)
    for field, layer in _all_layers(config):
        if layer.rope is None:
            continue
        if isinstance(config.positions, LearnedPositions):
            rule = "stands in for rotary positions, and the model's are learned"
            raise ConfigError(f"{field}.rope", layer.rope, rule, "set it to None")
        _rope(f"{field}.rope", layer.rope)
    _rope("positions", config.positions)


def _rope(field: str, rope: typing.Any) -> None:
    if isinstance(rope, Unrotated):
        _positive(f"{field}.length", rope.length)
        if rope.temperature < 0:
            raise ConfigError(f"{field}.temperature", rope.temperature, "must not be negative", "0.0 turns it off")
    if not isinstance(rope, Rope):
        return
    if rope.max_timescale <= 1:
        raise ConfigError(f"{field}.max_timescale", rope.max_timescale, "must exceed 1", "10000.0 is usual")
    if not 0 < rope.fraction <= 1:
        raise ConfigError(f"{field}.fraction", rope.fraction, "must lie in (0, 1]", "1.0 turns the whole head")
    if rope.proportional and (rope.interleaved or isinstance(rope.scaling, YarnScaling)):
        rule = "pairs the halves of a head and knows no YaRN"
        raise ConfigError(f"{field}.proportional", True, rule, "drop interleaved and YarnScaling, or set it to False")
    if rope.scaling is not None:
        _scaling(f"{field}.scaling", rope.scaling)


def _scaling(field: str, scaling: typing.Any) -> None:
    if scaling.factor < 1:
        raise ConfigError(f"{field}.factor", scaling.factor, "must be at least 1", "None leaves positions as they are")
    if isinstance(scaling, Llama3Scaling | YarnScaling):
        _positive(f"{field}.original_length", scaling.original_length)
    if isinstance(scaling, Llama3Scaling) and not 0 < scaling.low_frequency_factor <= scaling.high_frequency_factor:
        bound = scaling.high_frequency_factor
        rule = f"must be positive and at most high_frequency_factor = {bound}"
        raise ConfigError(f"{field}.low_frequency_factor", scaling.low_frequency_factor, rule, "1.0 and 4.0 are usual")
    if isinstance(scaling, YarnScaling) and not 0 < scaling.beta_slow <= scaling.beta_fast:
        rule = f"must be positive and at most beta_fast = {scaling.beta_fast}"
        raise ConfigError(f"{field}.beta_slow", scaling.beta_slow, rule, "1.0 and 32.0 are usual")


def _layers(config: "ModelConfig") -> None:
    if not config.cycle:
        raise ConfigError("cycle", config.cycle, "needs at least one layer", "(Layer(),) is the plain one")
    named = [layer.name for layer in config.cycle if layer.name is not None]
    if named and len(named) < len(config.cycle):
        raise ConfigError("cycle", named, "names some of its layers and not the others", "name all of them or none")
    names = named or [layer.suffix for layer in config.cycle]
    if len(set(names)) < len(names):
        raise ConfigError("cycle", names, "has two layers with the same name", "give each its own name or suffix")
    for index, layer in enumerate(config.cycle):
        if layer.name is not None and not layer.name.isidentifier():
            raise ConfigError(f"cycle[{index}].name", layer.name, "must be one word", "layers_0 is usual")
    if config.num_layers - config.num_prefix_layers < len(config.cycle):
        rule = f"must hold the cycle's {len(config.cycle)} layers at least once"
        rule += f" after {config.num_prefix_layers} of the prefix" * (config.num_prefix_layers > 0)
        raise ConfigError("num_layers", config.num_layers, rule, "add layers or shorten the cycle")
    _reach(config)


def _reach(config: "ModelConfig") -> None:
    """How far a layer reads: by window or by chunk, not by both."""
    for field, layer in _all_layers(config):
        if layer.window is not None:
            _positive(f"{field}.window", layer.window)
        if layer.chunk is not None:
            _positive(f"{field}.chunk", layer.chunk)
        if None not in (layer.window, layer.chunk):
            raise ConfigError(f"{field}.chunk", layer.chunk, "stands beside a window", "set one of them to None")


def _prefix(config: "ModelConfig") -> None:
    if (config.prefix is None) != (config.num_prefix_layers == 0) or config.num_prefix_layers < 0:
        rule = "must be positive with a prefix, and 0 without one"
        raise ConfigError("num_prefix_layers", config.num_prefix_layers, rule, "set both or none")
    if config.prefix is not None and (config.prefix.name is not None or config.prefix.suffix):
        raise ConfigError("prefix", config.prefix, "is alone in its block and needs no name or suffix", "drop it")


def _numbers(config: "ModelConfig") -> None:
    if not 0 <= config.dropout_rate < 1:
        raise ConfigError("dropout_rate", config.dropout_rate, "must lie in [0, 1)", "0.0 turns dropout off")
    _positive_or_none("final_soft_cap", config.final_soft_cap)


def _positive_or_none(field: str, value: float | None) -> None:
    if value is not None and value <= 0:
        raise ConfigError(field, value, "must be positive", "None turns the cap off")
