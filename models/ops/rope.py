"""Rotary positions. Axes: `B` batch, `T` position, `N` heads, `H` head dim, `h` half of it."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rotate(
    x_BTNH: Float[Array, "b t n h"], positions_BT: Int[Array, "b t"], *, max_timescale: float
) -> Float[Array, "b t n h"]:
    """Turn the pair `(x[i], x[i + H/2])` by the angle `position * max_timescale ** (-2 i / H)`.

    Angles and products are float32: bfloat16 has no room for a position above 256.

    Source: Su et al., "RoFormer", section 3.2, in the two-halves layout of GPT-NeoX and Llama.
    """
    half_dim = x_BTNH.shape[-1] // 2
    exponents_h = jnp.arange(half_dim, dtype=jnp.float32) / half_dim
    frequencies_11h = (max_timescale**-exponents_h)[None, None, :]
    angles_BT1h = (positions_BT.astype(jnp.float32)[:, :, None] * frequencies_11h)[:, :, None, :]
    cos_BT1h, sin_BT1h = jnp.cos(angles_BT1h), jnp.sin(angles_BT1h)
    first_BTNh, second_BTNh = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    rotated_BTNH = jnp.concatenate(
        [first_BTNh * cos_BT1h - second_BTNh * sin_BT1h, second_BTNh * cos_BT1h + first_BTNh * sin_BT1h], axis=-1
    )
    return rotated_BTNH.astype(x_BTNH.dtype)
