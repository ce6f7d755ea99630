"""The short convolution and the gated delta rule against their oracles, and what must hold whatever the formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import ops

from . import recurrent_checks, recurrent_faults, recurrent_oracles
from .bounds import BFLOAT16, FLOAT32, float64
from .inputs import Values, array, dtypes, few, seeds, values
from .test_gradients import check_gradients
from .test_ops import dot_generals

# Length, key heads, value heads, key dim, value dim, chunk; whether there is a state. A last chunk that is not full, a
# chunk that is longer than the row, one token, chunks of a token, one of everything.
SHAPES = (
    ((7, 2, 4, 3, 5, 3), True, BFLOAT16),
    ((6, 3, 3, 4, 4, 64), False, FLOAT32),
    ((1, 2, 2, 4, 2, 64), True, FLOAT32),
    ((5, 1, 3, 2, 4, 1), True, FLOAT32),
    ((1, 1, 1, 1, 1, 1), False, BFLOAT16),
)


def random_segments(seed: int, shape: tuple[int, int]) -> jax.Array:
    """Rows of some documents and of padding anywhere: none, some, or nothing else."""
    rng = np.random.default_rng(seed)
    segments = np.cumsum(rng.random(shape) < 0.3, axis=1) + 1
    is_padding = rng.random(shape) < rng.choice([0.0, 0.3, 1.0], size=(shape[0], 1))
    return jnp.asarray(np.where(is_padding, 0, segments), jnp.int32)


@few
@given(seed=seeds)
def test_documents_are_counted_over_padding(seed: int) -> None:
    recurrent_checks.check_documents(ops.documents, random_segments(seed, (4, 7)) % 4)


@few
@given(
    seed=seeds, kind=values, dtype=dtypes, shape=st.sampled_from([(2, 6, 4, 3), (1, 1, 2, 2), (2, 2, 4, 1)]),
    with_state=st.booleans(),
)
def test_causal_conv_reads_its_document(
    seed: int, kind: Values, dtype: jnp.dtype, shape: tuple[int, ...], with_state: bool
) -> None:
    batch, length, width, channels = shape
    segments = random_segments(seed, (batch, length))
    x = array(kind, seed, (batch, length, channels), dtype)
    kernel = array(Values.NORMAL, seed + 1, (width, channels), dtype)
    state = array(kind, seed + 2, (batch, width - 1, channels), dtype) if with_state else None
    where = ops.documents(segments), segments != 0
    recurrent_checks.check_causal_conv(ops.causal_conv, x, kernel, state, *where)


@few
@given(seed=seeds, kind=values, dtype=dtypes)
def test_decay_is_a_softplus_at_a_trained_rate(seed: int, kind: Values, dtype: jnp.dtype) -> None:
    a, b = (array(kind, seed + i, (2, 3, 4), dtype) for i in range(2))
    a_log, dt_bias = (array(Values.NORMAL, seed + i, (4,)) for i in (2, 3))
    recurrent_checks.check_decay(ops.decay, a, b, a_log, dt_bias)


@few
@given(
    seed=seeds, kind=values, case=st.sampled_from(SHAPES), speed=st.sampled_from([0.0, 0.1, 5.0]),
)
def test_gated_delta_is_the_rule_token_by_token(seed: int, kind: Values, case: tuple, speed: float) -> None:
    shape, with_state, dtype = case
    operands, segments = random_operands(seed, kind, dtype, shape, speed), random_segments(seed, (2, shape[0]))
    state = array(kind, seed + 5, (2, shape[2], *shape[3:5])) if with_state else None
    where = ops.documents(segments), segments != 0
    recurrent_checks.check_gated_delta(ops.gated_delta, operands, state, *where, shape[5])


def random_operands(
    seed: int, kind: Values, dtype: jnp.dtype, shape: tuple[int, ...], speed: float
) -> tuple[jax.Array, ...]:
    length, key_heads, heads, key_dim, value_dim, _ = shape
    q, k = (array(kind, seed + i, (2, length, key_heads, key_dim), dtype) for i in range(2))
    v = array(kind, seed + 2, (2, length, heads, value_dim), dtype)
    gates = [array(Values.NORMAL, seed + i, (2, length, heads)) for i in (3, 4)]
    return q, k, v, -speed * jnp.abs(gates[0]), jax.nn.sigmoid(gates[1])


def test_the_faults_words_are_the_rule_where_none_is_wrong() -> None:
    for probe in ("gated_delta", "gated_delta, of a state"):
        recurrent_faults.PROBES[probe](recurrent_faults.BY_TOKEN)


@functools.partial(jax.jit, static_argnames="chunk")
def mixed(operands: tuple[jax.Array, ...], segments: jax.Array, states: tuple | None = None, chunk: int = 3) -> tuple:
    """Convolution, decay and rule as a layer puts them together: the results, and the two states."""
    x, kernel, q, v, a, b = operands
    documents, valid = ops.documents(segments), segments != 0
    conv_state, delta_state = states or (None, None)
    heads, conv_state = ops.causal_conv(x, kernel, conv_state, documents, valid)
    log_decay, beta = ops.decay(a, b, jnp.ones(a.shape[2]), jnp.zeros(a.shape[2]))
    k = heads.reshape(q.shape)
    out, delta_state = ops.gated_delta(q, k, v, log_decay, beta, delta_state, documents, valid, chunk=chunk)
    return out, (conv_state, delta_state)


def layer_operands(batch: int, length: int) -> tuple[jax.Array, ...]:
    inner = [(6,), None, (2, 3), (4, 5), (4,), (4,)]
    shapes = [(4, 6) if tail is None else (batch, length, *tail) for tail in inner]
    return tuple(array(Values.NORMAL, seed, shape) for seed, shape in enumerate(shapes))


def part(operands: tuple[jax.Array, ...], rows: slice, tokens: slice) -> tuple[jax.Array, ...]:
    return (operands[0][rows, tokens], operands[1], *(operand[rows, tokens] for operand in operands[2:]))


@pytest.mark.parametrize("pieces", [(1,) * 8, (3, 5)], ids=str)
def test_a_row_in_pieces_is_the_whole_row(pieces: tuple[int, ...]) -> None:
    """The states go from call to call, over padding too. The second row is right-padded, then nothing but padding."""
    operands, segments = layer_operands(2, 8), jnp.asarray([[1] * 8, [1] * 5 + [0] * 3], jnp.int32)
    whole, whole_states = mixed(operands, segments)
    outs, states, start = [], None, 0
    for length in pieces:
        tokens = slice(start, start + length)
        out, states = mixed(part(operands, slice(None), tokens), segments[:, tokens], states)
        outs, start = [*outs, out], start + length
    np.testing.assert_allclose(jnp.concatenate(outs, 1), whole, atol=2e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), states, whole_states)


def test_packed_documents_are_rows_of_their_own() -> None:
    operands = layer_operands(1, 9)
    packed, states = mixed(operands, jnp.asarray([[7, 7, 7, 7, 2, 2, 0, 2, 0]], jnp.int32))
    first, _ = mixed(part(operands, slice(None), slice(4)), jnp.ones((1, 4), jnp.int32))
    second, last = mixed(part(operands, slice(None), slice(4, 9)), jnp.asarray([[1, 1, 0, 1, 0]], jnp.int32))
    np.testing.assert_allclose(packed, jnp.concatenate([first, second], 1), atol=2e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), states, last)


def test_the_chunk_changes_no_result() -> None:
    operands, segments = layer_operands(2, 9), random_segments(1, (2, 9))
    short, long = (mixed(operands, segments, chunk=chunk) for chunk in (2, 64))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), short, long)


def test_padding_is_not_read_and_takes_no_gradient() -> None:
    """NaN under it shows in no result, no state and no gradient; what is under it has a gradient of zero."""
    operands, segments = layer_operands(2, 6), jnp.asarray([[0, 1, 1, 0, 1, 0], [1, 2, 2, 0, 0, 0]], jnp.int32)
    empty = (segments == 0)[:, :, None]

    @jax.jit
    def total(free, spoil):
        x, q, v, a, b = free
        x, a, b = (jnp.where(empty, spoil, part) for part in (x, a, b))
        q, v = (jnp.where(empty[..., None], spoil, part) for part in (q, v))
        out, states = mixed((x, operands[1], q, v, a, b), segments)
        return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves((out, states)))

    free = (operands[0], *operands[2:])
    clean, spoilt = (jax.value_and_grad(total)(free, spoil) for spoil in (0.0, jnp.nan))
    jax.tree.map(np.testing.assert_array_equal, clean, spoilt)


@jax.jit
@jax.grad
def _slope(operands: tuple[jax.Array, ...], segments: jax.Array) -> jax.Array:
    return sum(leaf.sum() for leaf in jax.tree.leaves(mixed(operands, segments)))


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e10])
def test_gradients_stay_finite(scale: float) -> None:
    """Keys of length zero, decays to nothing within a token, decays of nothing at all; a row of padding alone."""
    operands, segments = layer_operands(2, 6), jnp.asarray([[1, 1, 2, 2, 2, 0], [0] * 6], jnp.int32)

    for grad in jax.tree.leaves(_slope(tuple(scale * operand for operand in operands), segments)):
        assert np.isfinite(float64(grad)).all()


def test_every_exponent_is_negative() -> None:
    """A decay of e^-1000 a token: its inverse, or the product of a chunk's inverses, would be infinite."""
    q, k, v, _, beta = recurrent_faults.operands()
    where = recurrent_faults.DOCUMENTS, recurrent_faults.VALID
    log_decay = jnp.full(beta.shape, -1000.0)
    recurrent_checks.check_gated_delta(ops.gated_delta, (q, k, v, log_decay, beta), None, *where, 8)


def test_gated_delta_gradients() -> None:
    segments = jnp.asarray([[1, 1, 1, 2, 0]], jnp.int32)
    documents, valid = ops.documents(segments), segments != 0
    heads = random_operands(3, Values.NORMAL, FLOAT32, (5, 1, 2, 2, 2, 2), 0.5)
    operands = [*(operand[:1] for operand in heads), array(Values.NORMAL, 9, (1, 2, 2, 2))]
    for place in range(2):
        check_gradients(
            lambda *args, at=place: ops.gated_delta(*args, documents, valid, chunk=2)[at],
            lambda *args, at=place: recurrent_oracles.gated_delta(*args, np.asarray(documents), np.asarray(valid))[at],
            operands,
            count=512,
        )


def test_causal_conv_gradients() -> None:
    segments = jnp.asarray([[1, 1, 1, 2, 2, 0], [1, 1, 0, 1, 1, 0]], jnp.int32)
    documents, valid = ops.documents(segments), segments != 0
    operands = [array(Values.NORMAL, seed, shape) for seed, shape in enumerate([(2, 6, 2), (4, 2), (2, 3, 2)])]
    for place in range(2):
        check_gradients(
            lambda *args, at=place: ops.causal_conv(*args, documents, valid)[at],
            lambda *args, at=place: recurrent_oracles.causal_conv(*args, np.asarray(documents), np.asarray(valid))[at],
            operands,
            count=64,
        )


def test_decay_gradients() -> None:
    operands = [array(Values.NORMAL, seed, shape) for seed, shape in enumerate([(1, 3, 2), (1, 3, 2), (2,), (2,)])]
    for place in range(2):
        check_gradients(
            lambda *args, at=place: ops.decay(*args)[at],
            lambda *args, at=place: recurrent_oracles.decay(*args)[at],
            operands,
            count=64,
        )


def test_products_of_the_rule_are_float32_in_full() -> None:
    """Backends multiply float32 in fewer digits unless told: equal values on one of them would prove nothing."""
    operands = recurrent_faults.operands()
    where = recurrent_faults.DOCUMENTS, recurrent_faults.VALID
    products = dot_generals(lambda *args: ops.gated_delta(*args, None, *where, chunk=4), *operands)
    assert len(products) == 6
    assert {product.params["precision"] for product in products} == {(jax.lax.Precision.HIGHEST,) * 2}
    assert {operand.aval.dtype for product in products for operand in product.invars} == {FLOAT32}


def test_the_rule_is_float32_inside() -> None:
    """In bfloat16 the same bits come out as from the same operands in float32, rounded once."""
    operands = recurrent_faults.operands()
    where = recurrent_faults.DOCUMENTS, recurrent_faults.VALID
    narrow = [operand.astype(BFLOAT16) for operand in operands[:3]]
    wide = [operand.astype(FLOAT32) for operand in narrow]
    op = jax.jit(functools.partial(ops.gated_delta, chunk=4))
    found, exact = (op(*heads, *operands[3:], None, *where) for heads in (narrow, wide))
    assert found.out_BTNV.dtype == BFLOAT16
    np.testing.assert_array_equal(float64(found.out_BTNV), float64(exact.out_BTNV.astype(BFLOAT16)))
    np.testing.assert_array_equal(found.state_BNAV, exact.state_BNAV)
