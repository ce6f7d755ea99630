"""Small programs from jax.lax and jax.numpy: two honest spellings and one with a fault, by family."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax import lax

F32, I32 = jnp.float32, jnp.int32


def spec(*shape, dtype=F32):
    return jax.ShapeDtypeStruct(shape, dtype)


X, Y, V, N = spec(4, 6), spec(4, 6), spec(6), spec(4, dtype=I32)
SQ = spec(4, 4)
KEY = jax.eval_shape(lambda: jax.random.key(0))
RAW = spec(2, dtype=jnp.uint32)
IMAGE = spec(2, 8, 8, 3)


@dataclasses.dataclass(frozen=True)
class Family:
    """`same` is another spelling of `fn`; `other` looks like it and is not."""

    fn: Callable[..., Any]
    same: Callable[..., Any]
    other: Callable[..., Any]
    args: tuple[Any, ...] = (X,)


def respelled(fn):
    """The same computation, called through a jit and with a dead operation before it."""

    def same(*args):
        jnp.cos(jax.tree.leaves(args)[0]) if jnp.issubdtype(jax.tree.leaves(args)[0].dtype, jnp.floating) else None
        return jax.jit(lambda *args: fn(*args))(*args)

    return same


def of(fn, other, *args):
    return Family(fn, respelled(fn), other, args or (X,))


def _unary(*names):
    """Functions of `jax.lax` against their neighbours in the list."""
    fns = [getattr(lax, name) for name in names]
    return {
        f"lax.{name}": of(lambda x, f=f: f(x) * 2.0, lambda x, g=fns[k - 1]: g(x) * 2.0)
        for k, (name, f) in enumerate(zip(names, fns, strict=True))
    }


def _binary(*names, args=(X, Y)):
    fns = [getattr(lax, name) for name in names]
    return {
        f"lax.{name}": Family(f, lambda x, y, f=f: jax.jit(f)(x, y), fns[k - 1], args)
        for k, (name, f) in enumerate(zip(names, fns, strict=True))
    }


ELEMENTWISE = {
    **_unary(
        "abs",
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atanh",
        "bessel_i0e",
        "bessel_i1e",
        "cbrt",
        "ceil",
        "cos",
        "cosh",
        "digamma",
        "erf",
        "erf_inv",
        "erfc",
        "exp",
        "exp2",
        "expm1",
        "floor",
        "lgamma",
        "log",
        "log1p",
        "logistic",
        "neg",
        "round",
        "rsqrt",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "square",
        "tan",
        "tanh",
    ),
    **_binary("add", "sub", "mul", "div", "rem", "max", "min", "pow", "atan2", "nextafter", "igamma", "igammac"),
    **_binary("eq", "ne", "lt", "le", "gt", "ge"),
    **_binary(
        "bitwise_and",
        "bitwise_or",
        "bitwise_xor",
        "shift_left",
        "shift_right_arithmetic",
        "shift_right_logical",
        args=(N, N),
    ),
    "lax.not": of(lax.bitwise_not, lax.clz, N),
    "lax.population_count": of(lax.population_count, lax.clz, N),
    "lax.is_finite": of(lax.is_finite, lambda x: x != x),
    "lax.integer_pow": of(lambda x: lax.integer_pow(x, 3), lambda x: lax.integer_pow(x, 4)),
    "lax.polygamma": of(lambda x: lax.polygamma(1.0, x), lambda x: lax.polygamma(2.0, x)),
    "lax.zeta": of(lambda x, y: lax.zeta(x, y), lambda x, y: lax.zeta(y, x), X, Y),
    "lax.betainc": of(lambda x, y: lax.betainc(x, y, x), lambda x, y: lax.betainc(y, x, x), X, Y),
    "lax.igamma_grad_a": of(
        jax.grad(lambda x, y: lax.igamma(x, y).sum()), jax.grad(lambda x, y: lax.igammac(x, y).sum()), X, Y
    ),
    "lax.clamp": of(lambda x: lax.clamp(0.0, x, 1.0), lambda x: lax.clamp(0.0, x, 2.0)),
    "lax.select": of(lambda x, y: lax.select(x > 0, x, y), lambda x, y: lax.select(x > 0, y, x), X, Y),
    "lax.complex": of(
        lambda x, y: lax.real(lax.conj(lax.complex(x, y)) * lax.complex(y, x)),
        lambda x, y: lax.imag(lax.conj(lax.complex(x, y)) * lax.complex(y, x)),
        X,
        Y,
    ),
    "lax.convert": of(
        lambda x: x.astype(jnp.float8_e4m3fn).astype(F32), lambda x: x.astype(jnp.float8_e5m2).astype(F32)
    ),
    "int4": of(lambda n: n.astype(jnp.int4).astype(I32), lambda n: n.astype(jnp.int8).astype(I32), N),
    "lax.bitcast": of(lambda x: lax.bitcast_convert_type(x, I32), lambda x: lax.convert_element_type(x, I32)),
    "lax.reduce_precision": of(lambda x: lax.reduce_precision(x, 5, 7), lambda x: lax.reduce_precision(x, 5, 6)),
    "lax.mulhi": of(lambda n: lax.mulhi(n, n + 1), lambda n: n * (n + 1), N),
}

SHAPES = {
    "reshape": of(lambda x: x.reshape(3, 8), lambda x: x.reshape(8, 3).T),
    "broadcast": of(
        lambda v: lax.broadcast_in_dim(v, (6, 6), (0,)), lambda v: lax.broadcast_in_dim(v, (6, 6), (1,)), V
    ),
    "transpose": of(lambda x: x.T, lambda x: x.reshape(6, 4)),
    "squeeze": of(lambda x: x[:, None].squeeze(1) * 2, lambda x: x[:, None].squeeze(1) * 3),
    "concatenate": of(lambda x, y: jnp.concatenate([x, y]), lambda x, y: jnp.concatenate([y, x]), X, Y),
    "stack": of(lambda x, y: jnp.stack([x, y], 1), lambda x, y: jnp.stack([y, x], 1), X, Y),
    "split": of(lambda x: lax.split(x, (2, 2)), lambda x: lax.split(x, (2, 2))[::-1]),
    "pad": of(lambda x: lax.pad(x, 0.0, [(1, 0, 0), (0, 0, 0)]), lambda x: lax.pad(x, 0.0, [(0, 1, 0), (0, 0, 0)])),
    "rev": of(lambda x: jnp.flip(x, 0), lambda x: jnp.flip(x, 1)),
    "slice": of(lambda x: x[1:3], lambda x: x[2:4]),
    "dynamic_slice": of(
        lambda x, n: lax.dynamic_slice_in_dim(x, n[0], 2), lambda x, n: lax.dynamic_slice_in_dim(x, n[1], 2), X, N
    ),
    "dynamic_update_slice": of(
        lambda x, n: lax.dynamic_update_slice_in_dim(x, x[:2], n[0], 0),
        lambda x, n: lax.dynamic_update_slice_in_dim(x, x[1:3], n[0], 0),
        X,
        N,
    ),
    "tile": of(lambda x: jnp.tile(x, (2, 1)), lambda x: jnp.repeat(x, 2, 0)),
    "iota": of(lambda x: x * jnp.arange(6.0), lambda x: x * jnp.arange(1.0, 7.0)),
    "gather": of(lambda x, n: x[n], lambda x, n: x[n + 1], X, N),
    "take_along_axis": of(
        lambda x, n: jnp.take_along_axis(x, n[:, None], 1), lambda x, n: jnp.take_along_axis(x, n[:, None], 0), X, N
    ),
    "scatter": of(lambda x, n: x.at[n].set(1.0), lambda x, n: x.at[n].set(1.0, mode="clip"), X, N),
    "scatter-add": of(lambda x, n: x.at[n].add(1.0), lambda x, n: x.at[n].add(-1.0), X, N),
    "scatter-sub": of(lambda x, n: x.at[n].subtract(x), lambda x, n: x.at[n].add(x), X, N),
    "scatter-mul": of(lambda x, n: x.at[n].multiply(2.0), lambda x, n: x.at[n].add(2.0), X, N),
    "scatter-min": of(lambda x, n: x.at[n].min(2.0), lambda x, n: x.at[n].max(2.0), X, N),
    "scatter-max": of(lambda x, n: x.at[n].max(2.0), lambda x, n: x.at[n].min(2.0), X, N),
    "scatter_apply": of(lambda x, n: x.at[n].apply(jnp.sin), lambda x, n: x.at[n].apply(jnp.cos), X, N),
}


def _reduction(name):
    return of(lambda x: getattr(jnp, name)(x, 0)[:4], lambda x: getattr(jnp, name)(x, 1))


def min_pool(x):
    return lax.reduce_window(x, jnp.inf, lax.min, (1, 2, 2, 1), (1, 1, 1, 1), "VALID")


REDUCTIONS = {
    **{f"jnp.{name}": _reduction(name) for name in ("sum", "max", "min", "prod", "argmax", "argmin", "any", "all")},
    "reduce_xor": of(lambda n: lax.reduce_xor(n, (0,)), lambda n: lax.reduce_or(n, (0,)), N),
    "reduce_and": of(lambda n: lax.reduce_and(n, (0,)), lambda n: lax.reduce_or(n, (0,)), N),
    "reduce_or": of(lambda n: lax.reduce_or(n, (0,)), lambda n: lax.reduce_and(n, (0,)), N),
    "lax.reduce": of(
        lambda x: lax.reduce(x, 0.0, lambda a, b: jnp.sin(a) + b, (0,)),
        lambda x: lax.reduce(x, 0.0, lambda a, b: a + jnp.sin(b), (0,)),
    ),
    "reduce_window": of(
        lambda x: lax.reduce_window(x, 0.0, lambda a, b: a * b + a, (2, 1), (1, 1), "VALID"),
        lambda x: lax.reduce_window(x, 0.0, lambda a, b: a * b + b, (2, 1), (1, 1), "VALID"),
    ),
    "max_pool": of(
        lambda x: linen.max_pool(x, (2, 2)), lambda x: linen.max_pool(x, (2, 2), padding="SAME")[:, :7, :7], IMAGE
    ),
    "avg_pool": of(lambda x: linen.avg_pool(x, (2, 2)), lambda x: linen.max_pool(x, (2, 2)), IMAGE),
    "min_pool": of(lambda x: min_pool(x), lambda x: linen.max_pool(x, (2, 2)), IMAGE),
    "max_pool gradient": of(
        jax.grad(lambda x: linen.max_pool(x, (2, 2)).sum()), jax.grad(lambda x: linen.max_pool(x, (3, 3)).sum()), IMAGE
    ),
    "max_pool tangent": of(
        lambda x, y: jax.jvp(lambda x: linen.max_pool(x, (2, 2)), (x,), (y,))[1],
        lambda x, y: jax.jvp(min_pool, (x,), (y,))[1],
        IMAGE,
        IMAGE,
    ),
    "cumsum": of(lambda x: lax.cumsum(x, 0), lambda x: lax.cumsum(x, 0, reverse=True)),
    "cumprod": of(lambda x: lax.cumprod(x, 0), lambda x: lax.cumprod(x, 1)),
    "cummax": of(lambda x: lax.cummax(x, 0), lambda x: lax.cummin(x, 0)),
    "cummin": of(lambda x: lax.cummin(x, 0), lambda x: lax.cummax(x, 0)),
    "cumlogsumexp": of(lambda x: lax.cumlogsumexp(x, 0), lambda x: lax.cumlogsumexp(x, 1)),
    "associative_scan": of(lambda x: lax.associative_scan(jnp.add, x), lambda x: lax.associative_scan(jnp.multiply, x)),
    "sort": of(lambda x, y: lax.sort((x, y), num_keys=1), lambda x, y: lax.sort((x, y), num_keys=2), X, Y),
    "argsort": of(lambda x: jnp.argsort(x), lambda x: jnp.argsort(x, stable=False)),
    "top_k": of(lambda x: lax.top_k(x, 2), lambda x: [part * 2 for part in lax.top_k(x, 2)]),
    "approx_max_k": of(lambda x: lax.approx_max_k(x, 2), lambda x: lax.approx_min_k(x, 2)),
}

_RAGGED = lax.RaggedDotDimensionNumbers(dot_dimension_numbers=(([1], [1]), ([], [])), lhs_ragged_dimensions=[0],
                                        rhs_group_dimensions=[0])  # fmt: skip
CONTRACTIONS = {
    "matmul": of(lambda x, y: x @ y.T, lambda x, y: y @ x.T, X, Y),
    "einsum": Family(
        lambda x, y: jnp.einsum("ab,cb->ac", x, y),
        lambda x, y: lax.dot_general(x, y, (((1,), (1,)), ((), ())), preferred_element_type=F32),
        lambda x, y: jnp.einsum("ab,cb->ca", x, y),
        (X, Y),
    ),
    "precision": of(
        lambda x, y: jnp.dot(x, y.T, precision="highest"), lambda x, y: jnp.dot(x, y.T, precision="default"), X, Y
    ),
    "algorithm": of(
        lambda x, y: jnp.dot(x, y.T, precision=lax.DotAlgorithmPreset.F32_F32_F32),
        lambda x, y: jnp.dot(x, y.T, precision=lax.DotAlgorithmPreset.BF16_BF16_F32),
        X,
        Y,
    ),
    "accumulation": of(
        lambda x: jnp.dot(x.astype(jnp.bfloat16), x.T.astype(jnp.bfloat16), preferred_element_type=F32),
        lambda x: jnp.dot(x.astype(jnp.bfloat16), x.T.astype(jnp.bfloat16)).astype(F32),
    ),
    "ragged_dot": of(
        lambda x, w, n: lax.ragged_dot(x, w, n), lambda x, w, n: lax.ragged_dot(x, w, n[::-1]), X, spec(4, 6, 5), N
    ),
    "ragged_dot gradient": of(
        jax.grad(lambda x, w, n: (lax.ragged_dot(x, w, n) ** 2).sum(), (0, 1)),
        jax.grad(lambda x, w, n: (lax.ragged_dot(x, w, n[::-1]) ** 2).sum(), (0, 1)),
        X,
        spec(4, 6, 5),
        N,
    ),
    "ragged_dot accumulation": Family(
        lambda x, w, n: lax.ragged_dot(x, w, n, preferred_element_type=jnp.float32),
        lambda x, w, n: lax.ragged_dot(x, w, n, preferred_element_type=jnp.dtype(F32)),
        lambda x, w, n: lax.ragged_dot(x, w, n).astype(F32),
        (spec(4, 6, dtype=jnp.bfloat16), spec(4, 6, 5, dtype=jnp.bfloat16), N),
    ),
    "ragged_dot_general": of(
        lambda x, w, n: lax.ragged_dot_general(x, w, n, _RAGGED),
        lambda x, w, n: lax.ragged_dot_general(x * 2, w, n, _RAGGED),
        X,
        spec(4, 6, 5),
        N,
    ),
    "scaled_matmul": of(
        lambda x, y, s: jax.nn.scaled_matmul(x, y, s, s),
        lambda x, y, s: jax.nn.scaled_matmul(y, x, s, s),
        spec(1, 8, 32, dtype=jnp.float8_e4m3fn),
        spec(1, 8, 32, dtype=jnp.float8_e4m3fn),
        spec(1, 8, 1, dtype=jnp.float8_e8m0fnu),
    ),
    "conv": of(
        lambda x, k: lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")),
        lambda x, k: lax.conv_general_dilated(x, k[::-1], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")),
        IMAGE,
        spec(3, 3, 3, 2),
    ),
    "conv_transpose": of(
        lambda x, k: lax.conv_transpose(x, k, (2, 2), "SAME"),
        lambda x, k: lax.conv_transpose(x, k, (2, 2), "SAME", transpose_kernel=True),
        IMAGE,
        spec(3, 3, 3, 3),
    ),
}

ARRAYS = ELEMENTWISE | SHAPES | REDUCTIONS | CONTRACTIONS
