"""Soundness under attack: a mutated program that is proved equal to the original gives the same bits, op by op."""

import random

import jax
import numpy as np
import pytest

from harness import Kind, Program, prove, settings

from .eager import Interpreter, awkward, same_bits
from .mutation import count_equations, mutant
from .specimens import SPECIMENS

MUTANTS = 45
NIGHTLY = 3000


def _attack(name: str, num_mutants: int) -> tuple[int, int, list[str]]:
    """Mutants judged, mutants proved, and the proofs that execution contradicts."""
    fn, args = SPECIMENS[name]
    original = Program(fn, args, name=name)
    closed = original.trace().jaxpr
    with settings.tracing():
        places = count_equations(closed)
    rng = random.Random(name)
    judged, proved, unsound = 0, 0, []
    for _ in range(num_mutants):
        place, seed = rng.randrange(places), rng.randrange(1 << 30)
        changed = mutant(closed, place, seed)
        flat = Program(lambda *args, closed=closed: Interpreter(unroll=False).closed(closed, args), args, name=name)
        program = Program(changed.fn, args, name="mutant")
        try:
            traced = program.trace()
        except ValueError:  # the mutation is no program
            continue
        judged += 1
        if prove(flat, program).kind is not Kind.PROVED:
            continue
        proved += 1
        if not _agree(closed, traced.jaxpr, args):
            unsound.append(f"{name}: {changed.words}")
    return judged, proved, unsound


def _agree(a, b, args) -> bool:
    for seed in range(3):
        values = [awkward(arg.shape, arg.dtype, seed * 31 + k) for k, arg in enumerate(args)]
        with settings.tracing(), np.errstate(all="ignore"):
            left, right = (
                Interpreter().closed(closed, [jax.numpy.asarray(value) for value in values]) for closed in (a, b)
            )
        if not all(same_bits(x, y) for x, y in zip(left, right, strict=True)):
            return False
    return True


@pytest.mark.parametrize("name", SPECIMENS)
def test_no_mutant_is_proved_against_its_execution(name):
    judged, _, unsound = _attack(name, MUTANTS)
    assert judged >= MUTANTS // 2, f"only {judged} of {MUTANTS} mutants of {name} are programs"
    assert not unsound


def test_the_attack_executes_proved_mutants():
    """Otherwise a prover that always says no would pass the attack."""
    proved = sum(_attack(name, MUTANTS)[1] for name in ("stack", "optimizer", "search"))
    assert proved >= 5


@pytest.mark.scheduled_only
@pytest.mark.parametrize("name", SPECIMENS)
def test_no_mutant_is_proved_against_its_execution_nightly(name):
    _, proved, unsound = _attack(name, NIGHTLY)
    assert proved >= 72, "too few proved mutants were executed for the attack to mean anything"
    assert not unsound
