"""What a proof must have compared: vacuous questions are refused, the certificate says what was held against what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness import Kind, OneSided, Program, prove

X = jax.ShapeDtypeStruct((4, 4), jnp.float32)


def _proved(a, b, args=(X,), **kwargs):
    return prove(Program(a, args, name="a", **kwargs), Program(b, args, name="b", **kwargs))


def test_one_function_object_on_both_sides_is_refused():
    verdict = prove(Program(jnp.sin, (X,)), Program(jnp.sin, (X,)))
    assert verdict.kind is Kind.UNDECIDED
    assert "same function object" in verdict.reason


class _Model:
    def step(self, x):
        return jnp.sin(x)


_MODEL, _SCALE = _Model(), np.float32(3.5)


@pytest.mark.parametrize(
    "build", [lambda: functools.partial(jnp.multiply, _SCALE), lambda: _MODEL.step], ids=["partial", "method"]
)
def test_one_function_made_twice_is_refused(build):
    verdict = prove(Program(build(), (X,), name="a"), Program(build(), (X,), name="b"))
    assert verdict.kind is Kind.UNDECIDED
    assert "same function object" in verdict.reason


def test_a_function_over_other_values_is_compared():
    twice, thrice = (functools.partial(jnp.multiply, np.float32(value)) for value in (2, 3))
    verdict = prove(Program(twice, (X,), name="a"), Program(thrice, (X,), name="b"))
    assert verdict.findings[0].title.startswith("literal")


def test_the_certificate_says_what_was_compared_and_with_what():
    def name(path):
        return OneSided("unread") if path == ("1",) else "x"

    left = Program(lambda x, _: {"y": x * 2, "z": x + x.T}, (X, X), name="left", name_input=name)
    right = Program(lambda x, _: {"z": x.T + x, "y": 2 * x}, (X, X), name="right", name_input=name)
    certificate = prove(left, right).certificate
    assert (certificate.num_leaves, certificate.num_elements) == (2, 32)
    assert certificate.unmatched_ignored == ("left: 1", "right: 1")
    assert certificate.unmatched_used == ()
    assert "commutativity" in certificate.rules
    assert all(files[0].endswith("test_vacuous.py") for files in certificate.sources.values())
    assert set(certificate.sources) == {"left", "right"}


def test_an_output_that_depends_on_no_input_is_refused():
    verdict = _proved(lambda x: jnp.ones(3), lambda x: jnp.ones(3))
    assert verdict.kind is Kind.UNDECIDED
    assert "no input" in verdict.reason


def test_an_output_that_is_declared_constant_must_be_constant():
    def held(fn, other):
        sides = [Program(side, (X,), constant={"b": "meant"}.get) for side in (fn, other)]
        return prove(*sides)

    zero = held(lambda x: {"a": x * 2, "b": jnp.zeros(3)}, lambda x: {"a": 2 * x, "b": jnp.zeros(3)})
    assert zero.kind is Kind.PROVED
    assert zero.certificate is not None
    assert list(zero.certificate.constants.values()) == ["meant", "meant"]
    other = held(lambda x: {"a": x * 2, "b": jnp.zeros(3)}, lambda x: {"a": 2 * x, "b": jnp.ones(3)})
    assert other.kind is Kind.UNDECIDED
    reads = held(lambda x: {"a": x * 2, "b": x + 1}, lambda x: {"a": 2 * x, "b": 1 + x})
    assert reads.kind is Kind.UNDECIDED
    assert "declared constant and depends on an input" in reads.reason


def test_a_draw_counts_as_an_input_only_if_its_key_reads_one():
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)

    def held(make_key):
        sides = [Program(lambda key, dim=dim: jax.random.normal(make_key(key), (dim,)), (key,)) for dim in (3, 3)]
        return prove(*sides)

    assert held(lambda key: key).kind is Kind.PROVED
    fixed = held(lambda key: jax.random.key(7))
    assert fixed.kind is Kind.UNDECIDED
    assert "no input" in fixed.reason


def test_nothing_compared_is_refused():
    aside = {"name_output": lambda path: OneSided("rng state")}
    verdict = _proved(lambda x: x + 1, lambda x: x + 1, **aside)
    assert verdict.kind is Kind.UNDECIDED
    assert "no output" in verdict.reason


def test_a_one_sided_input_that_an_output_needs_prevents_the_proof():
    def name(path):
        return OneSided("only here") if path == ("1",) else "x"

    left = Program(lambda x, extra: x + extra, (X, X), name="left", name_input=name)
    right = Program(lambda x, extra: x + extra, (X, X), name="right", name_input=name)
    verdict = prove(left, right)
    assert verdict.kind is Kind.UNDECIDED
    assert verdict.certificate.unmatched_used == ("left: 1", "right: 1")
