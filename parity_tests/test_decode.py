"""Prefill and one autoregressive step with a cache: proved, run, and held against the forward pass."""

import jax.numpy as jnp
import numpy as np
import pytest

import models
from harness import measure, prove
from harness.subjects.compact import SUBJECT
from parity_tests.selection import gated

SETUPS, DEEP, LIGHT = SUBJECT.tiny_setups(), SUBJECT.deep_setups(), SUBJECT.light_setups()
RUN = [
    *((label, step) for label in DEEP for step in ("prefill", "generate")),
    *((label, "generate") for label in LIGHT),
]


@pytest.mark.gate
@pytest.mark.parametrize("step", ["prefill", "generate"])
@pytest.mark.parametrize("label", SETUPS)
def test_decode_is_proved(label, step, parity):
    case = SUBJECT.case(SETUPS[label], step, label=label)
    parity.expect(prove(*SUBJECT.programs(case)), case=case, observable="decode")


@pytest.mark.parametrize(("label", "step"), gated(RUN, beside=((label, "prefill") for label in LIGHT)))
def test_decode_runs_alike(label, step, parity):
    case = SUBJECT.case(SETUPS[label], step, label=label)
    parity.expect(measure(*SUBJECT.programs(case)), case=case, observable="decode")


@pytest.mark.parametrize("backend_name", SUBJECT.backends)
@pytest.mark.parametrize("label", DEEP | LIGHT)
def test_decode_equals_forward_rollout(label, backend_name):
    """A ragged prompt in two chunks, then single tokens, gives the logits of the whole text at every position."""
    import jax

    config, backend = SETUPS[label].model, models.backend(backend_name)
    params = backend.init(config, jax.random.key(1))
    rng = np.random.default_rng(2)
    tokens, sizes, length = rng.integers(0, config.vocab_size, (2, 14)).astype(np.int32), np.array([8, 6]), 14
    wanted = np.asarray(jax.jit(lambda p, t: backend.apply(config, p, t))(params, tokens))
    prefill, generate = jax.jit(backend.prefill(config)), jax.jit(backend.generate(config))
    cache = backend.init_cache(config, 2, 16)
    for start in (0, 4):
        positions = np.broadcast_to(np.arange(start, start + 4, dtype=np.int32), (2, 4))
        live = (positions < sizes[:, None]).astype(np.int32)
        logits, cache = prefill(params, cache, tokens[:, start : start + 4], positions, live)
        where = live.astype(bool)
        np.testing.assert_allclose(np.asarray(logits)[where], wanted[:, start : start + 4][where], rtol=2e-4, atol=2e-5)
    for offset in range(length - sizes.max()):
        at = sizes + offset
        logits, cache = generate(params, cache, tokens[[0, 1], at][:, None], at[:, None].astype(jnp.int32))
        np.testing.assert_allclose(np.asarray(logits)[:, 0], wanted[[0, 1], at], rtol=2e-4, atol=2e-5)
