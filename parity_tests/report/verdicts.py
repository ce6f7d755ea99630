"""Verdicts and runs made by hand, for tests of what becomes of them."""

import os
import pathlib
import subprocess
import sys

from harness.report import Outcome, Record
from harness.verdict import Certificate, Finding, Kind, LeafResult, Verdict

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = {"linen": ("models/linen/layers.py",), "nnx": ("models/nnx/layers.py",)}


def verdict(kind=Kind.PROVED, leaves=3, **certificate):
    results = tuple(LeafResult(f"leaf{index}", kind) for index in range(leaves))
    finding = Finding("first difference: mul", ("x*y", "x*x"), ("a.py:3 (f)", "b.py:4 (g)"), "decoder/mlp")
    made = Certificate(sources=SOURCES, num_leaves=leaves, num_elements=100 * leaves, **certificate)
    findings = () if kind.agrees else (finding,)
    return Verdict(kind, "exact", results, findings, made, {"linen": {"value": "ab12"}}, programs=("linen", "nnx"))


def record(kind=Kind.PROVED, **fields):
    values = {
        "case": "llama-1",
        "observable": "logits",
        "family": "llama",
        "num_leaves": 3,
        "num_elements": 300,
        **fields,
    }
    return Record(kind=kind, **values)


def outcome(result="passed", **fields):
    return Outcome(fields.pop("nodeid", "test_a.py::test_a"), result, **fields)


def run_python(directory, *arguments, **environment):
    """A python process in a directory, with this tree's packages and no accelerator."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "COLUMNS": "100", **environment}
    if "CI" not in environment:
        env.pop("CI", None)
    return subprocess.run(
        [sys.executable, *arguments], cwd=directory, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def run_pytest(directory, *arguments, **environment):
    """pytest with no plugin but ours and xdist, which is quicker."""
    plugins = ("-p", "harness.plugin", "-p", "xdist")
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return run_python(directory, "-m", "pytest", *plugins, "-q", *arguments, **environment)
