"""Grouped-query attention over a dense mask. Projections, rotary positions and the mask itself live elsewhere.

Axes: `B` batch, `T` query, `S` key, `N` query heads, `K` key heads, `G` query heads of one key head, `H` head dim,
which may be another for values (`v` in the types).
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from .softcap import soft_cap as apply_soft_cap


def attend(
    q_BTNH: Float[Array, "b t n h"],
    k_BSKH: Float[Array, "b s k h"],
    v_BSKH: Float[Array, "b s k v"],
    mask_BTS: Bool[Array, "b t s"],
    *,
    scale: float,
    soft_cap: float | None,
    sinks: Float[Array, " n"] | None = None,
) -> Float[Array, "b t n v"]:
    """Scaled dot-product attention; query head `n` reads key head `n // (N / K)`. A query with no key gives zero.

    `sinks`: a logit of each query head that takes its share of the softmax and has no value; neither scaled nor capped.
    Logits and softmax are float32, the weights meet the values in the values' dtype, which is also the result's.

    Source: Vaswani et al., "Attention Is All You Need", eq. 1; Ainslie et al., "GQA"; soft cap of Gemma 2; sinks
    of GPT-OSS (OpenAI 2025).
    """
    num_kv_heads = k_BSKH.shape[2]
    batch, length, num_heads, head_dim = q_BTNH.shape
    q_BTKGH = q_BTNH.reshape(batch, length, num_kv_heads, num_heads // num_kv_heads, head_dim)
    logits_BKGTS = scale * jnp.einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32)
    if soft_cap is not None:
        logits_BKGTS = apply_soft_cap(logits_BKGTS, soft_cap)
    weights_BKGTS = _masked_softmax(logits_BKGTS, mask_BTS[:, None, None], sinks).astype(v_BSKH.dtype)
    out_BTKGH = jnp.einsum("BKGTS,BSKH->BTKGH", weights_BKGTS, v_BSKH, preferred_element_type=jnp.float32)
    return out_BTKGH.reshape(batch, length, num_heads, v_BSKH.shape[3]).astype(v_BSKH.dtype)


def _masked_softmax(
    logits_BKGTS: Float[Array, "b k g t s"], mask_B11TS: Bool[Array, "b 1 1 t s"], sinks_N: Float[Array, " n"] | None
) -> Array:
    """Softmax over the allowed keys; all zeros where no key is allowed.

    A masked logit becomes the lowest float before the subtraction, never minus infinity: `-inf - -inf` is NaN, in the
    gradient too. An empty row then has a sum of zero, and dividing by one instead keeps value and gradient at zero.
    """
    mask_BKGTS = jnp.broadcast_to(mask_B11TS, logits_BKGTS.shape)
    lowest = jnp.finfo(logits_BKGTS.dtype).min
    logits_BKGTS = jnp.where(mask_BKGTS, logits_BKGTS, lowest)
    peak_BKGT1 = lax.stop_gradient(logits_BKGTS.max(axis=-1, keepdims=True))
    sinks_1KG11 = None if sinks_N is None else _per_head(sinks_N, logits_BKGTS.shape)
    if sinks_1KG11 is not None:
        peak_BKGT1 = jnp.maximum(peak_BKGT1, lax.stop_gradient(sinks_1KG11))
    exp_BKGTS = jnp.where(mask_BKGTS, jnp.exp(logits_BKGTS - peak_BKGT1), 0.0)
    sum_BKGT1 = exp_BKGTS.sum(axis=-1, keepdims=True)
    if sinks_1KG11 is not None:
        sum_BKGT1 = sum_BKGT1 + jnp.exp(sinks_1KG11 - peak_BKGT1)
    return exp_BKGTS / jnp.where(sum_BKGT1 > 0.0, sum_BKGT1, 1.0)


def _per_head(sinks_N: Float[Array, " n"], shape_BKGTS: tuple[int, ...]) -> Float[Array, "1 k g 1 1"]:
    return sinks_N.astype(jnp.float32).reshape(1, *shape_BKGTS[1:3], 1, 1)
