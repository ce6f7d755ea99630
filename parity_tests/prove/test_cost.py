"""What a proof costs, counted in calls and not in seconds: the same on every machine, however busy."""

import sys

import pytest

from benchmarks import cases, plain
from harness import prove


def calls(programs):
    """Calls of Python and C functions during a proof; the programs are traced before."""
    for program in programs:
        program.trace()
    count = 0

    def counted(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        verdict = prove(*programs)
    finally:
        sys.setprofile(before)
    assert str(verdict.kind) == "proved"
    return count


@pytest.mark.parametrize("gradients", [False, True], ids=["forward", "gradients"])
def test_work_grows_no_faster_than_unrolled_layers(gradients):
    few, many = (calls(plain.programs(layers, gradients=gradients)) for layers in (4, 32))
    assert many < 1.1 * 8 * few  # caches that other tests have filled save the smaller program a few calls more


def test_depth_of_a_scan_costs_nothing():
    few, many = (calls(cases.find(f"scanned forward {layers}").make()) for layers in (10, 1000))
    assert many < 1.05 * few
