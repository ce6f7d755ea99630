"""The exit code follows from the records; comparing nothing is never parity."""

import pytest

from harness.gate import judge
from harness.report import Exit, Run, exit_code
from harness.verdict import Kind

from .verdicts import SOURCES, outcome, record

GOOD, BAD, OPEN = record(), record(Kind.DIVERGED, nodeid="t::bad"), record(Kind.UNDECIDED, nodeid="t::open")
CAUGHT = record(Kind.DIVERGED, observable="control")
MISSED = record(Kind.PROVED, observable="control")
FAILED, CRASHED = outcome("failed", nodeid="t::x"), outcome("error", crash=True, nodeid="t::y")


@pytest.mark.parametrize(
    ("records", "outcomes", "wanted"),
    [
        ([GOOD], [outcome()], Exit.PARITY),
        ([GOOD, CAUGHT], [], Exit.PARITY),
        ([], [], Exit.UNDECIDED),
        ([], [outcome()], Exit.UNDECIDED),
        ([CAUGHT], [outcome()], Exit.UNDECIDED),
        ([record(num_leaves=0)], [], Exit.UNDECIDED),
        ([GOOD, OPEN], [], Exit.UNDECIDED),
        ([GOOD, OPEN], [outcome("failed", nodeid="t::open")], Exit.UNDECIDED),
        ([GOOD, BAD], [], Exit.DIVERGENCE),
        ([GOOD, BAD, OPEN], [CRASHED], Exit.DIVERGENCE),
        ([GOOD, MISSED], [], Exit.DIVERGENCE),
        ([GOOD], [FAILED], Exit.DIVERGENCE),
        ([GOOD], [FAILED, CRASHED], Exit.DIVERGENCE),
        ([GOOD], [CRASHED], Exit.CRASH),
        ([GOOD, OPEN], [CRASHED], Exit.CRASH),
    ],
)
def test_exit_code_of_each_mix(records, outcomes, wanted):
    assert exit_code(records, outcomes) is wanted


@pytest.mark.parametrize(
    ("status", "records", "wanted"),
    [
        (0, [GOOD], Exit.PARITY),
        (5, [GOOD], Exit.PARITY),  # everything was replayed, pytest had nothing to run
        (5, [], Exit.UNDECIDED),
        (1, [GOOD], Exit.CRASH),  # pytest failed and the records do not say why
        (3, [GOOD], Exit.CRASH),
        (-9, [GOOD], Exit.CRASH),
        (3, [BAD], Exit.DIVERGENCE),
    ],
)
def test_pytests_own_answer_is_never_overruled(status, records, wanted):
    assert judge(Run(tuple(records)), status) is wanted


def test_a_trace_with_the_other_sides_source_is_no_parity():
    session = {"forbidden": {"linen": ["models/linen/"]}}
    assert judge(Run((record(sources=SOURCES),), session=session), 0) is Exit.DIVERGENCE
