"""Goldens: every recorded case against the code as it is, none missing, none unused."""

import pytest

from harness.subjects.compact import SUBJECT
from parity_tests.witness.recordings import FILES

CASES = {case.id: case for case in SUBJECT.golden_cases()}


@pytest.mark.gate
@pytest.mark.parametrize("case_id", CASES)
def test_case_matches_its_golden(case_id, parity):
    case = CASES[case_id]
    parity.golden(SUBJECT.golden(case), case=case)


@pytest.mark.gate
def test_no_golden_is_missing_unused_or_damaged_and_each_side_is_its_own(parity):
    assert set(SUBJECT.golden_files) == set(FILES)
    parity.account(SUBJECT)
