"""Probes of the convolution and of the gated delta rule, and the faults they must refuse; `test_faults` runs both."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from models import ops

from . import recurrent_checks
from .bounds import BFLOAT16, FLOAT32
from .inputs import Values, array

# Right, left and inner padding; documents that begin inside a chunk, at its edge and after padding.
SEGMENTS = jnp.asarray([[3, 3, 1, 1, 1, 0, 0, 0], [0, 0, 2, 0, 2, 2, 5, 5], [1, 1, 1, 1, 1, 1, 1, 1]], jnp.int32)
VALID = SEGMENTS != 0
DOCUMENTS = jnp.asarray([[0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1], [0] * 8], jnp.int32)
BATCH, LENGTH = SEGMENTS.shape
CHUNK, KEY_HEADS, HEADS, KEY_DIM, VALUE_DIM = 4, 2, 4, 3, 5


def normal(seed: int, *shape: int) -> jax.Array:
    return array(Values.NORMAL, seed, shape, FLOAT32)


def operands() -> tuple[jax.Array, ...]:
    """Query, key, value, the decay's logarithm, beta."""
    keys, gates = (BATCH, LENGTH, KEY_HEADS, KEY_DIM), (BATCH, LENGTH, HEADS)
    log_decay, beta = -0.3 * jnp.abs(normal(3, *gates)), jax.nn.sigmoid(normal(4, *gates))
    return normal(0, *keys), normal(1, *keys), normal(2, BATCH, LENGTH, HEADS, VALUE_DIM), log_decay, beta


def _conv(with_state: bool, op: Callable) -> None:
    state = normal(2, BATCH, 3, 6) if with_state else None
    recurrent_checks.check_causal_conv(op, normal(0, BATCH, LENGTH, 6), normal(1, 4, 6), state, DOCUMENTS, VALID)


def _delta(with_state: bool, op: Callable) -> None:
    state = normal(5, BATCH, HEADS, KEY_DIM, VALUE_DIM) if with_state else None
    recurrent_checks.check_gated_delta(op, operands(), state, DOCUMENTS, VALID, CHUNK)


PROBES: dict[str, Callable[[Callable], None]] = {
    "documents": lambda op: recurrent_checks.check_documents(op, SEGMENTS),
    "causal_conv": lambda op: _conv(False, op),
    "causal_conv, of a state": lambda op: _conv(True, op),
    "decay": lambda op: recurrent_checks.check_decay(
        op, 3 * normal(0, 2, 5, 4), normal(1, 2, 5, 4), normal(2, 4), normal(3, 4)
    ),
    "gated_delta": lambda op: _delta(False, op),
    "gated_delta, of a state": lambda op: _delta(True, op),
}


def _conv_from(change: Callable) -> Callable:
    """The convolution of other operands."""
    return lambda x, kernel, state, documents, valid: ops.causal_conv(*change(x, kernel, state, documents, valid))


def _state_of_the_end(x: jax.Array, kernel: jax.Array, state: jax.Array | None, *where: jax.Array) -> ops.Convolved:
    """The state is the row's last tokens, padding or not."""
    out, _ = ops.causal_conv(x, kernel, state, *where)
    return ops.Convolved(out, x[:, -kernel.shape[0] + 1 :])


def _newest_first(*args: jax.Array) -> ops.Convolved:
    out, state = ops.causal_conv(*args)
    return ops.Convolved(out, state[:, ::-1])


def _state_of_all(*args: jax.Array) -> ops.Convolved:
    """The state holds what came before the last document."""
    *rest, documents, valid = args
    out, _ = ops.causal_conv(*args)
    return ops.Convolved(out, ops.causal_conv(*rest, jnp.zeros_like(documents), valid)[1])


def _linear(x: jax.Array, kernel: jax.Array, state: jax.Array | None, *where: jax.Array) -> ops.Convolved:
    """No nonlinearity: two convolutions that SiLU takes apart, `silu(x) - silu(-x) = x`."""
    out, held = ops.causal_conv(x, kernel, state, *where)
    return ops.Convolved(out - ops.causal_conv(x, -kernel, state, *where)[0], held)


def _delta_from(change: Callable) -> Callable:
    """The rule on other operands."""
    return lambda q, k, v, g, beta, state, d, valid, *, chunk: ops.gated_delta(
        *change(q, k, v, g, beta, state, d, valid), chunk=chunk
    )


def _by_token(write: Callable) -> Callable:
    """The rule token by token, with its words for the state in one place, so that one can be wrong."""

    def op(q, k, v, log_decay, beta, state, documents, valid, *, chunk):
        del chunk
        q, k = (x / jnp.sqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-6) for x in (q, k))
        group = v.shape[2] // k.shape[2]
        q, k = jnp.repeat(q, group, 2) * k.shape[3] ** -0.5, jnp.repeat(k, group, 2)
        held = jnp.zeros((BATCH, HEADS, KEY_DIM, VALUE_DIM)) if state is None else state
        before, outs = jnp.zeros_like(documents[:, 0]), []
        for t in range(LENGTH):
            same, now = (documents[:, t] == before)[:, None, None, None], valid[:, t][:, None, None, None]
            fresh = jnp.where(same, held, 0.0)
            factor = jnp.exp(log_decay[:, t])[..., None, None]
            following, read = write(fresh, factor, k[:, t], v[:, t], beta[:, t][..., None])
            held, before = jnp.where(now, following, fresh), documents[:, t]
            outs.append(jnp.where(now[..., 0], jnp.einsum("bnav,bna->bnv", read, q[:, t]), 0.0))
        return ops.Recalled(jnp.stack(outs, 1), held)

    return op


def _written(state: jax.Array, k: jax.Array, v: jax.Array, beta: jax.Array) -> jax.Array:
    return state + jnp.einsum("bna,bnv->bnav", k, beta * (v - jnp.einsum("bnav,bna->bnv", state, k)))


def _right(state, factor, k, v, beta):
    held = _written(factor * state, k, v, beta)
    return held, held


def _decayed_after(state, factor, k, v, beta):
    held = factor * _written(state, k, v, beta)
    return held, held


def _read_before(state, factor, k, v, beta):
    return _written(factor * state, k, v, beta), factor * state


def _undecayed_error(state, factor, k, v, beta):
    """The value is compared with what the state held before it faded."""
    held = factor * state + (_written(state, k, v, beta) - state)
    return held, held


def _added(state, factor, k, v, beta):
    """Plain gated linear attention: nothing is taken back."""
    held = factor * state + jnp.einsum("bna,bnv->bnav", k, beta * v)
    return held, held


def _chunks_apart(*args: jax.Array, chunk: int) -> ops.Recalled:
    """Each chunk begins with the state of the call."""
    *parts, state, documents, valid = args
    found = []
    for start in range(0, LENGTH, chunk):
        *own, its, valids = (part[:, start : start + chunk] for part in (*parts, documents, valid))
        found.append(ops.gated_delta(*own, state, its, valids, chunk=chunk))
    return ops.Recalled(jnp.concatenate([out for out, _ in found], 1), found[-1][1])


def _in_bfloat16(*args: jax.Array, chunk: int) -> ops.Recalled:
    q, k, v, *rest = args
    return ops.gated_delta(*(x.astype(BFLOAT16).astype(FLOAT32) for x in (q, k, v)), *rest, chunk=chunk)


_ALL = jnp.ones_like(VALID)
_HALVES = jnp.asarray([0, 2, 1, 3])
FAULTS: dict[tuple[str, str], Callable] = {
    ("documents", "padding is a document"): lambda segments: jnp.cumsum(
        jnp.diff(segments, axis=1, prepend=segments[:, :1]) != 0, axis=1, dtype=jnp.int32
    ),
    ("documents", "the segments' own numbers"): lambda segments: segments,
    ("documents", "padding parts a document"): lambda segments: jnp.cumsum(
        jnp.pad((segments[:, 1:] != segments[:, :-1]) & (segments[:, 1:] != 0), ((0, 0), (1, 0))), 1, dtype=jnp.int32
    ),
    ("causal_conv", "taps the other way round"): _conv_from(lambda x, k, s, d, v: (x, k[::-1], s, d, v)),
    ("causal_conv", "documents mixed"): _conv_from(lambda x, k, s, d, v: (x, k, s, jnp.zeros_like(d), v)),
    ("causal_conv", "padding read"): _conv_from(lambda x, k, s, d, v: (x, k, s, d, _ALL)),
    ("causal_conv", "one token late"): _conv_from(lambda x, k, s, d, v: (jnp.roll(x, 1, 1), k, s, d, v)),
    ("causal_conv", "channels mixed"): _conv_from(lambda x, k, s, d, v: (x, k[:, ::-1], s, d, v)),
    ("causal_conv", "linear"): _linear,
    ("causal_conv", "state of the row's end"): _state_of_the_end,
    ("causal_conv", "newest first in the state"): _newest_first,
    ("causal_conv", "state of all documents"): _state_of_all,
    ("causal_conv, of a state", "state ignored"): _conv_from(lambda x, k, s, d, v: (x, k, None, d, v)),
    ("causal_conv, of a state", "state turned round"): _conv_from(lambda x, k, s, d, v: (x, k, s[:, ::-1], d, v)),
    ("causal_conv, of a state", "state read by later documents"): lambda x, k, s, d, v: ops.Convolved(
        ops.causal_conv(x, k, s, jnp.zeros_like(d), v)[0], ops.causal_conv(x, k, s, d, v)[1]
    ),
    ("decay", "no bias"): lambda a, b, log, bias: ops.decay(a, b, log, jnp.zeros_like(bias)),
    ("decay", "the rate itself"): lambda a, b, log, bias: ops.decay(a, b, jnp.log(jnp.abs(log)), bias),
    ("decay", "gates swapped"): lambda a, b, log, bias: ops.decay(b, a, log, bias),
    ("decay", "grows"): lambda *args: ops.Decay(-ops.decay(*args)[0], ops.decay(*args)[1]),
    ("decay", "in bfloat16"): lambda *args: ops.decay(*(x.astype(BFLOAT16) for x in args)),
    ("gated_delta", "keys of any length"): _delta_from(lambda q, k, *rest: (q, jnp.tanh(k) + 1.0, *rest)),
    ("gated_delta", "query and key swapped"): _delta_from(lambda q, k, *rest: (k, q, *rest)),
    ("gated_delta", "query not scaled"): lambda *args, chunk: ops.Recalled(
        3**0.5 * ops.gated_delta(*args, chunk=chunk)[0], ops.gated_delta(*args, chunk=chunk)[1]
    ),
    ("gated_delta", "heads interleaved"): _delta_from(lambda q, k, v, g, b, *rest: (
        q, k, v[:, :, _HALVES], g[:, :, _HALVES], b[:, :, _HALVES], *rest)),
    ("gated_delta", "documents mixed"): _delta_from(lambda *a: (*a[:6], jnp.zeros_like(a[6]), a[7])),
    ("gated_delta", "padding counted"): _delta_from(lambda *a: (*a[:7], _ALL)),
    ("gated_delta", "no decay"): _delta_from(lambda q, k, v, g, *rest: (q, k, v, 0 * g, *rest)),
    ("gated_delta", "decay of the token before"): _delta_from(lambda q, k, v, g, *r: (q, k, v, jnp.roll(g, 1, 1), *r)),
    ("gated_delta", "beta of one"): _delta_from(lambda q, k, v, g, b, *rest: (q, k, v, g, 0 * b + 1.0, *rest)),
    ("gated_delta", "chunks on their own"): _chunks_apart,
    ("gated_delta", "decayed after writing"): _by_token(_decayed_after),
    ("gated_delta", "read before writing"): _by_token(_read_before),
    ("gated_delta", "error of the undecayed state"): _by_token(_undecayed_error),
    ("gated_delta", "only added"): _by_token(_added),
    ("gated_delta", "in bfloat16"): _in_bfloat16,
    ("gated_delta, of a state", "state ignored"): _delta_from(lambda *a: (*a[:5], None, *a[6:])),
    ("gated_delta, of a state", "state of other heads"): _delta_from(lambda *a: (*a[:5], a[5][:, ::-1], *a[6:])),
    ("gated_delta, of a state", "state read by later documents"): _delta_from(
        lambda *a: (*a[:6], jnp.maximum(a[6] - 1, 0), a[7])
    ),
}
# Not a fault: the rule in the words of `_by_token`, which shows that each fault above changes one of them.
BY_TOKEN = _by_token(_right)
