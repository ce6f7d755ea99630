"""Planted bugs turn the command red and its report names the line: in one twin, and in both alike."""

import os
import pathlib
import subprocess
import sys

import pytest

from harness.faults import planted_source
from harness.subjects.compact import SUBJECT
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


def verdict_of(outcome):
    kind = {0: Kind.PROVED, 1: Kind.DIVERGED}.get(outcome.returncode, Kind.UNDECIDED)
    return Verdict(kind, reason=outcome.stdout + outcome.stderr)


@pytest.mark.gate
@pytest.mark.parametrize("fault", TWIN_FAULTS, ids=lambda fault: fault.id)
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
