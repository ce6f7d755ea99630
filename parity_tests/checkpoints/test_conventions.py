"""A checkpoint in MaxText's numbers gives the model it was stored from."""

import jax
import numpy as np
import pytest

import models
from models.checkpoints import items, load_maxtext, maxtext_convention

from .states import assert_same_bytes, config


def _params(model, seed=0):
    rng = np.random.default_rng(seed)
    specs = models.backend("linen").param_specs(model)
    return {name: jax.numpy.array(0.3 * rng.standard_normal(spec.shape), "float32") for name, spec in specs.items()}


def _as_maxtext_stores(model, params):
    """Our numbers in MaxText's conventions for llama and gemma2, written from its conversion hooks."""
    stored = {}
    for name, array in params.items():
        if name.endswith("/query/kernel"):
            array = array * model.query_scale
        elif name.endswith("/scale") and model.norm.zero_centered:
            array = array + 1
        elif name == "token_embedder/embedding" and model.tied_head:
            array = array * np.sqrt(model.embed_dim)
        stored[name] = np.asarray(array, np.float32)
    return stored


def _write(path, params):
    leaves = {("params", "params", *name.split("/")): array for name, array in params.items()}
    items.write(path / "0" / "items", leaves | {("step",): np.int32(0)})
    return path


@pytest.mark.parametrize("name", ["llama-tiny", "gemma2-tiny"])
def test_weights_in_maxtexts_numbers_are_the_same_model(name, tmp_path):
    model = config(name, num_layers=2)
    params, backend = _params(model), models.backend("linen")
    found, loaded = load_maxtext(_write(tmp_path, _as_maxtext_stores(model, params)), model)
    tokens = jax.numpy.asarray(np.random.default_rng(1).integers(0, model.vocab_size, (2, 7)))
    logits, same = backend.apply(model, params, tokens), backend.apply(found, loaded, tokens)
    # the factors round each weight once, so logits agree to some float32 units of their own size
    assert np.max(np.abs(logits - same)) <= 1e-5 * np.max(np.abs(logits))
    assert np.max(np.abs(logits - backend.apply(model, loaded, tokens))) > 0.01


def test_gpt3_is_stored_as_it_is(tmp_path):
    model = config("gpt3-tiny")
    params = _params(model)
    convention = maxtext_convention(model)
    assert (convention.config, dict(convention.factors)) == (model, {})
    _, loaded = load_maxtext(_write(tmp_path, params), model)
    expected = {name: np.asarray(array) for name, array in params.items()}
    assert_same_bytes({name: np.asarray(array) for name, array in loaded.items()}, expected)


def test_only_the_meaning_changes_never_the_tree():
    for name in models.presets():
        model = models.preset(name)
        found = maxtext_convention(model).config
        assert found.replace(attention=model.attention, norm=model.norm) == model
