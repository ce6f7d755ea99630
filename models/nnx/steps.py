"""The steps of the NNX twin: pure functions of parameters or train state, jittable and not jitted.

Each builder fixes config, training and placement; the function it returns holds no arrays.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from ..config import ModelConfig, TrainConfig
from ..protocol import Cache, Intermediates, Metrics, Mode, Params
from ..sharding import DEFAULT_RULES, Rules
from ..training import Batch, LossTerms, clip_by_global_norm, next_token_loss, schedule, with_load_balance
from ..training.objectives import check_balancing
from .model import Output, Transformer
from .state import canonical_params, flatten_cache, flatten_sown, model_structure, nest_cache, train_structure


def apply(config: ModelConfig, *, rules: Rules = DEFAULT_RULES) -> Callable[..., Float[Array, "b t v"]]:
    """`(params, tokens, positions | None, segment_ids | None) -> logits`, dropout off."""
    structure = model_structure(config, rules)

    def run(
        params: Params, tokens: Int[Array, "b t"], positions: Int[Array, "b t"] | None,
        segment_ids: Int[Array, "b t"] | None,
    ) -> Float[Array, "b t v"]:
        return structure.merge(params)(tokens, positions=positions, segment_ids=segment_ids).logits

    return run


def forward(config: ModelConfig, *, rules: Rules = DEFAULT_RULES) -> Callable[[Params, Batch], Array]:
    """`(params, batch) -> logits [b, t, v]`, dropout off."""
    structure = model_structure(config, rules)
    return lambda params, batch: _logits(structure.merge(params), batch, deterministic=True)


def intermediates(
    config: ModelConfig, *, rules: Rules = DEFAULT_RULES
) -> Callable[[Params, Batch], tuple[Array, Intermediates]]:
    """`(params, batch) -> (logits, what the layers sowed by canonical name)`, dropout off."""
    structure = model_structure(config, rules)

    def run(params: Params, batch: Batch) -> tuple[Array, Intermediates]:
        output: Output = structure.merge(params)(
            batch.inputs, positions=batch.positions, segment_ids=batch.segment_ids, record=True
        )
        return output.logits, flatten_sown(output.intermediates)

    return run


def loss_and_grads(
    config: ModelConfig, train: TrainConfig, *, rules: Rules = DEFAULT_RULES
) -> Callable[[Params, Batch, Key[Array, ""] | None], tuple[LossTerms, Params]]:
    """`(params, batch, key) -> (loss terms, gradients by canonical name)`; the key starts the dropout stream."""
    check_balancing(config, train)
    structure = model_structure(config, rules)

    def run(params: Params, batch: Batch, key: Key[Array, ""] | None) -> tuple[LossTerms, Params]:
        if key is None and config.dropout_rate > 0:
            raise ValueError(f"key is None, but dropout_rate = {config.dropout_rate} draws from it: pass a random key")

        def loss(params: Params) -> tuple[Array, LossTerms]:
            terms, _ = _loss_terms(structure.merge(params, key), batch, train)
            return terms.loss, terms

        (_, terms), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return terms, grads

    return run


def train_step(
    config: ModelConfig, train: TrainConfig, *, rules: Rules = DEFAULT_RULES
) -> Callable[[nnx.State, Batch], tuple[nnx.State, Metrics]]:
    """`(state, batch) -> (state, metrics)`: one optimizer update; the state keeps its structure."""
    check_balancing(config, train)
    graphdef, _ = train_structure(config, train, rules)
    learning_rate = schedule(train.optimizer)

    def step(state: nnx.State, batch: Batch) -> tuple[nnx.State, Metrics]:
        train_state = nnx.merge(graphdef, state, copy=True)
        terms, sown, grads = _differentiate(train_state.model, batch, train)
        clipped = clip_by_global_norm(grads, train.optimizer.clip_norm)
        metrics = _loss_metrics(terms)
        metrics["grad_norm"] = clipped.norm
        # The schedule's own count, so that this is the rate of this update.
        metrics["learning_rate"] = learning_rate(train_state.optimizer.opt_state[2].count[...])
        train_state.apply_gradients(clipped.grads)
        if train.choice_bias_rate:
            train_state.balance(sown, train.choice_bias_rate)
        return nnx.state(train_state, nnx.Not(nnx.Intermediate)), metrics

    return step


def _differentiate(
    model: Transformer, batch: Batch, train: TrainConfig
) -> tuple[LossTerms, Intermediates, nnx.State]:
    """Loss terms, what balances experts, and gradients; what else the forward pass changed is written to `model`."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params: nnx.State) -> tuple[Array, tuple[LossTerms, Intermediates, nnx.State]]:
        copy = nnx.merge(graphdef, params, rest, copy=True)
        terms, sown = _loss_terms(copy, batch, train)
        return terms.loss, (terms, sown, nnx.state(copy, nnx.Not(nnx.Param)))

    (_, (terms, sown, rest)), grads = jax.value_and_grad(loss, has_aux=True)(params)
    nnx.update(model, rest)
    return terms, sown, grads


def eval_step(
    config: ModelConfig, train: TrainConfig, *, rules: Rules = DEFAULT_RULES
) -> Callable[[nnx.State, Batch], Metrics]:
    """`(state, batch) -> metrics`: dropout off, nothing drawn, nothing changed."""
    structure = model_structure(config, rules)

    def step(state: nnx.State, batch: Batch) -> Metrics:
        logits_BTV = _logits(structure.merge(canonical_params(state["model"])), batch, deterministic=True)
        return _loss_metrics(next_token_loss(logits_BTV, batch, z_loss=train.z_loss))

    return step


def prefill(
    config: ModelConfig, *, rules: Rules = DEFAULT_RULES
) -> Callable[[Params, Cache, Array, Array, Array], tuple[Array, Cache]]:
    """`(params, cache, tokens, positions, segment_ids) -> (logits, cache)`; padding has segment 0."""
    structure = model_structure(config, rules)

    def run(
        params: Params, cache: Cache, tokens: Int[Array, "b t"], positions: Int[Array, "b t"],
        segment_ids: Int[Array, "b t"],
    ) -> tuple[Float[Array, "b t v"], Cache]:
        output: Output = structure.merge(params)(
            tokens, positions=positions, segment_ids=segment_ids, mode=Mode.DECODE, cache=nest_cache(cache)
        )
        return output.logits, flatten_cache(output.cache)

    return run


def generate(
    config: ModelConfig, *, rules: Rules = DEFAULT_RULES
) -> Callable[[Params, Cache, Array, Array], tuple[Array, Cache]]:
    """`(params, cache, tokens [b, 1], positions [b, 1]) -> (logits, cache)`: one token a row, in segment 1."""
    run = prefill(config, rules=rules)
    return lambda params, cache, tokens, positions: run(
        params, cache, tokens, positions, jnp.ones(tokens.shape, jnp.int32)
    )


def _logits(model: Transformer, batch: Batch, *, deterministic: bool) -> Float[Array, "b t v"]:
    return model(
        batch.inputs, positions=batch.positions, segment_ids=batch.segment_ids, deterministic=deterministic
    ).logits


def _loss_terms(model: Transformer, batch: Batch, train: TrainConfig) -> tuple[LossTerms, Intermediates]:
    """The terms, and what the layers sowed if it balances their experts."""
    if not (train.load_balance_weight or train.choice_bias_rate):
        return next_token_loss(_logits(model, batch, deterministic=False), batch, z_loss=train.z_loss), {}
    output: Output = model(
        batch.inputs, positions=batch.positions, segment_ids=batch.segment_ids, deterministic=False, record=True
    )
    terms, sown = next_token_loss(output.logits, batch, z_loss=train.z_loss), flatten_sown(output.intermediates)
    if train.load_balance_weight:
        losses = {name: value for name, value in sown.items() if name.endswith("/load_balance")}
        terms = with_load_balance(terms, losses, weight=train.load_balance_weight)
    return terms, {name: value for name, value in sown.items() if name.endswith("/expert_counts")}


def _loss_metrics(terms: LossTerms) -> Metrics:
    metrics = {
        "loss": terms.loss,
        "xent_sum": terms.xent_sum,
        "z_loss_sum": terms.z_loss_sum,
        "total_weights": terms.total_weights,
    }
    if terms.load_balance_loss is not None:
        metrics["load_balance_loss"] = terms.load_balance_loss
    return metrics
