"""The ops of a mixture of experts against their oracles, and what must hold of them beside the numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import ops
from models.config import Activation, Moe, Router, Score

from . import expert_checks, oracles
from .bounds import BFLOAT16, FLOAT32
from .inputs import Values, array, dtypes, few, seeds, values
from .test_gradients import check_gradients

EXPERTS, CHOSEN = 6, 2
ROUTERS = (
    Router(EXPERTS, CHOSEN),
    Router(EXPERTS, CHOSEN, normalized=True, scale=2.5),
    Router(EXPERTS, CHOSEN, score=Score.SOFTMAX_OF_CHOSEN),
    Router(EXPERTS, CHOSEN, score=Score.SIGMOID, normalized=True, choice_bias=True),
    Router(EXPERTS, CHOSEN, score=Score.SIGMOID, choice_bias=True, num_groups=3, num_chosen_groups=2, group_top=2),
    Router(EXPERTS, CHOSEN, num_groups=3, num_chosen_groups=1, scale=16.0),
    Router(EXPERTS, EXPERTS, normalized=True),
    Router(EXPERTS, 1),
    Router(EXPERTS, CHOSEN, normalized=True, expert_scale=True),
    Router(EXPERTS, CHOSEN, score=Score.SOFTMAX_OF_CHOSEN, scale=2.0, expert_scale=True),
)
MOES = (
    Moe(ROUTERS[1], 3),
    Moe(ROUTERS[2], 3, Activation.QUICK_GELU, bias=True, clamp=0.75, linear_offset=1.0),
    Moe(ROUTERS[1], 3, Activation.GELU, bias=True, capacity_factor=1.0),
    Moe(ROUTERS[2], 3, bias=True, capacity_factor=0.3),
    Moe(ROUTERS[1], 3, bias=True, scale_inputs=True),
    Moe(ROUTERS[1], 3, capacity_factor=1.0, scale_inputs=True),
)
routers = st.sampled_from(ROUTERS)


def random_valid(seed: int, shape: tuple[int, int]) -> jax.Array:
    """Rows that are full, ragged or empty."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.random(shape) < rng.choice([0.0, 0.6, 1.0], size=(shape[0], 1)))


def random_choice(seed: int, shape: tuple[int, int], router: Router) -> jax.Array:
    """Different experts for each token, some of them popular."""
    merits = np.random.default_rng(seed).normal(size=(*shape, router.num_experts)) + np.arange(router.num_experts)
    return jnp.asarray(np.argsort(merits, axis=-1)[..., : router.num_chosen], jnp.int32)


def random_experts(seed: int, moe: Moe, dim: int, dtype: jnp.dtype = FLOAT32) -> ops.Experts:
    """Kernels, and biases if the mixture has them."""
    num, hidden = moe.router.num_experts, moe.hidden_dim
    shapes = [(num, dim, hidden), (num, dim, hidden), (num, hidden, dim)]
    shapes += [(num, hidden), (num, hidden), (num, dim)] if moe.bias else []
    return ops.Experts(*(array(Values.NORMAL, seed + index, shape, dtype) for index, shape in enumerate(shapes)))


@few
@given(seed=seeds, kind=values, router=routers)
def test_route_chooses_the_best_and_weighs_them(seed: int, kind: Values, router: Router) -> None:
    bias = array(Values.NORMAL, seed + 1, (EXPERTS,)) if router.choice_bias else None
    scale = array(Values.NORMAL, seed + 2, (EXPERTS,)) if router.expert_scale else None
    expert_checks.check_route(ops.route, array(kind, seed, (2, 3, EXPERTS)), bias, router, scale)


@few
@given(seed=seeds, kind=values, router=routers)
def test_load_balance_multiplies_shares_and_scores(seed: int, kind: Values, router: Router) -> None:
    logits, chosen = array(kind, seed, (2, 3, EXPERTS)), random_choice(seed, (2, 3), router)
    expert_checks.check_load_balance(ops.load_balance, logits, chosen, random_valid(seed, (2, 3)), router)


@few
@given(seed=seeds, router=routers)
def test_expert_counts_are_those_of_valid_tokens(seed: int, router: Router) -> None:
    chosen, valid = random_choice(seed, (2, 3), router), random_valid(seed, (2, 3))
    expert_checks.check_expert_counts(ops.expert_counts, chosen, valid, EXPERTS)


@few
@given(seed=seeds, kind=values, dtype=dtypes, moe=st.sampled_from(MOES))
def test_mix_experts_weighs_what_the_chosen_experts_give(seed: int, kind: Values, dtype: jnp.dtype, moe: Moe) -> None:
    chosen, experts = random_choice(seed, (2, 5), moe.router), random_experts(seed, moe, 4, dtype)
    x, weights = array(kind, seed, (2, 5, 4), dtype), array(Values.NORMAL, seed + 9, (2, 5, CHOSEN))
    expert_checks.check_mix_experts(ops.mix_experts, x, weights, chosen, random_valid(seed, (2, 5)), experts, moe)


@pytest.mark.parametrize("moe", [*MOES[:2], MOES[4]], ids=["plain", "clamped", "weighted inputs"])
def test_both_forms_agree_where_nothing_is_dropped(moe: Moe) -> None:
    """Values and all gradients; a capacity of every token."""
    chosen, experts = random_choice(0, (2, 5), moe.router), random_experts(2, moe, 4)
    valid = jnp.asarray([[True, True, False, True, False], [False] + 4 * [True]])
    roomy = dataclasses.replace(moe, capacity_factor=float(EXPERTS))

    def loss(x: jax.Array, weights: jax.Array, experts: ops.Experts, moe: Moe) -> jax.Array:
        return jnp.square(ops.mix_experts(x, weights, chosen, valid, experts, moe)).sum()

    operands = array(Values.NORMAL, 3, (2, 5, 4)), array(Values.NORMAL, 4, (2, 5, CHOSEN)), experts
    both = [jax.value_and_grad(loss, (0, 1, 2))(*operands, form) for form in (moe, roomy)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *both)


def test_a_full_expert_drops_the_later_token() -> None:
    moe = Moe(Router(2, 1), 3, capacity_factor=1.0)
    x, experts = array(Values.NORMAL, 0, (1, 4, 4)), random_experts(1, moe, 4)
    chosen, weights = jnp.zeros((1, 4, 1), jnp.int32), jnp.ones((1, 4, 1))
    out = ops.mix_experts(x, weights, chosen, jnp.asarray([[False, True, True, True]]), experts, moe)
    assert np.asarray(out).any(-1).tolist() == [[False, True, True, False]]


def test_an_invalid_token_touches_no_other_and_none_of_the_gradients() -> None:
    for moe in (*MOES[1:3], MOES[4]):
        chosen, weights = random_choice(0, (1, 3), moe.router), jnp.ones((1, 3, CHOSEN))
        experts, valid = random_experts(1, moe, 4), jnp.asarray([[True, False, True]])
        x = array(Values.NORMAL, 2, (1, 3, 4))

        def total(x, experts, chosen=chosen, weights=weights, valid=valid, moe=moe):
            return ops.mix_experts(x, weights, chosen, valid, experts, moe).sum()

        clean = jax.value_and_grad(total, (0, 1))(x, experts)
        spoilt = jax.value_and_grad(total, (0, 1))(x.at[0, 1].set(jnp.nan), experts)
        jax.tree.map(np.testing.assert_array_equal, clean, spoilt)


def test_a_choice_bias_chooses_and_does_not_weigh() -> None:
    router = Router(4, 2, score=Score.SIGMOID, choice_bias=True)
    logits, bias = jnp.asarray([[[2.0, 1.0, 0.0, -1.0]]]), jnp.asarray([0.0, 0.0, 0.0, 5.0])
    weights, chosen = ops.route(logits, bias, router)
    assert chosen.tolist() == [[[3, 0]]]
    np.testing.assert_allclose(weights[0, 0], jax.nn.sigmoid(logits[0, 0, jnp.asarray([3, 0])]), rtol=1e-6)
    assert not np.asarray(jax.grad(lambda bias: ops.route(logits, bias, router)[0].sum())(bias)).any()


def test_equal_experts_are_chosen_from_the_first() -> None:
    for router in ROUTERS:
        bias = jnp.zeros(EXPERTS) if router.choice_bias else None
        chosen = ops.route(jnp.full((1, 1, EXPERTS), 0.3), bias, router)[1]
        assert chosen.tolist() == [[list(range(router.num_chosen))]]


@pytest.mark.parametrize("router", ROUTERS, ids=repr)
def test_an_even_choice_is_balanced_at_one(router: Router) -> None:
    tokens = np.arange(EXPERTS)[:, None] + np.arange(router.num_chosen)
    chosen = jnp.asarray(tokens % EXPERTS, jnp.int32)[None]
    loss = ops.load_balance(jnp.zeros((1, EXPERTS, EXPERTS)), chosen, jnp.ones((1, EXPERTS), bool), router)
    np.testing.assert_allclose(loss, 1.0, rtol=1e-6)


@pytest.mark.parametrize("router", ROUTERS, ids=repr)
def test_route_and_balance_gradients(router: Router) -> None:
    logits, valid = array(Values.NORMAL, 5, (1, 3, EXPERTS)), jnp.asarray([[True, False, True]])
    bias = array(Values.NORMAL, 6, (EXPERTS,)) if router.choice_bias else None
    bias64 = None if bias is None else np.asarray(bias, np.float64)
    chosen = ops.route(logits, bias, router)[1]
    scale = [array(Values.NORMAL, 7, (EXPERTS,))] if router.expert_scale else []
    check_gradients(
        lambda logits, scale=None: ops.route(logits, bias, router, expert_scale_E=scale)[0],
        lambda logits, scale=None: oracles.route(logits, bias64, router, expert_scale=scale)[0],
        [logits, *scale],
        count=64,
    )
    check_gradients(
        lambda logits: ops.load_balance(logits, chosen, valid, router)[None],
        lambda logits: oracles.load_balance(logits, np.asarray(chosen), np.asarray(valid), router)[None],
        [logits],
        count=64,
    )


@pytest.mark.parametrize(
    "moe", MOES, ids=["plain", "clamped", "capacity", "little capacity", "weighted inputs", "weighted into places"]
)
def test_mix_experts_gradients(moe: Moe) -> None:
    chosen, valid = random_choice(0, (1, 4), moe.router), jnp.asarray([[True, True, False, True]])
    experts = random_experts(1, moe, 2)
    leaves, structure = jax.tree.flatten(experts)

    def op(x: jax.Array, weights: jax.Array, *leaves: jax.Array) -> jax.Array:
        return ops.mix_experts(x, weights, chosen, valid, jax.tree.unflatten(structure, leaves), moe)

    def oracle(x: np.ndarray, weights: np.ndarray, *leaves: np.ndarray) -> np.ndarray:
        filled = jax.tree.unflatten(structure, leaves)
        return oracles.mix_experts(x, weights, np.asarray(chosen), np.asarray(valid), filled, moe)

    operands = [array(Values.NORMAL, 2, (1, 4, 2)), array(Values.NORMAL, 3, (1, 4, CHOSEN)), *leaves]
    check_gradients(op, oracle, operands, count=256)


def test_a_router_of_vanishing_scores_has_finite_weights_and_gradients() -> None:
    router = Router(EXPERTS, CHOSEN, score=Score.SIGMOID, normalized=True)
    logits = jnp.full((1, 1, EXPERTS), -200.0)
    weights, grad = jax.value_and_grad(lambda x: ops.route(x, None, router)[0].sum())(logits)
    assert weights == 0
    assert np.isfinite(np.asarray(grad)).all()


def test_products_of_experts_accumulate_in_float32() -> None:
    for moe in MOES:
        experts, x = random_experts(0, moe, 4, BFLOAT16), array(Values.NORMAL, 0, (2, 5, 4), BFLOAT16)
        chosen, weights = random_choice(0, (2, 5), moe.router), jnp.ones((2, 5, CHOSEN))
        trace = jax.make_jaxpr(lambda x, w=weights, c=chosen, e=experts, m=moe: ops.mix_experts(
            x, w, c, jnp.ones((2, 5), bool), e, m))(x)  # fmt: skip
        products = [equation for equation in trace.eqns if "dot_general" in equation.primitive.name]
        assert len(products) == (3 if moe.capacity_factor is None else 5)
        assert {jnp.dtype(product.params["preferred_element_type"]) for product in products} == {FLOAT32}


@pytest.mark.parametrize("capacity_factor", [None, 0.7])
def test_bfloat16_experts_compile_with_their_gradients(capacity_factor: float | None) -> None:
    """Larger than the oracle's sizes: XLA's CPU multiplies small matrices by another way, which knows every dtype."""
    moe = Moe(Router(5, CHOSEN), 20, bias=True, capacity_factor=capacity_factor)
    x, weights = array(Values.NORMAL, 0, (3, 12, 16), BFLOAT16), jnp.full((3, 12, CHOSEN), 0.5)
    chosen, valid = random_choice(1, (3, 12), moe.router), jnp.full((3, 12), True)

    def total(x: jax.Array, experts: ops.Experts) -> jax.Array:
        return ops.mix_experts(x, weights, chosen, valid, experts, moe).astype(FLOAT32).sum()

    args = (x, random_experts(2, moe, 16, BFLOAT16))
    grads = jax.jit(jax.grad(total, (0, 1)))(*args)
    exact = jax.grad(total, (0, 1))(*jax.tree.map(lambda leaf: leaf.astype(FLOAT32), args))
    for found, true in zip(jax.tree.leaves(grads), jax.tree.leaves(exact), strict=True):
        assert jnp.abs(found.astype(FLOAT32) - true).max() < 0.05 * jnp.abs(true).max()
