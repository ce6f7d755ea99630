"""Completeness of the prover: nearly every honest pair of random configs is proved, and one that is not is counted."""

import dataclasses

import pytest

from benchmarks import completeness
from harness.subjects.compact import SUBJECT

CONFIGS, PARTS = 1000, 20


@pytest.mark.scheduled_only
@pytest.mark.parametrize("part", range(PARTS))
def test_honest_pairs_of_random_configs_are_proved(part, parity):
    pairs = completeness.sweep(parity.seed, range(part, CONFIGS, PARTS))
    assert len(pairs) == CONFIGS // PARTS * len(completeness.STEPS)
    assert completeness.complete(pairs), completeness.listing(pairs)


def test_a_sample_of_every_family_and_layout_is_proved(parity):
    pairs = completeness.sweep(parity.seed, range(6), steps=("loss_and_grads",))
    assert len({(pair.family, pair.scanned) for pair in pairs}) == 6
    assert completeness.shares(pairs) == {"loss_and_grads": 1.0}, completeness.listing(pairs)


def test_a_pair_that_is_not_honest_is_counted_and_listed():
    setup = SUBJECT.tiny_setups()["llama-scanned"]
    capped = dataclasses.replace(setup, model=setup.model.replace(final_soft_cap=5.0))
    honest = SUBJECT.case(setup, "forward")
    other = SUBJECT.program("nnx", SUBJECT.case(capped, "forward"))
    pair = completeness.examine(honest, (SUBJECT.program("linen", honest), other), index=7)
    assert not completeness.complete([pair])
    assert "0/1" in completeness.table([pair])
    listed = completeness.listing([pair])
    assert "config 7, llama, forward: undecided" in listed
    assert honest.token in listed


def test_nothing_examined_is_not_complete():
    assert not completeness.complete([])


def test_configs_are_the_same_for_one_seed_and_others_for_another():
    first = [completeness.setup(3, index) for index in range(12)]
    assert first == [completeness.setup(3, index) for index in range(12)]
    assert first != [completeness.setup(4, index) for index in range(12)]
    assert len({repr(setup) for setup in first}) == 12
