"""Soundness under attack: a mutated program that is proved equal to the original gives the same bits, op by op.

By night at least 20,000 mutants of both twins' own traces, over all families and steps, are judged; a few hundred by
day. What changes nothing by construction must stay proved.
"""

import functools
import random

import jax
import numpy as np
import pytest

from harness import Kind, settings
from harness.report.record import Record

from . import parameters, targets
from .attack import OBSERVABLE, Attack, Tally
from .eager import Interpreter, same_bits
from .mutation import KINDS, mutate
from .sites import Site, places
from .specimens import SPECIMENS

BY_DAY = {**dict.fromkeys(SPECIMENS, 32), "llama-scanned/forward": 40, "gpt3-unscanned/generate": 40}
BY_NIGHT = 285  # of each target
PROVED_BY_NIGHT = 10  # of each target: so many must be proved and executed, or the attack means nothing
# Between them they hold every primitive and parameter of the models' traces; the nightly attack walks all.
PAIRS_FROM = ("llama-scanned/forward", "gpt3-unscanned/prefill", "gemma2-unscanned/generate",
              "gpt3-scanned/loss_and_grads", "llama-scanned-dropout/train_step", "gpt3-scanned-bfloat16/train_step",
              "llama-scanned-remat/train_step", "llama-scanned-mesh/train_step", *SPECIMENS)  # fmt: skip


def _hold(tally: Tally) -> None:
    print(tally.table())
    assert not tally.unsound, "\n".join(tally.unsound)
    assert not tally.crashed, "\n".join(tally.crashed)
    assert not tally.lost, "\n".join(tally.lost)


@pytest.mark.parametrize("name", BY_DAY)
def test_no_mutant_is_proved_against_its_execution(name):
    tally = Attack(name).run(BY_DAY[name])
    _hold(tally)
    assert tally.total("judged") == BY_DAY[name], "too few mutants are programs"
    assert tally.total("executed") > 0, "nothing was proved and executed, so a prover that says no would pass"


@pytest.mark.scheduled_only
@pytest.mark.parametrize("name", targets.NAMES)
def test_no_mutant_is_proved_against_its_execution_by_night(name, parity):
    attack = Attack(name, parity.seed)
    tally = Tally()
    attack.each_pair(tally)
    attack.run(BY_NIGHT, tally)
    words = f"{tally.total('judged')} mutants of {name}, {tally.total('executed')} proved and executed"
    kind = Kind.DIVERGED if tally.unsound else Kind.BITWISE
    parity.record(Record(words, OBSERVABLE, kind, num_leaves=tally.total("executed"), detail=tally.to_json()))
    _hold(tally)
    assert tally.total("judged") >= BY_NIGHT, "too few mutants are programs"
    assert tally.total("executed") >= PROVED_BY_NIGHT, "too few were proved and executed"
    never = set(attack.pairs) - set(tally.mutated) - set(parameters.FIXED)
    assert not never, f"never mutated: {sorted(never)}"


def test_the_nightly_attack_is_large_enough():
    assert len(targets.NAMES) * BY_NIGHT >= 20_000
    assert len(targets.NAMES) * PROVED_BY_NIGHT >= 500
    attacked = {name.partition("/")[2] for name in targets.CASES}
    assert attacked == set(targets.STEPS)


def test_every_parameter_in_the_models_traces_is_mutated_and_noticed():
    """A parameter says something about values, so that changing it ends a proof, or there is a reason why not."""
    tally, pairs = Tally(), set()
    excused = {*parameters.NEUTRAL, *parameters.HARMLESS, *parameters.FIXED}
    for name in PAIRS_FROM:
        attack = Attack(name)
        pairs |= set(attack.pairs)
        settled = tally.noticed | (set(tally.mutated) & excused)
        attack.each_pair(tally, set(attack.pairs) - settled, execute=False)
    assert not tally.crashed, "\n".join(tally.crashed)
    assert not tally.lost, "\n".join(tally.lost)
    never = pairs - set(tally.mutated) - set(parameters.FIXED)
    assert not never, f"never mutated, and no reason is written: {sorted(never)}"
    silent = pairs - tally.noticed - excused
    assert not silent, f"no change of these ended a proof, and no reason is written: {sorted(silent)}"


@functools.cache
def _places(name):
    closed = targets.target(name).programs[0].trace().jaxpr
    return closed, list(places(closed))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_change_is_made_and_well_typed(kind):
    """jax itself checks a sample of the mutants, since all that is judged rests on their being programs."""
    made, rng = 0, random.Random(kind)
    for name in ("loops", "search", "sampling", "derivatives", "numbers"):
        closed, options = _places(name)
        for place in rng.sample(options, min(15, len(options))):
            change = mutate(closed, place, rng, kind) if Site(closed, place).equation is not None else None
            if change is not None:
                jax.extend.core.check_jaxpr(change.program.jaxpr)
                made += 1
    assert made > 0


def test_a_mutant_is_made_again_from_its_name():
    """What a failure prints is enough to repeat it."""
    for name in ("3", "8", "scan:reverse:0"):
        first, second = (Attack("loops", seed=5).mutant(name) for _ in range(2))
        assert first is not None
        assert first[2].words == second[2].words
        assert str(first[1].trace().jaxpr) == str(second[1].trace().jaxpr)


@pytest.mark.parametrize("name", ["loops", "search", "sampling"])
def test_remembered_results_are_those_of_an_evaluation_from_scratch(name):
    attack = Attack(name)
    for number in range(8):
        _, mutant, change = attack.mutant(str(number))
        args = [attack.target.inputs[0][leaf.name] for leaf in mutant.inputs]
        with settings.tracing(), np.errstate(all="ignore"):
            plain = Interpreter().closed(mutant.trace().jaxpr, args)
        remembered = attack.target.outputs(mutant, 0, draws=False)
        assert len(plain) == len(remembered)
        assert all(map(same_bits, plain, remembered.values())), change.words


@pytest.mark.parametrize("name", ["llama-scanned/forward", "gpt3-unscanned/generate"])
def test_the_inputs_show_differences(name):
    """Where every output were NaN, all mutants would agree."""
    target = targets.target(name)
    for number in range(targets.NUM_INPUTS - 1):
        outputs = target.outputs(target.programs[0], number, draws=False)
        logits = outputs["logits"]
        assert (logits == logits).mean() > 0.5, f"inputs {number} give NaN"
