"""The gated delta rule: linear attention whose state forgets by a gate and corrects what it holds for a key.

Axes: `B` batch, `T` position, `K` key heads, `N` value heads, `A` key dim, `V` value dim, `M` chunks, `C` a token
of its chunk (`c` an earlier one).
"""

import typing

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

# Each state is a product with the one before: what one product loses, all later tokens read.
_PRECISION = lax.Precision.HIGHEST


class Decay(typing.NamedTuple):
    """The logarithm of what a token leaves of the state, and how much of its own value it writes."""

    log_decay_BTN: Float[Array, "b t n"]
    beta_BTN: Float[Array, "b t n"]


class Recalled(typing.NamedTuple):
    """What the queries read, and the state after the last valid token."""

    out_BTNV: Float[Array, "b t n v"]
    state_BNAV: Float[Array, "b n a v"]


class _Chunks(typing.NamedTuple):
    """What the scan over chunks needs of one chunk, all of it independent of the state before (chunks lead)."""

    written_MBNCV: Array
    erased_MBNCA: Array
    query_MBNCA: Array
    weights_MBNCc: Array
    key_MBNCA: Array
    kept_MBN: Array


def decay(
    a_BTN: Float[Array, "b t n"],
    b_BTN: Float[Array, "b t n"],
    A_log_N: Float[Array, " n"],
    dt_bias_N: Float[Array, " n"],
) -> Decay:
    """`-exp(A_log) softplus(a + dt_bias)` and `sigmoid(b)`, in float32.

    Source: Yang et al., "Gated Delta Networks", section 3.4; the decay is that of Gu and Dao, "Mamba-2".
    """
    step_BTN = jax.nn.softplus(a_BTN.astype(jnp.float32) + dt_bias_N.astype(jnp.float32)[None, None])
    log_decay_BTN = -jnp.exp(A_log_N.astype(jnp.float32))[None, None] * step_BTN
    return Decay(log_decay_BTN, jax.nn.sigmoid(b_BTN.astype(jnp.float32)))


def gated_delta(  # noqa: PLR0913  (the rule's five operands, the state, and which tokens share it)
    q_BTKA: Float[Array, "b t k a"],
    k_BTKA: Float[Array, "b t k a"],
    v_BTNV: Float[Array, "b t n v"],
    log_decay_BTN: Float[Array, "b t n"],
    beta_BTN: Float[Array, "b t n"],
    state_BNAV: Float[Array, "b n a v"] | None,
    documents_BT: Int[Array, "b t"],
    valid_BT: Bool[Array, "b t"],
    *,
    chunk: int,
) -> Recalled:
    """Token by token `S = exp(g) S; S = S + k (beta (v - S' k))'; o = S' q`, computed `chunk` tokens at a time.

    Query and key are first made unit vectors, the query then divided by the root of its width; key head
    `n // (N / K)` serves value head `n`. All is float32, the result has the dtype of `v`. `S` is zero where a document
    begins, `state_BNAV` belongs to document 0. Padding leaves the state alone and reads zero.

    Source: Yang et al., "Gated Delta Networks", eq. 10, and section 3.3 (the chunks' form).
    """
    batch, length, num_heads, value_dim = v_BTNV.shape
    key_dim, dtype = k_BTKA.shape[3], v_BTNV.dtype
    chunk = min(chunk, length)
    valid_BT11 = valid_BT[:, :, None, None]

    def prepared(x: Array, group: int) -> Array:
        """Float32, zero under padding, a head for each value head."""
        return jnp.repeat(jnp.where(valid_BT11, x.astype(jnp.float32), 0.0), group, axis=2)

    group = num_heads // k_BTKA.shape[2]
    q_BTNA, k_BTNA = (_unit(prepared(x, group)) for x in (q_BTKA, k_BTKA))
    gates = (prepared(x[..., None], 1) for x in (log_decay_BTN, beta_BTN))
    documents_BM1C = _chunked(documents_BT[:, :, None, None], chunk, mode="edge")[..., 0]
    heads = (key_dim**-0.5 * q_BTNA, k_BTNA, prepared(v_BTNV, 1), *gates)
    chunks = _apart(documents_BM1C[:, :, 0], *(_chunked(x, chunk) for x in heads))
    if state_BNAV is None:
        state_BNAV = jnp.zeros((batch, num_heads, key_dim, value_dim), jnp.float32)
    state_BNAV, out_MBNCV = lax.scan(_step, state_BNAV.astype(jnp.float32), chunks)
    out_BTNV = out_MBNCV.transpose(1, 0, 3, 2, 4).reshape(batch, -1, num_heads, value_dim)[:, :length]
    return Recalled(out_BTNV.astype(dtype), state_BNAV)


def _unit(x: Float[Array, "b t n a"]) -> Float[Array, "b t n a"]:
    return x * lax.rsqrt(jnp.square(x).sum(axis=-1, keepdims=True) + 1e-6)


def _chunked(x_BTNI: Array, chunk: int, mode: str = "constant") -> Array:
    """`[B, T, N, I]` as `[B, M, N, C, I]`, the last chunk filled up."""
    batch, length, *inner = x_BTNI.shape
    missing = -length % chunk
    x_BTNI = jnp.pad(x_BTNI, ((0, 0), (0, missing), (0, 0), (0, 0)), mode=mode)
    return x_BTNI.reshape(batch, -1, chunk, *inner).swapaxes(2, 3)


def _apart(documents_BMC: Array, q: Array, k: Array, v: Array, log_decay: Array, beta: Array) -> _Chunks:
    """Every chunk on its own (`[B, M, N, C, ...]`): what its tokens write into zeros, and what they erase of a state.

    What a token writes for its key, `u_t = beta_t (v_t - exp(g_1 + .. + g_t) S' k_t - sum_j<t exp(g_j+1 + .. + g_t)
    (k_j k_t) u_j)`, is a unit lower triangular system. Every exponent is a sum of decays' logarithms, none is positive.
    """
    size = log_decay.shape[3]
    order_C = jnp.arange(size)
    is_later_Cc = (order_C[:, None] > order_C[None, :])[None, None, None]
    is_same_Cc = (order_C[:, None] == order_C[None, :])[None, None, None]
    # Sums of the decays after c up to C, each added up on its own: a difference of two long sums would lose digits.
    after_BMNCc = jnp.cumsum(jnp.where(is_later_Cc, log_decay, 0.0), axis=3)
    reads_BM1Cc = (documents_BMC[..., :, None] == documents_BMC[..., None, :])[:, :, None]
    between_BMNCc = jnp.where(reads_BM1Cc & (is_later_Cc | is_same_Cc), jnp.exp(after_BMNCc), 0.0)
    last_BM = jnp.pad(documents_BMC[:, :-1, -1], ((0, 0), (1, 0)))
    goes_on_BM1C1 = (documents_BMC == last_BM[..., None])[:, :, None, :, None]
    since_BMNC1 = jnp.where(goes_on_BM1C1, jnp.exp(jnp.cumsum(log_decay, axis=3)), 0.0)
    products_BMNCc = _product("BMNCA,BMNcA->BMNCc", k, k)
    system = jnp.where(is_later_Cc, beta * between_BMNCc * products_BMNCc, 0.0)
    known = jnp.concatenate([beta * v, beta * since_BMNC1 * k], axis=-1)
    solved = lax.linalg.triangular_solve(system, known, left_side=True, lower=True, unit_diagonal=True)
    weights = between_BMNCc * _product("BMNCA,BMNcA->BMNCc", q, k)
    key = k * between_BMNCc[..., -1, :, None]
    written, erased = jnp.split(solved, [v.shape[-1]], axis=-1)
    parts = (written, erased, since_BMNC1 * q, weights, key, since_BMNC1[..., -1, 0])
    return _Chunks(*(part.swapaxes(0, 1) for part in parts))


def _step(state_BNAV: Array, chunk: _Chunks) -> tuple[Array, Array]:
    """One chunk on the state before it: the state after it, and what its queries read."""
    written_BNCV = chunk.written_MBNCV - _product("BNCA,BNAV->BNCV", chunk.erased_MBNCA, state_BNAV)
    out_BNCV = _product("BNCA,BNAV->BNCV", chunk.query_MBNCA, state_BNAV)
    out_BNCV = out_BNCV + _product("BNCc,BNcV->BNCV", chunk.weights_MBNCc, written_BNCV)
    state_BNAV = chunk.kept_MBN[..., None, None] * state_BNAV
    return state_BNAV + _product("BNCA,BNCV->BNAV", chunk.key_MBNCA, written_BNCV), out_BNCV


def _product(subscripts: str, *operands: Array) -> Array:
    return jnp.einsum(subscripts, *operands, precision=_PRECISION)
