"""Random draws are variables: which are one, which are two, and that what follows from them is compared as ever."""

import jax
import jax.numpy as jnp
import pytest

from harness import Kind, Program, prove

X = jax.ShapeDtypeStruct((4, 4), jnp.float32)


def _proved(a, b, args=(X,), **kwargs):
    return prove(Program(a, args, name="a", **kwargs), Program(b, args, name="b", **kwargs))


def _noisy(data, rate, twice=False):
    def fn(x):
        key = jax.random.fold_in(jax.random.key(7), data)
        a = jax.random.bernoulli(key, 1 - rate, x.shape)
        other = key if twice else jax.random.fold_in(key, 1)
        b = jax.random.bernoulli(other, 1 - rate, x.shape)
        return jnp.where(a, x, 0) + jnp.where(b, x.T, 0)

    return fn


def test_draws_of_other_keys_are_proved_modulo_key_derivation():
    verdict = _proved(_noisy(1, 0.1), _noisy(2, 0.1))
    assert verdict.kind is Kind.PROVED
    assert verdict.strength == "exact, modulo key derivation"
    assert verdict.certificate.draws == 2


def test_another_rate_is_not_proved():
    assert _proved(_noisy(1, 0.1), _noisy(1, 0.2)).kind is Kind.UNDECIDED


def test_a_key_used_twice_is_not_two_keys():
    assert _proved(_noisy(1, 0.1), _noisy(1, 0.1, twice=True)).kind is Kind.UNDECIDED


def _carried(advance, data):
    """A loop that carries its key. Whether the key ever changes is known only when the loop has been solved."""

    def fn(x):
        def body(carry, _):
            x, key = carry
            noise = jax.random.normal(key, x.shape)
            return (x * noise, jax.random.fold_in(key, 1) if advance else key), None

        return jax.lax.scan(body, (x, jax.random.key(data)), None, length=3)[0][0]

    return fn


def test_a_carried_key_that_advances_is_a_new_draw_each_time():
    verdict = _proved(_carried(True, 1), _carried(True, 2))
    assert verdict.kind is Kind.PROVED, verdict.explain()
    assert _proved(_carried(False, 1), _carried(False, 2)).kind is Kind.PROVED
    assert _proved(_carried(True, 1), _carried(False, 1)).kind is Kind.UNDECIDED


def _two_loops(second):
    """Two loops that start from one key; the second one advances it by another number, or by the same."""

    def fn(x):
        def run(x, data):
            def body(carry, _):
                x, key = carry
                return (x * jax.random.normal(key, x.shape), jax.random.fold_in(key, data)), None

            return jax.lax.scan(body, (x, jax.random.key(3)), None, length=3)[0][0]

        return run(x, 1) - run(x.T, second)

    return fn


def test_carried_keys_of_two_loops_are_told_apart():
    assert _proved(_two_loops(2), _two_loops(5)).kind is Kind.PROVED
    assert _proved(_two_loops(1), _two_loops(1)).kind is Kind.PROVED
    assert _proved(_two_loops(2), _two_loops(1)).kind is Kind.UNDECIDED


@pytest.mark.parametrize("per_layer", [True, False])
def test_one_draw_for_all_layers_is_not_one_for_each(per_layer):
    def build(per_layer, data):
        def layer(x, row):
            w, key = row
            key = key if per_layer else jax.random.key(data)
            return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x @ w, 0), None

        def loss(w, x):
            keys = jax.random.split(jax.random.key(data), 3)
            return jax.lax.scan(jax.checkpoint(layer), x, (w, keys))[0].sum()

        return jax.value_and_grad(loss, argnums=(0, 1))

    args = (jax.ShapeDtypeStruct((3, 4, 4), jnp.float32), X)
    verdict = _proved(build(True, 1), build(per_layer, 2), args)
    assert verdict.kind is (Kind.PROVED if per_layer else Kind.UNDECIDED)


@pytest.mark.parametrize("repeat", [lambda key: jnp.stack([key, key]), lambda key: jnp.broadcast_to(key, (2,))])
def test_an_array_of_one_key_is_not_an_array_of_two(repeat):
    def draws(keys):
        return lambda x: x[:2] + jax.vmap(lambda key: jax.random.normal(key, (4,)))(keys(jax.random.key(0)))

    assert _proved(draws(lambda key: jax.random.split(key)), draws(repeat)).kind is Kind.UNDECIDED
