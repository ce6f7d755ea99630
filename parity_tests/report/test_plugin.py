"""The plugin in real pytest runs: it costs no jax, fails what is not parity, and loses nothing over workers."""

import json

import pytest

from harness.report import Exit, exit_code, read_run

from .verdicts import run_pytest, run_python

TESTS = """
import pytest
from harness.goldens import Golden
from parity_tests.report.verdicts import verdict
from harness.verdict import Kind

def expect(parity, name, kind=Kind.PROVED, leaves=3):
    parity.expect(verdict(kind, leaves), case=name, observable="logits", family="llama", layers="scanned")

@pytest.mark.gate
@pytest.mark.parametrize("index", range(60))
def test_good(parity, index):
    expect(parity, f"good-{index}")

@pytest.mark.gate
def test_bad(parity):
    expect(parity, "bad", Kind.DIVERGED)

@pytest.mark.gate
def test_open(parity):
    expect(parity, "open", Kind.UNDECIDED)

@pytest.mark.gate
def test_empty(parity):
    expect(parity, "empty", leaves=0)

@pytest.mark.gate
def test_control(parity):
    parity.control(verdict(Kind.DIVERGED), case="good-1", fault="eps", localised="decoder/mlp")

@pytest.mark.gate
@pytest.mark.parametrize("kind, text", [(Kind.PROVED, ""), (Kind.DIVERGED, "another stage")])
def test_missed_control(parity, kind, text):
    parity.control(verdict(kind), case="good-1", fault="swap", localised=text)

@pytest.mark.gate
def test_crash():
    raise TypeError("boom")

@pytest.mark.gate
def test_golden(parity):
    parity.golden(Golden("llama-1", {"leaves": {"a": "f32"}}))

@pytest.mark.tpu_only
def test_tpu(accelerator, lowering_platform):
    assert (accelerator, lowering_platform) == ("dry", "tpu")

@pytest.mark.tpu_only
def test_tpu_without_dry_run():
    pass

def test_outside():
    pass
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    (tmp_path / "test_a.py").write_text(TESTS)
    return tmp_path


def test_importing_plugin_and_command_imports_no_jax(tmp_path):
    code = (
        "import sys, harness.plugin, harness.cli; print(sorted({'jax', 'flax', 'models', 'numpy'} & set(sys.modules)))"
    )
    done = run_python(tmp_path, "-c", code)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_run_over_workers_records_everything_and_fails_what_is_no_parity(project):
    done = run_pytest(project, "-n", "2", "-m", "gate", "--parity-report", "out")
    run = read_run(project / "out")
    ends = {outcome.nodeid.partition("::")[2]: outcome.outcome for outcome in run.outcomes}
    bad = {"test_bad", "test_open", "test_empty", "test_crash", "test_golden"}
    bad |= {"test_missed_control[proved-]", "test_missed_control[diverged-another stage]"}
    assert {name for name, end in ends.items() if end == "failed"} == bad, done.stdout
    assert len(run.records) == 60 + 3 + 3 + 1
    assert {r.nodeid.partition("::")[2] for r in run.records} == set(ends) - {"test_crash"}
    assert (run.collected, run.deselected) == (68, 3)
    assert run.session["seed"] == 0
    assert run.session["versions"]["pytest"]
    assert exit_code(run.records, run.outcomes) is Exit.DIVERGENCE
    assert [o.nodeid for o in run.outcomes if o.crash] == ["test_a.py::test_crash"]
    written = json.loads((project / "out" / "certificate.json").read_text())
    assert written["controls"] == 1
    assert written["controls_failed"] == ["good-1 with swap", "good-1 with swap"]
    for words in (
        "first difference: mul",
        "seed: 0",
        "planted, and the check did not diverge",
        "golden llama/llama-1.txt: is missing",
    ):
        assert words in done.stdout


def test_an_absent_accelerator_skips_and_asking_for_it_runs_dry(project):
    run_pytest(project, "-k", "tpu", "--parity-report", "out")
    assert [(o.outcome, o.reason) for o in read_run(project / "out").outcomes] == [("skipped", "no TPU is there")] * 2
    done = run_pytest(project, "-m", "tpu_only", "--parity-report", "out")
    ends = {o.nodeid.partition("::")[2]: o.outcome for o in read_run(project / "out").outcomes}
    assert ends == {"test_tpu": "passed", "test_tpu_without_dry_run": "error"}
    assert "take the fixture `accelerator`" in done.stdout


def test_without_a_record_no_file_is_left(project):
    done = run_pytest(project, "-k", "outside")
    assert done.returncode == 0
    assert not (project / ".paraflax").exists()


def test_update_rewrites_the_golden_and_fails_and_never_under_ci(project):
    refused = run_pytest(project, "-k", "test_golden", "--parity-update", CI="1")
    assert "environment variable CI" in refused.stdout
    assert not (project / "goldens").exists()
    first = run_pytest(project, "-k", "test_golden", "--parity-update")
    assert first.returncode == 1
    assert "was rewritten by --parity-update" in first.stdout
    second = run_pytest(project, "-k", "test_golden")
    assert second.returncode == 0, second.stdout


def test_the_memo_runs_again_what_failed_and_what_changed(project):
    words = ("-m", "gate", "-k", "good or bad or control", "--parity-memo", "--parity-report", "out")
    run_pytest(project, *words)
    run_pytest(project, *words)
    again = read_run(project / "out")
    ran = {o.nodeid.partition("::")[2] for o in again.outcomes if not o.reused}
    assert {"test_bad", "test_control", "test_missed_control[proved-]"} <= ran
    assert 0 < sum(name.startswith("test_good") for name in ran) + sum(o.reused for o in again.outcomes) == 60
    assert sum(r.reused for r in again.records) >= 50
    assert exit_code(again.records, again.outcomes) is Exit.DIVERGENCE
    (project / "test_a.py").write_text(TESTS + "\n# changed\n")
    run_pytest(project, *words)
    assert not any(o.reused for o in read_run(project / "out").outcomes)
