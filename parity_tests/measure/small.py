"""A two-layer classifier's SGD step: one function, its options (honest and faulty), and NumPy's answer in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from harness import Program

ROWS, WIDTH, HIDDEN, CLASSES = 6, 10, 12, 5


def sample(key):
    """Parameters and a batch, every leaf drawn."""
    keys = jax.random.split(key, 5)
    params = {
        "w1": jax.random.normal(keys[0], (WIDTH, HIDDEN)) * 0.3,
        "b1": jax.random.normal(keys[1], (HIDDEN,)) * 0.3,
        "w2": jax.random.normal(keys[2], (HIDDEN, CLASSES)) * 0.3,
    }
    return params, jax.random.normal(keys[3], (ROWS, WIDTH)), jax.random.randint(keys[4], (ROWS,), 0, CLASSES)


ABSTRACT = jax.eval_shape(sample, jax.random.key(0))


def step_fn(*, epsilon=0.25, bias=True, scale=1.0, shift=0, softmax_dtype=jnp.float32, swapped=False, root=False):
    """The step as a function of (params, x, labels): the loss and the updated parameters."""

    def loss_of(params, x, labels):
        square = jnp.mean(jnp.square(x), -1, keepdims=True) + epsilon
        normed = x / jnp.sqrt(square) if root else x * jax.lax.rsqrt(square)
        hidden = (params["w1"].T @ normed.T).T if swapped else normed @ params["w1"]
        hidden = jnp.tanh(hidden + params["b1"] if bias else hidden) * scale
        logits = hidden @ params["w2"]
        logits = jnp.where(jnp.arange(CLASSES) < CLASSES - shift, logits, -1e9)
        log_probabilities = jax.nn.log_softmax(logits.astype(softmax_dtype)).astype(jnp.float32)
        return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[:, None], -1))

    def step(params, x, labels):
        loss, grads = jax.value_and_grad(loss_of)(params, x, labels)
        return {"loss": loss, "params": jax.tree.map(lambda p, g: p - 0.5 * g, params, grads)}

    return step


def program(**options):
    """The step as a Program that can draw."""
    return Program(step_fn(**options), ABSTRACT, sample=sample, name=", ".join(options) or "reference")


def numpy_step(params, x, labels):
    """The same step, forward and backward by hand, in float64."""
    w1, b1, w2 = (np.asarray(params[name], np.float64) for name in ("w1", "b1", "w2"))
    x, labels = np.asarray(x, np.float64), np.asarray(labels)
    normed = x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 0.25)
    hidden = np.tanh(normed @ w1 + b1)
    logits = hidden @ w2
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = weights / weights.sum(-1, keepdims=True)
    loss = -np.mean(np.log(probabilities[np.arange(ROWS), labels]))
    d_logits = (probabilities - np.eye(CLASSES)[labels]) / ROWS
    d_hidden = (d_logits @ w2.T) * (1 - hidden**2)
    grads = {"w1": normed.T @ d_hidden, "b1": d_hidden.sum(0), "w2": hidden.T @ d_logits}
    return {"loss": loss, **{f"params/{k}": v - 0.5 * grads[k] for k, v in {"w1": w1, "b1": b1, "w2": w2}.items()}}
