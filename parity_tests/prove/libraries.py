"""Families like those of `families`: linear algebra, neural networks, randomness, layers and optimizers."""

import jax
import jax.extend
import jax.numpy as jnp
import optax
from flax import linen, nnx
from jax import lax

from .families import IMAGE, KEY, RAW, SQ, Family, N, V, X, Y, of, respelled, spec


def _linen(module, other, x=X):
    """A layer's forward pass and gradient over its own parameters."""
    shapes = jax.eval_shape(module.init, KEY, x)

    def run(layer):
        return lambda params, x: jax.grad(lambda p: (layer.apply(p, x) ** 2).sum())(params)

    return Family(run(module), respelled(run(module)), run(other), (shapes, x))


def _nnx(make, other, x=X):
    """The same for an NNX layer, split into its graph and its state."""

    def run(make):
        graph = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))[0]
        return lambda state, x: jax.grad(lambda s: (nnx.merge(graph, s)(x) ** 2).sum())(state)

    state = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))[1]
    return Family(run(make), respelled(run(make)), run(other), (nnx.to_pure_dict(state), x))


def _optax(transform, other):
    """Two updates of an optimizer."""

    def run(transform):
        def step(grads, params):
            state = transform.init(params)
            for _ in range(2):
                updates, state = transform.update(grads, state, params)
                params = optax.apply_updates(params, updates)
            return params

        return step

    return Family(run(transform), respelled(run(transform)), run(other), ({"w": X, "b": V}, {"w": X, "b": V}))


def _spd(x):
    return x @ x.T + jnp.eye(4)


LINALG = {
    "cholesky": of(lambda x: jnp.linalg.cholesky(_spd(x)), lambda x: jnp.linalg.cholesky(_spd(x) * 2), SQ),
    "qr": of(lambda x: jnp.linalg.qr(x)[0], lambda x: jnp.linalg.qr(x)[1], SQ),
    "svd": of(lambda x: jnp.linalg.svd(x)[0], lambda x: jnp.linalg.svd(x)[2], SQ),
    "eigh": of(lambda x: jnp.linalg.eigh(_spd(x))[1], lambda x: jnp.linalg.eigh(_spd(x))[1].T, SQ),
    "eig": of(lambda x: jnp.linalg.eig(x)[1], lambda x: jnp.linalg.eig(x.T)[1], SQ),
    "schur": of(lambda x: jax.scipy.linalg.schur(x)[0], lambda x: jax.scipy.linalg.schur(x)[1], SQ),
    "hessenberg": of(lambda x: lax.linalg.hessenberg(x)[0], lambda x: lax.linalg.hessenberg(x.T)[0], SQ),
    "tridiagonal": of(
        lambda x: lax.linalg.tridiagonal(_spd(x))[0], lambda x: lax.linalg.tridiagonal(_spd(x), lower=False)[0], SQ
    ),
    "tridiagonal_solve": of(
        lambda x: lax.linalg.tridiagonal_solve(x[0], x[1], x[2], x[:, :1]),
        lambda x: lax.linalg.tridiagonal_solve(x[2], x[1], x[0], x[:, :1]),
        SQ,
    ),
    "cholesky_update": of(
        lambda x: lax.linalg.cholesky_update(x, x[0]), lambda x: lax.linalg.cholesky_update(x, x[1]), SQ
    ),
    "symmetric_product": of(
        lambda x: lax.linalg.symmetric_product(x, x, alpha=1.0, beta=0.0),
        lambda x: lax.linalg.symmetric_product(x, x, alpha=2.0, beta=0.0),
        SQ,
    ),
    "householder": of(
        lambda x: lax.linalg.householder_product(x, x[0]), lambda x: lax.linalg.householder_product(x, x[1]), SQ
    ),
    "qr pivoting": of(lambda x: jax.scipy.linalg.qr(x, pivoting=True)[0], lambda x: jax.scipy.linalg.qr(x)[0], SQ),
    "solve": of(lambda x, v: jnp.linalg.solve(x, v), lambda x, v: jnp.linalg.solve(x.T, v), SQ, spec(4)),
    "solve_triangular": of(
        lambda x: jax.scipy.linalg.solve_triangular(x, x[0], lower=True),
        lambda x: jax.scipy.linalg.solve_triangular(x, x[0], lower=False),
        SQ,
    ),
    "triangular_solve": of(
        lambda x: lax.linalg.triangular_solve(x, x * x, left_side=True, lower=True, unit_diagonal=True),
        lambda x: lax.linalg.triangular_solve(x, x * x, left_side=True, lower=True, unit_diagonal=False),
        SQ,
    ),
    "triangular_solve gradient": of(
        jax.grad(lambda x: lax.linalg.triangular_solve(x, x * x, left_side=True, lower=True, unit_diagonal=True).sum()),
        jax.grad(lambda x: lax.linalg.triangular_solve(x, x * x, left_side=True, unit_diagonal=True).sum()),
        SQ,
    ),
    "inv": of(jnp.linalg.inv, lambda x: jnp.linalg.inv(x).T, SQ),
    "det": of(jnp.linalg.det, lambda x: jnp.linalg.det(x + 1), SQ),
    "cg": of(
        lambda x, v: jax.scipy.sparse.linalg.cg(lambda y: _spd(x) @ y, v, maxiter=3)[0],
        lambda x, v: jax.scipy.sparse.linalg.cg(lambda y: _spd(x) @ y, v, maxiter=4)[0],
        SQ,
        spec(4),
    ),
    "fft": of(lambda x: jnp.fft.rfft(x).real, lambda x: jnp.fft.rfft(x).imag),
    "ifft": of(lambda x: jnp.fft.irfft(jnp.fft.rfft(x)), lambda x: jnp.fft.irfft(jnp.fft.rfft(x), 6) * 2),
}

NN = {
    **{
        f"jax.nn.{name}": of(getattr(jax.nn, name), lambda x: jax.nn.relu(x) + 1.0)
        for name in (
            "gelu",
            "silu",
            "softplus",
            "elu",
            "selu",
            "celu",
            "glu",
            "leaky_relu",
            "softmax",
            "log_softmax",
            "standardize",
            "logsumexp",
            "relu6",
            "hard_tanh",
            "squareplus",
            "mish",
            "log_sigmoid",
        )
    },
    "attention": of(
        lambda q: jax.nn.dot_product_attention(q, q, q, is_causal=True),
        lambda q: jax.nn.dot_product_attention(q, q, q),
        spec(2, 5, 4, 8),
    ),
    "one_hot": of(lambda n: jax.nn.one_hot(n, 5), lambda n: jax.nn.one_hot(n + 1, 5), N),
    "image.resize": of(
        lambda x: jax.image.resize(x, (2, 4, 4, 3), "bilinear"),
        lambda x: jax.image.resize(x, (2, 4, 4, 3), "nearest"),
        IMAGE,
    ),
    "scipy.special": of(jax.scipy.special.logsumexp, lambda x: jax.scipy.special.logsumexp(x * 2)),
    "scipy.stats": of(jax.scipy.stats.norm.logpdf, jax.scipy.stats.norm.logcdf),
    "scipy.gamma": of(jax.scipy.special.gammainc, jax.scipy.special.gammaincc, X, Y),
    "interpolation": of(
        lambda x: jax.scipy.ndimage.map_coordinates(x, [x[0], x[1]], 1),
        lambda x: jax.scipy.ndimage.map_coordinates(x, [x[1], x[0]], 1),
    ),
}


def _draw(name, **options):
    return of(
        lambda key: getattr(jax.random, name)(key, shape=(3,), **options) * 1.5,
        lambda key: getattr(jax.random, name)(key, shape=(3,), **options) * 2.5,
        KEY,
    )


RANDOM = {
    **{f"random.{name}": _draw(name) for name in ("bits", "uniform", "normal", "bernoulli", "gumbel", "exponential")},
    "random.categorical": of(
        lambda key, x: jax.random.categorical(key, x), lambda key, x: jax.random.categorical(key, -x), KEY, X
    ),
    "random.permutation": of(
        lambda key, x: jax.random.permutation(key, x), lambda key, x: jax.random.permutation(key, x, axis=1), KEY, X
    ),
    "random.truncated_normal": of(
        lambda key: jax.random.truncated_normal(key, -1.0, 1.0, (3,)),
        lambda key: jax.random.truncated_normal(key, -1.0, 2.0, (3,)),
        KEY,
    ),
    "random.randint": of(
        lambda key: jax.random.randint(key, (3,), 0, 5), lambda key: jax.random.randint(key, (3,), 0, 6), KEY
    ),
    "random.gamma": of(lambda key, v: jax.random.gamma(key, v), lambda key, v: jax.random.gamma(key, v + 1), KEY, V),
    "raw key": of(
        lambda raw, x: x * jax.random.normal(jax.random.split(raw)[0], (6,)),
        lambda raw, x: x + jax.random.normal(jax.random.split(raw)[0], (6,)),
        RAW,
        X,
    ),
    "wrapped key": Family(
        lambda raw, x: x * jax.random.normal(jax.random.wrap_key_data(raw), (6,)),
        lambda raw, x: x * jax.random.normal(raw, (6,)),
        lambda raw, x: x * jax.random.uniform(jax.random.wrap_key_data(raw), (6,)),
        (RAW, X),
    ),
    "key data": Family(
        lambda raw: jax.random.key_data(jax.random.wrap_key_data(raw)) + 1,
        lambda raw: raw + 1,
        lambda raw: jax.random.key_data(jax.random.fold_in(jax.random.wrap_key_data(raw), 1)) + 1,
        (RAW,),
    ),
    "seed": of(
        lambda n: jax.random.key_data(jax.random.key(n[0])), lambda n: jax.random.key_data(jax.random.key(n[1])), N
    ),
    "clone": of(
        lambda key: jax.random.uniform(jax.random.clone(key)) * 2,
        lambda key: jax.random.uniform(jax.random.clone(key)) * 3,
        KEY,
    ),
    "threefry2x32": of(
        lambda raw, n: jax.extend.random.threefry_2x32(raw, n.astype(jnp.uint32)),
        lambda raw, n: jax.extend.random.threefry_2x32(raw[::-1], n.astype(jnp.uint32)),
        RAW,
        N,
    ),
    "rng_bit_generator": of(
        lambda raw: lax.rng_bit_generator(jnp.tile(raw, 2), (3,))[1],
        lambda raw: lax.rng_bit_generator(jnp.tile(raw, 2) + 1, (3,))[1],
        RAW,
    ),
}

LAYERS = {
    "linen.Dense": _linen(linen.Dense(5), linen.Dense(5, use_bias=True, precision="default")),
    "linen.LayerNorm": _linen(linen.LayerNorm(), linen.LayerNorm(epsilon=1e-3)),
    "linen.Conv": _linen(linen.Conv(4, (3,)), linen.Conv(4, (3,), padding="CIRCULAR"), spec(2, 8, 3)),
    "linen.attention": _linen(
        linen.MultiHeadDotProductAttention(2), linen.MultiHeadDotProductAttention(2, precision="default"), spec(2, 5, 4)
    ),
    "nnx.Linear": _nnx(
        lambda rngs: nnx.Linear(6, 5, rngs=rngs), lambda rngs: nnx.Linear(6, 5, precision="default", rngs=rngs)
    ),
    "nnx.RMSNorm": _nnx(lambda rngs: nnx.RMSNorm(6, rngs=rngs), lambda rngs: nnx.RMSNorm(6, epsilon=1e-3, rngs=rngs)),
    "optax.adamw": _optax(optax.adamw(1e-3), optax.adamw(1e-3, b2=0.99)),
    "optax.lion": _optax(optax.lion(1e-3), optax.lion(1e-3, b1=0.8)),
    "optax.adafactor": _optax(optax.adafactor(1e-3), optax.adafactor(1e-3, decay_rate=0.7)),
    "optax.clip": _optax(
        optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9)),
        optax.chain(optax.clip_by_global_norm(2.0), optax.sgd(0.1, momentum=0.9)),
    ),
    "optax.lamb": _optax(optax.lamb(1e-3), optax.lamb(1e-2)),
}

LIBRARIES = LINALG | NN | RANDOM | LAYERS
