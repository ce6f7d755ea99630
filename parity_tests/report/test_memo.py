"""The memo replays passes only, and any change of a source, version or setting voids it."""

import json
import pathlib

import pytest

from harness.report import Run, memo
from harness.verdict import Kind

from .verdicts import outcome, record


@pytest.fixture
def tree(tmp_path):
    for name in ("models/layers.py", "goldens/MANIFEST", "goldens/llama/a.txt", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("content of " + name)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "models/layers.py",
        "goldens/MANIFEST",
        "goldens/llama/a.txt",
        "pyproject.toml",
        "requirements.lock",
        "conftest.py",
    ],
)
def test_any_source_change_gives_another_digest(name, tree):
    before = memo.digest_of(tree, {})
    assert memo.digest_of(tree, {}) == before
    (tree / name).write_text("changed")
    assert memo.digest_of(tree, {}) != before


def test_a_moved_source_gives_another_digest(tree):
    before = memo.digest_of(tree, {})
    (tree / "models" / "layers.py").rename(tree / "models" / "blocks.py")
    assert memo.digest_of(tree, {}) != before


def test_settings_and_platform_variables_count_and_scratch_does_not(tree, monkeypatch):
    before = memo.digest_of(tree, {"seed": 0})
    assert memo.digest_of(tree, {"seed": 1}) != before
    (tree / ".paraflax").mkdir()
    (tree / ".paraflax" / "note.py").write_text("scratch")
    assert memo.digest_of(tree, {"seed": 0}) == before
    monkeypatch.setenv("XLA_FLAGS", "--xla_something_else")
    assert memo.digest_of(tree, {"seed": 0}) != before


def test_a_report_below_the_root_is_no_source(tree):
    before = memo.digest_of(tree, {}, report=tree / "out")
    (tree / "out").mkdir()
    (tree / "out" / "certificate.json").write_text("{}")
    assert memo.digest_of(tree, {}, report=tree / "out") == before
    assert memo.digest_of(tree, {}) != before


def node(index):
    return f"test_a.py::test_{index}"


def run_of_everything():
    records = (
        record(nodeid=node("good")),
        record(Kind.CLOSE, nodeid=node("good"), observable="grads"),
        record(Kind.DIVERGED, nodeid=node("bad")),
        record(Kind.UNDECIDED, nodeid=node("open")),
        record(Kind.DIVERGED, nodeid=node("control"), observable="control"),
        record(nodeid=node("torn")),
        record(nodeid=node("accounted")),
    )
    ends = [("good", "passed"), ("bad", "failed"), ("open", "failed"), ("control", "passed"), ("plain", "passed")]
    ends += [("torn", "passed"), ("torn", "error"), ("skipped", "skipped"), ("accounted", "passed")]
    outcomes = tuple(outcome(end, nodeid=node(name)) for name, end in ends)
    return Run(records, outcomes, {"accounted": [node("accounted")]})


def test_only_passes_are_kept_and_they_come_back_marked(tmp_path):
    memo.save(memo.load(tmp_path, "d1"), run_of_everything())
    kept = memo.load(tmp_path, "d1")
    assert set(kept.passes) == {node("good"), node("plain")}
    replayed = list(kept.replay([node("good")]))
    assert [r.observable for r in replayed] == ["logits", "grads"]
    assert all(r.reused for r in replayed)
    assert memo.load(tmp_path, "d2").passes == {}


def test_a_failure_of_what_had_passed_takes_the_memo_away(tmp_path):
    memo.save(memo.load(tmp_path, "d1"), run_of_everything())
    memo.save(memo.load(tmp_path, "d1"), Run(outcomes=(outcome("failed", nodeid=node("good")),)))
    assert memo.load(tmp_path, "d1").passes == {}


def test_a_damaged_memo_is_no_memo(tmp_path):
    memo.save(memo.load(tmp_path, "d1"), run_of_everything())
    path = memo.load(tmp_path, "d1").path
    path.write_text(path.read_text()[:-20])
    assert memo.load(tmp_path, "d1").passes == {}
    path.write_text(json.dumps({node("good"): [{"kind": "surely"}]}))
    assert memo.load(tmp_path, "d1").passes == {}


def test_a_small_stable_sample_always_runs():
    nodes = [node(index) for index in range(4000)]
    kept = memo.Memo(pathlib.Path("none"), "d1", dict.fromkeys(nodes, ()))
    rerun = [name for name in nodes if not kept.reusable(name)]
    assert 0.02 < len(rerun) / len(nodes) < 0.04
    assert rerun == [name for name in nodes if not kept.reusable(name)]
