"""Each planted migration fault is told apart from its honest twin, and the first finding names its line."""

import re

import pytest

from parity_tests.prove.faults.planting import edited
from parity_tests.prove.faults.rows import Outcome, Room, Twin
from parity_tests.prove.faults.table import PAGE, PLANTED, ROWS, outcomes, page, planted_line

ROOMS = [row for row in PLANTED if isinstance(row, Room)]
TWINS = [row for row in PLANTED if isinstance(row, Twin)]
QUICK = {"M07", "M21", "R04", "L09", "I09"}

# The list's numbers, by letter, as they were handed to the project.
LIST = {
    "M": (1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22, 24, 25, 27, 28), "R": (1, 3, 4, 6, 7, 9, 10),
    "S": (1, 3, 4, 6, 7, 9, 10, 12, 13), "L": (1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16),
    "O": (1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16),
    "K": (1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 20, 21, 23, 24, 26, 27, 28),
    "H": (1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16), "I": (1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18),
    "Q": (1, 3, 4, 6, 7), "A": (1, 2, 4, 5, 7), "P": (1, 3, 4, 6, 7, 9, 10, 12, 13), "V": (1, 2, 4, 5, 7, 8),
    "T": (2, 3, 5), "X": (1, 3, 4, 6), "D": (1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16),
}  # fmt: skip


def _id(row):
    return row.id


@pytest.mark.parametrize("row", ROOMS, ids=_id)
def test_the_honest_lines_are_proved_equal_to_those_by_another_hand(row):
    verdict = row.honest_verdict()
    assert verdict, verdict.explain()


@pytest.mark.parametrize("row", ROOMS, ids=_id)
def test_the_first_finding_names_a_fault_planted_in_a_few_lines(row):
    _named(row)


@pytest.mark.parametrize("row", [row for row in TWINS if row.id in QUICK], ids=_id)
def test_the_first_finding_names_a_fault_planted_in_a_twin(row):
    _named(row)


@pytest.mark.scheduled_only
def test_the_table_in_the_docs_is_current_and_names_every_line():
    found = outcomes()
    assert all(outcome.named for outcome in found.values())
    assert PAGE.read_text(encoding="utf-8") == page(found)


def _named(row):
    outcome = row.outcome()
    text = outcome.verdict.explain()
    assert outcome.noticed, text
    assert outcome.named, f"{' or '.join(map(str, outcome.lines))} is not named\n{text}"
    assert planted_line(row, outcome) in PAGE.read_text(encoding="utf-8"), (
        "docs/explained-faults.md is not current: run `python -m parity_tests.prove.faults`"
    )


def test_every_fault_of_the_list_has_a_row_and_no_two_rows_are_one():
    listed = {f"{letter}{number:02}" for letter, numbers in LIST.items() for number in numbers}
    ids = [row.id for row in ROWS]
    assert len(ids) == len(set(ids))
    assert {re.sub("b$", "", name) for name in ids} == listed
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"\n| {name} |" in text for name in ids)


def test_a_finding_elsewhere_does_not_count_as_named():
    row = next(row for row in ROOMS if row.id == "A04")
    outcome = row.outcome()
    _, elsewhere = edited(row.honest, 'x @ params["kernel"]', 'x @ params["lora_a"]')
    assert outcome.named
    assert not Outcome(outcome.verdict, (elsewhere,)).named
