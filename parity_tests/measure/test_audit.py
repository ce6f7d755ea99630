"""The audit executes what was proved: honest proofs stand, a forged one is contradicted, draws are replayed."""

import jax
import jax.numpy as jnp
import pytest

from harness import Kind, LeafResult, Program, Verdict, measure
from harness.measure import Contradiction, audit, first_difference

from . import small


def _forged(*names, strength="exact"):
    return Verdict(Kind.PROVED, strength=strength, leaves=tuple(LeafResult(name, Kind.PROVED) for name in names))


OUTPUTS = ("loss", "params/b1", "params/w1", "params/w2")


def test_an_honest_proof_stands():
    verdict = audit(small.program(), small.program(), _forged(*OUTPUTS))
    assert verdict.kind is Kind.PROVED
    assert "4 leaves" in verdict.reason


@pytest.mark.parametrize("options", [{"epsilon": 0.2500001}, {"bias": False}, {"swapped": True}], ids=str)
def test_a_forged_proof_is_contradicted(options):
    with pytest.raises(Contradiction, match="was proved equal"):
        audit(small.program(), small.program(**options), _forged(*OUTPUTS))


def test_only_proved_leaves_are_audited():
    x = jnp.linspace(0.1, 1, 5)
    a = Program(lambda x: {"same": x * 2, "other": x}, (x,))
    b = Program(lambda x: {"same": x * 2, "other": x + 1}, (x,))
    assert audit(a, b, _forged("same"))
    with pytest.raises(Contradiction, match="other"):
        audit(a, b, _forged("same", "other"))


def test_a_proved_leaf_that_does_not_exist_is_contradicted():
    with pytest.raises(Contradiction, match="invented"):
        audit(small.program(), small.program(), _forged("invented"))


def test_special_values_reach_the_programs():
    x = jnp.linspace(0.5, 2.0, 400)
    a = Program(lambda x: x * 0.0, (x,))
    b = Program(jnp.zeros_like, (x,))
    with pytest.raises(Contradiction, match="special values"):
        audit(a, b, _forged("output"))


def test_signed_zero_is_forgiven_only_where_the_proof_says_so():
    x = jnp.array([-1.5, 0.0, 2.5])
    a, b = Program(lambda x: 0.0 - x, (x,)), Program(lambda x: -x, (x,))
    with pytest.raises(Contradiction):
        audit(a, b, _forged("output"))
    assert audit(a, b, _forged("output", strength="modulo signed zero"))


def test_a_reassociating_proof_is_audited_by_the_noise_ratio():
    a, b = small.program(), small.program(swapped=True)
    assert "execution" in audit(a, b, _forged(*OUTPUTS, strength="reassociating")).reason
    with pytest.raises(Contradiction, match="reassociation"):
        audit(a, small.program(scale=1.01), _forged(*OUTPUTS, strength="reassociating"))


def _dropout(*, fold, rate=0.5, draws=2):
    def run(x, key):
        for index in range(draws):
            keep = jax.random.bernoulli(jax.random.fold_in(key, fold + index), 1 - rate, x.shape)
            x = jnp.where(keep, x / (1 - rate), 0.0)
        return jnp.sin(x)

    return Program(run, (jnp.linspace(0.1, 2.0, 64), jax.random.key(7)), name=f"fold {fold}")


REPLAYED = "exact, modulo key derivation"


def test_draws_are_replayed_when_only_the_keys_differ():
    assert audit(_dropout(fold=0), _dropout(fold=40), _forged("output", strength=REPLAYED))
    with pytest.raises(Contradiction):
        audit(_dropout(fold=0), _dropout(fold=40), _forged("output"))


@pytest.mark.parametrize("other", [{"rate": 0.25}, {"draws": 1}, {"draws": 3}], ids=str)
def test_replayed_draws_do_not_hide_another_use_of_them(other):
    with pytest.raises(Contradiction):
        audit(_dropout(fold=0), _dropout(fold=40, **other), _forged("output", strength=REPLAYED))
    assert measure(_dropout(fold=0), _dropout(fold=40, **other)).kind is Kind.DIVERGED


def test_measuring_replays_draws_and_says_so():
    verdict = measure(_dropout(fold=0), _dropout(fold=40))
    assert verdict.kind is Kind.BITWISE
    assert verdict.strength == "modulo key derivation"
    assert measure(_dropout(fold=0), _dropout(fold=0)).strength == ""


def test_localising_replays_draws_too():
    assert first_difference(_dropout(fold=0), _dropout(fold=40)) is None
