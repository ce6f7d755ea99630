"""The prover on a layer of convolution and gated delta rule, with gradients, spelled otherwise or with one fault."""

from collections.abc import Callable

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from harness import Kind, Program, prove, settings
from models import ops
from models.config import Unrotated

from .eager import Interpreter, same_bits

BATCH, LENGTH, KEY_HEADS, HEADS, KEY_DIM, VALUE_DIM, WIDTH = 2, 7, 2, 4, 3, 5, 4
CHANNELS = 2 * KEY_HEADS * KEY_DIM + HEADS * VALUE_DIM
Words = dict[str, object]
PLAIN: Words = {"chunk": 3, "goes_on": True}


def _arguments(dtype=jnp.float32):
    """What is trained or comes from something trained; the states; the tokens' segments."""
    gates = jax.ShapeDtypeStruct((BATCH, LENGTH, HEADS), dtype)
    channels = jax.ShapeDtypeStruct((BATCH, LENGTH, CHANNELS), dtype)
    kernel, per_head = jax.ShapeDtypeStruct((WIDTH, CHANNELS), dtype), jax.ShapeDtypeStruct((HEADS,), jnp.float32)
    conv_state = jax.ShapeDtypeStruct((BATCH, WIDTH - 1, CHANNELS), dtype)
    state = jax.ShapeDtypeStruct((BATCH, HEADS, KEY_DIM, VALUE_DIM), jnp.float32)
    trained = (channels, kernel, gates, gates, per_head, per_head)
    return trained, (conv_state, state), jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.int32)


def _layer(words: Words) -> Callable:
    """The parts of a layer between its projections. `words` may name one thing that is done otherwise."""

    def layer(trained, states, segments):
        channels, kernel, a, b, a_log, dt_bias = trained
        conv_state, state = states if words["goes_on"] else (None, None)
        documents, valid = ops.documents(segments), segments != 0
        if words.get("mixes"):
            documents = jnp.zeros_like(documents)
        if words.get("reads padding"):
            valid = jnp.ones_like(valid)
        kernel = kernel[::-1] if words.get("turned") else kernel
        mixed, conv_state = ops.causal_conv(channels, kernel, conv_state, documents, valid)
        wide = KEY_HEADS * KEY_DIM
        q, k, v = jnp.split(mixed, [wide, 2 * wide], axis=-1)
        q, k = (part.reshape(BATCH, LENGTH, KEY_HEADS, KEY_DIM) for part in (q, k))
        v = v.reshape(BATCH, LENGTH, HEADS, VALUE_DIM)
        log_decay, beta = ops.decay(b, a, a_log, dt_bias) if words.get("swapped") else ops.decay(a, b, a_log, dt_bias)
        q, k = (k, q) if words.get("exchanged") else (q, k)
        out, state = ops.gated_delta(q, k, v, log_decay, beta, state, documents, valid, chunk=words["chunk"])
        normed = ops.rms_norm(out, None, epsilon=words.get("epsilon", 1e-6), zero_centered=False, dtype=out.dtype)
        gated = ops.sigmoid_gate(normed, out if words.get("gates itself") else v)
        positions = jnp.cumsum(valid, axis=1, dtype=jnp.int32)
        return ops.temper(gated, positions, Unrotated(0.1, words.get("length", 2))), conv_state, state

    return layer


def _trained(words: Words, around: Callable = lambda layer: layer) -> Callable:
    """Loss and gradients of a layer, which `around` calls in its own way."""

    def loss(trained, states, segments):
        outs = around(_layer(words))(trained, states, segments)
        return sum(jnp.square(out.astype(jnp.float32)).sum() for out in outs)

    return jax.value_and_grad(loss)


def _held(a: Callable, b: Callable, dtype=jnp.float32):
    return prove(Program(a, _arguments(dtype), name="a"), Program(b, _arguments(dtype), name="b"))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("goes_on", [True, False], ids=["a state before", "no state"])
def test_other_spellings_of_a_recurrent_layer_are_proved(goes_on, dtype):
    words = {**PLAIN, "goes_on": goes_on}
    for around in (jax.jit, jax.checkpoint):
        for verdict in (
            _held(_layer(words), around(_layer(words)), dtype),
            _held(_trained(words), _trained(words, around), dtype),
        ):
            assert verdict.kind is Kind.PROVED, verdict.explain()
            assert str(verdict.strength) == "exact"


OTHER_WORDS: list[Words] = [
    {"mixes": True}, {"reads padding": True}, {"turned": True}, {"swapped": True}, {"exchanged": True},
    {"epsilon": 1e-5}, {"gates itself": True}, {"length": 3}, {"goes_on": False}, {"chunk": 2},
]  # fmt: skip


@pytest.mark.parametrize("other", OTHER_WORDS, ids=lambda words: next(iter(words)))
def test_a_recurrent_layer_with_one_other_word_is_not_proved(other):
    """Another length of the chunks is another program too: equal in exact numbers alone."""
    words = {**PLAIN, **other}
    assert _held(_layer(PLAIN), jax.jit(_layer(words))).kind is not Kind.PROVED
    assert _held(_trained(PLAIN), jax.jit(_trained(words))).kind is not Kind.PROVED


@pytest.mark.parametrize("pieces", [_layer(PLAIN), _trained(PLAIN)], ids=["forward", "gradient"])
def test_the_rules_own_primitives_are_among_those_proved(pieces):
    found, bodies = set(), [jax.make_jaxpr(pieces)(*_arguments()).jaxpr]
    while bodies:
        for equation in bodies.pop().eqns:
            found.add(equation.primitive.name)
            bodies += jax.extend.core.jaxprs_in_params(equation.params)
    assert {"triangular_solve", "cumsum", "cummax", "scan", "argmax", "gather"} <= found


def _drawn(rng: np.random.Generator, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    numbers = rng.integers(0, 3, leaf.shape) if leaf.dtype == jnp.int32 else rng.normal(size=leaf.shape)
    return jnp.asarray(numbers, leaf.dtype)


def test_a_proved_recurrent_layer_gives_equal_bits_op_by_op():
    rng = np.random.default_rng(0)
    program = Program(_layer(PLAIN), _arguments())
    args = jax.tree.map(lambda leaf: _drawn(rng, leaf), program.args)
    with settings.tracing():
        found = Interpreter().closed(program.trace().jaxpr, jax.tree.leaves(args))
        with jax.disable_jit():
            expected = jax.tree.leaves(jax.checkpoint(_layer(PLAIN))(*args))
    assert all(same_bits(a, b) for a, b in zip(found, expected, strict=True))
