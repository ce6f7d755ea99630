"""The point-wise part of an MLP and of a gated output. Their matrix products are `dense`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..config import Activation

_FUNCTIONS = {
    Activation.SILU: jax.nn.silu,
    Activation.GELU: lambda x: jax.nn.gelu(x, approximate=True),
    Activation.QUICK_GELU: lambda x: x * jax.nn.sigmoid(1.702 * x),
}


def activate(x: Float[Array, "*shape"], activation: Activation) -> Float[Array, "*shape"]:
    """The nonlinearity in the dtype of `x`, computed in float32: `1 + tanh` cancels for negative `x` in bfloat16.

    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", section 2 (tanh form, and with a sigmoid;
    SiLU is a sigmoid's too).
    """
    return _FUNCTIONS[activation](x.astype(jnp.float32)).astype(x.dtype)


def gate(
    gate: Float[Array, "*shape"],
    linear: Float[Array, "*shape"],
    activation: Activation,
    *,
    clamp: float | None = None,
    linear_offset: float = 0.0,
) -> Float[Array, "*shape"]:
    """`activate(gate) * (linear + linear_offset)`. `clamp` first bounds the gate from above, the linear part both ways.

    Source: Shazeer, "GLU Variants Improve Transformer", eq. 5; clamp and offset of GPT-OSS (OpenAI 2025).
    """
    if clamp is not None:
        gate, linear = jnp.minimum(gate, clamp), jnp.clip(linear, -clamp, clamp)
    if linear_offset:
        linear = linear + linear_offset
    return activate(gate, activation) * linear


def sigmoid_gate(x: Float[Array, "*b d"], logits: Float[Array, "*b g"]) -> Float[Array, "*b d"]:
    """`x * sigmoid(logits)` in the dtype of `x`, computed in float32; a single logit gates the whole last axis.

    Source: Qiu et al., "Gated Attention for Large Language Models", eq. 5.
    """
    return (x.astype(jnp.float32) * jax.nn.sigmoid(logits.astype(jnp.float32))).astype(x.dtype)
