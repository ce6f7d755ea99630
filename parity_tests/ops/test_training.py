"""Objective, schedule, optimizer and clipping against their oracles and their closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.config import AdamW, ConfigError, TrainConfig, preset
from models.training import (
    Batch,
    clip_by_global_norm,
    make_optimizer,
    next_token_loss,
    schedule,
    with_load_balance,
)
from models.training.batch import FIELDS
from models.training.objectives import check_balancing

from . import training_oracles as oracles
from .bounds import BFLOAT16, DTYPES, FLOAT32, U32, assert_within, float64, roundoff
from .inputs import Values, array, dtypes, few, seeds
from .test_gradients import check_gradients

run_loss = jax.jit(next_token_loss, static_argnames="z_loss")

OPTIMIZER = AdamW(peak_learning_rate=0.1, warmup_steps=2, decay_steps=10)
VOCAB = 7


def batch_of(seed: int, target_segments: list[list[int]]) -> Batch:
    rng = np.random.default_rng(seed)
    shape = np.shape(target_segments)
    tokens = (jnp.asarray(rng.integers(0, VOCAB, shape), jnp.int32) for _ in range(2))
    segments = jnp.asarray(target_segments, jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.int32), shape)
    return Batch(*tokens, positions, segments, segments)


def test_batch_leaves_are_named_as_its_fields() -> None:
    leaves, _ = jax.tree_util.tree_flatten_with_path(batch_of(0, [[1, 1]]))
    assert tuple(path[0].name for path, _ in leaves) == FIELDS
    assert FIELDS == ("inputs", "targets", "positions", "segment_ids", "target_segment_ids")


@few
@given(
    seed=seeds, z_loss=st.sampled_from([0.0, 0.1]),
    segments=st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=2, max_size=2),
)
def test_next_token_loss_is_the_mean_over_real_targets(seed: int, z_loss: float, segments: list[list[int]]) -> None:
    logits, batch = array(Values.NORMAL, seed, (2, 3, VOCAB)), batch_of(seed, segments)
    *terms, load_balance_loss = dataclasses.astuple(run_loss(logits, batch, z_loss=z_loss))
    assert load_balance_loss is None
    truths = oracles.next_token_loss(float64(logits), np.asarray(batch.targets), np.asarray(segments), z_loss=z_loss)
    for term, truth in zip(terms, truths, strict=True):
        assert_within(term, np.asarray(truth), U32 * 64 * truth, dtype=FLOAT32)


@few
@given(seed=seeds, weight=st.sampled_from([0.01, 1.0]))
def test_the_load_balance_loss_is_the_mean_over_stacked_and_single_layers(seed: int, weight: float) -> None:
    terms = run_loss(array(Values.NORMAL, seed, (1, 3, VOCAB)), batch_of(seed, [[1, 1, 0]]), z_loss=0.0)
    stacked, single = array(Values.NORMAL, seed, (3,)), array(Values.NORMAL, seed + 1, ())
    added = with_load_balance(terms, {"b/moe/load_balance": stacked, "a/moe/load_balance": single}, weight=weight)
    values = [[float(single)], [float(value) for value in stacked]]
    loss, load_balance_loss = oracles.with_load_balance(float(terms.loss), values, weight=weight)
    size = weight * float(jnp.abs(stacked).sum() + jnp.abs(single))
    assert added.load_balance_loss is not None
    assert_within(added.load_balance_loss, np.asarray(load_balance_loss), 8 * U32 * size, dtype=FLOAT32)
    assert_within(added.loss, np.asarray(loss), 8 * U32 * (size + abs(loss)), dtype=FLOAT32)
    assert dataclasses.replace(added, loss=terms.loss, load_balance_loss=None) == terms


@pytest.mark.parametrize(
    ("name", "settings", "accepted"),
    [
        ("llama-tiny", {}, True),
        ("llama-tiny", {"load_balance_weight": 0.01}, False),
        ("llama-tiny", {"choice_bias_rate": 0.001}, False),
        ("mixtral-tiny", {"load_balance_weight": 0.01}, True),
        ("mixtral-tiny", {"choice_bias_rate": 0.001}, False),
        ("deepseek3-tiny", {"load_balance_weight": 0.01, "choice_bias_rate": 0.001}, True),
    ],
)  # fmt: skip
def test_balancing_is_refused_where_it_would_do_nothing(name: str, settings: dict[str, float], accepted: bool) -> None:
    if accepted:
        check_balancing(preset(name), TrainConfig(**settings))
    else:
        with pytest.raises(ConfigError, match="needs a model"):
            check_balancing(preset(name), TrainConfig(**settings))


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_next_token_loss_gradients(z_loss: float) -> None:
    batch = batch_of(1, [[1, 2, 0], [1, 1, 1]])
    operands = (np.asarray(batch.targets), np.asarray(batch.target_segment_ids))
    check_gradients(
        lambda logits: next_token_loss(logits, batch, z_loss=z_loss).loss,
        lambda logits: np.asarray(oracles.next_token_loss(logits, *operands, z_loss=z_loss)[0]),
        [array(Values.NORMAL, 3, (2, 3, VOCAB))],
        count=64,
    )


def test_a_padded_target_has_no_influence_even_outside_the_vocabulary() -> None:
    batch = batch_of(2, [[1, 1, 0]])
    other = dataclasses.replace(batch, targets=batch.targets.at[0, 2].set(VOCAB + 3))
    logits = array(Values.NORMAL, 4, (1, 3, VOCAB))
    spoiled = logits.at[0, 2].set(jnp.nan)
    expected = run_loss(logits, batch, z_loss=0.1).loss
    assert run_loss(logits, other, z_loss=0.1).loss == expected
    assert run_loss(spoiled, batch, z_loss=0.1).loss == expected


def test_a_batch_of_padding_has_zero_loss_and_zero_gradients() -> None:
    batch, logits = batch_of(3, [[0, 0, 0]]), array(Values.NORMAL, 5, (1, 3, VOCAB))
    loss, grad = jax.jit(jax.value_and_grad(lambda x: next_token_loss(x, batch, z_loss=0.1).loss))(logits)
    assert loss == 0.0
    assert not np.asarray(grad).any()


@few
@given(
    warmup=st.integers(0, 20), more=st.integers(1, 50), final=st.sampled_from([0.0, 0.1, 1.0]),
    step=st.integers(0, 100), peak=st.sampled_from([1e-4, 3.0]),
)
def test_schedule_is_a_warm_up_and_half_a_cosine(warmup: int, more: int, final: float, step: int, peak: float) -> None:
    optimizer = AdamW(peak_learning_rate=peak, warmup_steps=warmup, decay_steps=warmup + more, final_fraction=final)
    rate = schedule(optimizer)(jnp.asarray(step, jnp.int32))
    assert_within(rate, np.asarray(oracles.schedule(optimizer, step)), 16 * U32 * peak, dtype=FLOAT32)


def test_schedule_begins_above_zero_peaks_after_warm_up_and_ends_at_its_fraction() -> None:
    rates = [float(schedule(OPTIMIZER)(step)) for step in range(13)]
    peak = OPTIMIZER.peak_learning_rate
    np.testing.assert_allclose(rates[:3], [peak / 3, 2 * peak / 3, peak], rtol=1e-6)
    np.testing.assert_allclose(rates[10:], 3 * [peak * OPTIMIZER.final_fraction], rtol=1e-6)
    assert (np.diff(rates[2:11]) < 0).all()


def run_optimizer(optimizer: AdamW, param: jax.Array, grads: list[jax.Array]) -> jax.Array:
    # Adam's bias correction in optax does not survive strict promotion.
    with jax.numpy_dtype_promotion("standard"):
        transformation = make_optimizer(optimizer)
        state = transformation.init(param)
        for grad in grads:
            updates, state = transformation.update(grad, state, param)
            param = optax.apply_updates(param, updates)
    return param


@few
@given(seed=seeds, weight_decay=st.sampled_from([0.0, 0.1]), scale=st.sampled_from([1.0, 1e-6, 1e6]))
def test_adamw_follows_algorithm_2_for_four_steps(seed: int, weight_decay: float, scale: float) -> None:
    optimizer = dataclasses.replace(OPTIMIZER, weight_decay=weight_decay)
    param = array(Values.NORMAL, seed, (3, 2))
    grads = [scale * array(Values.NORMAL, seed + 1 + step, (3, 2)) for step in range(4)]
    truth = oracles.make_optimizer(optimizer, float64(param), [float64(grad) for grad in grads])
    # `1 - b2**t` loses the digits of b2: 1 / (1 - b2) = 20 roundings, in each of four steps of at most 2 * peak.
    bound = U32 * (20 + 16) * 4 * (2 * optimizer.peak_learning_rate + np.abs(float64(param)))
    assert_within(run_optimizer(optimizer, param, grads), truth, bound, dtype=FLOAT32)


def test_the_first_step_of_adamw_is_the_sign_of_the_gradient() -> None:
    param, grad = jnp.asarray([1.0, -2.0, 3.0]), jnp.asarray([1e-3, -5.0, 0.0])
    rate = float(schedule(OPTIMIZER)(0))
    expected = param - rate * (jnp.sign(grad) + OPTIMIZER.weight_decay * param)
    np.testing.assert_allclose(run_optimizer(OPTIMIZER, param, [grad]), expected, rtol=1e-4)


def test_optimizer_state_is_the_published_triple() -> None:
    adam, empty, by_schedule = make_optimizer(OPTIMIZER).init({"w": jnp.zeros(2)})
    assert isinstance(adam, optax.ScaleByAdamState)
    assert isinstance(empty, optax.EmptyState)
    assert isinstance(by_schedule, optax.ScaleByScheduleState)
    assert adam.count.dtype == by_schedule.count.dtype == jnp.int32


@few
@given(
    seed=seeds, dtype=dtypes, max_norm=st.sampled_from([None, 1e-3, 1.0, 1e3]), scale=st.sampled_from([0.0, 1.0, 1e6])
)
def test_clipping_bounds_the_joint_norm(seed: int, dtype: jnp.dtype, max_norm: float | None, scale: float) -> None:
    grads = {"a": scale * array(Values.NORMAL, seed, (3, 2), dtype), "b": scale * array(Values.SPIKE, seed, (4,))}
    clipped = clip_by_global_norm(grads, max_norm)
    truths, norm = oracles.clip_by_global_norm([float64(grad) for grad in grads.values()], max_norm)
    assert_within(clipped.norm, np.asarray(norm), U32 * 16 * norm, dtype=FLOAT32)
    for name, truth in zip(grads, truths, strict=True):
        bound = (U32 * 20 + roundoff(grads[name].dtype)) * np.abs(truth)
        assert_within(clipped.grads[name], truth, bound, dtype=grads[name].dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_clipped_gradients_have_the_largest_allowed_norm(dtype: jnp.dtype) -> None:
    clipped = clip_by_global_norm([jnp.full(4, 10.0, dtype), jnp.full(4, -10.0, BFLOAT16)], 1.0).grads
    norm = np.sqrt(sum((float64(grad) ** 2).sum() for grad in clipped))
    np.testing.assert_allclose(norm, 1.0, rtol=2 * roundoff(BFLOAT16))
