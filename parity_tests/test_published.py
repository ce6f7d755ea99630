"""Published sizes, up to 405 billion parameters, as abstract programs on 256 chips: proved from traces alone."""

import pytest

from harness import prove
from harness.observe.shardings import compare_constraints, large_replicated
from harness.subjects.compact import SUBJECT, shardings
from harness.subjects.compact.setup import MESHES

CASES = {case.id: case for case in SUBJECT.published_cases()}


@pytest.mark.gate
@pytest.mark.parametrize("case_id", CASES)
def test_published_size_is_proved(case_id, parity):
    case = CASES[case_id]
    observable = {"forward": "logits", "train_step": "state"}[case.step]
    parity.expect(prove(*SUBJECT.programs(case)), case=case, observable=observable)


@pytest.mark.gate
@pytest.mark.parametrize("case_id", [case_id for case_id, case in CASES.items() if case.step == "train_step"])
def test_published_size_leaves_no_large_parameter_replicated(case_id, parity):
    case = CASES[case_id]
    parity.expect(shardings.compare_specs(case, case.mesh, SUBJECT.backends), case=case, observable="shardings")
    for backend in SUBJECT.backends:
        specs, shapes = shardings.resolved(backend, case.config, case.mesh)
        assert large_replicated(specs, shapes, MESHES[case.mesh]) == []


@pytest.mark.gate
@pytest.mark.parametrize("case_id", CASES)
def test_published_size_constrains_its_activations_alike(case_id, parity):
    case = CASES[case_id]
    parity.expect(compare_constraints(*SUBJECT.programs(case)), case=case, observable="shardings")
