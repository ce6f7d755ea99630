"""How far an op may be from its oracle: unit roundoffs, and the assertion that quotes the worst element.

Every bound has the form `unit roundoff * magnitude of what was added up * number of roundings`: the standard model of
floating-point arithmetic (Higham, "Accuracy and Stability of Numerical Algorithms", chapter 3). No bound is tuned.
"""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

FLOAT32 = jnp.dtype(jnp.float32)
BFLOAT16 = jnp.dtype(jnp.bfloat16)
DTYPES = (FLOAT32, BFLOAT16)

# A library function (exp, tanh, rsqrt, pow ...) counts as this many roundings: XLA's are within 4 ulp of the truth.
LIBRARY = 8


def roundoff(dtype: jnp.dtype) -> float:
    """Half the distance from one to the next number."""
    return float(jnp.finfo(dtype).eps) / 2


U32 = roundoff(FLOAT32)


def float64(array: jax.Array) -> np.ndarray:
    """The same numbers in float64."""
    return np.asarray(array).astype(np.float64)


def rounded(array: jax.Array, dtype: jnp.dtype) -> np.ndarray:
    """The numbers an op works on once it has cast an operand to `dtype`, in float64."""
    return float64(array.astype(dtype))


_RATIOS: list[float] = []


@contextlib.contextmanager
def ratios() -> Iterator[list[float]]:
    """The largest error of each comparison inside, as a part of its bound; 0 of an exact one."""
    start = len(_RATIOS)
    found: list[float] = []
    try:
        yield found
    finally:
        found += _RATIOS[start:]
        del _RATIOS[start:]


def assert_within(actual: jax.Array, truth: np.ndarray, bound: np.ndarray | float, *, dtype: jnp.dtype) -> None:
    """Shape, dtype and every element: `|actual - truth| <= bound`, plus what underflow takes. NaN meets NaN."""
    assert actual.shape == truth.shape, f"shape {actual.shape}, oracle {truth.shape}"
    assert actual.dtype == dtype, f"dtype {actual.dtype}, promised {dtype}"
    got = float64(actual)
    allowed = np.broadcast_to(bound + 4 * float(jnp.finfo(dtype).tiny), truth.shape)
    error = np.where(np.isnan(got) & np.isnan(truth), 0.0, np.abs(got - truth))
    wrong = ~(error <= allowed)
    _RATIOS.append(float((error / allowed).max(initial=0.0)))
    if wrong.any():
        ratio = np.where(np.isnan(error), np.inf, error / allowed)
        index = np.unravel_index(np.argmax(np.where(wrong, ratio, -1.0)), truth.shape)
        worst = f"got {got[index]!r}, oracle {truth[index]!r}, error / bound {ratio[index]:.3g}"
        raise AssertionError(
            f"{int(wrong.sum())} of {truth.size} elements beyond the bound; worst at {tuple(map(int, index))}: "
            f"{worst}; max error {np.nanmax(error):.3g}, mean error {np.nanmean(error):.3g}"
        )


def assert_equal(actual: jax.Array, truth: np.ndarray) -> None:
    """Shape and every element, exactly."""
    assert actual.shape == truth.shape, f"shape {actual.shape}, oracle {truth.shape}"
    np.testing.assert_array_equal(float64(actual), truth.astype(np.float64))
    _RATIOS.append(0.0)
