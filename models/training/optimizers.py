"""The learning-rate schedule, AdamW and gradient clipping. State layouts are optax's own."""

import dataclasses
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ..config import AdamW

Grads = typing.TypeVar("Grads")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Clipped(typing.Generic[Grads]):
    """Gradients after clipping, and their global norm before it (float32)."""

    grads: Grads
    norm: Float[Array, ""]


def schedule(optimizer: AdamW) -> Callable[[ArrayLike], Float[Array, ""]]:
    """Linear warm-up to the peak at step `warmup_steps`, then half a cosine to `final_fraction` at `decay_steps`.

    Step 0 has `1 / (warmup_steps + 1)` of the peak, not zero: the first update is never lost.
    Written out because optax's own cosine does not survive strict dtype promotion.
    """
    warmup, decay = optimizer.warmup_steps, optimizer.decay_steps
    peak, final = optimizer.peak_learning_rate, optimizer.final_fraction

    def rate(count: ArrayLike) -> Float[Array, ""]:
        step = jnp.asarray(count).astype(jnp.float32)
        progress = jnp.clip((step - warmup) / (decay - warmup), 0.0, 1.0)
        cosine = final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        return peak * jnp.where(step < warmup, (step + 1.0) / (warmup + 1.0), cosine)

    return rate


def make_optimizer(optimizer: AdamW) -> optax.GradientTransformation:
    """AdamW under `schedule`. Clipping is not part of it: a step clips, and reports the norm, before the update.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", algorithm 2.
    """
    return optax.adamw(
        schedule(optimizer),
        b1=optimizer.b1,
        b2=optimizer.b2,
        eps=optimizer.epsilon,
        weight_decay=optimizer.weight_decay,
    )


def clip_by_global_norm(grads: Grads, max_norm: float | None) -> Clipped[Grads]:
    """Scale all gradients by `max_norm / norm` where their joint norm exceeds `max_norm`; `None` only measures.

    Squares are summed in float32 whatever the leaves' dtype; leaves keep theirs.

    Source: Pascanu et al., "On the difficulty of training recurrent neural networks", algorithm 1.
    """
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(grads)))
    if max_norm is None:
        return Clipped(grads, norm)
    factor = jnp.where(norm > max_norm, max_norm / norm, 1.0)
    return Clipped(jax.tree.map(lambda leaf: (leaf.astype(jnp.float32) * factor).astype(leaf.dtype), grads), norm)
