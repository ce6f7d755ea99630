"""A function computed in float64 whatever dtypes it states: what two ways to one result differ by is then a fault."""

import jax
import numpy as np

from harness import Program
from harness.measure.truth import TruthRunner


class Float64:
    """`fn` in float64, compiled for arguments like these: shapes and dtypes count, not values."""

    def __init__(self, fn, *like):
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like)
        self._run = TruthRunner(Program(fn, shapes))
        self._tree = jax.tree.structure(jax.eval_shape(fn, *shapes))

    def __call__(self, *args):
        """The results in the tree that `fn` gives."""
        return jax.tree.unflatten(self._tree, self._run(jax.tree.leaves(args)))


def assert_same(found, wanted):
    """But for the last bits of float64, and a few roundings of constants to float32."""
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-8)
