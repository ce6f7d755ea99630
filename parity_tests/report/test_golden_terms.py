"""A golden says which operation changed, at which line, also when both twins changed alike; moved code changes none."""

import dataclasses
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from harness import Kind, Program, goldens
from harness.goldens import terms
from harness.prove import RecordError, changes, read, recorded
from harness.subjects.compact import SUBJECT
from parity_tests.prove.faults.planting import edited_twin

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASE = SUBJECT.case(SUBJECT.tiny_setups()["llama-scanned"], "train_step", label="llama-scanned")
ROPE = "models/ops/rope.py"
NORM = "models/ops/norm.py"
ATTEND = "models/ops/attention.py"

CHANGES = {
    "literal": (ATTEND, "jnp.where(sum_BKGT1 > 0.0,", "jnp.where(sum_BKGT1 > 0.5,",
                "literal 0.0 against 0.5 in lt", "layers/self_attention"),
    "order": ("models/ops/mlp.py", "return activate(gate, activation) * linear",
              "return activate(linear, activation) * gate", "reads", "decoder/layers/mlp"),
    "left out": (ATTEND, "logits_BKGTS = scale * jnp.einsum(", "logits_BKGTS = jnp.einsum(",
                 "only golden multiplies by", "layers/self_attention"),
}  # fmt: skip


@pytest.fixture(scope="module")
def stored():
    return SUBJECT.golden(CASE)


def planted(stored, path, old, new, twin="both"):
    """The verdict of a scratch store that holds the unharmed golden, and the lines of the edit."""
    with edited_twin(twin, path, old, new) as line:
        current = SUBJECT.golden(CASE)
        return goldens.verdict_of(goldens.compare(stored, current), stored, current), line


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_both_twins_alike_is_named_by_operation_stage_and_line(name, stored):
    *edit, title, stage = CHANGES[name]
    verdict, line = planted(stored, *edit)
    assert verdict.kind is Kind.DIVERGED
    finding = verdict.findings[0]
    assert title in finding.title
    assert stage in finding.scope
    told = "\n".join([finding.sources[1], finding.operations[1], finding.detail])
    assert line.names(told), finding.text(verdict.programs)
    assert "both twins changed" in finding.detail


def test_a_change_of_one_twin_is_named_too(stored):
    edit = ("x, self.scale[...], epsilon=norm.epsilon,", "x, self.scale[...], epsilon=1e-6,")
    verdict, line = planted(stored, "models/nnx/layers.py", *edit, twin="nnx")
    finding = verdict.findings[0]
    assert "literal 1e-05 against 1e-06" in finding.title
    assert line.names(finding.sources[1])
    assert "both twins" not in finding.detail


def test_renamed_variables_and_moved_lines_leave_the_golden_as_it_is(stored):
    text = (ROOT / ROPE).read_text(encoding="utf-8")
    start = text.index("    dim = x_BTNH.shape[-1]")
    body = "\n\n    # moved\n" + text[start:].replace("turning", "turned").replace("angles_BT1h", "angle")
    with edited_twin("both", ROPE, text[start:], body):
        assert SUBJECT.golden(CASE).text() == stored.text()


def test_the_diff_of_a_golden_shows_the_stages_that_changed_and_no_other(stored):
    with edited_twin("both", *CHANGES["literal"][:3]):
        current = SUBJECT.golden(CASE)
    old, new = (golden.sections["operations"] for golden in (stored, current))
    assert {key for key in old if old[key] != new.get(key)} == {"decoder/layers/self_attention of both"}
    assert old.keys() == new.keys()


def test_two_goldens_alone_say_which_operation_changed(stored):
    with edited_twin("both", *CHANGES["literal"][:3]):
        current = dataclasses.replace(SUBJECT.golden(CASE), explain=None)
    (finding,) = terms.changed(stored, goldens.parse(current.text(), current.filename), terms.sides_of(stored))
    assert finding.title == "literal 0.0 against 0.5 in lt"


def test_terms_survive_their_text_and_are_told_apart(stored):
    def step(x, scale=2.0):
        return jax.lax.scan(lambda c, row: (c * scale + row, c), x[0], x)

    x = jax.ShapeDtypeStruct((3, 4), jnp.float32)
    (_, first), (_, second) = (recorded(Program(lambda x, s=s: step(x, s), (x,))) for s in (2.0, 3.0))
    again = read(first.lines())
    assert (again.rows, again.outputs) == (first.rows, first.outputs)
    assert changes(again, first) == ()
    assert changes(again, second)[0].title == "literal 2.0 against 3.0 in mul"


def test_damaged_terms_are_refused_in_one_sentence(stored):
    lines = terms.coded(stored, "nnx")
    with pytest.raises(RecordError, match="cannot be read"):
        read(lines[1:])


def test_goldens_stay_small(stored):
    entries = [entry for name in ("operations", "terms") for entry in stored.sections[name].items()]
    added = sum(len(f"{key} = {value}\n") for key, value in entries)
    assert 0 < added < 25_000
    assert all(len(line) <= 120 for line in stored.text().splitlines() if line.startswith("both "))


def test_terms_are_the_same_in_another_process(stored):
    script = (
        "from harness.subjects.compact import SUBJECT\n"
        "case = SUBJECT.case(SUBJECT.tiny_setups()['llama-scanned'], 'train_step', label='llama-scanned')\n"
        "print(SUBJECT.golden(case).text(), end='')"
    )
    made = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PATH": ""},
    )  # fmt: skip
    assert made.stdout == stored.text()
