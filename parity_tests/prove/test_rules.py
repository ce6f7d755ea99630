"""Every rewrite rule: both of its sides are run on awkward values, and a proof that needs it names it."""

import dataclasses
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from harness import Kind, Program, prove, settings
from harness.prove import RULES, Strength
from harness.prove.primitives import PURE

from .eager import Interpreter, awkward, same_bits

FLOATS = (jnp.float32, jnp.bfloat16)
NUMBERS = (*FLOATS, jnp.int32)


@dataclasses.dataclass(frozen=True)
class Example:
    """Two spellings that one rule makes equal, on arguments of one shape in each dtype."""

    rule: str
    left: Callable
    right: Callable
    shape: tuple[int, ...] = (2, 1, 3)
    dtypes: tuple = NUMBERS
    count: int = 1


def _wide(x, shape, dims):
    return lax.broadcast_in_dim(x, shape, dims)


EXAMPLES = (
    Example("reshape family", lambda x: lax.squeeze(x, (1,)), lambda x: lax.reshape(x, (2, 3))),
    Example("reshape family", lambda x: lax.reshape(lax.reshape(x, (6,)), (3, 2)), lambda x: lax.reshape(x, (3, 2))),
    Example("reshape family", lambda x: lax.reshape(lax.reshape(x, (6,), (2, 1, 0)), (3, 2)),
            lambda x: lax.reshape(lax.transpose(x, (2, 1, 0)), (3, 2))),
    Example("broadcast", lambda x: _wide(x, (2, 1, 1, 3), (0, 1, 3)), lambda x: lax.reshape(x, (2, 1, 1, 3))),
    Example("broadcast", lambda x: _wide(x, (2, 4, 3), (0, 1, 2)),
            lambda x: _wide(lax.reshape(x, (2, 3)), (2, 4, 3), (0, 2))),
    Example("broadcast", lambda x: _wide(_wide(x, (5, 2, 1, 3), (1, 2, 3)), (5, 2, 4, 3), (0, 1, 2, 3)),
            lambda x: _wide(x, (5, 2, 4, 3), (1, 2, 3))),
    Example("transpose", lambda x: lax.transpose(lax.transpose(x, (2, 0, 1)), (1, 0, 2)),
            lambda x: lax.transpose(x, (0, 2, 1))),
    Example("transpose", lambda x: lax.transpose(x, (1, 0, 2)), lambda x: lax.reshape(x, (1, 2, 3))),
    Example("no-op conversion", lambda x: x.astype(jnp.float32).astype(jnp.bfloat16), lambda x: x,
            dtypes=(jnp.bfloat16,)),
    Example("no-op conversion", lambda x: x.astype(jnp.uint32).astype(jnp.int32), lambda x: x, dtypes=(jnp.int32,)),
    Example("no-op conversion", lambda x: x.astype(jnp.float32).astype(jnp.bool_), lambda x: x, dtypes=(jnp.bool_,)),
    Example("two's complement", lambda x, y: (x * y + x - y).astype(jnp.uint32),
            lambda x, y: x.astype(jnp.uint32) * y.astype(jnp.uint32) + x.astype(jnp.uint32) - y.astype(jnp.uint32),
            dtypes=(jnp.int32,), count=2),
    Example("constant conversion", lambda x: x * lax.full(x.shape, np.float32(0.5)).astype(jnp.bfloat16),
            lambda x: x * lax.full(x.shape, jnp.bfloat16(0.5)), dtypes=(jnp.bfloat16,)),
    Example("constant conversion", lambda x: x + lax.full(x.shape, np.int32(-3)).astype(jnp.uint32),
            lambda x: x + lax.full(x.shape, np.uint32(2**32 - 3)), dtypes=(jnp.uint32,)),
    Example("own precision", lambda x: lax.reduce_precision(x, 8, 23), lambda x: x, dtypes=(jnp.float32,)),
    Example("own precision", lambda x: lax.reduce_precision(x, 8, 7), lambda x: x, dtypes=(jnp.bfloat16,)),
    Example("raw key", lambda x: jax.random.key_data(jax.random.wrap_key_data(x)), lambda x: x,
            shape=(3, 2), dtypes=(jnp.uint32,)),
    Example("square", lambda x: lax.square(x), lambda x: lax.mul(x, x)),
    Example("square", lambda x: lax.integer_pow(x, 2), lambda x: lax.mul(x, x), dtypes=FLOATS),
    Example("scalar operand", lambda x: x * 3, lambda x: x * jnp.full((2, 1, 3), 3, x.dtype)),
    Example("commutativity", lambda x, y: lax.add(x, y), lambda x, y: lax.add(y, x), count=2),
    Example("commutativity", lambda x, y: lax.mul(x, y), lambda x, y: lax.mul(y, x), count=2),
    Example("commutativity", lambda x, y: lax.max(x, y), lambda x, y: lax.max(y, x), shape=(40,), count=2),
    Example("commutativity", lambda x, y: lax.min(x, y), lambda x, y: lax.min(y, x), shape=(40,), count=2),
    Example("commutativity", lambda x, y: lax.eq(x, y), lambda x, y: lax.eq(y, x), count=2),
    Example("commutativity", lambda x, y: lax.ne(x, y), lambda x, y: lax.ne(y, x), count=2),
    Example("commutativity", lambda x, y: x & y, lambda x, y: y & x, dtypes=(jnp.int32, jnp.bool_), count=2),
    Example("commutativity", lambda x, y: x | y, lambda x, y: y | x, dtypes=(jnp.int32, jnp.bool_), count=2),
    Example("commutativity", lambda x, y: x ^ y, lambda x, y: y ^ x, dtypes=(jnp.int32, jnp.bool_), count=2),
    Example("sum with zero", lambda x: lax.mul(x, x) + 0.0, lambda x: lax.mul(x, x), dtypes=FLOATS),
    Example("sum in any order", lambda x, y, z: (x + y) + z, lambda x, y, z: x + (z + y), dtypes=FLOATS, count=3),
)  # fmt: skip


STRENGTH = {rule.name: rule.strength for rule in RULES}
CASES = [(example, dtype) for example in EXAMPLES for dtype in example.dtypes]


def _label(case):
    example, dtype = case
    return f"{example.rule}-{EXAMPLES.index(example)}-{jnp.dtype(dtype).name}"


@pytest.mark.parametrize("case", CASES, ids=_label)
def test_both_sides_of_a_rule_give_equal_bits(case):
    example, dtype = case
    for seed in range(4):
        values = [jnp.asarray(awkward(example.shape, dtype, seed * 7 + k)) for k in range(example.count)]
        with settings.tracing():
            left, right = (
                Interpreter().closed(jax.make_jaxpr(fn)(*values), values)[0] for fn in (example.left, example.right)
            )
        if STRENGTH[example.rule] is Strength.EXACT:
            assert same_bits(left, right)
        else:
            finite = np.isfinite(np.asarray(left, np.float32)) & np.isfinite(np.asarray(right, np.float32))
            np.testing.assert_allclose(
                np.asarray(left, np.float32)[finite], np.asarray(right, np.float32)[finite], rtol=0.1, atol=1e30
            )


@pytest.mark.parametrize("case", CASES, ids=_label)
def test_a_proof_names_the_rule_it_used(case):
    example, dtype = case
    args = tuple(jax.ShapeDtypeStruct(example.shape, dtype) for _ in range(example.count))
    pair = Program(example.left, args, name="left"), Program(example.right, args, name="right")
    strength = STRENGTH[example.rule]
    verdict = prove(*pair, allow=strength.words)
    assert verdict.kind is Kind.PROVED, verdict.explain()
    assert example.rule in verdict.certificate.rules
    assert verdict.strength == strength.words
    if strength is not Strength.EXACT:
        assert prove(*pair).kind is Kind.UNDECIDED


def test_every_rule_has_an_example():
    assert {example.rule for example in EXAMPLES} == set(STRENGTH)


def test_every_rule_has_an_argument():
    assert all(rule.argument and rule.name for rule in RULES)


def test_no_operation_is_another_followed_by_digits_with_as_many_operands():
    """A term's digest begins with the operation's name, a number and the number of operands."""
    names = set(PURE.values())
    pairs = {(name, other) for name in names for other in names if re.fullmatch(re.escape(name) + r"\d+", other)}
    assert pairs <= {("atan", "atan2")}  # one operand against two
