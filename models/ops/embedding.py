"""The token table, read by index on the way in and by product on the way out."""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int


def embed(tokens_BT: Int[Array, "b t"], table_VD: Float[Array, "v d"], *, dtype: DTypeLike) -> Float[Array, "b t d"]:
    """The tokens' rows of the table in `dtype`. A token outside the vocabulary (negative too) gives a row of NaN."""
    rows_BTD = table_VD.at[tokens_BT].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    return rows_BTD.astype(dtype)


def unembed(x_BTD: Float[Array, "b t d"], table_VD: Float[Array, "v d"]) -> Float[Array, "b t v"]:
    """Float32 logits of a tied head: `x @ table.T`, the table cast to the dtype of `x`."""
    table_VD = table_VD.astype(x_BTD.dtype)
    return jnp.einsum("BTD,VD->BTV", x_BTD, table_VD, preferred_element_type=jnp.float32)
