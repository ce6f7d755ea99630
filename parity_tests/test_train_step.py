"""Train state and metrics after one and after three steps, and the eval step: proved, and a share of them run.

Every leaf counts: parameters, both Adam moments, counters and metrics.
"""

import pytest

from harness import measure, prove
from harness.subjects.compact import SUBJECT
from harness.verdict import Kind
from parity_tests.selection import SHORT, gated

SETUPS, DEEP, LIGHT = SUBJECT.tiny_setups(), SUBJECT.deep_setups(), SUBJECT.light_setups()
VARIANTS = SUBJECT.variants()


# A state comes out under the names that it goes in by, so one step proved is any number of them; the deep
# setups hold that to be so for three.
@pytest.mark.gate
@pytest.mark.parametrize(
    ("label", "step"), [*((label, "train_step") for label in SETUPS), *((label, "train_steps_3") for label in SHORT)]
)
def test_state_after_steps_is_proved(label, step, parity):
    case = SUBJECT.case(SETUPS[label], step, label=label)
    parity.expect(prove(*SUBJECT.programs(case)), case=case, observable="state")


@pytest.mark.parametrize("label", gated(DEEP, beside=LIGHT))
def test_state_after_steps_runs_alike(label, parity):
    """After three steps, of which the first is the single one; after one where three cost most."""
    step = "train_steps_3" if label in SHORT else "train_step"
    case = SUBJECT.case(SETUPS[label], step, label=label)
    parity.expect(measure(*SUBJECT.programs(case)), case=case, observable="state")


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
