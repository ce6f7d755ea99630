"""The steps of the Linen twin on its own trees: forward, gradients, update, evaluation, prefill and generate.

Each function returns a pure function, jittable and not jitted. `params` is `{"params": tree}`, plain arrays.
"""

import typing
from collections.abc import Callable

import jax
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from jaxtyping import Array, Float, Int

from ..config import ModelConfig, TrainConfig
from ..protocol import Metrics, Mode
from ..sharding import Rules
from ..training.batch import Batch
from ..training.objectives import LossTerms, next_token_loss
from ..training.optimizers import clip_by_global_norm, schedule
from .model import Transformer
from .moe import ROUTING
from .state import Variables

Decode = tuple[Float[Array, "b t v"], Variables]
CHOICE_BIAS = jax.tree_util.DictKey("choice_bias")
AdamWState = tuple[optax.ScaleByAdamState, optax.EmptyState, optax.ScaleByScheduleState]


def _logits(config: ModelConfig, rules: Rules, params: Variables, batch: Batch, key: Array | None) -> Array:
    """Logits [b, t, v]; dropout is on exactly when there is a key."""
    model = Transformer(config, deterministic=key is None)
    rngs = {} if key is None else {"dropout": key}
    with nn.logical_axis_rules(rules):
        logits_BTV = model.apply(params, batch.inputs, batch.positions, batch.segment_ids, rngs=rngs)
    return typing.cast(Array, logits_BTV)  # alone, since no collection is mutable


def forward(config: ModelConfig, rules: Rules) -> Callable[[Variables, Batch], Array]:
    """`(params, batch) -> logits [b, t, v]`, dropout off."""

    def run(params: Variables, batch: Batch) -> Array:
        return _logits(config, rules, params, batch, None)

    return run


def intermediates(config: ModelConfig, rules: Rules) -> Callable[[Variables, Batch], tuple[Array, Variables]]:
    """`(params, batch) -> (logits, collections of one-tuples that the layers sowed)`, dropout off."""
    model = Transformer(config)

    def run(params: Variables, batch: Batch) -> tuple[Array, Variables]:
        with nn.logical_axis_rules(rules):
            inputs = (batch.inputs, batch.positions, batch.segment_ids)
            return model.apply(params, *inputs, mutable=["intermediates", ROUTING])

    return run


def loss_and_grads(
    config: ModelConfig, train: TrainConfig, rules: Rules
) -> Callable[[Variables, Batch, Array | None], tuple[LossTerms, Variables]]:
    """`(params, batch, key) -> (loss terms, gradients)`; the key is used only when the model has dropout."""

    def run(params: Variables, batch: Batch, key: Array | None) -> tuple[LossTerms, Variables]:
        dropout_key = _dropout_key(config, key)

        def objective(params: Variables) -> tuple[Float[Array, ""], LossTerms]:
            logits_BTV = _logits(config, rules, params, batch, dropout_key)
            terms = next_token_loss(logits_BTV, batch, z_loss=train.z_loss)
            return terms.loss, terms

        (_, terms), grads = jax.value_and_grad(objective, has_aux=True)(params)
        return terms, grads

    return run


def _dropout_key(config: ModelConfig, key: Array | None) -> Array | None:
    if config.dropout_rate == 0:
        return None
    if key is None:
        raise ValueError(f"key = None: a model with dropout_rate = {config.dropout_rate} draws from it; pass a key.")
    return key


def train_step(
    config: ModelConfig, train: TrainConfig, rules: Rules
) -> Callable[[TrainState, Batch, Array | None], tuple[TrainState, Metrics]]:
    """`(state, batch, rng) -> (state, metrics)`: one optimizer update."""
    gradients = loss_and_grads(config, train, rules)

    def step(state: TrainState, batch: Batch, rng: Array | None) -> tuple[TrainState, Metrics]:
        terms, grads = gradients(state.params, batch, rng)
        clipped = clip_by_global_norm(grads, train.optimizer.clip_norm)
        by_schedule = typing.cast(AdamWState, state.opt_state)[2]
        metrics = _loss_metrics(terms) | {
            "grad_norm": clipped.norm,
            "learning_rate": schedule(train.optimizer)(by_schedule.count),
        }
        updated = state.apply_gradients(grads=clipped.grads)
        return updated.replace(params=_with_choice_biases_of(state.params, updated.params)), metrics

    return step


def _with_choice_biases_of(before: Variables, after: Variables) -> Variables:
    """`after` with the choice biases of `before`: they have no gradient, and weight decay would still shrink them."""

    def kept(path: jax.tree_util.KeyPath, old: Array, new: Array) -> Array:
        return old if path[-1] == CHOICE_BIAS else new

    return jax.tree.map_with_path(kept, before, after)


def step_key(config: ModelConfig, train: TrainConfig, step: Int[Array, ""] | int) -> Array | None:
    """The random key of one train step; none for a model that draws nothing."""
    return None if config.dropout_rate == 0 else jax.random.fold_in(jax.random.key(train.seed), step)


def eval_step(config: ModelConfig, train: TrainConfig, rules: Rules) -> Callable[[TrainState, Batch], Metrics]:
    """`(state, batch) -> metrics`, dropout off."""

    def step(state: TrainState, batch: Batch) -> Metrics:
        logits_BTV = _logits(config, rules, state.params, batch, None)
        return _loss_metrics(next_token_loss(logits_BTV, batch, z_loss=train.z_loss))

    return step


def _loss_metrics(terms: LossTerms) -> Metrics:
    return {
        "loss": terms.loss,
        "xent_sum": terms.xent_sum,
        "z_loss_sum": terms.z_loss_sum,
        "total_weights": terms.total_weights,
    }


def prefill(config: ModelConfig, rules: Rules) -> Callable[[Variables, Variables, Array, Array, Array], Decode]:
    """`(params, cache, tokens, positions, segment_ids) -> (logits, cache)`; `cache` is `{"cache": tree}`."""
    model = Transformer(config, Mode.DECODE)

    def run(
        params: Variables, cache: Variables,
        tokens_BT: Int[Array, "b t"], positions_BT: Int[Array, "b t"], segments_BT: Int[Array, "b t"],
    ) -> Decode:
        with nn.logical_axis_rules(rules):
            variables = {**params, **cache}
            decoded = model.apply(variables, tokens_BT, positions_BT, segments_BT, mutable=["cache"])
        return typing.cast(Decode, decoded)  # with the cache, since that collection is mutable

    return run


def generate(config: ModelConfig, rules: Rules) -> Callable[[Variables, Variables, Array, Array], Decode]:
    """`(params, cache, tokens [b, 1], positions [b, 1]) -> (logits, cache)`: every token is a real one, segment 1."""
    decode = prefill(config, rules)

    def run(
        params: Variables, cache: Variables, tokens_B1: Int[Array, "b 1"], positions_B1: Int[Array, "b 1"]
    ) -> Decode:
        return decode(params, cache, tokens_B1, positions_B1, jax.numpy.ones_like(tokens_B1))

    return run
