"""Random nested loops: what is proved gives equal results by brute force, and honest reorderings are proved."""

import random

import jax
import numpy as np
import pytest

from harness import Kind

from . import loop_attack, random_loops
from .eager import Interpreter

BY_DAY, BY_NIGHT, PARTS = 300, 5200, 4


@pytest.mark.parametrize("part", range(PARTS))
def test_loops_with_a_changed_wire_are_proved_only_if_brute_force_agrees(part):
    _hold(loop_attack.run(f"day {part}", BY_DAY // PARTS))


@pytest.mark.scheduled_only
@pytest.mark.parametrize("part", range(PARTS))
def test_loops_with_a_changed_wire_are_proved_only_if_brute_force_agrees_by_night(part, parity):
    _hold(loop_attack.run(f"night {parity.seed} {part}", BY_NIGHT // PARTS))


def _hold(counts: loop_attack.Counts) -> None:
    print(f"{counts.judged} pairs, {counts.unlike} unlike, {counts.proved} proved")
    assert not counts.unsound, "\n".join(counts.unsound)
    assert counts.unlike >= counts.judged // 4, "too few changed wires change a result"
    assert counts.proved >= counts.judged // 10, "a prover that always says no would pass"


def test_loops_in_another_order_with_dead_carries_are_proved():
    for number in range(150):
        program, _ = random_loops.draw(f"order {number}")
        found = loop_attack.verdict(program, program, random.Random(number))
        assert found.kind is Kind.PROVED, f"{program}\n{found.explain()}"


def test_the_jaxpr_of_a_description_computes_what_brute_force_does():
    for number in range(12):
        program, _ = random_loops.draw(f"meaning {number}")
        closed = random_loops.jaxpr(program, random.Random(number) if number % 2 else None)
        jax.extend.core.check_jaxpr(closed.jaxpr)
        expected = random_loops.brute(program, loop_attack.X, loop_attack.Y, loop_attack.W)
        for k in (0, 1, 5):
            found = Interpreter().closed(closed, [loop_attack.X[k], loop_attack.Y[k], loop_attack.W[:, k]])
            for left, right in zip(found, expected, strict=True):
                np.testing.assert_array_equal(np.asarray(left), right[..., k])
