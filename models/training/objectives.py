"""What training minimizes, from logits, a batch and what layers report. No differentiation here: that is a twin's."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..config import ConfigError, ModelConfig, Moe, TrainConfig
from ..ops import cross_entropy
from .batch import Batch

# Keeps a batch without a single target finite: its loss is 0, not 0 / 0.
_EPSILON = 1e-8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossTerms:
    """Float32 scalars. `loss = (xent_sum + z_loss_sum) / (total_weights + 1e-8)`, plus `load_balance_loss` if given."""

    loss: Float[Array, ""]
    xent_sum: Float[Array, ""]
    z_loss_sum: Float[Array, ""]
    total_weights: Float[Array, ""]
    load_balance_loss: Float[Array, ""] | None = None


def next_token_loss(logits: Float[Array, "b t v"], batch: Batch, *, z_loss: float) -> LossTerms:
    """Mean cross entropy and z-loss of the tokens whose target is not padding."""
    tokens = cross_entropy(logits, batch.targets, z_loss=z_loss)
    counted_BT = batch.target_segment_ids != 0
    xent_sum = jnp.where(counted_BT, tokens.xent_BT, 0.0).sum()
    z_loss_sum = jnp.where(counted_BT, tokens.z_loss_BT, 0.0).sum()
    total_weights = counted_BT.astype(jnp.float32).sum()
    return LossTerms((xent_sum + z_loss_sum) / (total_weights + _EPSILON), xent_sum, z_loss_sum, total_weights)


def with_load_balance(
    terms: LossTerms, load_balances: Mapping[str, Float[Array, "..."]], *, weight: float
) -> LossTerms:
    """The terms with `weight` times the mean over all layers of their load-balance losses added to the loss.

    `load_balances` has a scalar for each layer, or a vector for stacked ones, by name: added in the names' order,
    whatever the order in which a model made them.
    """
    losses = jnp.concatenate([jnp.ravel(load_balances[name]) for name in sorted(load_balances)])
    load_balance_loss = weight * losses.mean()
    return dataclasses.replace(terms, loss=terms.loss + load_balance_loss, load_balance_loss=load_balance_loss)


def check_balancing(config: ModelConfig, train: TrainConfig) -> None:
    """Refuses to balance experts that the model does not have.

    Raises:
        ConfigError: naming the setting that would do nothing.
    """
    layers = config.cycle if config.prefix is None else (config.prefix, *config.cycle)
    moes = [moe for moe in map(config.mlp_of, layers) if isinstance(moe, Moe)]
    if train.load_balance_weight and not moes:
        rule = "needs a model with a mixture of experts"
        raise ConfigError("load_balance_weight", train.load_balance_weight, rule, "set it to 0.0")
    if train.choice_bias_rate and not any(moe.router.choice_bias for moe in moes):
        rule = "needs a model whose router has a choice bias"
        raise ConfigError("choice_bias_rate", train.choice_bias_rate, rule, "set it to 0.0, or router.choice_bias")
