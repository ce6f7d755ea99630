"""Operands drawn for ops: plain numbers and the values that break kernels. Shapes are few, so that compiles are few."""

import enum

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from .bounds import DTYPES

# Each example runs some twenty tiny kernels: a fifth of the profile's examples keeps this folder under a minute.
few = settings(max_examples=max(settings.default.max_examples // 5, 1))


class Values(enum.Enum):
    """What an array holds."""

    NORMAL = "normal"
    HUGE = "huge"
    TINY = "tiny"
    OFFSET = "offset"
    SIGNED_ZEROS = "signed zeros"
    CONSTANT = "constant"
    SPIKE = "spike"


def array(values: Values, seed: int, shape: tuple[int, ...], dtype: jnp.dtype = DTYPES[0]) -> jax.Array:
    """An array of that kind; `seed` decides it fully. The largest value is about 1e15: its square is still finite."""
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=shape)
    match values:
        case Values.NORMAL:
            data = normal
        case Values.HUGE:
            data = normal * 1e14
        case Values.TINY:
            data = normal * 1e-30
        case Values.OFFSET:
            data = normal + 100.0
        case Values.SIGNED_ZEROS:
            data = np.where(rng.random(shape) < 0.5, -0.0, np.where(rng.random(shape) < 0.5, 0.0, normal))
        case Values.CONSTANT:
            data = np.full(shape, rng.normal())
        case Values.SPIKE:
            data = np.where(rng.random(shape) < 0.1, normal * 1e3, normal * 1e-3)
    return jnp.asarray(data, dtype)


seeds = st.integers(0, 2**16)
dtypes = st.sampled_from(DTYPES)
values = st.sampled_from(Values)
