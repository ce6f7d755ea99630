"""Goldens: every recorded case against the code as it is, none missing, none unused."""

import pathlib

import pytest

from harness import goldens
from harness.subjects.compact import SUBJECT

ROOT = pathlib.Path(__file__).resolve().parents[1] / "goldens"
CASES = {case.id: case for case in SUBJECT.golden_cases()}


@pytest.mark.gate
@pytest.mark.parametrize("case_id", CASES)
def test_case_matches_its_golden(case_id, parity):
    case = CASES[case_id]
    parity.golden(SUBJECT.golden(case), case=case)


@pytest.mark.gate
def test_no_golden_is_missing_unused_or_damaged():
    found = goldens.status(ROOT, [f"{case.config.family}/{case_id}.txt" for case_id, case in CASES.items()])
    assert found.clean, found
