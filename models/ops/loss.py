"""The loss of each token. How tokens are weighed and summed is `models.training.objectives`.

Axes: `B` batch, `T` position, `V` vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenLoss:
    """Per-token losses, each float32 `[b, t]`: the cross entropy without, and the weighted z-loss on its own."""

    xent_BT: Float[Array, "b t"]
    z_loss_BT: Float[Array, "b t"]


def cross_entropy(logits_BTV: Float[Array, "b t v"], targets_BT: Int[Array, "b t"], *, z_loss: float) -> TokenLoss:
    """`log Z - logits[target]` and `z_loss * (log Z)**2`, with `Z = sum(exp(logits))`.

    The peak is subtracted before anything is summed, so an offset that all logits share costs no digits.

    Source: Chowdhery et al., "PaLM", section 5 (z-loss).
    """
    peak_BT1 = lax.stop_gradient(logits_BTV.max(axis=-1, keepdims=True))
    shifted_BTV = logits_BTV - peak_BT1
    log_sum_BT = jax.nn.logsumexp(shifted_BTV, axis=-1)
    target_BT = jnp.take_along_axis(shifted_BTV, targets_BT[:, :, None], axis=-1)[:, :, 0]
    log_z_BT = log_sum_BT + peak_BT1[:, :, 0]
    return TokenLoss(xent_BT=log_sum_BT - target_BT, z_loss_BT=z_loss * jnp.square(log_z_BT))
