"""Rows of a decode cache. The cache is an array here; the variable that holds it belongs to a twin."""

import functools

import jax
from jax import lax
from jaxtyping import Array, Int, Shaped


def write_cache(
    cache_BS: Shaped[Array, "b s *rest"], new_BT: Shaped[Array, "b t *rest"], start_B: Int[Array, " b"]
) -> Shaped[Array, "b s *rest"]:
    """The cache with `new_BT[i]` at rows `start_B[i]` to `start_B[i] + T` of batch row `i`; both have one dtype.

    The caller keeps `start + T <= S`: beyond, XLA shifts the write so that it ends at the last row.
    """
    return jax.vmap(functools.partial(lax.dynamic_update_slice_in_dim, axis=0))(cache_BS, new_BT, start_B)
