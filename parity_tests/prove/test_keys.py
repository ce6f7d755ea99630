"""Keys that are one key under two spellings: a program that draws twice from one is told from one that splits it."""

import jax
import jax.numpy as jnp
import pytest

from harness import Kind, Program, prove, settings

SHAPE = (4, 4)
ARGS = (jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct(SHAPE, jnp.float32))
REUSED = {
    "splits of two sizes": lambda key: (jax.random.split(key, 2)[0], jax.random.split(key, 3)[0]),
    "a split and a fold": lambda key: (jax.random.split(key, 2)[1], jax.random.fold_in(key, 1)),
    "two slices": lambda key: (jax.random.split(key, 4)[2], jax.random.split(key, 4)[::2][1]),
}


def _draws(keys):
    def fn(key, x):
        first, second = keys(key)
        return x * jax.random.uniform(first, SHAPE) + jax.random.uniform(second, SHAPE)

    return Program(fn, ARGS)


@pytest.mark.parametrize("spelling", REUSED)
def test_a_key_used_twice_under_two_spellings_is_not_two_keys(spelling):
    assert prove(_draws(jax.random.split), _draws(REUSED[spelling])).kind is Kind.UNDECIDED


@pytest.mark.parametrize("spelling", REUSED)
def test_the_two_spellings_are_one_key(spelling):
    """Partitionable threefry makes key i of a split from i alone."""
    with settings.tracing():
        first, second = (jax.random.key_data(key) for key in REUSED[spelling](jax.random.key(7)))
        assert (first == second).all()


def test_keys_that_differ_are_two():
    def swapped(key):
        first, second = jax.random.split(key, 5)[3:]
        return second, jax.random.fold_in(first, 0)

    verdict = prove(_draws(jax.random.split), _draws(swapped))
    assert verdict.kind is Kind.PROVED
    assert verdict.certificate.draws == 2
