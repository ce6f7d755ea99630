"""One check for each op of a mixture of experts, as in `checks`. A choice is compared where no rounding decides it."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from models.config import Moe, Router, Score
from models.ops import Experts

from . import oracles
from .bounds import FLOAT32, LIBRARY, U32, assert_equal, assert_within, float64, roundoff
from .checks import Op, run

# Below this sum, scores that underflow are a part of it that float32 shows.
SMALLEST_SUM = 1e-30


def _scores(logits64: np.ndarray, router: Router) -> tuple[np.ndarray, np.ndarray]:
    """Each score, and the relative error that its float32 computation may make."""
    scores = np.asarray([[oracles.scores_of(row, router) for row in rows] for rows in logits64])
    away = logits64.max(-1, keepdims=True) - logits64 if router.score is not Score.SIGMOID else np.zeros(logits64.shape)
    return scores, U32 * (away + 2 * LIBRARY + logits64.shape[-1] + 2)


def _decided(values: list[float], errors: list[float], count: int) -> bool:
    """Whether no rounding can change which `count` values are best and their order. Equal values are decided."""
    ranked = oracles.best(values, count + 1)
    gaps = [(values[a] - values[b], errors[a] + errors[b]) for a, b in itertools.pairwise(ranked)]
    return all(gap == 0 or gap > error for gap, error in gaps)


def _is_decided(logits: np.ndarray, errors: np.ndarray, bias: np.ndarray | None, router: Router) -> bool:
    merits = oracles.merits_of(logits, bias, router)
    roundings = [e + 2 * U32 * abs(m) + 1e-37 for e, m in zip(errors, merits, strict=True)]
    size = router.num_experts // router.num_groups
    sums = [math.fsum(roundings[start : start + size]) for start in range(0, len(roundings), size)]
    groups = oracles.group_merits(merits, router)
    if router.num_groups > 1 and not _decided(groups, sums, router.num_chosen_groups):
        return False
    chosen = oracles.best(groups, router.num_chosen_groups)
    is_open = [e for e in range(router.num_experts) if e // size in chosen]
    return _decided([merits[e] for e in is_open], [roundings[e] for e in is_open], router.num_chosen)


def check_route(
    op: Op, logits: jax.Array, choice_bias: jax.Array | None, router: Router, expert_scale: jax.Array | None = None
) -> None:
    """The choice where it is decided; the weights of whatever was chosen, by the errors of their scores."""
    logits64, bias64 = float64(logits), None if choice_bias is None else float64(choice_bias)
    factors = {} if expert_scale is None else {"expert_scale_E": expert_scale}
    weights, chosen = run(op, logits, choice_bias, router=router, **factors)
    scores, relative = _scores(logits64, router)
    errors = np.zeros(scores.shape) if router.score is Score.SOFTMAX_OF_CHOSEN else scores * relative
    truth = oracles.route(logits64, bias64, router)[1]
    decided = [_is_decided(logits64[at], errors[at], bias64, router) for at in np.ndindex(*logits.shape[:2])]
    rows = np.asarray(decided).reshape(logits.shape[:2])
    assert_equal(jnp.where(rows[:, :, None], chosen, 0), np.where(rows[:, :, None], truth, 0))
    chosen64 = np.asarray(chosen)
    scale64 = None if expert_scale is None else float64(expert_scale)
    expected = oracles.weights_of(logits64, chosen64, router, scale64)
    away = logits64.max(-1, keepdims=True) - logits64
    of_chosen = 2 * np.take_along_axis(relative + U32 * away, chosen64, -1).max(-1, keepdims=True)
    bound = (of_chosen + U32 * (router.num_chosen + 3 + (expert_scale is not None))) * abs(expected)
    underflown = np.take_along_axis(scores, chosen64, -1).sum(-1, keepdims=True) < SMALLEST_SUM
    largest = router.scale if scale64 is None else router.scale * abs(scale64).max()
    bound = np.where(underflown & router.normalized, largest, bound)
    assert_within(weights, expected, bound, dtype=FLOAT32)


def check_load_balance(op: Op, logits: jax.Array, chosen: jax.Array, valid: jax.Array, router: Router) -> None:
    """The errors of the scores averaged as the scores are, then sums over tokens and experts."""
    logits64, chosen64, valid64 = float64(logits), np.asarray(chosen), np.asarray(valid)
    truth = oracles.load_balance(logits64, chosen64, valid64, router)
    scores, relative = _scores(logits64, router)
    sums = scores.sum(-1, keepdims=True)
    parts = scores / np.where(sums > 0, sums, 1.0)
    largest = relative.max(-1, keepdims=True, where=parts > SMALLEST_SUM, initial=0)
    errors = np.where(sums < SMALLEST_SUM, 1.0, 2 * parts * largest)
    share = oracles.expert_counts(chosen64, valid64, router.num_experts) / max(valid64.sum() * router.num_chosen, 1)
    spread = router.num_experts * (share * errors[valid64].sum(0)).sum() / max(valid64.sum(), 1)
    bound = spread + U32 * (valid64.size + router.num_experts + 8) * truth
    assert_within(run(op, logits, chosen, valid, router=router), truth, bound, dtype=FLOAT32)


def check_expert_counts(op: Op, chosen: jax.Array, valid: jax.Array, num_experts: int) -> None:
    """Whole numbers: exact."""
    out = run(op, chosen, valid, num_experts=num_experts)
    assert out.dtype == FLOAT32
    assert_equal(out, oracles.expert_counts(np.asarray(chosen), np.asarray(valid), num_experts))


@dataclasses.dataclass(frozen=True)
class _Bounded:
    """Values and how far off the computed ones may be, for every token and expert."""

    value: np.ndarray
    error: np.ndarray


def check_mix_experts(
    op: Op,
    x: jax.Array,
    weights: jax.Array,
    chosen: jax.Array,
    valid: jax.Array,
    experts: Experts,
    moe: Moe,
) -> None:
    """Errors of three products and of the gate, each amplified by what follows; then the weighted sum in float32."""
    experts64 = jax.tree.map(float64, experts)
    x64, weights64, chosen64, valid64 = float64(x), float64(weights), np.asarray(chosen), np.asarray(valid)
    truth = oracles.mix_experts(x64, weights64, chosen64, valid64, experts64, moe)
    at = chosen64[..., None]
    given_BTED, weights64 = _given(x64, weights64, at, roundoff(x.dtype), moe)
    out_BTED = _experts_error(given_BTED, experts64, moe, roundoff(x.dtype))
    share = np.where(oracles.taken(chosen64, valid64, moe), abs(weights64), 0.0)[..., None]
    sizes, errors = (np.take_along_axis(part, at, axis=2) for part in (abs(out_BTED.value), out_BTED.error))
    num_terms = moe.router.num_chosen + 2 if moe.capacity_factor is None else chosen64[0].size * 2
    bound = (share * (errors + U32 * num_terms * (sizes + errors))).sum(2)
    out = run(op, x, weights, chosen, valid, experts, moe=moe)
    assert_within(out, truth, bound + roundoff(x.dtype) * (abs(truth) + bound), dtype=x.dtype)


def _given(
    x64: np.ndarray, weights64: np.ndarray, at: np.ndarray, unit: float, moe: Moe
) -> tuple[_Bounded, np.ndarray]:
    """What each expert is given, and the weights of what it gives."""
    if not moe.scale_inputs:
        return _Bounded(x64[:, :, None], np.zeros((*x64.shape[:2], 1, x64.shape[2]))), weights64
    factors_BTE1 = np.zeros((*x64.shape[:2], moe.router.num_experts, 1))
    np.put_along_axis(factors_BTE1, at, weights64[..., None], axis=2)
    given = factors_BTE1 * x64[:, :, None]
    return _Bounded(given, (U32 + unit) * abs(given)), np.ones_like(weights64)


def _experts_error(given: _Bounded, experts64: Experts, moe: Moe, unit: float) -> _Bounded:
    """Every expert on every token."""
    gate = _product(given, experts64.wi_0_EDF, experts64.wi_0_bias_EF, unit)
    linear = _product(given, experts64.wi_1_EDF, experts64.wi_1_bias_EF, unit)
    clamp = math.inf if moe.clamp is None else moe.clamp
    gated, other = np.minimum(gate.value, clamp), np.clip(linear.value, -clamp, clamp) + moe.linear_offset
    active = oracles.activate(gated, moe.activation)
    # No nonlinearity here is steeper than 1.13; a rounding for the offset, one for the activation, one for the product.
    active_error = 1.13 * gate.error + U32 * (LIBRARY + 8) * (abs(gated) + gate.error)
    active_error = active_error + unit * (abs(active) + active_error)
    other_error = linear.error + unit * (abs(other) + linear.error) * (moe.linear_offset != 0.0)
    error = active_error * abs(other) + abs(active) * other_error + active_error * other_error
    hidden = _Bounded(active * other, error + unit * (abs(active * other) + error))
    return _product(hidden, experts64.wo_EFD, experts64.wo_bias_ED, unit)


def _product(x: _Bounded, kernel: np.ndarray, bias: np.ndarray | None, unit: float) -> _Bounded:
    def through(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        return np.einsum("btei,eio->bteo", np.broadcast_to(values, (*values.shape[:2], *kernel.shape[:2])), kernel)

    added = np.zeros(kernel[:, 0].shape) if bias is None else bias
    size = through(abs(x.value) + x.error, abs(kernel)) + abs(added)
    error = through(x.error, abs(kernel)) + (U32 * (kernel.shape[1] + 1) + 2 * unit) * size
    return _Bounded(through(x.value, kernel) + added, error)
