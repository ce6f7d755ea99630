"""Logits of the two twins: every tiny preset, scanned and unscanned, proved and then run."""

import pytest

from harness import measure, prove
from harness.subjects.compact import SUBJECT

SETUPS = SUBJECT.tiny_setups()


@pytest.mark.gate
@pytest.mark.parametrize("label", SETUPS)
def test_forward_is_proved_and_runs_alike(label, parity):
    case = SUBJECT.case(SETUPS[label], "forward", label=label)
    linen, nnx = SUBJECT.programs(case)
    parity.expect(prove(linen, nnx), case=case, observable="logits")
    parity.expect(measure(linen, nnx), case=case, observable="logits")
