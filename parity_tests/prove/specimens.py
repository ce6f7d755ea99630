"""Small programs that between them hold the primitives of a model's steps: what the attacks mutate."""

import jax
import jax.numpy as jnp
import numpy as np

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


TABLE = np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(3, 4)  # captured, not an argument


def loops(w, x, start):
    """A nested scan with rows, stacked results and a reversed reader; carries that swap, count and never change."""

    def inner(c, row):
        return c * row + start, c - row

    def outer(carry, row):
        a, b, count, fixed = carry
        total, stacked = jax.lax.scan(inner, a, row, reverse=True)
        return (b + total, a * fixed, count + 1, fixed), (stacked, count * 2)

    (a, b, count, _), (rows, counts) = jax.lax.scan(outer, (x, -x, jnp.int32(3), jnp.float32(0.5)), w)
    back, seen = jax.lax.scan(lambda c, r: (c * 0.5 + r.sum(), c), a.sum(), rows, reverse=True)
    settled, _ = jax.lax.scan(lambda c, _: (c * 0.5 + x[1], None), start, None, length=4)
    return a + b * settled, back, seen * count, counts + count + x[0].astype(I32)


def branches(x, which):
    """A switch inside a scan, a conditional over its result, and a while loop whose trips depend on the data."""
    options = (jnp.sin, lambda v: v * TABLE[0], lambda v: v + 1.0)

    def body(carry, row):
        return jax.lax.switch((which + carry[1]) % 3, options, carry[0] + row), None

    def step(carry, row):
        value, _ = body(carry, row)
        return (value, carry[1] + 1), value.sum()

    (value, _), sums = jax.lax.scan(step, (x[0], jnp.int32(0)), x)
    chosen = jax.lax.cond(which > 1, lambda v, s: v * s, lambda v, s: v - s, value, sums[0])
    trips = jax.lax.while_loop(lambda c: (c[0] < 9) & (c[1] < 40.0), lambda c: (c[0] + 1, c[1] * 2 + c[0]),
                               (which % 5, jnp.abs(sums[1])))  # fmt: skip
    return chosen, trips


@jax.custom_vjp
def _clipped(x, limit):
    return jnp.clip(x, -limit, limit)


_clipped.defvjp(lambda x, limit: (_clipped(x, limit), (x, limit)),
                lambda saved, g: (g * (jnp.abs(saved[0]) < saved[1]), -g.sum() * 0.5))  # fmt: skip


@jax.custom_jvp
def _soft(x):
    return jnp.log1p(jnp.exp(x))


_soft.defjvp(lambda primals, tangents: (_soft(primals[0]), tangents[0] * jax.nn.sigmoid(primals[0]) * 2.0))


def derivatives(x, limit):
    """Custom rules, taken and not taken, over a captured array."""
    plain = _soft(_clipped(x, limit)) * TABLE
    return plain, jax.grad(lambda x, limit: jnp.sum(_soft(_clipped(x, limit)) * TABLE), argnums=(0, 1))(x, limit)


def sampling(key, x):
    """Dropout from split and folded keys, one of them read twice."""
    first, second, third = jax.random.split(key, 3)
    kept = jax.random.bernoulli(first, 0.75, x.shape)
    noise = jax.random.uniform(jax.random.fold_in(second, 7), x.shape)
    again = jax.random.bernoulli(first, 0.5, x.shape)

    def body(c, k):
        return c * 0.5 + jax.random.uniform(k, c.shape), None

    walked, _ = jax.lax.scan(body, x, jax.random.split(third, 3))
    return jnp.where(kept, x / 0.75, 0.0) + noise, jnp.where(again, x, -x), walked


def indexing(x, index, small):
    """Gathers and scatters of several modes, slices, pads, sorts, arg-reductions, running sums both ways."""
    rows = jnp.take(x, index, axis=0, mode="fill", fill_value=-2.0)
    clipped = jnp.take(x, index, axis=1, mode="clip")
    put = x.at[index].add(small, mode="drop").at[1:3, ::2].set(0.5).at[:, 0].max(small[0, 0])
    window = jax.lax.dynamic_slice(x, (index[0], index[1]), (2, 2))
    padded = jax.lax.pad(window, jnp.float32(1.0), ((1, 0, 1), (0, 2, 0)))
    order = jax.lax.sort((x[:, 0], x[:, 1], x[:, 2]), num_keys=2)
    best, where = jax.lax.top_k(x, 2)
    running = jnp.cumsum(x, axis=1) + jax.lax.cumsum(x, axis=1, reverse=True) + jax.lax.cummax(x, axis=0)
    return rows, clipped, put, padded, order, best, where, running, jnp.argmin(x, axis=1), jnp.flip(x, 0)


def numbers(x, n, u):
    """Integers of both signs, bits, roundings, precisions and the less usual functions."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    mixed = ((bits >> 3) ^ u) | (u << 2) & ~bits
    whole = (n // 3) * 5 - n % 7 + jax.lax.population_count(n)
    parts = jnp.clip(x, -1.5, 2.5) + jax.lax.reduce_precision(x, 5, 10) + jnp.round(x) * jnp.floor(x)
    curves = jax.lax.erf(x) + jax.lax.expm1(x) * jax.lax.log1p(jnp.abs(x)) + x**3 + jnp.arctan2(x, 2.0)
    tests = jnp.isfinite(x) & (x >= 0.5) | (n[:3] <= 2)
    return mixed, whole, parts + curves.astype(jnp.bfloat16).astype(F32), tests, jnp.prod(n), jnp.any(tests)


def convolution(x, kernel):
    """A strided, dilated convolution, a pooling, and products with batch dimensions in several orders."""
    y = jax.lax.conv_general_dilated(x, kernel, (1, 2), ((1, 0), (0, 1)), rhs_dilation=(1, 2))
    pooled = jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (1, 1, 2, 1), (1, 1, 1, 1), "VALID")
    left = jnp.einsum("bchw,bdhw->bcd", y, y)
    return pooled, left, jnp.einsum("bcd,bde->ebc", left, jnp.swapaxes(left, 1, 2), precision="high")


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
    "loops": (loops, _abstract(((3, 2, 2), F32), ((2,), F32), ((), F32))),
    "branches": (branches, _abstract(((3, 4), F32), ((), I32))),
    "derivatives": (derivatives, _abstract(((3, 4), F32), ((), F32))),
    "sampling": (sampling, (jax.eval_shape(lambda: jax.random.key(0)), *_abstract(((2, 3), F32)))),
    "indexing": (indexing, _abstract(((4, 4), F32), ((3,), I32), ((3, 4), F32))),
    "numbers": (numbers, _abstract(((3,), F32), ((4,), I32), ((3,), jnp.uint32))),
    "convolution": (convolution, _abstract(((2, 3, 4, 5), F32), ((4, 3, 2, 2), F32))),
}
