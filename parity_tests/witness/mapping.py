"""Random parameters and their comparison, for the tests of the way to Hugging Face's names and back. Not a test."""

import jax.numpy as jnp
import numpy as np

from models import backend


def random_params(config):
    """Every parameter of the model, each number its own."""
    rng = np.random.default_rng(3)
    return {
        name: rng.standard_normal(spec.shape).astype(jnp.dtype(spec.dtype))
        for name, spec in backend("nnx").param_specs(config).items()
    }


def same(left, right):
    """Whether both hold the same arrays, byte for byte."""
    return left.keys() == right.keys() and all(
        left[key].dtype == right[key].dtype
        and left[key].shape == right[key].shape
        and np.asarray(left[key]).tobytes() == np.asarray(right[key]).tobytes()
        for key in left
    )
