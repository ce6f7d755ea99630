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
    """Point-wise nonlinearity of an MLP. `GELU` is the tanh approximation, as in GPT-2 and Gemma."""

    SILU = "silu"
    GELU = "gelu"


class Projection(_Word):
    """How query, key and value are projected: three kernels, or one fused kernel (multi-head attention only)."""

    SEPARATE = "separate"
    FUSED = "fused"


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


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary positions on the two halves of each head, wavelengths up to `2 pi max_timescale`."""

    max_timescale: float = 10_000.0


@dataclasses.dataclass(frozen=True)
class LearnedPositions:
    """One trained vector for each of `length` positions, added to the token embedding."""

    length: int


@dataclasses.dataclass(frozen=True)
class Attention:
    """Grouped-query attention. `query_scale` multiplies the query; `None` means `head_dim ** -0.5`."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    projection: Projection = Projection.SEPARATE
    bias: bool = False
    query_scale: float | None = None
    soft_cap: float | None = None


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

    `suffix` ends the name of every part of the layer, so that a cycle's layers have names of their own (`_local`).
    """

    window: int | None = None
    suffix: str = ""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer. `num_layers` counts layers, a whole number of cycles of `cycle`."""

    family: str
    vocab_size: int
    embed_dim: int
    num_layers: int
    attention: Attention
    mlp: Mlp
    norm: RmsNorm | LayerNorm
    positions: Rope | LearnedPositions
    block_norms: BlockNorms
    cycle: tuple[Layer, ...] = (Layer(),)
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
        """How many times the cycle repeats: the length of the scan."""
        return self.num_layers // len(self.cycle)

    @property
    def query_scale(self) -> float:
        """The factor on the query, with the default filled in."""
        scale = self.attention.query_scale
        return self.attention.head_dim**-0.5 if scale is None else scale

    def replace(self, **changes: object) -> "ModelConfig":
        """A copy with top-level fields changed, validated again."""
        return dataclasses.replace(self, **changes)
