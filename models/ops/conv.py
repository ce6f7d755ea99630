"""The short causal convolution before a linear attention: each channel on its own, within a document.

Axes: `B` batch, `T` position, `C` channels, `W` taps, `w` the tokens before the row that taps
reach (`W - 1`), `S` both.
"""

import typing

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Convolved(typing.NamedTuple):
    """What the convolution gives, and the inputs that a later call's first tokens still reach."""

    out_BTC: Float[Array, "b t c"]
    state_BwC: Float[Array, "b w c"]


def causal_conv(
    x_BTC: Float[Array, "b t c"],
    kernel_WC: Float[Array, "taps c"],
    state_BwC: Float[Array, "b w c"] | None,
    documents_BT: Int[Array, "b t"],
    valid_BT: Bool[Array, "b t"],
) -> Convolved:
    """`silu(sum_j kernel[W - 1 - j] x[t - j])`, computed in float32; the dtype of `x`.

    A tap in another document, on padding or before the row's first token reads zero. `state_BwC` stands before the row
    and belongs to document 0. The new state are the last valid inputs of the row's last document, zeros before them;
    padding leaves it as it was.

    Source: Yang et al., "Gated Delta Networks", section 3.4 (short convolution); Gu and Dao, "Mamba", section 3.4.
    """
    num_held = kernel_WC.shape[0] - 1
    batch, length, num_channels = x_BTC.shape
    if state_BwC is None:
        state_BwC = jnp.zeros((batch, num_held, num_channels), x_BTC.dtype)
    x_BTC = jnp.where(valid_BT[:, :, None], x_BTC, 0)
    inputs_BSC = jnp.concatenate([state_BwC, x_BTC], axis=1)
    documents_BS = jnp.pad(documents_BT, ((0, 0), (num_held, 0)))
    out_BTC = jnp.zeros(x_BTC.shape, jnp.float32)
    for tap, kernel_C in enumerate(kernel_WC.astype(jnp.float32)):
        reads_BT = documents_BS[:, tap : tap + length] == documents_BT
        read_BTC = jnp.where(reads_BT[:, :, None], inputs_BSC[:, tap : tap + length].astype(jnp.float32), 0.0)
        out_BTC = out_BTC + kernel_C[None, None] * read_BTC
    return Convolved(jax.nn.silu(out_BTC).astype(x_BTC.dtype), _last(inputs_BSC, documents_BS, valid_BT, num_held))


def _last(
    inputs_BSC: Float[Array, "b s c"], documents_BS: Int[Array, "b s"], valid_BT: Bool[Array, "b t"], count: int
) -> Float[Array, "b w c"]:
    """The last inputs that are no padding; zero where they are not of the last document."""
    valid_BS = jnp.pad(valid_BT, ((0, 0), (count, 0)), constant_values=True)
    # How many valid inputs there are from each on, itself included: the last is number 1.
    number_BS = jnp.cumsum(valid_BS[:, ::-1], axis=1, dtype=jnp.int32)[:, ::-1]
    wanted_w = jnp.arange(count, 0, -1, dtype=jnp.int32)
    is_wanted_BwS = valid_BS[:, None, :] & (number_BS[:, None, :] == wanted_w[None, :, None])
    place_Bw = jnp.argmax(is_wanted_BwS, axis=2)
    held_BwC = jnp.take_along_axis(inputs_BSC, place_Bw[:, :, None], axis=1)
    is_last_Bw = jnp.take_along_axis(documents_BS, place_Bw, axis=1) == documents_BS[:, -1:]
    return jnp.where(is_last_Bw[:, :, None], held_BwC, 0)
