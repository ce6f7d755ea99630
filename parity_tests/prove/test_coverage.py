"""What the prover understands of jax: each primitive is known or has a reason; honest spellings are proved, faults not.

The programs are in `families` (jax.lax, jax.numpy), `libraries` (jax.nn, jax.random, layers, optimizers), `wrappers`
(derivatives, placement, choices), `devices` (shard_map, collectives, kernels) and `stateful` (references, callbacks,
effects).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive, jaxprs_in_params

from harness import Kind, Program, fingerprint, prove, settings
from harness.prove import Strength
from harness.prove.canonical import Evaluator
from harness.prove.primitives import EVERY, IDENTITIES, PURE
from harness.prove.reasons import REASONS

from . import devices, stateful
from .eager import Interpreter, same_bits
from .families import ARRAYS, Family
from .libraries import LIBRARIES
from .wrappers import WRAPPERS

ALL = ARRAYS | LIBRARIES | WRAPPERS
X = devices.X

# Known primitives that no program here has, and why.
NOT_SEEN = {
    "all_gather_invariant": "internal to jax: no public function makes one yet",
    "call": "only from transformations of jax's older kind",
    "closed_call": "only while a function is linearised",
    "empty_ref": "internal to jax: no public function makes one yet",
    "eq_to": "only the sorting of floats on some devices",
    "eval_jaxpr": "staged as `closed_call`",
    "free_ref": "internal to jax: no public function makes one yet",
    "from_edtype": "extended types other than keys are the user's own",
    "geqp3": "only while a pivoted QR decomposition is lowered",
    "iota_2x32_shape": "only while random bits are lowered",
    "le_to": "only the sorting of floats on some devices",
    "lt_to": "only the sorting of floats on some devices",
    "philox2x32": "a generator that is no public choice yet",
    "philox4x32": "a generator that is no public choice yet",
    "ragged_all_to_all": "no CPU runs it",
    "select_and_scatter": "internal to jax: no public function makes one yet",
    "threefry4x32": "a generator that is no public choice yet",
    "tie": "only while a function is differentiated by hand",
    "to_edtype": "extended types other than keys are the user's own",
    "zeros_like": "only while a function is linearised",
}


def _proof(a, b, args=(X,)):
    return prove(Program(a, args, name="a"), Program(b, args, name="b"))


def _known():
    evaluator = Evaluator("any", Strength.EXACT, early=False)
    return set(PURE) | set(IDENTITIES) | set(evaluator._handlers)


def _unexplained(primitives):
    """Names of primitives that are neither known nor in the table of reasons."""
    known = _known()
    return sorted(name for name, primitive in primitives.items() if primitive not in known and name not in REASONS)


def test_every_primitive_of_jax_is_known_or_has_a_reason():
    assert _unexplained(EVERY) == []


def test_a_new_primitive_is_named():
    assert _unexplained({**EVERY, "brand_new": Primitive("brand_new")}) == ["brand_new"]


def test_no_reason_is_given_for_what_is_known_or_gone():
    known = _known()
    assert [name for name in REASONS if EVERY.get(name) is None or EVERY[name] in known] == []


def test_a_primitive_is_told_by_identity_and_not_by_name():
    impostor = Primitive("sin")
    impostor.def_abstract_eval(lambda x: x)
    verdict = _proof(lambda x: impostor.bind(x) + 0.0, lambda x: jnp.sin(x) + 0.0)
    assert verdict.kind is Kind.UNDECIDED
    assert "sin: this primitive is not known" in verdict.reason


def _primitives(closed, found):
    for equation in closed.eqns:
        found.add(equation.primitive)
        for inner in jaxprs_in_params(equation.params):
            _primitives(getattr(inner, "jaxpr", inner), found)
    return found


def _constructs():
    """Every program of one array argument in the tables of devices and state."""
    for fn, _ in devices.COLLECTIVES.values():
        yield devices.unchecked(fn)
    tables = (devices.CHECKED, devices.KERNELS, stateful.REFERENCES, stateful.CALLBACKS, stateful.EFFECTS)
    for table in tables:
        for honest in table.values():
            yield honest[0]
    yield stateful.scanned
    yield from stateful.SHOWN


def test_the_programs_here_reach_every_known_primitive():
    seen = set()
    for family in ALL.values():
        _primitives(Program(family.fn, family.args).trace().jaxpr, seen)
    for fn in _constructs():
        _primitives(Program(fn, (X,)).trace().jaxpr, seen)
    unseen = {primitive.name for primitive in _known() - seen}
    assert unseen == set(NOT_SEEN)


@pytest.mark.parametrize("name", ALL)
def test_another_spelling_is_proved_and_a_fault_is_not(name):
    family: Family = ALL[name]
    honest = _proof(family.fn, family.same, family.args)
    assert honest.kind is Kind.PROVED, honest.explain()
    assert _proof(family.fn, family.other, family.args).kind is not Kind.PROVED


# --- devices, kernels, references, callbacks, effects ---

HONEST = {
    **{
        f"collective: {name}": (devices.unchecked(fn), devices.spelled(fn))
        for name, (fn, _) in devices.COLLECTIVES.items()
    },
    **{f"devices: {name}": pair[:2] for name, pair in devices.CHECKED.items()},
    **{f"kernel: {name}": pair for name, pair in devices.KERNELS.items()},
    **{f"reference: {name}": pair for name, pair in stateful.REFERENCES.items()},
    **{f"callback: {name}": pair for name, pair in stateful.CALLBACKS.items()},
    **{f"effect: {name}": pair for name, pair in stateful.EFFECTS.items()},
}
FAULTY = {
    **{
        f"collective: {name}": (devices.unchecked(fn), devices.unchecked(fault))
        for name, (fn, fault) in devices.COLLECTIVES.items()
    },
    **{f"devices: {name}": (fn, fault) for name, (fn, _, fault) in devices.CHECKED.items()},
    **{f"mesh: {name}": pair for name, pair in devices.COLLIDING.items()},
    **{f"kernel: {name}": (devices.kernel(), fault) for name, fault in devices.KERNEL_FAULTS.items()},
    **{
        f"reference: {name}": (stateful.reference((5.0, 2.0)), fault)
        for name, fault in stateful.REFERENCE_FAULTS.items()
    },
    **{f"callback: {name}": pair for name, pair in stateful.CALLBACK_FAULTS.items()},
}
NO_CPU = {"collective: pbroadcast"}  # jax lowers it for accelerators only
TRUSTED = {"mesh: check switched off"}  # the same values where the promise is kept; kept apart because it may not be


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_pair_is_proved(name):
    verdict = _proof(*HONEST[name])
    assert verdict.kind is Kind.PROVED, verdict.explain()


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_is_told_as_a_difference_in_value(name):
    verdict = _proof(*FAULTY[name])
    assert verdict.kind is Kind.UNDECIDED
    assert any(finding.kind == "value" for finding in verdict.findings), verdict.explain()


def _run(fn, seed=0):
    """The outputs of a program run op by op, loops in Python."""
    x = jnp.asarray(np.random.default_rng(seed).standard_normal(X.shape).astype(np.float32))
    with settings.tracing(), jax.disable_jit():
        return jax.tree.leaves(fn(x))


def _same(a, b):
    return all(same_bits(x, y) for x, y in zip(_run(a), _run(b), strict=True))


QUICK = ("reference: written twice", "reference: carried", "callback: partial", "kernel: around it", "devices: checked")


@pytest.mark.parametrize("name", QUICK)
def test_a_proved_pair_gives_equal_bits_op_by_op(name):
    assert _same(*HONEST[name])


@pytest.mark.parametrize("name", QUICK)
def test_the_interpreter_of_the_attack_gives_the_same_bits(name):
    fn = HONEST[name][0]
    x = jnp.asarray(np.random.default_rng(0).standard_normal(X.shape).astype(np.float32))
    with settings.tracing():
        found = Interpreter().closed(Program(fn, (X,)).trace().jaxpr, [x])
    assert all(same_bits(a, b) for a, b in zip(found, _run(fn), strict=True))


@pytest.mark.scheduled_only
@pytest.mark.parametrize("name", sorted(set(HONEST) - NO_CPU))
def test_every_proved_pair_gives_equal_bits_op_by_op(name):
    assert _same(*HONEST[name])


@pytest.mark.scheduled_only
@pytest.mark.parametrize("name", sorted(set(FAULTY) - NO_CPU - TRUSTED))
def test_every_fault_shows_when_it_is_run(name):
    assert not _same(*FAULTY[name])


# --- effects ---


@pytest.mark.parametrize("name", stateful.EFFECT_FAULTS)
def test_other_side_effects_are_undecided_with_the_reason(name):
    verdict = _proof(*stateful.EFFECT_FAULTS[name])
    assert verdict.kind is Kind.UNDECIDED
    assert "the side effects are not the same" in verdict.reason
    assert verdict.findings


@pytest.mark.parametrize("fn", stateful.SHOWN, ids=lambda fn: fn.__name__)
def test_debug_output_alone_is_an_execution_finding(fn):
    verdict = _proof(fn, lambda x: x * 2.0)
    assert verdict.kind is Kind.PROVED
    assert [finding.kind for finding in verdict.findings] == ["execution"]
    assert "debug output" in verdict.findings[0].title


def test_debug_output_of_another_value_is_told():
    def shown(x):
        jax.debug.print("{}", x + 1.0)
        return x * 2.0

    verdict = _proof(stateful.printed, shown)
    assert verdict.kind is Kind.PROVED
    assert [finding.kind for finding in verdict.findings] == ["execution"]


def test_equal_debug_output_is_no_finding():
    assert _proof(stateful.printed, lambda x: stateful.printed(x)).findings == ()


def test_a_fingerprint_that_numbers_python_functions_is_not_to_be_stored():
    call = fingerprint(Program(stateful.called(stateful.double), (X,)))
    assert "one process" in (call.undecided or "")
    assert fingerprint(Program(stateful.printed, (X,))).undecided is None


def test_a_reference_that_is_an_argument_is_undecided():
    ref = jax.new_ref(jnp.ones(X.shape))

    def writes(x):
        ref[...] = x
        return x * 2.0

    verdict = _proof(writes, functools.wraps(writes)(lambda x: writes(x)))
    assert verdict.kind is Kind.UNDECIDED
    assert "effects that are not modelled" in verdict.reason


def test_a_condition_with_side_effects_is_undecided():
    def loop(x):
        def condition(n):
            jax.experimental.io_callback(stateful.note, None, n)
            return n < 3

        return x * jax.lax.while_loop(condition, lambda n: n + 1, 0)

    verdict = _proof(loop, lambda x: loop(x))
    assert verdict.kind is Kind.UNDECIDED
    assert "condition of a while loop" in verdict.reason


def test_an_effect_of_an_unknown_kind_is_undecided():
    verdict = _proof(stateful.strange, lambda x: stateful.strange(x))
    assert verdict.kind is Kind.UNDECIDED
