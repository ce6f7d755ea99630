"""The point-wise part of an MLP. Its matrix products are `dense`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..config import Activation

_FUNCTIONS = {Activation.SILU: jax.nn.silu, Activation.GELU: lambda x: jax.nn.gelu(x, approximate=True)}


def activate(x: Float[Array, "*shape"], activation: Activation) -> Float[Array, "*shape"]:
    """The nonlinearity in the dtype of `x`, computed in float32: `1 + tanh` cancels for negative `x` in bfloat16.

    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", section 2 (tanh form; SiLU is the same with a sigmoid).
    """
    return _FUNCTIONS[activation](x.astype(jnp.float32)).astype(x.dtype)


def gate(
    gate: Float[Array, "*shape"], linear: Float[Array, "*shape"], activation: Activation
) -> Float[Array, "*shape"]:
    """`activate(gate) * linear`. Source: Shazeer, "GLU Variants Improve Transformer", eq. 5."""
    return activate(gate, activation) * linear
