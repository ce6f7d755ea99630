"""Shardings of the twins: logical axes, specs on several meshes, before and after a step, the compiler's choice."""

import dataclasses

import jax
import numpy as np
import pytest

import models
from harness.observe.shardings import compare_axes, compare_constraints, compare_specs
from harness.subjects.compact import SUBJECT, inputs, shardings
from harness.subjects.compact.setup import MESHES, device_mesh
from models.sharding import named_shardings
from models.training.batch import Batch
from parity_tests.selection import LONG, SHORT, gated

SETUPS, DEEP = SUBJECT.tiny_setups(), SUBJECT.deep_setups()
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


@pytest.mark.parametrize("step", gated(["train_step", "prefill"], beside=["forward"]))
@pytest.mark.parametrize("label", SETUPS)
def test_activations_are_constrained_alike(label, step, parity):
    case = SUBJECT.case(SETUPS[label], step, mesh="fsdp-tensor-256", label=label)
    parity.expect(compare_constraints(*SUBJECT.programs(case)), case=case, observable="shardings")


@pytest.mark.parametrize("label", gated(SHORT, beside=LONG))
def test_the_compiler_shards_both_alike_and_keeps_the_state_where_it_was(label, parity):
    case = SUBJECT.case(SETUPS[label], "train_step", mesh="cpu-8", label=label)
    chosen = [shardings.compiled(program, case, "cpu-8") for program in SUBJECT.programs(case)]
    shared = sorted(set(chosen[0]) & set(chosen[1]))
    tables = ({leaf: table[leaf] for leaf in shared} for table in chosen)
    parity.expect(compare_specs(*tables, MESHES["cpu-8"], names=NAMES), case=case, observable="shardings")
    for table in chosen:
        parity.expect(shardings.kept(table, "cpu-8"), case=case, observable="shardings")


@pytest.mark.parametrize("backend_name", NAMES)
@pytest.mark.parametrize("label", DEEP)
def test_a_step_on_eight_devices_is_the_step_on_one(label, backend_name):
    setup = dataclasses.replace(SETUPS[label], model=SETUPS[label].model.replace(vocab_size=96))
    backend, mesh = models.backend(backend_name), device_mesh("cpu-8")
    state, _ = SUBJECT.program(backend_name, SUBJECT.case(setup, "train_step")).draw(jax.random.key(0))
    # Eight rows: with three or four, XLA's partitioner gives wrong numbers for a plain matrix product on this mesh.
    rows = inputs.documents(inputs.Extent(batch=8), setup.model.vocab_size, seed=0)
    batch = Batch(**{name: jax.numpy.asarray(value) for name, value in rows.items()})
    step = jax.jit(backend.train_step(setup.model, setup.train))
    wanted_state, wanted = step(state, batch)
    placed = jax.device_put(state, named_shardings(backend.state_axes(setup.model, setup.train), mesh))
    with jax.set_mesh(mesh):
        found_state, found = jax.jit(backend.train_step(setup.model, setup.train))(placed, batch)
    kernels = [leaf for leaf in jax.tree.leaves(found_state) if leaf.ndim > 1]
    assert sum(not leaf.sharding.is_fully_replicated for leaf in kernels) > len(kernels) / 2
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5)
    for one, other in zip(jax.tree.leaves(wanted_state), jax.tree.leaves(found_state), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-4, atol=1e-5)
