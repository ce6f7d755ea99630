"""The constants of the noise ratio are what the recorded evidence says, and the recorded faults lie beyond them."""

import math

from harness.measure import CALIBRATION, LITERAL_BOUND, K


def test_the_constants_follow_from_their_evidence():
    ratios = [row["ratio"] for row in CALIBRATION["honest"].values()]
    gaps = [row["gap"] for row in CALIBRATION["honest"].values()]
    assert 2.0 ** math.ceil(math.log2(2 * max(ratios))) == K
    assert math.isclose(LITERAL_BOUND, 10.0 ** math.ceil(math.log10(2 * max(gaps))))
    assert len(ratios) >= 20
    assert all(row["ratio"] > K or row["gap"] > LITERAL_BOUND for row in CALIBRATION["faults"].values())
