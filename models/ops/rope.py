"""Rotary positions and their scalings, and the temperature of a layer without them.

Axes: `B` batch, `T` position, `N` heads, `H` head dim, `h` half of what turns.

Frequencies are constants of the trace, computed in float64 by NumPy: a power in float32 errs by many roundings, and a
late position multiplies its error.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..config import LinearScaling, Llama3Scaling, Rope, Unrotated, YarnScaling


def rotate(x_BTNH: Float[Array, "b t n h"], positions_BT: Int[Array, "b t"], rope: Rope) -> Float[Array, "b t n h"]:
    """Turn each pair of the first `rope.fraction` of the head by the angle `position * frequency` of that pair.

    `rope.proportional`: of the first of the pairs that all of the head makes. Angles and products are float32: bfloat16
    has no room for a position above 256.

    Source: Su et al., "RoFormer", section 3.2; halves as pairs in GPT-NeoX and Llama; proportional in Gemma 4.
    """
    dim = x_BTNH.shape[-1]
    turning = int(dim * rope.fraction)
    if not rope.proportional:
        rotated_BTNH = _turn(x_BTNH[..., :turning], positions_BT, _frequencies(rope, turning), rope)
        return rotated_BTNH if turning == dim else jnp.concatenate([rotated_BTNH, x_BTNH[..., turning:]], axis=-1)
    num_pairs = turning // 2
    halves = jnp.split(x_BTNH, 2, axis=-1)
    inner_BTNH = jnp.concatenate([half[..., :num_pairs] for half in halves], axis=-1)
    turned = jnp.split(_turn(inner_BTNH, positions_BT, _frequencies(rope, dim)[:num_pairs], rope), 2, axis=-1)
    parts = [turned[0], halves[0][..., num_pairs:], turned[1], halves[1][..., num_pairs:]]
    return jnp.concatenate(parts, axis=-1)


def temper(
    q_BTNH: Float[Array, "b t n h"], positions_BT: Int[Array, "b t"], unrotated: Unrotated
) -> Float[Array, "b t n h"]:
    """The query times `1 + temperature * log(1 + floor((position + 1) / length))`, in float32 and then its own dtype.

    Source: Nakanishi, "Scalable-Softmax Is Superior for Attention"; the steps are those of Llama 4 (Meta 2025).
    """
    steps_BT = ((positions_BT + 1) // unrotated.length).astype(jnp.float32)
    factor_BT = 1.0 + unrotated.temperature * jnp.log1p(steps_BT)
    return (q_BTNH.astype(jnp.float32) * factor_BT[:, :, None, None]).astype(q_BTNH.dtype)


def _turn(x_BTNH: Array, positions_BT: Array, frequencies: np.ndarray, rope: Rope) -> Float[Array, "b t n h"]:
    """All of `x` turned, by one frequency for each of its pairs."""
    angles_BT1h = _angles(positions_BT, frequencies)[:, :, None, :]
    cos_BT1h, sin_BT1h = jnp.cos(angles_BT1h), jnp.sin(angles_BT1h)
    if (amplitude := _amplitude(rope.scaling)) != 1.0:
        cos_BT1h, sin_BT1h = amplitude * cos_BT1h, amplitude * sin_BT1h
    first_BTNh, second_BTNh = _pairs(x_BTNH.astype(jnp.float32), rope.interleaved)
    return _unpaired(
        first_BTNh * cos_BT1h - second_BTNh * sin_BT1h, second_BTNh * cos_BT1h + first_BTNh * sin_BT1h, rope.interleaved
    ).astype(x_BTNH.dtype)


def _angles(positions_BT: Int[Array, "b t"], frequencies: np.ndarray) -> Float[Array, "b t h"]:
    """Position times frequency. What float32 leaves of a frequency is added: a late position makes it a digit."""
    rounded = frequencies.astype(np.float32)
    rest = (frequencies - rounded).astype(np.float32)
    positions_BT1 = positions_BT.astype(jnp.float32)[:, :, None]
    return positions_BT1 * rounded[None, None, :] + positions_BT1 * rest[None, None, :]


def _pairs(x: Array, interleaved: bool) -> tuple[Array, Array]:
    if interleaved:
        return x[..., 0::2], x[..., 1::2]
    first, second = jnp.split(x, 2, axis=-1)
    return first, second


def _unpaired(first: Array, second: Array, interleaved: bool) -> Array:
    if interleaved:
        return jnp.stack([first, second], axis=-1).reshape(*first.shape[:-1], -1)
    return jnp.concatenate([first, second], axis=-1)


def _frequencies(rope: Rope, turning: int) -> np.ndarray:
    """Radians a position, of each pair: `max_timescale ** (-2 i / turning)`, scaled."""
    plain = rope.max_timescale ** -(np.arange(0, turning, 2, dtype=np.float64) / turning)
    match rope.scaling:
        case None:
            return plain
        case LinearScaling(factor):
            return plain / factor
        case Llama3Scaling() as scaling:
            return _llama3(plain, scaling)
        case YarnScaling() as scaling:
            return _yarn(plain, scaling, rope.max_timescale)


def _llama3(plain: np.ndarray, scaling: Llama3Scaling) -> np.ndarray:
    """Source: Dubey et al., "The Llama 3 Herd of Models", with the constants of Meta's `apply_scaling`."""
    turns = scaling.original_length * plain / (2 * math.pi)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    # Equal bounds make a step of the blend (Llama 4).
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0) if low < high else (turns > high).astype(np.float64)
    return kept * plain + (1.0 - kept) * plain / scaling.factor


def _yarn(plain: np.ndarray, scaling: YarnScaling, max_timescale: float) -> np.ndarray:
    """Source: Peng et al., "YaRN", section 3.2, with the ramp over dimensions of its reference code."""
    turning = 2 * len(plain)

    def dimension(turns: float) -> float:
        """The pair that turns so often within the original length."""
        return turning * math.log(scaling.original_length / (turns * 2 * math.pi)) / (2 * math.log(max_timescale))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, turning - 1)
    # The reference code's way out where the ramp is a step.
    high += 0.001 if low == high else 0
    interpolated = np.clip((np.arange(len(plain)) - low) / (high - low), 0.0, 1.0)
    return (1.0 - interpolated) * plain + interpolated * plain / scaling.factor


def _amplitude(scaling: LinearScaling | Llama3Scaling | YarnScaling | None) -> float:
    """The factor on cosine and sine. Source: "YaRN", eq. 22: `0.1 ln(factor) + 1` on the softmax's argument, rooted."""
    if not isinstance(scaling, YarnScaling):
        return 1.0
    return 0.1 * math.log(scaling.factor) + 1.0 if scaling.attention_factor is None else scaling.attention_factor
