"""Published sizes, up to a trillion parameters, as abstract programs on 256 chips: traced, lowered, never compiled."""

import functools

import pytest

from harness import prove
from harness.observe.shardings import compare_constraints, large_replicated
from harness.subjects.compact import SUBJECT, shardings
from harness.subjects.compact.setup import MESHES
from harness.subjects.compact.subject import PUBLISHED
from models.config import presets
from parity_tests.selection import gated

SIZES = [name for name in presets() if not name.endswith("-tiny")]
CASES = {case.id: case for case in SUBJECT.published_cases(SIZES)}
# Sizes of one family trace alike: the others wait for the night, and for the table of the families.
every = pytest.mark.parametrize(
    "case_id",
    gated(
        [case_id for case_id, case in CASES.items() if case.label in PUBLISHED],
        beside=[case_id for case_id, case in CASES.items() if case.label not in PUBLISHED],
    ),
)


@functools.lru_cache(maxsize=2)
def _programs(case_id):
    """Both sides, whose traces the tests of one case share."""
    return SUBJECT.programs(CASES[case_id])


def _proved(case, programs, parity):
    observable = {"forward": "logits", "train_step": "state"}[case.step]
    parity.expect(prove(*programs), case=case, observable=observable)


def _constrained_alike(case, programs, parity):
    parity.expect(compare_constraints(*programs), case=case, observable="shardings")


def _lowered_for_its_chips(case, programs, parity):
    """Each activation's constraint is in it, and as many arguments are placed by each twin."""
    texts = [shardings.lowered(program, case, "tpu") for program in programs]
    assert all("mhlo.num_partitions = 256 " in text for text in texts)
    words = ("sdy.sharding_constraint ", "sdy.sharding ")
    constrained, placed = ([text.count(word) for text in texts] for word in words)
    assert constrained[0] == constrained[1] > 2
    assert placed[0] == placed[1] > 2


CLAIMS = {claim.__name__: claim for claim in (_proved, _constrained_alike, _lowered_for_its_chips)}


# The claims about one case follow each other.
@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
@every
def test_published_size_is(claim, case_id, parity):
    claim(CASES[case_id], _programs(case_id), parity)


@pytest.mark.gate
@pytest.mark.parametrize("case_id", [case_id for case_id, case in CASES.items() if case.step == "train_step"])
def test_published_size_leaves_no_large_parameter_replicated(case_id, parity):
    case = CASES[case_id]
    parity.expect(shardings.compare_specs(case, case.mesh, SUBJECT.backends), case=case, observable="shardings")
    for backend in SUBJECT.backends:
        specs, shapes = shardings.resolved(backend, case.config, case.mesh)
        assert large_replicated(specs, shapes, MESHES[case.mesh]) == []
