"""The smooth bound on logits, of attention and of the head alike."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def soft_cap(x: Float[Array, "*shape"], cap: float) -> Float[Array, "*shape"]:
    """`cap * tanh(x / cap)`: the identity near zero, bounded by `cap`. Source: Gemma 2, section 2."""
    return cap * jnp.tanh(x / cap)
