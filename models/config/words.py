"""The smallest words of a model's description: dtypes, activations, norms, positions. Frozen data, no maths.

What is built of them is in `schema.py`.
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
    """A root-mean-square norm on query and key: with a scale and before rotation over each head, or over all heads.

    `L2` has no scale, comes after rotation and leaves layers without rotation alone (Llama 4).
    """

    HEAD = "head"
    WIDTH = "width"
    L2 = "l2"


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
    part, or neighbours if `interleaved`. `proportional`: all of the head is paired, its frequencies are those of a
    whole head, and of the pairs only the first `fraction` turns (Gemma 4).
    """

    max_timescale: float = 10_000.0
    fraction: float = 1.0
    interleaved: bool = False
    scaling: LinearScaling | Llama3Scaling | YarnScaling | None = None
    proportional: bool = False


@dataclasses.dataclass(frozen=True)
class Unrotated:
    """A layer whose heads see no positions, in a model with rotary ones (Llama 4's NoPE layers).

    With `temperature` the query at position `p` is multiplied by `1 + temperature ln(1 + floor((p + 1) / length))`, so
    that a late query's softmax over many keys stays sharp.
    """

    temperature: float = 0.0
    length: int = 8192


@dataclasses.dataclass(frozen=True)
class LearnedPositions:
    """One trained vector for each of `length` positions, added to the token embedding."""

    length: int
