"""Checkpoints: each twin saves in each layout, the bytes agree, and either twin goes on from the other's file."""

import pytest

from harness.observe.checkpoints import compare_trees
from harness.subjects.compact import SUBJECT, checkpoints
from parity_tests.selection import LONG, SHORT, gated

SETUPS, DEEP = SUBJECT.tiny_setups(), SUBJECT.deep_setups()
WITH_DROPOUT = {label: setup for label, setup in SUBJECT.variants().items() if label.endswith("dropout")}
BESIDE = [label for label in SETUPS | WITH_DROPOUT if label.removesuffix("-dropout") not in DEEP]
SAVED = [label for label in SETUPS | WITH_DROPOUT if label not in BESIDE]

FINAL = checkpoints.LAYOUTS[1]
WRITES = [(label, layout) for label in DEEP for layout in checkpoints.LAYOUTS] + [
    (label, FINAL) for label in SAVED if label not in DEEP
]


@pytest.mark.parametrize(
    ("label", "layout"),
    gated(WRITES, beside=((label, FINAL) for label in BESIDE)),
    ids=lambda value: getattr(value, "value", value),
)
def test_both_twins_write_the_same_bytes(label, layout, tmp_path, parity):
    case = SUBJECT.case((SETUPS | WITH_DROPOUT)[label], "train_step", label=label)
    saved = [checkpoints.save(tmp_path, program, case, layout) for program in SUBJECT.programs(case)]
    parity.expect(checkpoints.compare_saved(*saved), case=case, observable="checkpoints")


@pytest.mark.parametrize("backend_name", SUBJECT.backends)
@pytest.mark.parametrize("label", gated(SAVED, beside=BESIDE))
def test_a_restored_state_saves_the_same_bytes_again(label, backend_name, tmp_path, parity):
    case = SUBJECT.case((SETUPS | WITH_DROPOUT)[label], "train_step", label=label)
    program = SUBJECT.program(backend_name, case)
    first = checkpoints.save(tmp_path, program, case, FINAL)
    again = checkpoints.restored(case, first, backend_name)
    copy = checkpoints.save_state(tmp_path / "again", program, case, again, FINAL)
    same = compare_trees(checkpoints.tree(first.path), checkpoints.tree(copy), names=("saved", "saved again"))
    parity.expect(same, case=case, observable="checkpoints")


@pytest.mark.parametrize("label", gated(SHORT, beside=LONG))
def test_each_twin_steps_on_from_the_others_checkpoint(label, tmp_path, parity):
    case = SUBJECT.case(SETUPS[label], "train_step", label=label)
    linen, nnx = SUBJECT.programs(case)
    for writer, reader in ((linen, nnx), (nnx, linen)):
        saved = checkpoints.save(tmp_path, writer, case, FINAL)
        for observed in checkpoints.compare_crossed(reader, checkpoints.restored(case, saved, reader.name)):
            parity.expect(observed, case=case, observable="checkpoints")


@pytest.mark.gate
@pytest.mark.parametrize("label", SETUPS | WITH_DROPOUT)
def test_variables_agree_before_and_after_a_step(label, parity):
    case = SUBJECT.case((SETUPS | WITH_DROPOUT)[label], "train_step", label=label)
    for when in ("at init", "after a step"):
        observed = checkpoints.compare_variables(*SUBJECT.programs(case), when=when)
        parity.expect(observed, case=case, observable="census")
