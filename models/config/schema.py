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
    """Grouped-query attention. `query_scale` multiplies the query; `None` means `head_dim ** -0.5`."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    projection: Projection = Projection.SEPARATE
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: QkNorm | None = None
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

    A cycle's layers have names of their own: `name` is a module around the layer's parts (`layers_0`), or `suffix` ends
    the name of every part (`_local`). `rope` stands in for the model's own positions.
    """

    window: int | None = None
    suffix: str = ""
    name: str | None = None
    rope: Rope | None = None


@dataclasses.dataclass(frozen=True)
class Stack:
    """Blocks that follow each other: `length` turns of `cycle`, each its own module or, if `scanned`, all one.

    Unscanned blocks are called by `names`; a scanned stack has one name and its parameters an axis `layers`.
    """

    names: tuple[str, ...]
    cycle: tuple[Layer, ...]
    length: int
    scanned: bool


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer. `num_layers` counts layers; what the last whole cycle leaves is the remainder."""

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
        """How many times the whole cycle repeats: the length of the scan."""
        return self.num_layers // len(self.cycle)

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The blocks in order: whole cycles, then the remainder as one block of its own that is never scanned."""
        names = ("layers",) if self.scan_layers else tuple(f"layers_{index}" for index in range(self.num_blocks))
        stacks = (Stack(names, self.cycle, self.num_blocks, self.scan_layers),)
        remainder = self.cycle[: self.num_layers % len(self.cycle)]
        return (*stacks, Stack(("layers_remainder",), remainder, 1, False)) if remainder else stacks

    @property
    def query_scale(self) -> float:
        """The factor on the query, with the default filled in."""
        scale = self.attention.query_scale
        return self.attention.head_dim**-0.5 if scale is None else scale

    def replace(self, **changes: object) -> "ModelConfig":
        """A copy with top-level fields changed, validated again."""
        return dataclasses.replace(self, **changes)
