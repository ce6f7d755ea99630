"""Dropout draws with a key of its own at every place: a proof names draws by place and cannot see a key used twice."""

import jax
import numpy as np
import pytest

import models
from models.config import TrainConfig
from models.training.batch import Batch


def _config(name, *, scan):
    """Two blocks of two layers and a remainder of one."""
    cycle = models.preset(name).cycle[:2]
    return models.preset(name).replace(num_layers=5, cycle=cycle, scan_layers=scan, dropout_rate=0.5)


def _batch(config):
    tokens = jax.random.randint(jax.random.key(1), (2, 4), 0, config.vocab_size)
    ones = jax.numpy.ones_like(tokens)
    return Batch(tokens, tokens, jax.numpy.cumsum(ones, axis=1) - 1, ones, ones)


def _masks(backend, config, monkeypatch, *, honest=True):
    """The mask of every dropout of one pass, in no order; each turn of a scan reports its own.

    `honest=False` draws all of them from one key.
    """
    drawn, bernoulli = [], jax.random.bernoulli

    def reported(key, p=0.5, shape=None, **options):
        mask = bernoulli(key if honest else jax.random.key(3), p, shape, **options)
        jax.debug.callback(lambda values: drawn.append(np.array(values)), mask)
        return mask

    monkeypatch.setattr(jax.random, "bernoulli", reported)
    params = {name: jax.numpy.zeros(spec.shape, spec.dtype) for name, spec in backend.param_specs(config).items()}
    step, arguments = backend.loss_and_grads(config, TrainConfig()), (params, _batch(config), jax.random.key(7))
    loss = jax.jit(lambda *operands: step(*operands)[0].loss)  # without the gradients there is little to compile
    loss.lower(*arguments).compile(compiler_options={"xla_backend_optimization_level": 0})(*arguments)
    jax.effects_barrier()
    return drawn


@pytest.mark.parametrize("scan", [True, False], ids=["scanned", "unscanned"])
@pytest.mark.parametrize("backend_name", ["linen", "nnx"])
def test_no_two_places_share_a_mask(backend_name, scan, monkeypatch):
    config = _config("gemma3-tiny", scan=scan)
    masks = _masks(models.backend(backend_name), config, monkeypatch)
    assert len(masks) == 1 + 2 * config.num_layers  # the embedding, then both parts of each layer
    assert {mask.shape for mask in masks} == {(2, 4, config.embed_dim)}
    assert len({mask.tobytes() for mask in masks}) == len(masks)


def test_a_key_that_is_used_everywhere_is_noticed(monkeypatch):
    masks = _masks(models.backend("nnx"), _config("gemma3-tiny", scan=False), monkeypatch, honest=False)
    assert len({mask.tobytes() for mask in masks}) == 1
