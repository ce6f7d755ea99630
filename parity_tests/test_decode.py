"""Prefill and one autoregressive step with a cache: proved, run, and held against the forward pass."""

import jax
import numpy as np
import pytest

import models
from harness import measure, prove
from harness.subjects.compact import SUBJECT
from parity_tests.float64 import Float64, assert_same
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
    """A ragged prompt in two chunks, then single tokens, gives the logits of the whole text at every position.

    So does each text again in the other's slot, from position 0 on.
    """
    config, backend = SETUPS[label].model, models.backend(backend_name)
    program = SUBJECT.program(backend_name, SUBJECT.case(SETUPS[label], "forward", label=label))
    params, _ = program.draw(jax.random.key(1))
    rng, sizes, length = np.random.default_rng(2), np.array([8, 6]), 14
    tokens = rng.integers(0, config.vocab_size, (2, length)).astype(np.int32)
    wanted = Float64(lambda p, t: backend.apply(config, p, t), params, tokens)(params, tokens)
    cache, four, single = backend.init_cache(config, 2, 16), tokens[:, :4], tokens[:, :1]
    prefill = Float64(backend.prefill(config), params, cache, four, four, four)
    generate = Float64(backend.generate(config), params, cache, single, single)

    def ahead(texts, cache, start):
        """Four tokens of each text from `start` on, as far as its prompt goes."""
        positions = np.broadcast_to(np.arange(start, start + 4, dtype=np.int32), (2, 4))
        live = positions < sizes[texts, None]
        logits, cache = prefill(params, cache, tokens[texts, start : start + 4], positions, live.astype(np.int32))
        assert_same(logits[live], wanted[texts, start : start + 4][live])
        return cache

    def one(texts, cache, at):
        """Each text's token at its own place."""
        logits, cache = generate(params, cache, tokens[texts, at][:, None], at[:, None].astype(np.int32))
        assert_same(logits[:, 0], wanted[texts, at])
        return cache

    texts = np.array([0, 1])
    cache = ahead(texts, ahead(texts, cache, 0), 4)
    for offset in range(length - sizes.max()):
        cache = one(texts, cache, sizes + offset)
    one(texts[::-1], ahead(texts[::-1], cache, 0), np.array([4, 4]))
