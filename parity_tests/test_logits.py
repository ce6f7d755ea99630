"""Logits of the two twins: every tiny preset, scanned and unscanned, is proved, and the deep ones run."""

import jax
import numpy as np
import pytest

import models
from harness import measure, prove
from harness.subjects.compact import SUBJECT
from models import ops
from models.config import RmsNorm

SETUPS, DEEP = SUBJECT.tiny_setups(), SUBJECT.deep_setups()


@pytest.mark.gate
@pytest.mark.parametrize("step", ["forward", "intermediates"])
@pytest.mark.parametrize("label", SETUPS)
def test_logits_and_what_the_layers_sow_are_proved(label, step, parity):
    case = SUBJECT.case(SETUPS[label], step, label=label)
    parity.expect(prove(*SUBJECT.programs(case)), case=case, observable="logits")


@pytest.mark.gate
@pytest.mark.parametrize("step", ["forward", "intermediates"])
@pytest.mark.parametrize("label", DEEP)
def test_logits_and_what_the_layers_sow_run_alike(label, step, parity):
    case = SUBJECT.case(DEEP[label], step, label=label)
    parity.expect(measure(*SUBJECT.programs(case)), case=case, observable="logits")


@pytest.mark.parametrize("backend_name", SUBJECT.backends)
@pytest.mark.parametrize("label", DEEP | SUBJECT.light_setups())
def test_the_last_hidden_state_under_norm_and_head_gives_the_logits(label, backend_name):
    config = SETUPS[label].model
    program = SUBJECT.program(backend_name, SUBJECT.case(SETUPS[label], "intermediates", label=label))
    params, batch = program.draw(jax.random.key(0))
    logits, sown = jax.jit(models.backend(backend_name).intermediates(config))(params, batch)
    num_streams = sum("/hidden_states" in name for name in sown)
    assert num_streams == sum(len(stack.names) * len(stack.cycle) for stack in config.stacks)
    last = config.stacks[-1]
    words = ["decoder", last.names[-1], last.cycle[-1].name, f"hidden_states{last.cycle[-1].suffix}"]
    states = sown["/".join(word for word in words if word)]
    x, words = states[-1] if last.scanned else states, ["decoder/decoder_norm/scale", "decoder/decoder_norm/bias"]
    norm = ops.rms_norm if isinstance(config.norm, RmsNorm) else ops.layer_norm
    weights = [params[name] for name in words if name in params]
    x = norm(x, *weights, epsilon=config.norm.epsilon, zero_centered=config.norm.zero_centered, dtype=x.dtype)
    head = ops.unembed if config.tied_head else ops.head
    found = head(x, params["token_embedder/embedding" if config.tied_head else "decoder/logits_dense/kernel"])
    found = found if config.final_soft_cap is None else ops.soft_cap(found, config.final_soft_cap)
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)
