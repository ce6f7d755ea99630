"""`check` proves what it can, executes the rest, and never lets a difference of structure pass."""

import jax
import jax.numpy as jnp

from harness import Kind, Program, check

X = jnp.linspace(-2.0, 3.0, 12).reshape(3, 4)


def _check(a, b):
    return check(Program(a, (X,), name="a"), Program(b, (X,), name="b"))


def test_a_proof_is_not_executed():
    assert _check(lambda x: jnp.sin(x) + x, lambda x: x + jnp.sin(x)).kind is Kind.PROVED


def test_what_is_not_proved_is_measured_leaf_by_leaf():
    verdict = _check(lambda x: (jnp.sin(x), (x + 1) + jnp.sin(x)), lambda x: (jnp.sin(x), x + (1 + jnp.sin(x))))
    assert verdict
    assert verdict.leaf("0").kind is Kind.PROVED
    assert verdict.leaf("1").kind in (Kind.BITWISE, Kind.CLOSE)


def test_a_real_difference_diverges_and_says_where():
    verdict = _check(lambda x: jnp.sin(x), lambda x: jnp.cos(x))
    assert verdict.kind is Kind.DIVERGED
    assert any("sin against cos" in finding.title for finding in verdict.findings)


def test_another_dtype_is_never_measured():
    verdict = _check(lambda x: jnp.sin(x), lambda x: jnp.sin(x).astype(jnp.bfloat16))
    assert verdict.kind is Kind.DIVERGED
    assert not verdict.leaves


def test_abstract_arguments_without_a_sample_stay_undecided():
    abstract = (jax.ShapeDtypeStruct((3,), jnp.float32),)
    verdict = check(Program(jnp.sin, abstract), Program(jnp.cos, abstract))
    assert verdict.kind is Kind.UNDECIDED
    assert "abstract arguments" in verdict.reason
