"""Gated MLPs that each see only the tokens sent to them. Who is sent where is `router`.

Axes: `B` batch, `T` position, `D` model, `F` hidden, `E` experts, `k` the experts a token chose, `C` an expert's places
in a row, `N` all choices of all tokens.
"""

import math
import typing

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ..config import Moe
from .mlp import gate


class Experts(typing.NamedTuple):
    """The kernels and biases of all experts, in the dtype of the computation."""

    wi_0_EDF: Float[Array, "e d f"]
    wi_1_EDF: Float[Array, "e d f"]
    wo_EFD: Float[Array, "e f d"]
    wi_0_bias_EF: Float[Array, "e f"] | None = None
    wi_1_bias_EF: Float[Array, "e f"] | None = None
    wo_bias_ED: Float[Array, "e d"] | None = None


def mix_experts(
    x_BTD: Float[Array, "b t d"],
    weights_BTk: Float[Array, "b t k"],
    chosen_BTk: Int[Array, "b t k"],
    valid_BT: Bool[Array, "b t"],
    experts: Experts,
    moe: Moe,
) -> Float[Array, "b t d"]:
    """The chosen experts' results, weighted and added in float32; zero for an invalid token, and what was dropped is.

    `moe.scale_inputs`: the weight multiplies what its expert is given, in float32, and the results are just added.
    Products accumulate in float32 and are rounded to the dtype of `x`, as in `dense`.

    Source: Shazeer et al., "Outrageously Large Neural Networks", eq. 1; Gale et al., "MegaBlocks" (none dropped);
    Lepikhin et al., "GShard", algorithm 1 (capacity); weighted inputs of Llama 4 (Meta 2025).
    """
    x_BTD = jnp.where(valid_BT[:, :, None], x_BTD, 0)
    weights_BTk = jnp.where(valid_BT[:, :, None], weights_BTk, 0.0)
    given_BTk = None
    if moe.scale_inputs:
        given_BTk = weights_BTk
        weights_BTk = jnp.broadcast_to(valid_BT[:, :, None], given_BTk.shape).astype(jnp.float32)
    if moe.capacity_factor is None:
        return _mix_all(x_BTD, given_BTk, weights_BTk, chosen_BTk, experts, moe)
    return _mix_within_capacity(x_BTD, given_BTk, weights_BTk, chosen_BTk, valid_BT, experts, moe)


def _mix_all(
    x_BTD: Array, given_BTk: Array | None, weights_BTk: Array, chosen_BTk: Array, experts: Experts, moe: Moe
) -> Array:
    """Tokens sorted by expert, so that each expert has a run of rows; then put back.

    `given_BTk`: the weights of what the experts are given, `weights_BTk` of what they give.
    """
    batch, length, dim = x_BTD.shape
    num_chosen, num_experts = chosen_BTk.shape[2], experts.wi_0_EDF.shape[0]
    chosen_N = chosen_BTk.reshape(-1)
    order_N = jnp.argsort(chosen_N, stable=True)
    sorted_N = _rows(chosen_N, order_N)
    sizes_E = (chosen_N[:, None] == jnp.arange(num_experts)[None, :]).sum(axis=0, dtype=jnp.int32)

    def product(x_NI: Array, kernel_EIO: Array, bias_EO: Array | None) -> Array:
        out_NO = lax.ragged_dot(x_NI, kernel_EIO, sizes_E, preferred_element_type=jnp.float32).astype(x_NI.dtype)
        return out_NO if bias_EO is None else out_NO + _rows(bias_EO, sorted_N)

    x_ND = _rows(x_BTD.reshape(batch * length, dim), order_N // num_chosen)
    if given_BTk is not None:
        given_N1 = _rows(given_BTk.reshape(-1, 1), order_N)
        x_ND = (given_N1 * x_ND.astype(jnp.float32)).astype(x_ND.dtype)
    gate_NF = product(x_ND, experts.wi_0_EDF, experts.wi_0_bias_EF)
    linear_NF = product(x_ND, experts.wi_1_EDF, experts.wi_1_bias_EF)
    out_ND = product(_gated(gate_NF, linear_NF, moe), experts.wo_EFD, experts.wo_bias_ED)
    out_BTkD = _rows(out_ND, jnp.argsort(order_N)).reshape(batch, length, num_chosen, dim)
    return (weights_BTk[..., None] * out_BTkD.astype(jnp.float32)).sum(axis=2).astype(x_BTD.dtype)


def _mix_within_capacity(
    x_BTD: Array,
    given_BTk: Array | None,
    weights_BTk: Array,
    chosen_BTk: Array,
    valid_BT: Array,
    experts: Experts,
    moe: Moe,
) -> Array:
    """Each row's tokens written into its experts' places by products with zeros and ones, and read back so."""
    placed_BTkEC = _places(chosen_BTk, valid_BT, moe)
    if given_BTk is None:
        sent_BTEC, given_BTD = placed_BTkEC.any(axis=2).astype(x_BTD.dtype), x_BTD
    else:
        sent_BTEC, given_BTD = _placed(given_BTk, placed_BTkEC), x_BTD.astype(jnp.float32)
    x_BECD = jnp.einsum("BTEC,BTD->BECD", sent_BTEC, given_BTD, preferred_element_type=jnp.float32)
    x_BECD = x_BECD.astype(x_BTD.dtype)

    def product(x_EBCI: Array, kernel_EIO: Array, bias_EO: Array | None) -> Array:
        # Experts lead in both: with rows first, XLA's CPU has no such product of bfloat16 into float32.
        out_EBCO = jnp.einsum("EBCI,EIO->EBCO", x_EBCI, kernel_EIO, preferred_element_type=jnp.float32)
        out_EBCO = out_EBCO.astype(x_EBCI.dtype)
        return out_EBCO if bias_EO is None else out_EBCO + bias_EO[:, None, None, :]

    x_EBCD = x_BECD.swapaxes(0, 1)
    gate_EBCF = product(x_EBCD, experts.wi_0_EDF, experts.wi_0_bias_EF)
    linear_EBCF = product(x_EBCD, experts.wi_1_EDF, experts.wi_1_bias_EF)
    out_EBCD = product(_gated(gate_EBCF, linear_EBCF, moe), experts.wo_EFD, experts.wo_bias_ED)
    weights_BTEC = _placed(weights_BTk, placed_BTkEC)
    out_BECD = out_EBCD.swapaxes(0, 1).astype(jnp.float32)
    return jnp.einsum("BTEC,BECD->BTD", weights_BTEC, out_BECD).astype(x_BTD.dtype)


def _places(chosen_BTk: Int[Array, "b t k"], valid_BT: Bool[Array, "b t"], moe: Moe) -> Bool[Array, "b t k e c"]:
    """Which place of which expert each choice has; none where the expert is full or the token is not valid."""
    batch, length, num_chosen = chosen_BTk.shape
    num_experts = moe.router.num_experts
    capacity = math.ceil(length * num_chosen * (moe.capacity_factor or 0.0) / num_experts)
    is_chosen_BTkE = chosen_BTk[..., None] == jnp.arange(num_experts)[None, None, None, :]
    is_chosen_BTkE &= valid_BT[:, :, None, None]
    in_order_BSE = is_chosen_BTkE.reshape(batch, length * num_chosen, num_experts).astype(jnp.int32)
    # A row's choices of one expert are numbered from 0. No expert has more of them than the row has tokens.
    place_BTkE = (jnp.cumsum(in_order_BSE, axis=1) - 1).reshape(is_chosen_BTkE.shape)
    places_C = jnp.arange(min(capacity, length))
    return is_chosen_BTkE[..., None] & (place_BTkE[..., None] == places_C[None, None, None, None, :])


def _placed(weights_BTk: Float[Array, "b t k"], placed_BTkEC: Bool[Array, "b t k e c"]) -> Float[Array, "b t e c"]:
    """Each choice's weight at its place, and zeros."""
    return jnp.where(placed_BTkEC, weights_BTk[..., None, None], 0.0).sum(axis=2)


def _gated(gated: Array, linear: Array, moe: Moe) -> Array:
    return gate(gated, linear, moe.activation, clamp=moe.clamp, linear_offset=moe.linear_offset)


def _rows(table: Array, index_N: Int[Array, " n"]) -> Array:
    """Rows by numbers that are known to be in range."""
    return table.at[index_N].get(mode="promise_in_bounds", wrap_negative_indices=False)
