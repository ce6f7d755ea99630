"""What training minimizes, from logits and a batch. No differentiation here: that is a twin's."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..ops import cross_entropy
from .batch import Batch

# Keeps a batch without a single target finite: its loss is 0, not 0 / 0.
_EPSILON = 1e-8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossTerms:
    """Float32 scalars. `loss = (xent_sum + z_loss_sum) / (total_weights + 1e-8)`."""

    loss: Float[Array, ""]
    xent_sum: Float[Array, ""]
    z_loss_sum: Float[Array, ""]
    total_weights: Float[Array, ""]


def next_token_loss(logits: Float[Array, "b t v"], batch: Batch, *, z_loss: float) -> LossTerms:
    """Mean cross entropy and z-loss of the tokens whose target is not padding."""
    tokens = cross_entropy(logits, batch.targets, z_loss=z_loss)
    counted_BT = batch.target_segment_ids != 0
    xent_sum = jnp.where(counted_BT, tokens.xent_BT, 0.0).sum()
    z_loss_sum = jnp.where(counted_BT, tokens.z_loss_BT, 0.0).sum()
    total_weights = counted_BT.astype(jnp.float32).sum()
    return LossTerms((xent_sum + z_loss_sum) / (total_weights + _EPSILON), xent_sum, z_loss_sum, total_weights)
