"""What a train step does about its experts: a loss that balances them, a bias of the choice that nothing else moves.

That the twins do the same is proved in `test_train_step.py`; here each is held to the rule itself.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from harness.subjects.compact import SUBJECT, inputs
from models.config import ConfigError, TrainConfig, preset
from models.training import Batch

# Two layers with experts after a dense one: stacked, and each on its own.
CONFIGS = {
    scanned: preset("deepseek3-tiny").replace(num_layers=3, num_prefix_layers=1, scan_layers=scanned)
    for scanned in (True, False)
}
PLAIN, BALANCED = TrainConfig(), TrainConfig(load_balance_weight=0.5, choice_bias_rate=0.01)
CASES = [(backend_name, scanned) for backend_name in SUBJECT.backends for scanned in CONFIGS]
both = pytest.mark.parametrize(("backend_name", "scanned"), CASES)


def _batch(config):
    fields = inputs.documents(inputs.extent_of(config), config.vocab_size, 0)
    return Batch(**{name: jnp.asarray(value) for name, value in fields.items()})


@functools.cache
def _params(backend_name, scanned):
    """Fresh parameters, the choice biases not zero: decay has to have something to shrink."""
    params = models.backend(backend_name).init(CONFIGS[scanned], jax.random.key(3))
    noise = np.random.default_rng(4)
    return {
        name: jnp.asarray(0.3 * noise.standard_normal(leaf.shape), leaf.dtype) if name.endswith("choice_bias") else leaf
        for name, leaf in params.items()
    }


@functools.cache
def _sown(backend_name, scanned):
    backend, config = models.backend(backend_name), CONFIGS[scanned]
    return jax.jit(backend.intermediates(config))(_params(backend_name, scanned), _batch(config))[1]


@functools.cache
def _stepped(backend_name, scanned, train):
    """Parameters and metrics after one train step."""
    backend, config = models.backend(backend_name), CONFIGS[scanned]
    state = backend.create_state(config, train, _params(backend_name, scanned))
    state, metrics = jax.jit(backend.train_step(config, train))(state, _batch(config))
    return backend.params_of(state), metrics


def _biases(params):
    """The choice biases [layers, e] by name; a scanned layer's axis is the second of its parameters."""
    named = {name: np.asarray(leaf) for name, leaf in params.items() if name.endswith("choice_bias")}
    return {name: leaf.T if leaf.ndim == 2 else leaf[None] for name, leaf in named.items()}


@both
def test_no_optimizer_moves_a_choice_bias(backend_name, scanned):
    params, (after, _) = _params(backend_name, scanned), _stepped(backend_name, scanned, PLAIN)
    kept = [name for name in params if np.array_equal(after[name], params[name])]
    assert sorted(kept) == sorted(_biases(params)) != []


@both
def test_a_choice_bias_follows_the_counts_of_its_own_layer(backend_name, scanned):
    sown, (stepped, _) = _sown(backend_name, scanned), _stepped(backend_name, scanned, BALANCED)
    before, after = _biases(_params(backend_name, scanned)), _biases(stepped)
    num_tokens = (np.asarray(_batch(CONFIGS[scanned]).segment_ids) != 0).sum()
    for name in before:
        counts = np.asarray(sown[name.replace("gate/choice_bias", "expert_counts")]).reshape(before[name].shape)
        np.testing.assert_array_equal(counts.sum(axis=1), CONFIGS[scanned].mlp.router.num_chosen * num_tokens)
        wanted = BALANCED.choice_bias_rate * np.sign(counts.mean(axis=1, keepdims=True) - counts)
        assert wanted.min() < 0 < wanted.max()
        np.testing.assert_allclose(after[name] - before[name], wanted, rtol=0, atol=1e-6)


@both
def test_the_loss_has_the_weighted_mean_of_the_layers_load_balance(backend_name, scanned):
    sown = _sown(backend_name, scanned)
    layers = np.concatenate([np.ravel(sown[name]) for name in sown if name.endswith("load_balance")])
    plain, balanced = (_stepped(backend_name, scanned, train)[1] for train in (PLAIN, BALANCED))
    assert layers.shape == (2,)
    assert "load_balance_loss" not in plain
    wanted = BALANCED.load_balance_weight * layers.mean()
    np.testing.assert_allclose(balanced["load_balance_loss"], wanted, rtol=1e-5)
    np.testing.assert_allclose(balanced["loss"] - plain["loss"], wanted, rtol=1e-5)
    np.testing.assert_allclose(balanced["xent_sum"], plain["xent_sum"], rtol=1e-6)


@pytest.mark.parametrize("backend_name", SUBJECT.backends)
def test_the_gate_learns_from_the_load_balance(backend_name):
    """Along its gradient that loss grows by its length, though every choice, and with it every count, stays."""
    backend, config, params = models.backend(backend_name), CONFIGS[True], dict(_params(backend_name, True))
    batch, name = _batch(config), "decoder/moe_layers/moe/gate/kernel"
    step = jax.jit(backend.loss_and_grads(config, TrainConfig(load_balance_weight=1e3)))
    _, grads = step(params, batch, None)
    length, size = float(jnp.linalg.norm(grads[name])), 1e-3
    ahead, behind = (
        step({**params, name: params[name] + shift * grads[name] / length}, batch, None)[0].load_balance_loss
        for shift in (size, -size)
    )
    np.testing.assert_allclose(float(ahead - behind) / (2 * size), length, rtol=2e-3)


@pytest.mark.parametrize("backend_name", SUBJECT.backends)
def test_a_model_without_experts_is_not_balanced(backend_name):
    backend, config = models.backend(backend_name), preset("llama-tiny")
    with pytest.raises(ConfigError, match="load_balance_weight"):
        backend.loss_and_grads(config, TrainConfig(load_balance_weight=0.5))
    with pytest.raises(ConfigError, match="choice_bias_rate"):
        backend.train_step(config, TrainConfig(choice_bias_rate=0.01))
