"""Matrix products with a stated dtype: operands in the computation's dtype, accumulation in float32."""

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def dense(
    x: Float[Array, "..."],
    kernel: Float[Array, "..."],
    bias: Float[Array, "..."] | None = None,
    *,
    num_contracted: int = 1,
    dtype: DTypeLike,
) -> Float[Array, "..."]:
    """Contract the last `num_contracted` axes of `x` with the first of `kernel`, then add `bias` to the remaining ones.

    All three are cast to `dtype`; the product accumulates in float32 and is rounded to `dtype` before the bias.
    """
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    x_dims, kernel_dims = tuple(range(x.ndim - num_contracted, x.ndim)), tuple(range(num_contracted))
    dims = ((x_dims, kernel_dims), ((), ()))
    out = lax.dot_general(x, kernel, dims, preferred_element_type=jnp.float32).astype(dtype)
    if bias is None:
        return out
    return out + bias.astype(dtype).reshape((1,) * (out.ndim - bias.ndim) + bias.shape)


def head(x_BTD: Float[Array, "b t d"], kernel_DV: Float[Array, "d v"]) -> Float[Array, "b t v"]:
    """Float32 logits of an untied head: `x @ kernel`, the kernel cast to the dtype of `x`."""
    kernel_DV = kernel_DV.astype(x_BTD.dtype)
    return jnp.einsum("BTD,DV->BTV", x_BTD, kernel_DV, preferred_element_type=jnp.float32)
