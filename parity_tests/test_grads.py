"""Loss and every gradient leaf of the two twins: every tiny preset, scanned and unscanned, is proved, and the deep
ones run.
"""

import dataclasses

import pytest

from harness import Kind, measure, prove
from harness.subjects.compact import SUBJECT
from models.config import Remat
from parity_tests.selection import LONG, SHORT, gated

SETUPS, DEEP = SUBJECT.tiny_setups(), SUBJECT.deep_setups()
REMATERIALISED = ("deepseek3-scanned", "llama4-scanned", "qwen3-next-scanned", "gemma4-unscanned")


@pytest.mark.gate
@pytest.mark.parametrize("label", SETUPS)
def test_every_gradient_leaf_is_proved(label, parity):
    case = SUBJECT.case(SETUPS[label], "loss_and_grads", label=label)
    linen, nnx = SUBJECT.programs(case)
    proof = prove(linen, nnx)
    parameters = {leaf.name for leaf in linen.inputs if leaf.name.startswith("params/")}
    compared = {leaf.name.replace("grads/", "params/", 1) for leaf in proof.leaves if leaf.name.startswith("grads/")}
    assert compared == parameters
    parity.expect(proof, case=case, observable="grads")


@pytest.mark.parametrize("label", gated(SHORT, beside=LONG))
def test_every_gradient_leaf_runs_alike(label, parity):
    case = SUBJECT.case(DEEP[label], "loss_and_grads", label=label)
    parity.expect(measure(*SUBJECT.programs(case)), case=case, observable="grads")


@pytest.mark.parametrize("backend_name", SUBJECT.backends)
@pytest.mark.parametrize("remat", [Remat.FULL, Remat.SAVE_DOTS])
@pytest.mark.parametrize("label", gated(["llama-scanned"], beside=REMATERIALISED))
def test_no_gradient_depends_on_what_is_recomputed(label, remat, backend_name):
    setup = SETUPS[label]
    changed = dataclasses.replace(setup, model=setup.model.replace(remat=remat))
    cases = [SUBJECT.case(one, "loss_and_grads", label=label) for one in (setup, changed)]
    verdict = prove(*(SUBJECT.program(backend_name, case) for case in cases))
    assert verdict.kind is Kind.PROVED, verdict.explain()
    assert verdict.strength == "exact"
