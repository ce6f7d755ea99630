"""Logits of the two twins: every tiny preset, scanned and unscanned, proved and then run."""

import jax
import numpy as np
import pytest

import models
from harness import measure, prove
from harness.subjects.compact import SUBJECT
from models import ops
from models.config import RmsNorm

SETUPS = SUBJECT.tiny_setups()


@pytest.mark.gate
@pytest.mark.parametrize("label", SETUPS)
def test_forward_is_proved_and_runs_alike(label, parity):
    case = SUBJECT.case(SETUPS[label], "forward", label=label)
    linen, nnx = SUBJECT.programs(case)
    parity.expect(prove(linen, nnx), case=case, observable="logits")
    parity.expect(measure(linen, nnx), case=case, observable="logits")


@pytest.mark.gate
@pytest.mark.parametrize("label", SETUPS)
def test_what_the_layers_sow_is_proved_and_runs_alike(label, parity):
    case = SUBJECT.case(SETUPS[label], "intermediates", label=label)
    linen, nnx = SUBJECT.programs(case)
    parity.expect(prove(linen, nnx), case=case, observable="logits")
    parity.expect(measure(linen, nnx), case=case, observable="logits")


@pytest.mark.parametrize("backend_name", SUBJECT.backends)
@pytest.mark.parametrize("label", SETUPS)
def test_the_last_hidden_state_under_norm_and_head_gives_the_logits(label, backend_name):
    config = SETUPS[label].model
    program = SUBJECT.program(backend_name, SUBJECT.case(SETUPS[label], "intermediates", label=label))
    params, batch = program.draw(jax.random.key(0))
    logits, sown = jax.jit(models.backend(backend_name).intermediates(config))(params, batch)
    block = "layers" if config.scan_layers else f"layers_{config.num_blocks - 1}"
    assert len(sown) == (1 if config.scan_layers else config.num_blocks) * len(config.cycle)
    states = sown[f"decoder/{block}/hidden_states{config.cycle[-1].suffix}"]
    x, words = states[-1] if config.scan_layers else states, ["decoder/decoder_norm/scale", "decoder/decoder_norm/bias"]
    norm = ops.rms_norm if isinstance(config.norm, RmsNorm) else ops.layer_norm
    weights = [params[name] for name in words if name in params]
    x = norm(x, *weights, epsilon=config.norm.epsilon, zero_centered=config.norm.zero_centered, dtype=x.dtype)
    head = ops.unembed if config.tied_head else ops.head
    found = head(x, params["token_embedder/embedding" if config.tied_head else "decoder/logits_dense/kernel"])
    found = found if config.final_soft_cap is None else ops.soft_cap(found, config.final_soft_cap)
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)
