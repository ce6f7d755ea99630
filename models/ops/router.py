"""Which experts a token goes to, with what weights, and how evenly that fills them.

Axes: `B` batch, `T` position, `E` experts, `G` groups of experts, `k` the experts a token chose.
"""

import typing

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ..config import Router, Score


class Routing(typing.NamedTuple):
    """What each token chose, and the float32 weights of these experts.

    Best first; of equals the lower number, and zero before minus zero.
    """

    weights_BTk: Float[Array, "b t k"]
    chosen_BTk: Int[Array, "b t k"]


def route(
    logits_BTE: Float[Array, "b t e"],
    choice_bias_E: Float[Array, " e"] | None,
    router: Router,
    *,
    expert_scale_E: Float[Array, " e"] | None = None,
) -> Routing:
    """The router's rule (see `Router`) on float32 logits. The choice has no gradient, the weights have.

    `expert_scale_E`: the trained factor of each expert, on its weight when all else is done.

    Source: Jiang et al., "Mixtral of Experts", section 2.1; DeepSeek-AI, "DeepSeek-V3", eq. 12 to 16 (sigmoid, bias of
    the choice, groups); Gemma 4 (factors of the experts).
    """
    weights_BTk, chosen_BTk = _weigh(logits_BTE, choice_bias_E, router)
    if expert_scale_E is not None:
        scale_E = expert_scale_E.astype(jnp.float32)
        weights_BTk = weights_BTk * scale_E.at[chosen_BTk].get(mode="promise_in_bounds", wrap_negative_indices=False)
    return Routing(weights_BTk, chosen_BTk)


def _weigh(logits_BTE: Array, choice_bias_E: Array | None, router: Router) -> Routing:
    if router.score is Score.SOFTMAX_OF_CHOSEN:
        chosen_BTk = _choose(logits_BTE, router)
        weights_BTk = jax.nn.softmax(jnp.take_along_axis(logits_BTE, chosen_BTk, axis=-1), axis=-1)
        return Routing(router.scale * weights_BTk, chosen_BTk)
    scores_BTE = _scores(logits_BTE, router)
    biased_BTE = scores_BTE
    if choice_bias_E is not None:
        biased_BTE = scores_BTE + choice_bias_E.astype(jnp.float32)[None, None, :]
    chosen_BTk = _choose(biased_BTE, router)
    weights_BTk = jnp.take_along_axis(scores_BTE, chosen_BTk, axis=-1)
    if router.normalized:
        sum_BT1 = weights_BTk.sum(axis=-1, keepdims=True)
        # Sigmoids of very negative logits are all zero.
        weights_BTk = weights_BTk / jnp.where(sum_BT1 > 0.0, sum_BT1, 1.0)
    return Routing(router.scale * weights_BTk, chosen_BTk)


def load_balance(
    logits_BTE: Float[Array, "b t e"], chosen_BTk: Int[Array, "b t k"], valid_BT: Bool[Array, "b t"], router: Router
) -> Float[Array, ""]:
    """`E sum_e f_e p_e`: `f` the experts' shares of the choices, `p` the means of their scores, made to sum to one.

    Over the valid tokens of all rows together; 1 in balance, at most `E / k`, 0 without a valid token.

    Source: Fedus et al., "Switch Transformers", eq. 4 to 6; the share of `k` choices as in "DeepSeek-V3", eq. 17 to 20.
    """
    scores_BTE = _scores(logits_BTE, router)
    if router.score is Score.SIGMOID:
        sum_BT1 = scores_BTE.sum(axis=-1, keepdims=True)
        scores_BTE = scores_BTE / jnp.where(sum_BT1 > 0.0, sum_BT1, 1.0)
    num_valid = jnp.maximum(valid_BT.sum(dtype=jnp.float32), 1.0)
    share_E = expert_counts(chosen_BTk, valid_BT, router.num_experts) / (num_valid * router.num_chosen)
    mean_E = jnp.where(valid_BT[:, :, None], scores_BTE, 0.0).sum(axis=(0, 1)) / num_valid
    return router.num_experts * (share_E * mean_E).sum()


def expert_counts(
    chosen_BTk: Int[Array, "b t k"], valid_BT: Bool[Array, "b t"], num_experts: int
) -> Float[Array, " e"]:
    """How many choices of valid tokens each expert got, in float32.

    Source: DeepSeek-AI, "DeepSeek-V3", section 2.1.2 (the load that moves the bias of the choice).
    """
    is_chosen_BTkE = chosen_BTk[..., None] == jnp.arange(num_experts)[None, None, None, :]
    return (is_chosen_BTkE & valid_BT[:, :, None, None]).sum(axis=(0, 1, 2), dtype=jnp.float32)


def _scores(logits_BTE: Float[Array, "b t e"], router: Router) -> Float[Array, "b t e"]:
    if router.score is Score.SIGMOID:
        return jax.nn.sigmoid(logits_BTE)
    return jax.nn.softmax(logits_BTE, axis=-1)


def _choose(scores_BTE: Float[Array, "b t e"], router: Router) -> Int[Array, "b t k"]:
    """The experts with the best scores, of all or of the best groups."""
    scores_BTE = lax.stop_gradient(scores_BTE)
    if router.num_groups > 1:
        grouped_BTGE = scores_BTE.reshape(*scores_BTE.shape[:2], router.num_groups, -1)
        best_BTG = lax.top_k(grouped_BTGE, router.group_top)[0].sum(axis=-1)
        groups_BTg = lax.top_k(best_BTG, router.num_chosen_groups)[1]
        is_open_BTG = (groups_BTg[..., None] == jnp.arange(router.num_groups)[None, None, None, :]).any(axis=2)
        scores_BTE = jnp.where(is_open_BTG[..., None], grouped_BTGE, -jnp.inf).reshape(scores_BTE.shape)
    return lax.top_k(scores_BTE, router.num_chosen)[1]
