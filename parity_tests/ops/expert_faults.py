"""Probes of a mixture's ops and the faults that the probes must refuse; `test_faults` runs both."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from models import ops
from models.config import Activation, Moe, Router, Score

from . import expert_checks
from .bounds import FLOAT32
from .inputs import Values, array

SOFTMAX = Router(4, 2, normalized=True, scale=2.0)
SIGMOID = Router(4, 2, score=Score.SIGMOID, normalized=True, choice_bias=True)
CHOSEN = Router(4, 2, score=Score.SOFTMAX_OF_CHOSEN)
SCALED = Router(4, 2, normalized=True, scale=2.0, expert_scale=True)
GROUPS = Router(8, 2, num_groups=4, num_chosen_groups=2, group_top=2)
PLAIN = Moe(SOFTMAX, 3)
CLAMPED = Moe(CHOSEN, 3, Activation.QUICK_GELU, bias=True, clamp=0.5, linear_offset=1.0)
GIVEN = Moe(SOFTMAX, 3, bias=True, scale_inputs=True)
PLACED = Moe(SOFTMAX, 3, bias=True, capacity_factor=0.75, scale_inputs=True)
FULL = Moe(SOFTMAX, 3, bias=True, capacity_factor=0.75)
VALID = jnp.asarray([[True, False, True, True, True], [True, True, True, False, False]])
POPULAR = jnp.asarray([[[3, 0], [3, 1], [3, 2], [1, 3], [3, 0]], [[3, 2], [0, 3], [3, 1], [2, 3], [1, 0]]], jnp.int32)


def normal(seed: int, *shape: int) -> jax.Array:
    return array(Values.NORMAL, seed, shape, FLOAT32)


def _route(router: Router, op: Callable) -> None:
    bias = jnp.arange(4.0) if router.choice_bias else None
    scale = normal(4, router.num_experts) if router.expert_scale else None
    expert_checks.check_route(op, normal(3, 2, 5, router.num_experts), bias, router, scale)


def _balance(router: Router, op: Callable) -> None:
    expert_checks.check_load_balance(op, normal(0, 2, 5, 4), POPULAR, VALID, router)


def _mix(moe: Moe, op: Callable) -> None:
    shapes = [(4, 4, 3), (4, 4, 3), (4, 3, 4)] + ([(4, 3), (4, 3), (4, 4)] if moe.bias else [])
    experts = ops.Experts(*(normal(index, *shape) for index, shape in enumerate(shapes)))
    x, weights = normal(8, 2, 5, 4), normal(9, 2, 5, 2)
    expert_checks.check_mix_experts(op, x, weights, POPULAR, VALID, experts, moe)


PROBES: dict[str, Callable[[Callable], None]] = {
    "route": functools.partial(_route, SOFTMAX),
    "route, biased": functools.partial(_route, SIGMOID),
    "route, of chosen": functools.partial(_route, CHOSEN),
    "route, groups": functools.partial(_route, GROUPS),
    "route, scaled experts": functools.partial(_route, SCALED),
    "load_balance": functools.partial(_balance, SOFTMAX),
    "load_balance, sigmoid": functools.partial(_balance, SIGMOID),
    "expert_counts": lambda op: expert_checks.check_expert_counts(op, POPULAR, VALID, 4),
    "mix_experts": functools.partial(_mix, PLAIN),
    "mix_experts, clamped": functools.partial(_mix, CLAMPED),
    "mix_experts, full": functools.partial(_mix, FULL),
    "mix_experts, weighted inputs": functools.partial(_mix, GIVEN),
    "mix_experts, weighted into places": functools.partial(_mix, PLACED),
}


def _routed(**changes: object) -> Callable:
    """A choice by other words of the router."""
    return lambda logits, bias, router: ops.route(logits, bias, dataclasses.replace(router, **changes))


def _weighed_with_bias(logits: jax.Array, bias: jax.Array, router: Router) -> ops.Routing:
    """The bias of the choice in the weights too."""
    merits = jax.nn.sigmoid(logits) + bias[None, None]
    top, chosen = jax.lax.top_k(merits, router.num_chosen)
    return ops.Routing(top / top.sum(-1, keepdims=True), chosen)


def _chosen_from_all(logits: jax.Array, bias: jax.Array | None, router: Router) -> ops.Routing:
    """The weights of a softmax over all experts."""
    weights, chosen = jax.lax.top_k(jax.nn.softmax(logits, axis=-1), router.num_chosen)
    return ops.Routing(weights, chosen)


def _scaled_before(logits: jax.Array, bias: None, router: Router, *, expert_scale_E: jax.Array) -> ops.Routing:
    """The experts' factors before the weights are made to sum to one."""
    top, chosen = jax.lax.top_k(jax.nn.softmax(logits, axis=-1), router.num_chosen)
    top = top * expert_scale_E[chosen]
    return ops.Routing(router.scale * top / top.sum(-1, keepdims=True), chosen)


def _weighed_twice(x: jax.Array, weights: jax.Array, *operands: object, moe: Moe) -> jax.Array:
    """The first choice's weight on what the experts give too."""
    return weights[..., :1] * ops.mix_experts(x, weights, *operands, moe)


def _balanced(**changes: object) -> Callable:
    return lambda logits, chosen, valid, router: ops.load_balance(
        logits, chosen, valid, dataclasses.replace(router, **changes)
    )


def _mixed(**changes: object) -> Callable:
    """Experts by other words of the mixture."""
    return lambda *operands, moe: ops.mix_experts(*operands, dataclasses.replace(moe, **changes))


def _mixed_from(change: Callable) -> Callable:
    """Experts on other operands."""
    return lambda x, weights, chosen, valid, experts, moe: ops.mix_experts(
        *change(x, weights, chosen, valid, experts), moe
    )


def _later_first(*operands: object, moe: Moe) -> jax.Array:
    """The last tokens of a row take the places."""
    *arrays, experts = operands
    return ops.mix_experts(*(operand[:, ::-1] for operand in arrays), experts, moe)[:, ::-1]


def _second_choices_last(*operands: jax.Array, moe: Moe) -> jax.Array:
    """All first choices take their places before any second one."""
    x, weights, chosen, valid, experts = operands
    in_turn = [jnp.concatenate([part[:, :, j] for j in range(2)], 1)[..., None] for part in (weights, chosen)]
    twice = [jnp.concatenate([part, part], 1) for part in (x, valid)]
    router = dataclasses.replace(moe.router, num_chosen=1)
    out = ops.mix_experts(twice[0], *in_turn, twice[1], experts, dataclasses.replace(moe, router=router))
    return out[:, : x.shape[1]] + out[:, x.shape[1] :]


def _swapped(experts: ops.Experts) -> ops.Experts:
    return experts._replace(wi_0_EDF=experts.wi_1_EDF, wi_1_EDF=experts.wi_0_EDF)


_ALL_VALID = jnp.ones_like(VALID)
FAULTS: dict[tuple[str, str], Callable] = {
    ("route", "not normalized"): _routed(normalized=False),
    ("route", "not scaled"): _routed(scale=1.0),
    ("route", "sigmoid"): _routed(score=Score.SIGMOID),
    ("route", "worst first"): lambda logits, bias, router: ops.Routing(
        *(part[..., ::-1] for part in ops.route(logits, bias, router))
    ),
    ("route", "the worst chosen"): lambda logits, bias, router: ops.route(-logits, bias, router),
    ("route, biased", "bias ignored"): lambda logits, bias, router: ops.route(logits, None, router),
    ("route, biased", "bias in the weights"): _weighed_with_bias,
    ("route, biased", "bias on the logits"): lambda logits, bias, router: ops.route(
        logits + bias[None, None], None, router
    ),
    ("route, of chosen", "softmax of all"): _chosen_from_all,
    ("route, groups", "no groups"): _routed(num_groups=1, num_chosen_groups=1, group_top=1),
    ("route, groups", "a group by its best expert"): _routed(group_top=1),
    ("route, groups", "one group too many"): _routed(num_chosen_groups=3),
    ("route, scaled experts", "no factors"): lambda *a, expert_scale_E, **kw: ops.route(*a, **kw),
    ("route, scaled experts", "other experts' factors"): lambda *a, expert_scale_E, **kw: ops.route(
        *a, **kw, expert_scale_E=expert_scale_E[::-1]
    ),
    ("route, scaled experts", "factors by rank"): lambda *a, expert_scale_E, **kw: ops.Routing(
        ops.route(*a, **kw)[0] * expert_scale_E[None, None, :2], ops.route(*a, **kw)[1]
    ),
    ("route, scaled experts", "factors before the sum"): _scaled_before,
    ("route, scaled experts", "factors choose"): lambda logits, bias, router, expert_scale_E: ops.route(
        logits * expert_scale_E[None, None], bias, router, expert_scale_E=expert_scale_E
    ),
    ("load_balance", "padding counted"): lambda logits, chosen, valid, router: ops.load_balance(
        logits, chosen, _ALL_VALID, router
    ),
    ("load_balance", "choices not shared out"): lambda *operands, router: 2 * ops.load_balance(*operands, router),
    ("load_balance", "row by row"): lambda logits, chosen, valid, router: sum(
        ops.load_balance(logits[row], chosen[row], valid[row], router) / 2 for row in (slice(1), slice(1, 2))
    ),
    ("load_balance, sigmoid", "softmax"): _balanced(score=Score.SOFTMAX),
    ("expert_counts", "padding counted"): lambda chosen, valid, num_experts: ops.expert_counts(
        chosen, _ALL_VALID, num_experts
    ),
    ("expert_counts", "first choices alone"): lambda chosen, valid, num_experts: ops.expert_counts(
        chosen[..., :1], valid, num_experts
    ),
    ("mix_experts", "kernels swapped"): _mixed_from(lambda x, w, c, v, e: (x, w, c, v, _swapped(e))),
    ("mix_experts", "choices swapped"): _mixed_from(lambda x, w, c, v, e: (x, w[..., ::-1], c, v, e)),
    ("mix_experts", "rows put back elsewhere"): _mixed_from(lambda x, w, c, v, e: (x[:, ::-1], w, c, v, e)),
    ("mix_experts", "neighbouring expert"): _mixed_from(lambda x, w, c, v, e: (x, w, (c + 1) % 4, v, e)),
    ("mix_experts", "padding mixed too"): _mixed_from(lambda x, w, c, v, e: (x, w, c, _ALL_VALID, e)),
    ("mix_experts", "some dropped"): _mixed(capacity_factor=0.75),
    ("mix_experts, clamped", "not clamped"): _mixed(clamp=None),
    ("mix_experts, clamped", "no offset"): _mixed(linear_offset=0.0),
    ("mix_experts, clamped", "silu"): _mixed(activation=Activation.SILU),
    ("mix_experts, clamped", "a bias forgotten"): _mixed_from(
        lambda x, w, c, v, e: (x, w, c, v, e._replace(wo_bias_ED=None))
    ),
    ("mix_experts, full", "none dropped"): _mixed(capacity_factor=None),
    ("mix_experts, full", "one place more"): _mixed(capacity_factor=1.0),
    ("mix_experts, full", "later tokens first"): _later_first,
    ("mix_experts, full", "second choices last"): _second_choices_last,
    ("mix_experts, full", "padding takes places"): lambda x, w, c, v, e, moe: jnp.where(
        v[:, :, None], ops.mix_experts(x, w, c, _ALL_VALID, e, moe), 0.0
    ),
    **{
        (f"mix_experts, weighted {where}", fault): op
        for where in ("inputs", "into places")
        for fault, op in {
            "outputs weighted": _mixed(scale_inputs=False),
            "outputs weighted too": _weighed_twice,
            "not weighted": _mixed_from(lambda x, w, c, v, e: (x, jnp.ones_like(w), c, v, e)),
            "choices swapped": _mixed_from(lambda x, w, c, v, e: (x, w[..., ::-1], c, v, e)),
            "padding mixed too": _mixed_from(lambda x, w, c, v, e: (x, w, c, _ALL_VALID, e)),
        }.items()
    },
    ("mix_experts, weighted into places", "none dropped"): _mixed(capacity_factor=None),
    ("mix_experts, weighted inputs", "some dropped"): _mixed(capacity_factor=0.75),
}
