"""Oracles of `models.training`: NumPy float64 in plain loops, written from the source each names."""

import math

import numpy as np

from models.config import AdamW

from . import oracles

EPSILON = 1e-8


def next_token_loss(
    logits: np.ndarray, targets: np.ndarray, target_segment_ids: np.ndarray, *, z_loss: float
) -> tuple[float, float, float, float]:
    """`(loss, xent_sum, z_loss_sum, total_weights)`. Source: row F1 of the original's features: mask, sum, divide."""
    xent, z_losses = oracles.cross_entropy(logits, targets, z_loss=z_loss)
    xent_sum = z_loss_sum = total_weights = 0.0
    for b, t in np.ndindex(*targets.shape):
        if target_segment_ids[b, t] != 0:
            xent_sum += xent[b, t]
            z_loss_sum += z_losses[b, t]
            total_weights += 1.0
    return (xent_sum + z_loss_sum) / (total_weights + EPSILON), xent_sum, z_loss_sum, total_weights


def with_load_balance(loss: float, load_balances: list[list[float]], *, weight: float) -> tuple[float, float]:
    """`(loss, load_balance_loss)`. Source: Fedus et al., "Switch Transformers", eq. 4: alpha times each layer's loss.

    The mean over the layers stands where that paper has the sum.
    """
    total = count = 0.0
    for layers in load_balances:
        for value in layers:
            total += value
            count += 1.0
    return loss + weight * total / count, weight * total / count


def schedule(optimizer: AdamW, step: int) -> float:
    """Source: Loshchilov and Hutter, "SGDR", eq. 5 without restarts; linear warm-up: Goyal et al., section 2.2."""
    peak, final = optimizer.peak_learning_rate, optimizer.peak_learning_rate * optimizer.final_fraction
    if step < optimizer.warmup_steps:
        return peak * (step + 1) / (optimizer.warmup_steps + 1)
    if step >= optimizer.decay_steps:
        return final
    done = (step - optimizer.warmup_steps) / (optimizer.decay_steps - optimizer.warmup_steps)
    return final + 0.5 * (peak - final) * (1.0 + math.cos(math.pi * done))


def make_optimizer(optimizer: AdamW, param: np.ndarray, grads: list[np.ndarray]) -> np.ndarray:
    """The parameter after one step per gradient. Source: "Decoupled Weight Decay Regularization", algorithm 2."""
    out, first, second = np.array(param), np.zeros(param.shape), np.zeros(param.shape)
    for step, grad in enumerate(grads):
        rate = schedule(optimizer, step)
        for index in np.ndindex(*param.shape):
            first[index] = optimizer.b1 * first[index] + (1 - optimizer.b1) * grad[index]
            second[index] = optimizer.b2 * second[index] + (1 - optimizer.b2) * grad[index] ** 2
            mean = first[index] / (1 - optimizer.b1 ** (step + 1))
            square = second[index] / (1 - optimizer.b2 ** (step + 1))
            adam = mean / (math.sqrt(square) + optimizer.epsilon)
            out[index] -= rate * (adam + optimizer.weight_decay * out[index])
    return out


def clip_by_global_norm(grads: list[np.ndarray], max_norm: float | None) -> tuple[list[np.ndarray], float]:
    """Source: Pascanu et al., "On the difficulty of training recurrent neural networks", algorithm 1."""
    norm = math.sqrt(math.fsum(value * value for grad in grads for value in grad.flat))
    if max_norm is None or norm <= max_norm:
        return grads, norm
    return [grad * (max_norm / norm) for grad in grads], norm
