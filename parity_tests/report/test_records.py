"""Records survive their file, and every view is made of them alone."""

import dataclasses
import json

import pytest
from rich.console import Console

from harness.report import Outcome, RecordError, Run, Stream, certify, from_verdict, merge, read_run, write_atomically
from harness.report.console import show
from harness.report.exits import Exit
from harness.report.markdown import LIMIT_BYTES, markdown
from harness.report.record import Record
from harness.report.tail import Tail
from harness.verdict import Finding, Kind

from .verdicts import SOURCES, outcome, record, verdict


def test_a_record_survives_json():
    made = from_verdict(
        verdict(Kind.DIVERGED, one_sided={"rngs/count": "NNX only"}, rules=("drop copies",)),
        "llama-1",
        "grads",
        family="llama",
        layers="scanned",
        knobs={"dtype": "bfloat16"},
        seconds=0.5,
        audited=True,
    )
    assert Record.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert made.cause == "first difference: mul at a.py:3 (f) against b.py:4 (g)"
    assert made.fingerprint == "ab12"
    assert "spoils" not in made.cause


def test_the_cause_is_the_finding_with_a_source_line():
    located = verdict(Kind.DIVERGED).findings[0]
    both = dataclasses.replace(verdict(Kind.DIVERGED), findings=(Finding("1 output differs"), located))
    assert from_verdict(both, "llama-1", "grads").cause == "first difference: mul at a.py:3 (f) against b.py:4 (g)"


def test_a_damaged_record_is_refused_in_one_sentence():
    with pytest.raises(RecordError, match=r"is damaged .*; run the gate again\.$"):
        Record.from_json({"case": "a", "observable": "logits", "kind": "proved", "surprise": 1})


def test_a_verdict_over_no_leaf_is_undecided():
    made = from_verdict(verdict(Kind.PROVED, leaves=0), "llama-1", "logits")
    assert made.kind is Kind.UNDECIDED
    assert not made.passed


def test_workers_files_become_one_and_lose_nothing(tmp_path):
    for worker in ("gw0", "gw1", "main"):
        stream = Stream(tmp_path, worker, eager=True)
        for index in range(3):
            stream.write("record", **record(case=f"{worker}-{index}").to_json())
    before = read_run(tmp_path)
    merged = merge(tmp_path)
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["records.jsonl"]
    assert merged == before == read_run(tmp_path)
    assert {r.case for r in merged.records} == {f"{w}-{i}" for w in ("gw0", "gw1", "main") for i in range(3)}


def test_a_line_still_being_written_is_left_out_and_a_damaged_one_is_refused(tmp_path):
    Stream(tmp_path, "gw0", eager=True).write("record", **record().to_json())
    with (tmp_path / "gw0.jsonl").open("a") as file:
        file.write('{"type": "rec')
    assert len(read_run(tmp_path).records) == 1
    with (tmp_path / "gw0.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(RecordError, match=r"gw0\.jsonl:2 is not JSON"):
        read_run(tmp_path)


def test_nothing_is_written_before_a_run_owes_something(tmp_path):
    stream = Stream(tmp_path / "run", "main", eager=False)
    stream.write("session", seed=1)
    assert not (tmp_path / "run").exists()
    stream.write("record", **record().to_json())
    assert read_run(tmp_path / "run").session == {"seed": 1}


def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")
    monkeypatch.setattr("os.replace", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def _interrupt(*_):
    raise KeyboardInterrupt


def test_progress_reads_growing_files_once(tmp_path):
    stream, tail = Stream(tmp_path, "gw0", eager=True), Tail(tmp_path)
    stream.write("collection", collected=4, deselected=0, reused=2)
    stream.write("record", **record().to_json())
    tail.poll()
    stream.write("test", nodeid="a", outcome="failed")
    tail.poll()
    tail.poll()
    assert (tail.collected, tail.done, tail.failed, dict(tail.kinds)) == (6, 1, 1, {"proved": 1})


def full_run():
    records = (
        record(sources=SOURCES, fingerprint="a", audited=True, layers="scanned", knobs={"x": "1", "y": "2", "z": "3"}),
        record(Kind.CLOSE, observable="grads", ratio=1.5, finite=0.5, num_elements=100, layers="scanned"),
        record(Kind.CLOSE, observable="grads", ratio=0.5, finite=1.0, num_elements=300, reused=True),
        record(Kind.DIVERGED, observable="grads", cause="first difference", detail="why", token="eNabc", nodeid="t::a"),
        record(Kind.DIVERGED, observable="control", cause="eps"),
        record(Kind.UNDECIDED, observable="control", case="llama-1 with swap", cause="swap"),
        record(observable="goldens", case="llama-1", one_sided={"rngs/count": "NNX only"}),
    )
    outcomes = (outcome(), outcome("skipped", reason="no TPU is there"), outcome("error", crash=True, reason="boom"))
    session = {
        "versions": {"jax": "1"},
        "seed": 7,
        "forbidden": {"linen": ["models/linen/"]},
        "goldens": {"missing": ["a.txt"]},
    }
    return Run(records, outcomes, session, collected=3, deselected=2)


def test_the_certificate_counts_what_was_compared():
    made = certify(full_run())
    assert made.verdicts == {"proved": 2, "close": 2, "diverged": 1}
    assert made.observables["grads"].finite == pytest.approx((0.5 * 100 + 1.0 * 300) / 400)
    assert made.observables["grads"].worst_ratio == 1.5
    assert made.observables["grads"].leaves == 9
    assert (made.controls, made.controls_failed) == (1, ("llama-1 with swap",))
    assert (made.audited, made.audited_share, made.fingerprints, made.knob_pairs) == (1, 0.5, 1, 3)
    assert made.goldens == {"used": ("llama-1",), "missing": ("a.txt",)}
    assert made.skipped == {"no TPU is there": 1}
    assert made.one_sided == {"rngs/count": "NNX only"}
    assert made.reused == 1
    assert made.tests["deselected"] == 2


def test_a_case_counts_as_proved_by_one_proof_and_as_unproved_without():
    made = certify(
        Run(
            (
                record(case="a", step="train_step", fingerprint="1", strength="exact"),
                record(Kind.BITWISE, case="a", step="train_step", fingerprint="1"),
                record(Kind.CLOSE, case="b", step="train_step", fingerprint="2"),
                record(case="c", step="", observable="goldens"),
            )
        )
    )
    assert made.proved_cases == {"train_step": (1, 2)}
    assert made.strengths == {"exact": 1, "unqualified": 1}


def test_a_file_of_the_wrong_side_is_named():
    assert certify(full_run()).trespasses == ("linen: models/linen/layers.py",)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_console_view_names_everything_at_any_width_without_a_terminal(width, tmp_path):
    with (tmp_path / "out").open("w+", encoding="ascii", errors="strict") as file:
        console = Console(file=file, width=width, force_terminal=False)
        show(console, full_run(), certify(full_run()))
        file.seek(0)
        lines = file.read().splitlines()
    text = " ".join(" ".join(lines).split())
    for word in ("llama", "scanned", "1 diverged", "first difference", "paraflax repro eNabc", "crashed test", "boom"):
        assert word in text
    assert max(map(len, lines)) <= width


def test_markdown_is_cut_below_the_limit_of_a_step_summary():
    many = tuple(
        record(Kind.DIVERGED, cause=f"cause {index}", detail="x" * 2000, case=f"case-{index}") for index in range(900)
    )
    run = Run(many)
    text = markdown(run, certify(run), Exit.DIVERGENCE)
    assert len(text.encode()) <= LIMIT_BYTES
    assert "(cut: the full report is in records.jsonl)" in text
    assert text.count("````") % 2 == 0


def test_failures_are_grouped_by_cause():
    run = Run((record(Kind.DIVERGED, cause="one", case="a"), record(Kind.DIVERGED, cause="one", case="b")))
    text = markdown(run, certify(run), Exit.DIVERGENCE)
    assert text.count("### one") == 1
    assert "2 comparison(s): a, b" in text


def test_an_outcome_knows_failure():
    assert [Outcome("a", word).failed for word in ("passed", "failed", "error", "skipped")] == [
        False,
        True,
        True,
        False,
    ]
