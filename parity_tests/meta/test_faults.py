"""Planted bugs turn the command red and its report names the line: in one twin, and in both alike."""

import os
import pathlib
import shutil
import subprocess
import sys

import jax
import pytest

from harness import goldens
from harness.faults import Fault, FaultKind, planted, planted_source
from harness.subjects.compact import SUBJECT, checkpoints, shardings
from harness.subjects.compact.faults import COMMON_FAULTS, TWIN_FAULTS
from harness.subjects.compact.setup import dumps
from harness.verdict import Kind, Verdict

ROOT = pathlib.Path(__file__).resolve().parents[2]
SETUPS = SUBJECT.tiny_setups()


def run(tree, *command):
    """A command in a scratch copy, which shadows the installed packages."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def check(tree, fault):
    config = tree / "fault.json"
    config.write_text(dumps(SETUPS[fault.label]))
    return run(tree, "harness.cli", "check", str(config), "--step", fault.step)


def in_the_gate(fault):
    """Some controls are part of every gate; the others cost too much there and run with the tests."""
    marks = [pytest.mark.gate] if fault.id in {"norm-ignores-its-epsilon", "causal-mask-off-by-one"} else []
    return pytest.param(fault, id=fault.id, marks=marks)


def verdict_of(outcome):
    kind = {0: Kind.PROVED, 1: Kind.DIVERGED}.get(outcome.returncode, Kind.UNDECIDED)
    return Verdict(kind, reason=outcome.stdout + outcome.stderr)


@pytest.mark.parametrize("fault", [in_the_gate(fault) for fault in TWIN_FAULTS])
def test_a_fault_in_one_twin_is_caught_and_named(fault, parity):
    with planted_source(ROOT, fault.path, fault.old, fault.new) as tree:
        line = (tree / fault.path).read_text(encoding="utf-8").split(fault.new)[0].count("\n") + 1
        outcome = check(tree, fault)
    names = [name.replace("{line}", str(line)) for name in fault.names]
    parity.control(verdict_of(outcome), case=fault.label, fault=fault.id, localised=names)


@pytest.mark.parametrize("fault", COMMON_FAULTS, ids=lambda fault: fault.id)
def test_a_fault_in_both_twins_passes_parity_and_fails_golden_and_witness(fault, parity):
    with planted_source(ROOT, fault.path, fault.old, fault.new) as tree:
        assert check(tree, fault).returncode == 0
        golden = run(tree, "pytest", "-q", "-x", "parity_tests/test_goldens.py", "-k", f"{fault.label}-{fault.step}")
        witness = run(
            tree, "pytest", "-q", "-x", "parity_tests/witness/test_witness.py", "-k", fault.label.split("-")[0]
        )
    parity.control(verdict_of(golden), case=fault.label, fault=fault.id, localised="fingerprints")
    parity.control(verdict_of(witness), case=fault.label, fault=fault.id, localised=fault.names)


def test_the_unharmed_tree_passes():
    with planted_source(ROOT, "README.md", "# Paraflax", "# Paraflax ") as tree:
        outcome = check(tree, TWIN_FAULTS[0])
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def _reads_mu_as_nu(original):
    swapped = {"mu": "nu", "nu": "mu"}

    def rebuild(state, leaves, values):
        parts = {name: name.split("/") for name in values}
        moved = {"/".join([swapped.get(word, word) for word in words]): values[name] for name, words in parts.items()}
        return original(state, leaves, moved)

    return rebuild


@pytest.mark.gate
def test_a_moment_read_as_the_other_is_named_by_leaf(tmp_path, parity):
    case = SUBJECT.case(SETUPS["llama-scanned"], "train_step", label="llama-scanned")
    linen, nnx = SUBJECT.programs(case)
    saved = checkpoints.save(tmp_path, linen, case, checkpoints.LAYOUTS[1])
    fault = Fault("mu-read-as-nu", "", FaultKind.DIFFERS, "models.checkpoints.store:rebuild", _reads_mu_as_nu)
    with planted(fault) as state:
        crossed = checkpoints.restored(case, saved, "nnx")
        state.require_hit()
    for observed in checkpoints.compare_crossed(nnx, crossed):
        parity.control(observed.as_verdict(), case=case, fault=fault.id, localised="opt_state/0/mu")


def _swaps_an_axis(original):
    """The step returns one kernel placed across its axes."""

    def train_step(self, *args, **kwargs):
        step = original(self, *args, **kwargs)

        def swapped(state, batch):
            state, metrics = step(state, batch)
            kernel = state["model"]["decoder"]["layers"]["mlp"]["wi_0"]["kernel"]
            spec = jax.sharding.PartitionSpec("tensor", None, "fsdp")
            moved = jax.lax.with_sharding_constraint(kernel[...], spec)
            state["model"]["decoder"]["layers"]["mlp"]["wi_0"]["kernel"] = kernel.replace(moved)
            return state, metrics

        return swapped

    return train_step


@pytest.mark.gate
def test_an_axis_swapped_after_a_step_is_named_by_leaf(parity):
    case = SUBJECT.case(SETUPS["llama-scanned"], "train_step", mesh="cpu-8", label="llama-scanned")
    fault = Fault("axis-swapped", "", FaultKind.DIFFERS, "models.nnx.backend:Backend.train_step", _swaps_an_axis)
    with planted(fault) as state:
        chosen = shardings.compiled(SUBJECT.program("nnx", case), case, "cpu-8")
        state.require_hit()
    observed = shardings.kept(chosen, "cpu-8")
    parity.control(observed.as_verdict(), case=case, fault=fault.id, localised="params/decoder/layers/mlp/wi_0/kernel")


@pytest.mark.gate
@pytest.mark.parametrize("harm", ["stale", "missing", "truncated"])
def test_a_harmed_golden_is_named(harm, tmp_path, monkeypatch, parity):
    monkeypatch.delenv("CI", raising=False)  # the store is a scratch copy
    case = SUBJECT.case(SETUPS["llama-scanned"], "forward", label="llama-scanned")
    store = tmp_path / "goldens"
    shutil.copytree(ROOT / "goldens", store)
    current = SUBJECT.golden(case)
    path = store / current.filename
    if harm == "stale":
        prints = {**current.sections["fingerprints"], "value of nnx": "0" * 16}
        goldens.write(store, goldens.Golden(current.case_id, {**current.sections, "fingerprints": prints}))
    elif harm == "missing":
        path.unlink()
    else:
        path.write_text(path.read_text(encoding="utf-8")[:300], encoding="utf-8")
    parity.control(goldens.check(store, current), case=case, fault=f"golden-{harm}", localised=[path.name, "regen"])
