"""The prover on a layer of experts: routing, dispatch, products, gradients, spelled otherwise or with one fault."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness import Kind, Program, prove, settings
from models import ops
from models.config import Activation, Moe, Router, Score

from .eager import Interpreter, same_bits

BATCH, LENGTH, DIM, HIDDEN, EXPERTS = 2, 6, 5, 3, 4
ROUTERS = {
    "softmax": Router(EXPERTS, 2, normalized=True),
    "groups": Router(EXPERTS, 2, score=Score.SIGMOID, choice_bias=True, num_groups=2, num_chosen_groups=1, group_top=2),
    "of chosen": Router(EXPERTS, 2, score=Score.SOFTMAX_OF_CHOSEN),
    "weighted": Router(EXPERTS, 2, normalized=True, expert_scale=True),
}
MIXTURES = {
    f"{name}, {form}": Moe(
        router, HIDDEN, Activation.QUICK_GELU, bias=True, clamp=1.0, linear_offset=1.0, capacity_factor=capacity,
        scale_inputs=router.expert_scale,
    )
    for name, router in ROUTERS.items()
    for form, capacity in (("all", None), ("capacity", 1.0))
}
SHAPES = [(EXPERTS, DIM, HIDDEN)] * 2 + [(EXPERTS, HIDDEN, DIM)] + [(EXPERTS, HIDDEN)] * 2 + [(EXPERTS, DIM)]


def _arguments(dtype=jnp.float32):
    """The gate's kernel, the bias of its choice, the experts, the tokens and which of them are valid."""
    experts = [jax.ShapeDtypeStruct(shape, dtype) for shape in SHAPES]
    gate, bias = jax.ShapeDtypeStruct((DIM, EXPERTS), jnp.float32), jax.ShapeDtypeStruct((EXPERTS,), jnp.float32)
    x = jax.ShapeDtypeStruct((BATCH, LENGTH, DIM), dtype)
    return (gate, experts, x), bias, jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.bool_)


def _layer(moe: Moe) -> Callable:
    def layer(trained, bias, valid):
        gate, experts, x = trained
        logits = jnp.einsum("btd,de->bte", x.astype(jnp.float32), gate)
        # The gate's first row stands in for a trained factor of each expert.
        factors = gate[0] if moe.router.expert_scale else None
        choice_bias = bias if moe.router.choice_bias else None
        weights, chosen = ops.route(logits, choice_bias, moe.router, expert_scale_E=factors)
        return ops.mix_experts(x, weights, chosen, valid, ops.Experts(*experts), moe), logits, chosen

    return layer


def _trained(moe: Moe, around: Callable = lambda layer: layer) -> Callable:
    """Loss, gradients and counts of a layer, which `around` calls in its own way."""

    def loss(trained, bias, valid):
        out, logits, chosen = around(_layer(moe))(trained, bias, valid)
        balance = ops.load_balance(logits, chosen, valid, moe.router)
        return jnp.square(out.astype(jnp.float32)).sum() + balance, ops.expert_counts(chosen, valid, EXPERTS)

    return jax.value_and_grad(loss, has_aux=True)


def _held(a: Callable, b: Callable, dtype=jnp.float32):
    return prove(Program(a, _arguments(dtype), name="a"), Program(b, _arguments(dtype), name="b"))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("mixture", MIXTURES)
def test_other_spellings_of_a_layer_of_experts_are_proved(mixture, dtype):
    moe = MIXTURES[mixture]
    for around in (jax.jit, jax.checkpoint):
        assert _held(_layer(moe), around(_layer(moe)), dtype).kind is Kind.PROVED
        verdict = _held(_trained(moe), _trained(moe, around), dtype)
        assert verdict.kind is Kind.PROVED, verdict.explain()


CHANGES: dict[str, Callable[[Moe], Moe]] = {
    "normalized otherwise": lambda moe: _rerouted(moe, normalized=not moe.router.normalized),
    "scaled": lambda moe: _rerouted(moe, scale=2.0),
    "another score": lambda moe: _rerouted(moe, score=Score.SIGMOID),
    "groups by their best": lambda moe: _rerouted(moe, num_groups=2, group_top=1),
    "another clamp": lambda moe: dataclasses.replace(moe, clamp=2.0),
    "no offset": lambda moe: dataclasses.replace(moe, linear_offset=0.0),
    "another activation": lambda moe: dataclasses.replace(moe, activation=Activation.SILU),
    "inputs or outputs weighted": lambda moe: dataclasses.replace(moe, scale_inputs=not moe.scale_inputs),
    "with or without factors": lambda moe: _rerouted(moe, expert_scale=not moe.router.expert_scale),
    "another capacity": lambda moe: dataclasses.replace(moe, capacity_factor=0.5),
}
# What these mixtures are already, or what their router does not read.
SAME = {("groups", "another score"), ("of chosen", "normalized otherwise")}


def _rerouted(moe: Moe, **changes: object) -> Moe:
    return dataclasses.replace(moe, router=dataclasses.replace(moe.router, **changes))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mixture", MIXTURES)
def test_a_layer_with_one_other_word_is_not_proved(mixture, change):
    moe = MIXTURES[mixture]
    other = CHANGES[change](moe)
    is_same = (mixture.split(",")[0], change) in SAME
    for wrap in (_layer, _trained):
        kind = _held(wrap(moe), jax.jit(wrap(other))).kind
        assert (kind is Kind.PROVED) == is_same


def _drawn(rng: np.random.Generator, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.asarray(rng.random(leaf.shape) < 0.8 if leaf.dtype == bool else rng.normal(size=leaf.shape), leaf.dtype)


@pytest.mark.parametrize("mixture", ["groups, all", "groups, capacity"])
def test_a_proved_layer_gives_equal_bits_op_by_op(mixture):
    rng, moe = np.random.default_rng(0), MIXTURES[mixture]
    program = Program(_layer(moe), _arguments())
    args = jax.tree.map(lambda leaf: _drawn(rng, leaf), program.args)
    with settings.tracing():
        found = Interpreter().closed(program.trace().jaxpr, jax.tree.leaves(args))
        with jax.disable_jit():
            expected = jax.tree.leaves(jax.checkpoint(_layer(moe))(*args))
    assert all(same_bits(a, b) for a, b in zip(found, expected, strict=True))
