"""Train states for the tests: every leaf random and of its own, without compiling an init. Not a test."""

import jax
import numpy as np

import models
from models.checkpoints.native import native_leaves, rebuild
from models.config import ModelConfig, TrainConfig

TRAIN = TrainConfig()
STEP = 7


def config(name="llama-tiny", **changes) -> ModelConfig:
    """A tiny preset, changed."""
    return models.preset(name).replace(**changes)


def random_state(backend, model, *, seed=0):
    """A train state whose leaves all differ: normal parameters and first moments, positive second ones."""
    abstract = backend.abstract_state(model, TRAIN)
    leaves = native_leaves(abstract, frozenset(backend.param_specs(model)))
    rng = np.random.default_rng(seed)
    return rebuild(abstract, leaves, {leaf.name: _value(leaf, rng) for leaf in leaves})


def _value(leaf, rng):
    if leaf.prng is not None:
        return jax.random.key(int(rng.integers(2**31)))
    if np.issubdtype(leaf.value.dtype, np.integer):
        return jax.numpy.full(leaf.value.shape, STEP, leaf.value.dtype)
    scale = 0.1 if leaf.name.startswith("params/") else 1e-3
    drawn = scale * rng.standard_normal(leaf.value.shape)
    return jax.numpy.array(np.abs(drawn) if "/nu/" in leaf.name else drawn, leaf.value.dtype)


def by_name(backend, model, state) -> dict[str, np.ndarray]:
    """Every leaf of a train state by canonical name; keys as their data."""
    leaves = native_leaves(state, frozenset(backend.param_specs(model)))
    return {
        leaf.name: np.asarray(leaf.value if leaf.prng is None else jax.random.key_data(leaf.value)) for leaf in leaves
    }


def assert_same_bytes(found, expected):
    """Same names, and for each the same dtype, shape and bytes."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name
