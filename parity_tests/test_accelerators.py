"""The live pair on an accelerator. On a machine without one, `-m tpu_only` lowers every program for it."""

import jax
import pytest

from harness import measure
from harness.subjects.compact import SUBJECT

SETUPS = SUBJECT.deep_setups() | SUBJECT.light_setups()
STEPS = ("forward", "train_step", "generate")


def _run_or_lower(label, step, accelerator, lowering_platform, parity):
    case = SUBJECT.case(SETUPS[label], step, label=label)
    linen, nnx = SUBJECT.programs(case)
    if accelerator != "dry":
        parity.expect(measure(linen, nnx), case=case, observable="accelerator")
        return
    for program in (linen, nnx):
        lowered = jax.jit(program.fn).trace(*program.args).lower(lowering_platforms=(lowering_platform,))
        assert "func.func public @main" in lowered.as_text()


@pytest.mark.tpu_only
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("label", SETUPS)
def test_the_pair_runs_alike_on_a_tpu(label, step, accelerator, lowering_platform, parity):
    _run_or_lower(label, step, accelerator, lowering_platform, parity)


@pytest.mark.gpu_only
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("label", SETUPS)
def test_the_pair_runs_alike_on_a_gpu(label, step, accelerator, lowering_platform, parity):
    _run_or_lower(label, step, accelerator, lowering_platform, parity)
