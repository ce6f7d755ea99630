"""Small programs that between them hold the primitives of a model's steps: what the attacks mutate."""

import jax
import jax.numpy as jnp

F32, I32 = jnp.float32, jnp.int32


def _abstract(*shapes):
    return tuple(jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes)


def _layer(x, w):
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-6)
    return x + jax.nn.silu((x * scale) @ w)


def stack(w, x):
    """A scanned residual stack and its gradients."""

    def loss(w, x):
        y, _ = jax.lax.scan(lambda x, w: (_layer(x, w), None), x, w)
        return jnp.sum(jnp.tanh(y) * 0.5)

    return jax.value_and_grad(loss, argnums=(0, 1))(w, x)


def remat_stack(w, x):
    """The same with the layer rematerialised."""

    def loss(w, x):
        y, _ = jax.lax.scan(lambda x, w: (jax.checkpoint(_layer)(x, w), None), x, w)
        return jnp.sum(jnp.tanh(y) * 0.5)

    return jax.value_and_grad(loss, argnums=(0, 1))(w, x)


def attention(q, k, v, positions):
    """Masked attention in bfloat16 with float32 logits, and a rotary-like rotation."""
    angle = positions[:, None] / jnp.float32(100.0) ** (jnp.arange(2, dtype=F32) / 2)
    first, second = jnp.split(q.astype(F32), 2, axis=-1)
    rotated = jnp.concatenate([first * jnp.cos(angle) - second * jnp.sin(angle), second * jnp.cos(angle)], -1)
    logits = jnp.einsum("th,sh->ts", rotated.astype(jnp.bfloat16), k, preferred_element_type=F32)
    mask = jnp.arange(3)[None] <= jnp.arange(3)[:, None]
    weights = jax.nn.softmax(jnp.where(mask, logits * 0.25, -jnp.inf), axis=-1)
    return weights.astype(v.dtype) @ v


def cross_entropy(table, tokens, targets):
    """Embedding look-up, log-sum-exp, gather of the targets, and the scatter of the gradient."""

    def loss(table):
        logits = table[tokens] @ table.T
        picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - picked)

    return jax.value_and_grad(loss)(table)


def optimizer(param, grad, mu, count):
    """One moment's update with bias correction, clipping and a counter."""
    count = count + 1
    norm = jnp.sqrt(jnp.sum(grad * grad))
    grad = jnp.where(norm < 1.0, grad, grad / norm)
    mu = 0.9 * mu + 0.1 * grad
    step = mu / (1 - jnp.float32(0.9) ** count)
    return param - 1e-3 * (step + 0.1 * param), mu, count


def search(x, limit):
    """A while loop with two carries, a conditional, integers."""

    def body(carry):
        i, value = carry
        return i + 1, jax.lax.cond(i % 2 == 0, lambda v: v * 2 + 1, lambda v: v - 3, value)

    i, value = jax.lax.while_loop(lambda carry: carry[0] < limit % 7, body, (0, x))
    return i, value


def cache(keys, new, start):
    """A dynamic update, a transpose, a cumulative sum and a sort."""
    keys = jax.lax.dynamic_update_slice(keys, new, (start, 0))
    return jnp.cumsum(keys.T, axis=1), jnp.sort(keys, axis=0), jnp.argmax(keys, axis=1)


SPECIMENS = {
    "stack": (stack, _abstract(((3, 4, 4), F32), ((2, 4), F32))),
    "remat_stack": (remat_stack, _abstract(((3, 4, 4), F32), ((2, 4), F32))),
    "attention": (
        attention,
        _abstract(((3, 4), jnp.bfloat16), ((3, 4), jnp.bfloat16), ((3, 4), jnp.bfloat16), ((3,), F32)),
    ),
    "cross_entropy": (cross_entropy, _abstract(((5, 4), F32), ((2, 3), I32), ((2, 3), I32))),
    "optimizer": (optimizer, _abstract(((3, 2), F32), ((3, 2), F32), ((3, 2), F32), ((), I32))),
    "search": (search, _abstract(((), I32), ((), I32))),
    "cache": (cache, _abstract(((4, 3), F32), ((2, 3), F32), ((), I32))),
}
