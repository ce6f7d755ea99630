"""The words a model is described with: frozen, nested, typed. No maths, no arrays, no framework.

Behaviour follows from these fields and never from a family's name. A variant is a union (`RmsNorm | LayerNorm`)
or an enum, an optional part is `None`. `ModelConfig.validate` (see `validate.py`) says what fits together.
"""

import dataclasses

from .words import (
    Activation,
    DType,
    LayerNorm,
    LearnedPositions,
    Projection,
    QkNorm,
    Remat,
    RmsNorm,
    Rope,
    Score,
    Unrotated,
)


@dataclasses.dataclass(frozen=True)
class Attention:
    """Grouped-query attention. `query_scale` multiplies the query; `None` means `head_dim ** -0.5`.

    `sinks`: each head has a trained logit that takes part in its softmax and has no value (GPT-OSS). `out_gate`: the
    query's projection is twice as wide, and the sigmoid of a head's second half multiplies what the head read
    (Qwen3-Next). `value_norm`: a root-mean-square norm without a scale on each head's value. `share_kv`: the value is
    the key as projected, before its norm (Gemma 4).
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    projection: Projection = Projection.SEPARATE
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: QkNorm | None = None
    query_scale: float | None = None
    soft_cap: float | None = None
    sinks: bool = False
    out_gate: bool = False
    value_norm: bool = False
    share_kv: bool = False

    @property
    def scale(self) -> float:
        """The factor on the query, with the default filled in."""
        return self.head_dim**-0.5 if self.query_scale is None else self.query_scale


@dataclasses.dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2): keys and values of all heads are read from one vector of `kv_rank`.

    A head's query and key are `nope_dim` without position and `rope_dim` rotated; all heads share the rotated key. The
    query too goes through a vector of `query_rank`, if that is given. `query_scale` `None` means
    `(nope_dim + rope_dim) ** -0.5`.
    """

    num_heads: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    query_rank: int | None = None
    query_scale: float | None = None

    @property
    def scale(self) -> float:
        """The factor on the query, with the default filled in."""
        return (self.nope_dim + self.rope_dim) ** -0.5 if self.query_scale is None else self.query_scale


@dataclasses.dataclass(frozen=True)
class GatedDelta:
    """Linear attention by the gated delta rule (Yang et al. 2024): a state [key dim, value dim] for each value head.

    Query, key and value go through a causal convolution over `conv_width` tokens, each channel on its own. Each of
    `num_key_heads` serves `num_value_heads / num_key_heads` value heads that follow each other. The tokens of a chunk
    are computed together; `chunk` changes the cost and not the function.
    """

    num_key_heads: int
    num_value_heads: int
    key_dim: int
    value_dim: int
    conv_width: int = 4
    chunk: int = 64


@dataclasses.dataclass(frozen=True)
class Mlp:
    """Feed-forward part. `gated`: two input kernels, the activated one times the other.

    `input_norm` names a norm that belongs to the MLP itself (gpt3's `mlp/mlp_layer_norm`), else `None`.
    """

    hidden_dim: int
    activation: Activation
    gated: bool
    bias: bool = False
    input_norm: str | None = None


@dataclasses.dataclass(frozen=True)
class Router:
    """How a token chooses `num_chosen` of `num_experts` and weighs them.

    Logits are float32, plus a trained bias with `logit_bias` (GPT-OSS). `choice_bias` is added to the scores for the
    choice alone and learns from no gradient (DeepSeek-V3). With `num_groups`, only experts of the `num_chosen_groups`
    groups with the largest sums of their `group_top` best scores are chosen from. The weights are the chosen scores,
    divided by their sum if `normalized`, times `scale`, times a trained factor of each expert with `expert_scale`.
    `input_scale`: what the router reads is normed (root mean square, no scale), then multiplied by a trained vector
    over the root of the width (Gemma 4).
    """

    num_experts: int
    num_chosen: int
    score: Score = Score.SOFTMAX
    normalized: bool = False
    scale: float = 1.0
    logit_bias: bool = False
    choice_bias: bool = False
    num_groups: int = 1
    num_chosen_groups: int = 1
    group_top: int = 1
    expert_scale: bool = False
    input_scale: bool = False


@dataclasses.dataclass(frozen=True)
class BranchNorms:
    """Names of the norms of a mixture whose experts read another vector than its shared MLP (Gemma 4).

    `shared_post(shared(x)) + experts_post(experts(experts_pre(r)))`, where `x` is the normed and `r` the plain residual
    stream; the router reads `r`.
    """

    shared_post: str
    experts_pre: str
    experts_post: str


@dataclasses.dataclass(frozen=True)
class Moe:
    """A mixture of gated MLPs of `hidden_dim`: each token goes through the experts that its router chose.

    `clamp` bounds the gate from above and the other half both ways; `linear_offset` is added to that half (GPT-OSS).
    With `capacity_factor` an expert takes at most `ceil(T num_chosen capacity_factor / num_experts)` tokens of a row of
    `T` tokens, earlier ones first, and drops the rest; `None` drops none. `shared_hidden_dim`: a gated MLP beside the
    experts, through which every token goes.
    """

    router: Router
    hidden_dim: int
    activation: Activation = Activation.SILU
    bias: bool = False
    clamp: float | None = None
    linear_offset: float = 0.0
    capacity_factor: float | None = None
    shared_hidden_dim: int | None = None
    shared_gate: bool = False
    scale_inputs: bool = False
    branch_norms: BranchNorms | None = None


@dataclasses.dataclass(frozen=True)
class BlockNorms:
    """The names of the norms around a layer's two parts. A norm that has no name is not there.

    `x + post_attention(attention(pre_attention(x)))`, then the same with the MLP.
    """

    pre_attention: str | None
    post_attention: str | None
    pre_mlp: str | None
    post_mlp: str | None


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of the repeating cycle. `window`: how many keys a query sees, itself included; `None` is all.

    `chunk`: a query sees the keys whose positions, divided by `chunk`, round down to the same number as its own
    (Llama 4). A cycle's layers have names of their own: `name` is a module around the layer's parts (`layers_0`), or
    `suffix` ends the name of every part (`_local`). `rope` stands in for the model's own positions, `mlp` for its own
    MLP, `attention` for its own attention.
    """

    window: int | None = None
    suffix: str = ""
    name: str | None = None
    rope: Rope | Unrotated | None = dataclasses.field(default=None, metadata={"untagged": "Rope"})
    mlp: Mlp | Moe | None = None
    attention: Attention | LatentAttention | GatedDelta | None = None
    chunk: int | None = None


@dataclasses.dataclass(frozen=True)
class Stack:
    """Blocks that follow each other: `length` turns of `cycle`, each its own module or, if `scanned`, all one.

    Unscanned blocks are called by `names`; a scanned stack has one name and its parameters an axis called `axis`.
    """

    names: tuple[str, ...]
    cycle: tuple[Layer, ...]
    length: int
    scanned: bool
    axis: str = "layers"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer. `num_layers` counts layers; what the last whole cycle leaves is the remainder.

    The first `num_prefix_layers` of them are all `prefix` (DeepSeek's dense layers), then the cycle begins.
    `layer_scale`: a layer ends with a trained number that multiplies the residual stream (Gemma 4).
    """

    family: str
    vocab_size: int
    embed_dim: int
    num_layers: int
    attention: Attention | LatentAttention
    mlp: Mlp | Moe
    norm: RmsNorm | LayerNorm
    positions: Rope | LearnedPositions
    block_norms: BlockNorms
    cycle: tuple[Layer, ...] = (Layer(),)
    prefix: Layer | None = None
    num_prefix_layers: int = 0
    scale_embedding: bool = False
    tied_head: bool = False
    final_soft_cap: float | None = None
    dropout_rate: float = 0.0
    dtype: DType = DType.FLOAT32
    weight_dtype: DType = DType.FLOAT32
    scan_layers: bool = True
    remat: Remat = Remat.NONE
    layer_scale: bool = False

    def __post_init__(self) -> None:
        from .validate import validate

        validate(self)

    @property
    def num_blocks(self) -> int:
        """How many times the whole cycle repeats: the length of the scan."""
        return (self.num_layers - self.num_prefix_layers) // len(self.cycle)

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The blocks in order: the prefix, whole cycles, then the remainder as one block that is never scanned."""
        remainder = self.cycle[: (self.num_layers - self.num_prefix_layers) % len(self.cycle)]
        rest = (Stack(("layers_remainder",), remainder, 1, False),) if remainder else ()
        if self.prefix is None:
            return (self._stack("layers", self.cycle, self.num_blocks), *rest)
        prefix = self._stack("dense_layers", (self.prefix,), self.num_prefix_layers)
        return (prefix, self._stack("moe_layers", self.cycle, self.num_blocks), *rest)

    def _stack(self, name: str, cycle: tuple[Layer, ...], length: int) -> Stack:
        names = (name,) if self.scan_layers else tuple(f"{name}_{index}" for index in range(length))
        return Stack(names, cycle, length, self.scan_layers, name)

    def mlp_of(self, layer: Layer) -> Mlp | Moe:
        """The feed-forward part of a layer."""
        return self.mlp if layer.mlp is None else layer.mlp

    def attention_of(self, layer: Layer) -> Attention | LatentAttention | GatedDelta:
        """What a layer reads other tokens with."""
        return self.attention if layer.attention is None else layer.attention

    def positions_of(self, layer: Layer) -> Rope | Unrotated | LearnedPositions:
        """How a layer's heads see positions; learned ones are added to the embedding, and no head sees them."""
        return self.positions if layer.rope is None else layer.rope

    def replace(self, **changes: object) -> "ModelConfig":
        """A copy with top-level fields changed, validated again."""
        return dataclasses.replace(self, **changes)
