"""Every rewrite rule: both of its sides are run on awkward values, in every dtype that admits them, op by op.

The default profile takes one dtype for each example, another for each; the nightly one takes all of them.
"""

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from harness import Kind, Program, prove, settings
from harness.prove import RULES, Strength, fingerprint
from harness.prove.primitives import PURE
from harness.prove.terms import Table

from . import examples_of_moves, examples_of_numbers, examples_of_sums
from .eager import Interpreter
from .rule_example import Example
from .specimens import SPECIMENS
from .values import awkward, dtype_of, dtypes, near, ordinary, same_bits

EXAMPLES = (*examples_of_moves.EXAMPLES, *examples_of_numbers.EXAMPLES, *examples_of_sums.EXAMPLES)
STRENGTH = {rule.name: rule.strength for rule in RULES}
LABELS = [f"{example.rule}-{number}" for number, example in enumerate(EXAMPLES)]
FEW = 3


def _abstract(example: Example, name: str, shape) -> tuple[jax.ShapeDtypeStruct, ...]:
    return (jax.ShapeDtypeStruct(shape, dtype_of(name)),) * example.count


def _traces(example: Example, name: str, shape):
    """Both sides' jaxprs, or None where jax refuses one or the results are of unlike types."""
    with settings.tracing():
        try:
            pair = [jax.make_jaxpr(fn)(*_abstract(example, name, shape)) for fn in (example.left, example.right)]
        except (TypeError, ValueError, DeprecationWarning):
            return None
    types = [(out.shape, out.dtype) for side in pair for out in side.out_avals]
    return pair if types[0] == types[1] else None


def admitted(example: Example) -> list[str]:
    """The dtypes in which jax traces both sides."""
    return [name for name in dtypes() if name in example.only and _traces(example, name, example.shape) is not None]


def _verdict(example: Example, name: str, shape):
    args = _abstract(example, name, shape)
    pair = Program(example.left, args, name="left"), Program(example.right, args, name="right")
    return prove(*pair, allow=STRENGTH[example.rule].words)


def _rotated(number: int, names: list[str], count: int) -> list[str]:
    return [names[(number + k * 7) % len(names)] for k in range(min(count, len(names)))] if names else []


def _check_proof(example: Example, name: str) -> None:
    verdict = _verdict(example, name, example.shape)
    if name in example.unlike:
        assert verdict.kind is Kind.UNDECIDED, f"{name}: proved, and should not be"
        return
    assert verdict.kind is Kind.PROVED, f"{name}: {verdict.explain()}"
    assert example.rule in verdict.certificate.rules
    assert verdict.strength == STRENGTH[example.rule].words


def _check_bits(example: Example, name: str, shape) -> None:
    pair = _traces(example, name, shape)
    if pair is None or not example.runs(name):
        return
    strength = STRENGTH[example.rule]
    agree = same_bits if strength is Strength.EXACT else near
    draw = ordinary if strength is Strength.REASSOCIATING else awkward
    for seed in range(2):
        values = [draw(shape, name, seed * 7 + k) for k in range(example.count)]
        with settings.tracing():
            left, right = (Interpreter().closed(side, values)[0] for side in pair)
        assert agree(left, right), f"{name}{list(shape)}, seed {seed}"


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=LABELS)
def test_a_rule_proves_its_example_and_only_in_the_dtypes_where_it_holds(number):
    for name in _rotated(number, admitted(EXAMPLES[number]), FEW):
        _check_proof(EXAMPLES[number], name)


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=LABELS)
def test_both_sides_of_a_rule_give_equal_bits(number):
    example = EXAMPLES[number]
    held = [name for name in admitted(example) if name not in example.unlike and example.runs(name)]
    for name in _rotated(number, held, 1):
        _check_bits(example, name, example.shape)


@pytest.mark.scheduled_only
@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=LABELS)
def test_a_rule_holds_in_every_dtype_and_at_empty_and_single_arrays(number):
    example = EXAMPLES[number]
    for name in admitted(example):
        _check_proof(example, name)
        if name in example.unlike:
            continue
        _check_bits(example, name, example.shape)
        for shape in example.others:
            if _verdict(example, name, shape).kind is Kind.PROVED:
                _check_bits(example, name, shape)


@pytest.mark.parametrize("number", [n for n, e in enumerate(EXAMPLES) if (1, 1, 1) in e.others], ids=str)
def test_a_rule_proves_single_elements_too(number):
    example = EXAMPLES[number]
    held = [name for name in admitted(example) if name not in example.unlike]
    for name in _rotated(number, held, 1):
        if _traces(example, name, (1, 1, 1)) is not None:
            assert _verdict(example, name, (1, 1, 1)).kind is Kind.PROVED


def test_every_rule_has_an_example():
    assert {example.rule for example in EXAMPLES} == set(STRENGTH) - {"folding"}  # constants have their own test below


def test_every_rule_has_an_argument():
    assert all(rule.argument and rule.name for rule in RULES)


def test_the_documented_table_has_every_rule():
    from . import rule_table

    text = rule_table.PATH.read_text()
    assert [rule_table.static(rule) for rule in RULES if rule_table.static(rule) not in text] == []


@pytest.mark.scheduled_only
def test_the_documented_table_is_current():
    from . import rule_table

    assert rule_table.PATH.read_text() == rule_table.HEAD + "\n".join(rule_table.rows()) + "\n"


def test_the_examples_are_tried_in_every_dtype_that_jax_has_here():
    assert len(dtypes()) == 24
    assert set().union(*(admitted(example) for example in EXAMPLES[:2])) == set(dtypes())


# --- constants are folded to what the processor computes ---

NUMBERS = {"float32": (3.1, -0.7, 1e-10), "bfloat16": (3.1, -0.7, 0.1),
           "float16": (3.1, -0.7, 0.1), "int32": (2**31 - 1, -7, 5), "uint32": (2**32 - 1, 7, 5),
           "int8": (127, -128, 5)}  # fmt: skip
BINARY = {"add": lax.add, "sub": lax.sub, "mul": lax.mul, "div": lax.div, "max": lax.max, "min": lax.min, "lt": lax.lt,
          "le": lax.le, "eq": lax.eq, "ne": lax.ne}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_arithmetic_on_constants_is_the_constant_that_is_computed(name):
    numbers = [np.asarray(number).astype(dtype_of(name)) for number in NUMBERS[name]]
    pairs = [
        (op, a, b)
        for op in BINARY
        if name.startswith(("float", "bfloat")) or op != "div"
        for a in numbers
        for b in numbers
    ]
    x = jax.ShapeDtypeStruct((2,), dtype_of(name))

    def computed(x):
        return [jnp.where(x == x, BINARY[op](lax.full((), a), lax.full((), b)), x != x) for op, a, b in pairs]

    with settings.tracing():
        results = [np.asarray(BINARY[op](a, b)) for op, a, b in pairs]

    def literal(x):
        return [jnp.where(x == x, result, x != x) for result in results]

    verdict = prove(Program(computed, (x,)), Program(literal, (x,)))
    assert verdict.kind is Kind.PROVED, verdict.explain()
    assert "folding" in verdict.certificate.rules


@pytest.mark.parametrize("numbers", [(1e-40, 1.0), (0.0, -0.0), (3e38, 10.0), (np.nan, 1.0), (1e-30, 1e-30)], ids=str)
def test_arithmetic_at_the_edge_of_a_dtype_is_not_folded(numbers):
    a, b = (np.float32(number) for number in numbers)

    def computed(x):
        return x * lax.mul(lax.max(lax.full((), a), lax.full((), b)), lax.full((), b))

    def literal(x):
        with np.errstate(all="ignore"):
            return x * np.float32(np.maximum(a, b) * b)

    x = jax.ShapeDtypeStruct((2,), jnp.float32)
    assert prove(Program(computed, (x,)), Program(literal, (x,))).kind is Kind.UNDECIDED


# --- what the rules rely on ---


@pytest.mark.parametrize(
    "reader", [lambda x: lax.bitcast_convert_type(x, jnp.int32), jnp.signbit], ids=["bits", "sign"]
)
def test_who_reads_the_bits_of_a_computed_float_may_see_which_nan_it_is(reader):
    x = (jax.ShapeDtypeStruct((3,), jnp.float32),) * 2
    verdict = prove(Program(lambda x, y: reader(x + y), x), Program(lambda x, y: reader(y + x), x))
    assert verdict.kind is Kind.UNDECIDED
    assert "any NaN" in verdict.reason
    moved = prove(Program(lambda x, y: reader(x.reshape(3, 1)), x), Program(lambda x, y: reader(x[:, None]), x))
    assert moved.kind is Kind.PROVED


@pytest.mark.scheduled_only  # only code that was optimised fuses a product and a sum
def test_products_of_complex_numbers_are_not_commutative():
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((2, 4000)).astype(np.float32).view(np.complex64) for _ in range(2))
    assert not same_bits(lax.mul(x, y), lax.mul(y, x))
    assert not same_bits(lax.square(x), lax.mul(x, x))


@pytest.mark.scheduled_only  # only code that was optimised uses vectors
def test_the_last_elements_of_a_row_are_computed_by_other_instructions():
    """Why only operations that IEEE 754 defines may change their place."""
    x = np.random.default_rng(0).standard_normal(481).astype(np.float32)
    assert not same_bits(np.asarray(lax.atan(x.reshape(13, 37))).reshape(-1), lax.atan(x))


def test_no_operation_is_another_followed_by_digits_with_as_many_operands():
    """A term's digest begins with the operation's name, a number and the number of operands."""
    names = set(PURE.values())
    pairs = {(name, other) for name in names for other in names if re.fullmatch(re.escape(name) + r"\d+", other)}
    assert pairs <= {("atan", "atan2")}  # one operand against two


def test_a_constant_too_large_for_its_new_type_is_proved_equal_without_a_warning():
    """A warning is an error here, and to whoever turns them into errors a proof would have crashed."""

    def large(x):
        return x + jnp.full((3,), 1e10, jnp.float32).astype(jnp.float16)

    def turned(x):
        return jnp.full((3,), 1e10, jnp.float32).astype(jnp.float16) + x

    args = (jax.ShapeDtypeStruct((3,), jnp.float16),)
    assert prove(Program(large, args), Program(turned, args)).kind is Kind.PROVED


@pytest.mark.parametrize("name", SPECIMENS)
def test_a_rule_that_is_not_asked_would_have_said_nothing(name, monkeypatch):
    fn, args = SPECIMENS[name]
    quick = [fingerprint(Program(fn, args)) for _ in range(2)]
    asked = collections.Counter()

    def every(table, op, operands):
        asked[op] += 1
        return table.rules.get(op, ())

    monkeypatch.setattr(Table, "of", every)
    assert fingerprint(Program(fn, args)) == quick[0] == quick[1]
    assert asked
