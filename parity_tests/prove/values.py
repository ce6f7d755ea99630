"""Awkward values of every dtype that jax has here, and bitwise comparison. For the tests of rewrite rules.

The harness traces with 64-bit numbers switched off, so no rule ever sees one.
"""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from harness import settings

_NAMES = """
bool int2 int4 int8 int16 int32 int64 uint2 uint4 uint8 uint16 uint32 uint64 float4_e2m1fn float8_e3m4 float8_e4m3
float8_e4m3b11fnuz float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu float16 bfloat16 float32
float64 complex64 complex128
"""
NAMES = tuple(_NAMES.split())


def dtype_of(name: str) -> np.dtype:
    """The NumPy dtype of a name, jax's own small ones included."""
    return np.dtype(getattr(ml_dtypes, name, name))


@functools.cache
def dtypes() -> tuple[str, ...]:
    """The dtypes of which the harness can trace a leaf, found by trying."""
    with settings.tracing():
        found = [jax.make_jaxpr(lambda x: x)(jax.ShapeDtypeStruct((), dtype_of(name))).in_avals[0] for name in NAMES]
    return tuple(name for name, aval in zip(NAMES, found, strict=True) if aval.dtype == dtype_of(name))


def awkward(shape: tuple[int, ...], name: str, seed: int) -> np.ndarray:
    """All values of a dtype of at most eight bits.

    Of others zeros of both signs, infinities, NaN, subnormals, extremes, neighbours of powers of two, ordinary numbers.
    """
    rng, size = np.random.default_rng([seed, NAMES.index(name)]), int(np.prod(shape))
    pool = _pool(name, rng)
    chosen = np.concatenate([rng.permutation(pool), rng.choice(pool, size)])[:size] if size else pool[:0]
    return chosen.reshape(shape)


def ordinary(shape: tuple[int, ...], name: str, seed: int) -> np.ndarray:
    """Numbers of which the order of a sum matters little."""
    return np.random.default_rng(seed).uniform(-2, 2, shape).astype(dtype_of(name))


def _pool(name: str, rng: np.random.Generator) -> np.ndarray:
    dtype = dtype_of(name)
    if name.startswith("complex"):
        parts = [rng.permutation(_pool("float32", rng)) for _ in range(2)]
        return np.stack(parts, -1).reshape(-1).view(dtype)
    bits = _bits(dtype)
    if bits <= 8:
        codes = np.arange(2**bits)
        if name.startswith("int"):
            return (codes - 2 ** (bits - 1)).astype(dtype)
        whole = dtype == np.bool_ or "int" in name
        return codes.astype(dtype) if whole else codes.astype(np.uint8).view(dtype)
    code = np.dtype(f"u{dtype.itemsize}")
    edges = [2**k + d for k in range(bits) for d in (-1, 0, 1) if 0 <= 2**k + d < 2**bits] + [2**bits - 1, 2**bits - 2]
    with np.errstate(all="ignore"):
        raw = np.concatenate([np.array(edges, code), rng.integers(0, 2**bits, 150).astype(code)]).view(dtype)
        if "int" in name:
            return np.concatenate([raw, rng.integers(0, 9, 60).astype(dtype)])
        usual = np.concatenate([rng.standard_normal(60), np.arange(-4, 5) / 2, 2.0 ** np.arange(-12, 13)]).astype(
            np.float32
        )
        tiny = np.ldexp(1.0, ml_dtypes.finfo(dtype).minexp) * np.array([1, 0.5, 0.25, 1.5])
        odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan])
        return np.concatenate([usual.astype(dtype), odd.astype(dtype), tiny.astype(dtype), -tiny.astype(dtype), raw])


def _bits(dtype: np.dtype) -> int:
    if dtype == np.bool_:
        return 1
    name = dtype.name
    return int(ml_dtypes.iinfo(dtype).bits) if "int" in name else int(ml_dtypes.finfo(dtype).bits)


def same_bits(left, right) -> bool:
    """Whether two arrays hold the same bits, all NaNs being one value (of complex numbers part by part)."""
    left, right = np.asarray(left), np.asarray(right)
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    if left.dtype.kind == "c":
        return same_bits(np.real(left), np.real(right)) and same_bits(np.imag(left), np.imag(right))
    if left.dtype.kind in "biu" or "int" in left.dtype.name:
        return bool((left == right).all())
    a, b = (np.ascontiguousarray(x).reshape(-1).view(f"u{x.dtype.itemsize}") for x in (left, right))
    nan = np.isnan(left.astype(np.float32)).reshape(-1) & np.isnan(right.astype(np.float32)).reshape(-1)
    return bool(((a == b) | nan).all())


def near(left, right) -> bool:
    """Whether two arrays agree as real numbers nearly do, where both are finite."""
    with np.errstate(all="ignore"):
        a, b = (np.asarray(x).astype(np.complex128) for x in (left, right))
        both = np.isfinite(a) & np.isfinite(b)
        kind = np.asarray(left).dtype
        scale = float(jnp.finfo(kind).eps) if "float" in kind.name or kind.kind == "c" else 0.0
        error, size = np.abs(a - b)[both], 1 + np.abs(a[both]) + np.abs(b[both])
        return bool((error <= 16 * scale * size).all())
