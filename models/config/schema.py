"""The words a model is described with: frozen, nested, typed. No maths, no arrays, no framework.

Behaviour follows from these fields and never from a family's name. A variant is a union (`RmsNorm | LayerNorm`)
or an enum, an optional part is `None`. `ModelConfig.validate` (see `validate.py`) says what fits together.
"""

import dataclasses
import enum


class _Word(enum.StrEnum):
    """An enum whose repr can be pasted back into a program."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class DType(_Word):
    """Dtype of a computation or of stored weights."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Activation(_Word):
    """Point-wise nonlinearity of an MLP. `GELU` is the tanh approximation, as in GPT-2 and Gemma.

    `QUICK_GELU` is `x sigmoid(1.702 x)` (GPT-OSS).
    """

    SILU = "silu"
    GELU = "gelu"
    QUICK_GELU = "quick_gelu"


class Projection(_Word):
    """How query, key and value are projected: three kernels, or one fused kernel (multi-head attention only)."""

    SEPARATE = "separate"
    FUSED = "fused"


class Score(_Word):
    """What a router makes of its logits: their softmax, their sigmoids, or the softmax of the chosen experts' alone."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    SOFTMAX_OF_CHOSEN = "softmax_of_chosen"


class Remat(_Word):
    """What the backward pass recomputes: nothing, everything but matmul results, or the whole layer."""

    NONE = "none"
    SAVE_DOTS = "save_dots"
    FULL = "full"


@dataclasses.dataclass(frozen=True)
class RmsNorm:
    """Root-mean-square norm. `zero_centered`: the stored scale is added to one (Gemma)."""

    epsilon: float
    zero_centered: bool = False


@dataclasses.dataclass(frozen=True)
class LayerNorm:
    """Layer norm with scale and bias. `zero_centered`: the stored scale is added to one (MaxText's gpt3)."""

    epsilon: float
    zero_centered: bool = False


class QkNorm(_Word):
    """A root-mean-square norm with a scale on query and key before rotation: over each head, or over all heads."""

    HEAD = "head"
    WIDTH = "width"


@dataclasses.dataclass(frozen=True)
class LinearScaling:
    """Positions divided by `factor` (Chen et al. 2023, position interpolation)."""

    factor: float


@dataclasses.dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1: long wavelengths divided by `factor`, short ones kept, a linear blend between.

    The bounds are `original_length / low_frequency_factor` and `original_length / high_frequency_factor`.
    """

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_length: int


@dataclasses.dataclass(frozen=True)
class YarnScaling:
    """YaRN (Peng et al. 2023): interpolated and kept frequencies blended between the dimensions that turn `beta_slow`
    and `beta_fast` times within `original_length`.

    `truncate` rounds these dimensions to whole ones. `attention_factor` multiplies cosine and sine; `None` is
    `0.1 ln(factor) + 1`.
    """

    factor: float
    original_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary positions, wavelengths up to `2 pi max_timescale`.

    The first `fraction` of each head turns, the rest is left. The pairs that turn together are the two halves of that
    part, or neighbours if `interleaved`.
    """

    max_timescale: float = 10_000.0
    fraction: float = 1.0
    interleaved: bool = False
    scaling: LinearScaling | Llama3Scaling | YarnScaling | None = None


@dataclasses.dataclass(frozen=True)
class LearnedPositions:
    """One trained vector for each of `length` positions, added to the token embedding."""

    length: int


@dataclasses.dataclass(frozen=True)
class Attention:
    """Grouped-query attention. `query_scale` multiplies the query; `None` means `head_dim ** -0.5`.

    `sinks`: each head has a trained logit that takes part in its softmax and has no value (GPT-OSS).
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
    divided by their sum if `normalized`, times `scale`.
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

    A cycle's layers have names of their own: `name` is a module around the layer's parts (`layers_0`), or `suffix` ends
    the name of every part (`_local`). `rope` stands in for the model's own positions, `mlp` for its own MLP.
    """

    window: int | None = None
    suffix: str = ""
    name: str | None = None
    rope: Rope | None = None
    mlp: Mlp | Moe | None = None


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

    @property
    def query_scale(self) -> float:
        """The factor on the query, with the default filled in."""
        attention = self.attention
        if attention.query_scale is not None:
            return attention.query_scale
        if isinstance(attention, LatentAttention):
            return (attention.nope_dim + attention.rope_dim) ** -0.5
        return attention.head_dim**-0.5

    def mlp_of(self, layer: Layer) -> Mlp | Moe:
        """The feed-forward part of a layer."""
        return self.mlp if layer.mlp is None else layer.mlp

    def replace(self, **changes: object) -> "ModelConfig":
        """A copy with top-level fields changed, validated again."""
        return dataclasses.replace(self, **changes)
