"""Functions that wrap functions, move arrays or choose between implementations: families like those of `families`."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.custom_batching import custom_vmap
from jax.experimental import checkify, compute_on
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import AxisType, NamedSharding, reshard
from jax.sharding import PartitionSpec as P

from .families import F32, IMAGE, KEY, RAW, SQ, Family, min_pool, of, spec

X = spec(4, 6)


def _jvp(factor, symbolic=False):
    @functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
    def f(power, x):
        return jnp.sin(x) ** power

    def rule(power, primals, tangents):
        (x,), (t,) = primals, tangents
        return f(power, x), (t * 0 if symbolic and type(t).__name__ == "SymbolicZero" else t * factor * x)

    f.defjvp(rule, symbolic_zeros=symbolic)
    return functools.partial(f, 2)


def _vjp(factor, *, symbolic=False, remat=False):
    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)

    def forward(x):
        x = x.value if symbolic else x
        return f(x), x

    def backward(x, g):
        return (g * factor * x,)

    f.defvjp(forward, backward, symbolic_zeros=symbolic, optimize_remat=remat)
    return f


def _gradient(f):
    return jax.grad(lambda x: (f(x) * 3.0).sum())


@functools.cache
def _mesh(kind=AxisType.Explicit):
    return jax.sharding.AbstractMesh((2,), ("a",), axis_types=(kind,))


def _linear(factor):
    return lambda x: jax.custom_derivatives.linear_call(
        lambda r, y: r * y * factor, lambda r, ct: r * ct * factor, jnp.sin(x), x
    )


def _composite(name, factor=2.0, **attributes):
    return lambda x: lax.composite(lambda x, **_: jnp.sin(x) * factor, name=name)(x, **attributes) + 1.0


def _vmapped(factor):
    @custom_vmap
    def f(x):
        return jnp.sin(x) * factor

    f.def_vmap(lambda size, batched, x: (f(x), batched[0]))
    return f


def _checked(limit):
    def f(x):
        checkify.check(x.sum() > limit, "too small")
        return x * 2.0

    return lambda x: checkify.checkify(f)(x)[1]


def _solve(rounds):
    def solve(matvec, b):
        return lax.fori_loop(0, rounds, lambda _, x: x + (b - matvec(x)), b)

    return lambda x: lax.custom_linear_solve(lambda y: y * x[0], x[1], solve, symmetric=True)


def _root(rounds):
    def solve(f, x):
        return lax.fori_loop(0, rounds, lambda _, x: x - f(x), x)

    return jax.grad(lambda x: lax.custom_root(lambda y: y**3 - x[0, 0], x[0, 1], solve, lambda g, y: y / g(1.0)))


def _while(limit):
    return lambda x: lax.while_loop(lambda c: c[0] < limit, lambda c: (c[0] + 1, c[1] * x), (0, x))[1]


def _at(sharding):
    return lambda x: lax.with_sharding_constraint(x * 2.0, sharding())


def _in(space):
    return lambda x: jax.device_put(x * 2.0, space) + 1.0


WRAPPERS = {
    "custom_jvp": of(_jvp(2.0), lambda x: jnp.sin(x) ** 3, X),
    "custom_jvp gradient": of(_gradient(_jvp(2.0)), _gradient(_jvp(3.0)), X),
    "custom_jvp symbolic zeros": Family(
        _gradient(_jvp(2.0, symbolic=True)), _gradient(_jvp(2.0)), _gradient(_jvp(3.0, symbolic=True)), (X,)
    ),
    "custom_vjp": of(_vjp(2.0), jnp.cos, X),
    "custom_vjp gradient": of(_gradient(_vjp(2.0)), _gradient(_vjp(3.0)), X),
    "custom_vjp symbolic zeros": Family(
        _gradient(_vjp(2.0, symbolic=True)), _gradient(_vjp(2.0)), _gradient(_vjp(3.0, symbolic=True)), (X,)
    ),
    "custom_vjp optimised for remat": Family(
        lambda x: jax.linearize(_vjp(2.0, remat=True), x)[0], _vjp(1.0), jnp.cos, (X,)
    ),
    "remat": Family(_gradient(jax.checkpoint(jnp.sin)), _gradient(jnp.sin), _gradient(jax.checkpoint(jnp.cos)), (X,)),
    "named for remat": of(
        lambda x: checkpoint_name(jnp.sin(x), "name"), lambda x: checkpoint_name(jnp.cos(x), "name"), X
    ),
    "linear_call": Family(_linear(2.0), lambda x: jnp.sin(x) * x * 2.0, _linear(3.0), (X,)),
    "composite": of(_composite("a.b", k=1), _composite("a.c", k=1), X),
    "composite attributes": of(_composite("a.b", k=1), _composite("a.b", k=2), X),
    "composite body": of(_composite("a.b"), _composite("a.b", 3.0), X),
    "custom_vmap": Family(_vmapped(2.0), lambda x: jnp.sin(x) * 2.0, _vmapped(3.0), (X,)),
    "checkify": of(_checked(0.0), lambda x: x * 3.0, X),
    "check's error": of(
        lambda x: checkify.checkify(lambda x: checkify.check(x.sum() > 0, "no"))(x)[0]._pred,
        lambda x: checkify.checkify(lambda x: checkify.check(x.sum() > 1, "no"))(x)[0]._pred,
        X,
    ),
    "custom_linear_solve": of(_solve(3), _solve(4), X),
    "custom_root": of(_root(3), _root(4), X),
    "compute_on": Family(
        compute_on.compute_on("device_host")(jax.jit(jnp.sin)),
        jnp.sin,
        compute_on.compute_on("device_host")(jax.jit(jnp.cos)),
        (X,),
    ),
    "platform_dependent": of(
        lambda x: lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos),
        lambda x: lax.platform_dependent(x, tpu=jnp.sin, default=jnp.cos),
        X,
    ),
    "barrier": Family(lambda x: lax.optimization_barrier(x) * 2.0, lambda x: x * 2.0, lambda x: x * 3.0, (X,)),
    "layout": Family(
        lambda x: with_layout_constraint(x * 2.0, Layout((0, 1))),
        lambda x: x * 2.0,
        lambda x: with_layout_constraint(x * 3.0, Layout((0, 1))),
        (X,),
    ),
    "memory space": Family(
        _in(jax.memory.Space.Host), lambda x: x * 2.0 + 1.0, lambda x: _in(jax.memory.Space.Host)(x * 2.0), (X,)
    ),
    "sharding constraint": Family(
        _at(lambda: NamedSharding(_mesh(AxisType.Auto), P("a"))), lambda x: x * 2.0, lambda x: x * 3.0, (X,)
    ),
    "reshard": Family(
        lambda x: reshard(x * 2.0, NamedSharding(_mesh(), P("a"))),
        lambda x: x * 2.0,
        lambda x: reshard(x * 3.0, NamedSharding(_mesh(), P("a"))),
        (X,),
    ),
    "kept alive": Family(lambda x: (lax.dce_sink(jnp.cos(x)), x * 2.0)[1], lambda x: x * 2.0, lambda x: x * 3.0, (X,)),
    "while": of(_while(3), _while(4), X),
    "switch": of(
        lambda x: lax.switch(x.astype(jnp.int32)[0, 0], [jnp.sin, jnp.cos, jnp.tan], x),
        lambda x: lax.switch(x.astype(jnp.int32)[0, 0], [jnp.sin, jnp.tan, jnp.cos], x),
        X,
    ),
    "cond on a number": of(
        lambda x: lax.cond(x[0, 0], jnp.sin, jnp.cos, x), lambda x: lax.cond(x[0, 1], jnp.sin, jnp.cos, x), X
    ),
    "scan": of(
        lambda x: lax.scan(lambda c, y: (jnp.sin(c + y), c), x[0], x),
        lambda x: lax.scan(lambda c, y: (jnp.sin(c + y), c), x[0], x, reverse=True),
        X,
    ),
    "scaled_dot": of(
        lambda x, y: lax.scaled_dot(x, y, preferred_element_type=F32) * 2,
        lambda x, y: lax.scaled_dot(x, y, preferred_element_type=F32) * 3,
        spec(8, 32, dtype=jnp.float8_e4m3fn),
        spec(32, 8, dtype=jnp.float8_e4m3fn),
    ),
    "orthogonal": of(lambda x: lax.linalg.ormqr(x, x[0], x), lambda x: lax.linalg.ormqr(x, x[1], x), SQ),
    "pivots": of(
        lambda x: lax.linalg.lu_pivots_to_permutation(lax.linalg.lu(x)[1], 4),
        lambda x: lax.linalg.lu_pivots_to_permutation(lax.linalg.lu(x)[1], 5)[:4],
        SQ,
    ),
    "raw qr": of(lambda x: jnp.linalg.qr(x, mode="raw")[1], lambda x: jnp.linalg.qr(x.T, mode="raw")[1], SQ),
    "total order": of(lambda x: lax.sort(x, is_stable=False), lambda x: lax.sort(-x, is_stable=False), X),
    "imaginary": of(lambda x: lax.imag(lax.complex(x, x) ** 2), lambda x: lax.real(lax.complex(x, x) ** 2), X),
    "leading zeros": of(lambda x: lax.clz(x.astype(jnp.int32)), lambda x: lax.population_count(x.astype(jnp.int32)), X),
    "unstack": of(lambda x: jnp.unstack(x)[1] * 2, lambda x: jnp.unstack(x)[2] * 2, X),
    "fold_in": of(
        lambda key: jax.random.uniform(jax.random.fold_in(key, 1)) * 2,
        lambda key: jax.random.uniform(jax.random.fold_in(key, 1)) * 3,
        KEY,
    ),
    "fold_in of raw keys": of(lambda raw: jax.random.fold_in(raw, 1), lambda raw: jax.random.fold_in(raw, 2), RAW),
    "pooling's second derivative": of(
        lambda x, y: jax.jvp(jax.grad(lambda x: (min_pool(x) ** 2).sum()), (x,), (y,))[1],
        lambda x, y: jax.jvp(jax.grad(lambda x: (min_pool(x) ** 3).sum()), (x,), (y,))[1],
        IMAGE,
        IMAGE,
    ),
}
