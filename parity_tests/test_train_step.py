"""Train state and metrics after one and after three steps, and the eval step: proved and then run.

Every leaf counts: parameters, both Adam moments, counters and metrics.
"""

import pytest

from harness import measure, prove
from harness.subjects.compact import SUBJECT
from harness.verdict import Kind

SETUPS = SUBJECT.tiny_setups()
VARIANTS = SUBJECT.variants()


@pytest.mark.gate
@pytest.mark.parametrize("step", ["train_step", "train_steps_3"])
@pytest.mark.parametrize("label", SETUPS)
def test_state_after_steps_is_proved_and_runs_alike(label, step, parity):
    case = SUBJECT.case(SETUPS[label], step, label=label)
    linen, nnx = SUBJECT.programs(case)
    parity.expect(prove(linen, nnx), case=case, observable="state")
    if step == "train_steps_3":  # the first of its steps is the single one
        parity.expect(measure(linen, nnx), case=case, observable="state")


@pytest.mark.gate
@pytest.mark.parametrize("label", VARIANTS)
def test_dropout_bfloat16_and_depth_are_proved(label, parity):
    case = SUBJECT.case(VARIANTS[label], "train_step", label=label)
    verdict = prove(*SUBJECT.programs(case))
    parity.expect(verdict, case=case, observable="state")
    assert verdict.kind is Kind.PROVED
    assert ("key derivation" in verdict.strength) == (VARIANTS[label].model.dropout_rate > 0)


@pytest.mark.gate
@pytest.mark.parametrize("label", SETUPS)
def test_eval_step_is_proved(label, parity):
    case = SUBJECT.case(SETUPS[label], "eval_step", label=label)
    parity.expect(prove(*SUBJECT.programs(case)), case=case, observable="eval")
