"""Shardings of the twins: logical axes, specs on several meshes, before and after a step, the compiler's choice."""

import pytest

from harness.observe.shardings import compare_axes, compare_constraints, compare_specs
from harness.subjects.compact import SUBJECT, shardings
from harness.subjects.compact.setup import MESHES

SETUPS = SUBJECT.tiny_setups()
NAMES = SUBJECT.backends


@pytest.mark.gate
@pytest.mark.parametrize("label", SETUPS)
def test_logical_axes_and_specs_agree(label, parity):
    case = SUBJECT.case(SETUPS[label], "train_step", label=label)
    parity.expect(shardings.compare_axes(case, NAMES), case=case, observable="shardings")
    for mesh in MESHES:
        parity.expect(shardings.compare_specs(case, mesh, NAMES), case=case, observable="shardings")


@pytest.mark.gate
@pytest.mark.parametrize("label", SETUPS)
def test_a_step_moves_no_axis(label, parity):
    case = SUBJECT.case(SETUPS[label], "train_step", label=label)
    before, after = shardings.axes("nnx", case.config), shardings.after_a_step(case.config)
    observed = compare_axes(before, after, names=("before the step", "after it"))
    parity.expect(observed, case=case, observable="shardings")


@pytest.mark.gate
@pytest.mark.parametrize("step", ["forward", "train_step", "prefill"])
@pytest.mark.parametrize("label", SETUPS)
def test_activations_are_constrained_alike(label, step, parity):
    case = SUBJECT.case(SETUPS[label], step, mesh="fsdp-tensor-256", label=label)
    parity.expect(compare_constraints(*SUBJECT.programs(case)), case=case, observable="shardings")


@pytest.mark.gate
@pytest.mark.parametrize("label", SETUPS)
def test_the_compiler_shards_both_alike_and_keeps_the_state_where_it_was(label, parity):
    case = SUBJECT.case(SETUPS[label], "train_step", mesh="cpu-8", label=label)
    chosen = [shardings.compiled(program, case, "cpu-8") for program in SUBJECT.programs(case)]
    shared = sorted(set(chosen[0]) & set(chosen[1]))
    tables = ({leaf: table[leaf] for leaf in shared} for table in chosen)
    parity.expect(compare_specs(*tables, MESHES["cpu-8"], names=NAMES), case=case, observable="shardings")
    for table in chosen:
        parity.expect(shardings.kept(table, "cpu-8"), case=case, observable="shardings")
