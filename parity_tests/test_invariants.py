"""What holds of every family whatever its weights: each twin alone, in float64, so that a difference is a fault.

Padding and packing are in `test_rows.py`, decoding in `test_decode.py`, scanned against unscanned layers in
`prove/test_unrolling.py` and `checkpoints/test_scan.py`, the sum of a router's weights in `ops/test_experts.py`.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models
from harness import prove
from harness.subjects.compact import SUBJECT
from harness.verdict import Kind
from models.config import Moe, Remat
from parity_tests.float64 import Float64, assert_same

SETUPS = {label: one for label, one in SUBJECT.tiny_setups().items() if one.model.scan_layers}
LENGTH = 12
few = settings(max_examples=4)
both = pytest.mark.parametrize("backend_name", SUBJECT.backends)


def _moes(config):
    return {mlp for mlp in map(config.mlp_of, config.cycle) if isinstance(mlp, Moe)}


def _labels(holds):
    return [label for label, setup in SETUPS.items() if holds(setup.model)]


def _params(config, backend_name):
    case = SUBJECT.case(dataclasses.replace(SETUPS["llama-scanned"], model=config), "forward")
    return SUBJECT.program(backend_name, case).draw(jax.random.key(0))[0]


def _tokens(config, seed):
    return np.random.default_rng(seed).integers(0, config.vocab_size, (2, LENGTH)).astype(np.int32)


@functools.cache
def _model(config, backend_name):
    """Logits of tokens, and parameters: compiled once for all claims about it."""
    params, backend = _params(config, backend_name), models.backend(backend_name)
    run = Float64(lambda p, t: backend.apply(config, p, t), params, _tokens(config, 0))
    return run, params


def _changed(tokens, at, config):
    other = tokens.copy()
    other[:, at] = (other[:, at] + 1) % config.vocab_size
    return other


@both
@pytest.mark.parametrize("label", SETUPS)
def test_a_token_changes_its_own_logits_and_none_before_it(label, backend_name):
    config = SETUPS[label].model
    run, params = _model(config, backend_name)

    @few
    @given(seed=st.integers(0, 2**16), at=st.integers(1, LENGTH - 1))
    def hold(seed, at):
        tokens = _tokens(config, seed)
        before, after = run(params, tokens), run(params, _changed(tokens, at, config))
        assert_same(after[:, :at], before[:, :at])
        assert (np.abs(after[:, at] - before[:, at]).max(axis=-1) > 1e-3).all()

    hold()


REACHES = [
    (label, index, layer)
    for label, setup in SETUPS.items()
    for index, layer in enumerate(setup.model.cycle)
    if (layer.window or layer.chunk) and layer not in setup.model.cycle[:index]
]


@both
@pytest.mark.parametrize(("label", "index"), [reach[:2] for reach in REACHES])
def test_one_layer_reads_to_the_end_of_its_window_and_no_further(label, index, backend_name):
    layer = dataclasses.replace(SETUPS[label].model.cycle[index], name=None, suffix="")
    config = SETUPS[label].model.replace(cycle=(layer,), num_layers=1, prefix=None, num_prefix_layers=0)
    run, params = _model(config, backend_name)
    tokens, last = _tokens(config, 1), LENGTH - 3
    first = last - layer.window + 1 if layer.window else last // layer.chunk * layer.chunk
    before = run(params, tokens)[:, last]
    assert 0 < first < last
    assert_same(run(params, _changed(tokens, first - 1, config))[:, last], before)
    assert np.abs(run(params, _changed(tokens, first, config))[:, last] - before).max() > 1e-6


def _exchanged(name, leaf, order):
    """A leaf of a mixture with its experts in another order; stacked layers are the axis after the first."""
    if name.endswith("/gate/kernel"):
        return leaf[..., order]
    own = ("/gate/bias", "/gate/choice_bias", "/gate/expert_scale", "moe/wi_0", "moe/wi_1", "moe/wo")
    return leaf[order] if name.endswith((*own, "wi_0_bias", "wi_1_bias", "wo_bias")) else leaf


@both
@pytest.mark.parametrize("label", _labels(_moes))
def test_the_order_of_the_experts_does_not_matter(label, backend_name):
    """Groups change places, and the experts in them."""
    config = SETUPS[label].model
    (moe,), (run, params) = _moes(config), _model(config, backend_name)
    groups = np.arange(moe.router.num_experts).reshape(moe.router.num_groups, -1)
    order = groups[::-1, ::-1].ravel()
    permuted = {name: _exchanged(name, leaf, order) for name, leaf in params.items()}
    tokens = _tokens(config, 2)
    wanted, unlike = run(params, tokens), {**permuted, **{n: params[n] for n in params if n.endswith("wo")}}
    assert_same(run(permuted, tokens), wanted)
    assert np.abs(run(unlike, tokens) - wanted).max() > 1e-3


@both
@pytest.mark.parametrize("label", _labels(_moes))
def test_a_routers_scale_is_a_factor_on_what_the_experts_give(label, backend_name):
    config = SETUPS[label].model
    (moe,), (run, params) = _moes(config), _model(config, backend_name)
    doubled = dataclasses.replace(moe, router=dataclasses.replace(moe.router, scale=2 * moe.router.scale))
    cycle = tuple(dataclasses.replace(layer, mlp=doubled) if layer.mlp == moe else layer for layer in config.cycle)
    scaled = config.replace(cycle=cycle, mlp=doubled if config.mlp == moe else config.mlp)
    tokens = _tokens(config, 3)
    by_hand = {n: 2 * leaf if n.endswith(("moe/wo", "wo_bias")) else leaf for n, leaf in params.items()}
    found = _model(scaled, backend_name)[0](params, tokens)
    if moe.scale_inputs:  # not linear: what the factor does is seen before the nonlinearity
        by_hand = {n: 2 * leaf if n.endswith(("moe/wi_0", "moe/wi_1")) else leaf for n, leaf in params.items()}
    assert_same(found, run(by_hand, tokens))
    assert np.abs(found - run(params, tokens)).max() > 1e-3


@both
@pytest.mark.parametrize("label", _labels(lambda config: not config.tied_head and config.final_soft_cap is None))
def test_logits_are_linear_in_the_head(label, backend_name):
    config = SETUPS[label].model
    run, params = _model(config, backend_name)
    head, tokens = "decoder/logits_dense/kernel", _tokens(config, 4)
    assert_same(run({**params, head: 2 * params[head]}, tokens), 2 * run(params, tokens))


@both
@pytest.mark.parametrize("label", SETUPS)
def test_what_is_computed_again_is_the_same(label, backend_name):
    """Remat changes when a value is computed and not what it is: proved, for the loss's gradient."""
    made = [
        SUBJECT.program(backend_name, SUBJECT.case(_with_remat(SETUPS[label], remat), "loss_and_grads"))
        for remat in (Remat.NONE, Remat.FULL)
    ]
    verdict = prove(*made)
    assert verdict.kind is Kind.PROVED, verdict.explain()


def _with_remat(setup, remat):
    return dataclasses.replace(setup, model=setup.model.replace(remat=remat))
