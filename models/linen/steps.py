"""The steps of the Linen twin on its own trees: forward, gradients, update, evaluation, prefill and generate.

Each function returns a pure function, jittable and not jitted. `params` is `{"params": tree}`, plain arrays.
"""

import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from jaxtyping import Array, Float, Int

from ..config import ModelConfig, TrainConfig
from ..protocol import Metrics, Mode
from ..sharding import Rules
from ..training.batch import Batch
from ..training.objectives import LossTerms, check_balancing, next_token_loss, with_load_balance
from ..training.optimizers import clip_by_global_norm, schedule
from .model import Transformer
from .moe import ROUTING
from .state import Variables, canonical, variables_of

Decode = tuple[Float[Array, "b t v"], Variables]
AdamWState = tuple[optax.ScaleByAdamState, optax.EmptyState, optax.ScaleByScheduleState]
CHOICE_BIAS, EXPERT_COUNTS, LOAD_BALANCE = "/gate/choice_bias", "/expert_counts", "/load_balance"


def _recorded(
    config: ModelConfig, rules: Rules, params: Variables, batch: Batch, key: Array | None, collections: list[str]
) -> tuple[Array, Variables]:
    """Logits [b, t, v] and what the layers sowed to these collections; dropout is on exactly when there is a key."""
    model = Transformer(config, deterministic=key is None)
    rngs = {} if key is None else {"dropout": key}
    with nn.logical_axis_rules(rules):
        inputs = (batch.inputs, batch.positions, batch.segment_ids)
        return model.apply(params, *inputs, rngs=rngs, mutable=collections)


def _logits(config: ModelConfig, rules: Rules, params: Variables, batch: Batch) -> Array:
    return _recorded(config, rules, params, batch, None, [])[0]


def forward(config: ModelConfig, rules: Rules) -> Callable[[Variables, Batch], Array]:
    """`(params, batch) -> logits [b, t, v]`, dropout off."""

    def run(params: Variables, batch: Batch) -> Array:
        return _logits(config, rules, params, batch)

    return run


def intermediates(config: ModelConfig, rules: Rules) -> Callable[[Variables, Batch], tuple[Array, Variables]]:
    """`(params, batch) -> (logits, collections of one-tuples that the layers sowed)`, dropout off."""

    def run(params: Variables, batch: Batch) -> tuple[Array, Variables]:
        return _recorded(config, rules, params, batch, None, ["intermediates", ROUTING])

    return run


def loss_and_grads(
    config: ModelConfig, train: TrainConfig, rules: Rules
) -> Callable[[Variables, Batch, Array | None], tuple[LossTerms, Variables]]:
    """`(params, batch, key) -> (loss terms, gradients)`; the key is used only when the model has dropout."""
    gradients = _gradients(config, train, rules)

    def run(params: Variables, batch: Batch, key: Array | None) -> tuple[LossTerms, Variables]:
        terms, grads, _ = gradients(params, batch, key)
        return terms, grads

    return run


def _gradients(
    config: ModelConfig, train: TrainConfig, rules: Rules
) -> Callable[[Variables, Batch, Array | None], tuple[LossTerms, Variables, Variables]]:
    """`(params, batch, key) -> (loss terms, gradients, what the gates sowed)`; nothing is sown unless it is used."""
    check_balancing(config, train)
    collections = [ROUTING] if train.load_balance_weight or train.choice_bias_rate else []

    def run(params: Variables, batch: Batch, key: Array | None) -> tuple[LossTerms, Variables, Variables]:
        dropout_key = _dropout_key(config, key)

        def objective(params: Variables) -> tuple[Float[Array, ""], tuple[LossTerms, Variables]]:
            logits_BTV, sown = _recorded(config, rules, params, batch, dropout_key, collections)
            terms = next_token_loss(logits_BTV, batch, z_loss=train.z_loss)
            if train.load_balance_weight:
                terms = with_load_balance(terms, _sown(sown, LOAD_BALANCE), weight=train.load_balance_weight)
            return terms.loss, (terms, sown)

        (_, (terms, sown)), grads = jax.value_and_grad(objective, has_aux=True)(params)
        return terms, grads, sown

    return run


def _sown(sown: Variables, ending: str) -> dict[str, Array]:
    """What the layers sowed under a name, by the canonical name of the module that did."""
    leaves = canonical(sown, ROUTING).items()
    return {name.removesuffix(ending): value for name, (value,) in leaves if name.endswith(ending)}


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
    gradients = _gradients(config, train, rules)

    def step(state: TrainState, batch: Batch, rng: Array | None) -> tuple[TrainState, Metrics]:
        terms, grads, sown = gradients(state.params, batch, rng)
        clipped = clip_by_global_norm(grads, train.optimizer.clip_norm)
        by_schedule = typing.cast(AdamWState, state.opt_state)[2]
        metrics = _loss_metrics(terms) | {
            "grad_norm": clipped.norm,
            "learning_rate": schedule(train.optimizer)(by_schedule.count),
        }
        updated = state.apply_gradients(grads=clipped.grads)
        counts = _sown(sown, EXPERT_COUNTS) if train.choice_bias_rate else {}
        params = _with_choice_biases(state.params, updated.params, counts, rate=train.choice_bias_rate)
        return updated.replace(params=params), metrics

    return step


def _with_choice_biases(
    before: Variables, after: Variables, counts: dict[str, Float[Array, "..."]], *, rate: float
) -> Variables:
    """`after` with the choice biases of `before`, moved by `rate` towards the experts that had fewer tokens than most.

    They have no gradient, and weight decay would still shrink them. `counts` has none at a rate of 0.

    Source: DeepSeek-AI, "DeepSeek-V3", section 2.1.2.
    """
    leaves = canonical(after)
    for name, bias in canonical(before).items():
        if name.endswith(CHOICE_BIAS):
            leaves[name] = _moved(bias, counts[name.removesuffix(CHOICE_BIAS)], rate) if rate else bias
    return variables_of(leaves)


def _moved(bias: Float[Array, "e ..."], counts: Float[Array, "... e"], rate: float) -> Float[Array, "e ..."]:
    """A scanned layer's axis is the first of what it sows, and the second of its parameters."""
    missing = jnp.sign(counts.mean(axis=-1, keepdims=True) - counts)
    return (bias.astype(jnp.float32) + rate * jnp.moveaxis(missing, -1, 0)).astype(bias.dtype)


def step_key(config: ModelConfig, train: TrainConfig, step: Int[Array, ""] | int) -> Array | None:
    """The random key of one train step; none for a model that draws nothing."""
    return None if config.dropout_rate == 0 else jax.random.fold_in(jax.random.key(train.seed), step)


def eval_step(config: ModelConfig, train: TrainConfig, rules: Rules) -> Callable[[TrainState, Batch], Metrics]:
    """`(state, batch) -> metrics`, dropout off."""

    def step(state: TrainState, batch: Batch) -> Metrics:
        logits_BTV = _logits(config, rules, state.params, batch)
        return _loss_metrics(next_token_loss(logits_BTV, batch, z_loss=train.z_loss))

    return step


def _loss_metrics(terms: LossTerms) -> Metrics:
    metrics = {
        "loss": terms.loss,
        "xent_sum": terms.xent_sum,
        "z_loss_sum": terms.z_loss_sum,
        "total_weights": terms.total_weights,
    }
    balance = terms.load_balance_loss
    return metrics if balance is None else metrics | {"load_balance_loss": balance}


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
        return decode(params, cache, tokens_B1, positions_B1, jnp.ones_like(tokens_B1))

    return run
