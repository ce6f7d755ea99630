"""Prefill and one autoregressive step with a cache: proved, run, and held against the forward pass."""

import pytest

from harness import measure, prove
from harness.subjects.compact import SUBJECT
from parity_tests.float64 import assert_same
from parity_tests.rollout import rollout
from parity_tests.selection import CACHES, gated

SETUPS, DEEP, LIGHT = SUBJECT.tiny_setups(), SUBJECT.deep_setups(), SUBJECT.light_setups()
OTHERS, LATER = [label for label in DEEP | LIGHT if label not in CACHES], pytest.mark.scheduled_only
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
@pytest.mark.parametrize("label", [*CACHES, *(pytest.param(label, marks=LATER) for label in OTHERS)])
def test_decode_equals_forward_rollout(label, backend_name):
    """See `rollout`: chunks of a prompt, single tokens, and slots that are used again."""
    pairs = list(rollout(SETUPS[label], backend_name))
    assert len(pairs) == 10
    for found, wanted in pairs:
        assert_same(found, wanted)
