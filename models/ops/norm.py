"""Norms over the last axis, in float32: a mean of squares in bfloat16 loses the result's first digits."""

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def rms_norm(
    x: Float[Array, "*b d"], scale: Float[Array, " d"] | None, *, epsilon: float, zero_centered: bool, dtype: DTypeLike
) -> Float[Array, "*b d"]:
    """`x / sqrt(mean(x**2) + epsilon) * scale`, with `1 + scale` if `zero_centered`; float32 inside.

    Without a scale there is nothing to multiply with.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", eq. 4.
    """
    x = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    normed = x * lax.rsqrt(mean_square + epsilon)
    return (normed if scale is None else normed * _factor(scale, zero_centered, x.ndim)).astype(dtype)


def layer_norm(
    x: Float[Array, "*b d"],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
    *,
    epsilon: float,
    zero_centered: bool,
    dtype: DTypeLike,
) -> Float[Array, "*b d"]:
    """`(x - mean) / sqrt(variance + epsilon) * scale + bias`, with `1 + scale` if `zero_centered`; float32 inside.

    The variance is the mean square of the centred values: `mean(x**2) - mean(x)**2` cancels when the mean is large.

    Source: Ba, Kiros and Hinton, "Layer Normalization", eq. 4.
    """
    x = x.astype(jnp.float32)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    normed = centred * lax.rsqrt(variance + epsilon) * _factor(scale, zero_centered, x.ndim)
    return (normed + _row(bias, x.ndim)).astype(dtype)


def _factor(scale: Float[Array, " d"], zero_centered: bool, num_dims: int) -> Array:
    """The float32 factor on the normed value, shaped to meet an array of `num_dims` axes."""
    row = _row(scale, num_dims)
    return 1.0 + row if zero_centered else row


def _row(vector: Float[Array, " d"], num_dims: int) -> Array:
    return vector.astype(jnp.float32).reshape((1,) * (num_dims - 1) + vector.shape)
