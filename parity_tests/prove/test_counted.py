"""Loops that count: a while loop of known length, a fori_loop and a scan are one loop; others are not taken for one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from harness import Kind, Program, prove
from harness.prove import counted

X = jax.ShapeDtypeStruct((4,), jnp.float32)


def _body(i, value):
    return jnp.sin(value) * i


def _blind(i, value):
    return jnp.sin(value)


def _while(first, bound, step=1, dtype=jnp.int32, compare=lax.lt, body=_body):
    def run(x):
        return lax.while_loop(
            lambda carry: compare(carry[0], dtype(bound)),
            lambda carry: (carry[0] + dtype(step), body(carry[0], carry[1])),
            (dtype(first), x),
        )[1]

    return run


def _scan(numbers, body=_body, reverse=False):
    return lambda x: lax.scan(lambda value, i: (body(i, value), None), x, numbers, reverse=reverse)[0]


def _fori(first, bound, body=_body):
    return lambda x: lax.fori_loop(first, bound, body, x)


def _kind(left, right):
    return prove(Program(left, (X,), name="left"), Program(right, (X,), name="right")).kind


SAME = {
    "fori_loop and while": (_fori(0, 5), _while(0, 5)),
    "fori_loop of constants and of arrays": (_fori(0, 5), _fori(jnp.int32(0), jnp.int32(5))),
    "fori_loop and scan": (_fori(0, 5), _scan(jnp.arange(5))),
    "while and scan": (_while(0, 5), _scan(np.arange(5, dtype=np.int32))),
    "a counter that is not read": (_while(3, 8, body=_blind), _fori(0, 5, _blind)),
    "another comparison": (_while(0, 4, compare=lax.le), _fori(0, 5)),
    "turned comparison": (_while(0, 5, compare=lambda i, n: lax.gt(n, i)), _fori(0, 5)),
    "another start": (_while(2, 7), _fori(2, 7)),
    "unsigned": (_while(0, 5, dtype=jnp.uint32), _scan(jnp.arange(5, dtype=jnp.uint32))),
    "a counter carried by the scan": (
        lambda x: lax.scan(lambda c, _: ((c[0] + 1, _body(c[0], c[1])), None), (0, x), None, 5)[0][1],
        _fori(0, 5),
    ),
    "in reverse": (
        lambda x: lax.scan(lambda c, _: ((c[0] - 1, _body(c[0], c[1])), None), (4, x), None, 5)[0][1],
        _while(4, -1, -1, compare=lax.gt),
    ),
    "one trip": (_while(0, 1), _fori(0, 1)),
}
OTHER = {
    "another length": (_while(0, 5), _fori(0, 6)),
    "another start": (_while(0, 5), _fori(1, 6)),
    "another step": (_while(0, 5, 2), _fori(0, 3)),
    "a step away from the bound": (_while(0, 5, -1, body=_blind), _fori(0, 5, _blind)),
    "a counter that wraps": (_while(0, 127, 2, dtype=jnp.int8, body=_blind), _fori(0, 64, _blind)),
    "another direction": (_scan(jnp.arange(5)), _scan(jnp.arange(5), reverse=True)),
    "a condition that reads another carry": (
        lambda x: lax.while_loop(lambda c: (c[0] < 5) & (c[1][0] < 9), lambda c: (c[0] + 1, _blind(0, c[1])), (0, x))[
            1
        ],
        _fori(0, 5, _blind),
    ),
    "a counter that the body resets": (
        lambda x: lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + c[0], _blind(0, c[1])), (1, x))[1],
        _fori(0, 3, _blind),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_loops_that_count_alike_are_one_loop(name):
    assert _kind(*SAME[name]) is Kind.PROVED


@pytest.mark.parametrize("name", OTHER)
def test_loops_that_count_otherwise_are_not(name):
    assert _kind(*OTHER[name]) is Kind.UNDECIDED


def test_a_loop_that_never_runs_returns_what_it_was_given():
    assert _kind(lambda x: jnp.cos(_while(5, 5)(x)), lambda x: jnp.cos(x)) is Kind.PROVED


def _simulated(step, bound, rising, inclusive, dtype) -> int | None:
    """Trips of a loop on machine integers; None if it has not ended after as many trips as there are values."""
    value, difference = dtype.type(step[0]), dtype.type(step[1] % 2**8 if dtype.kind == "u" else step[1])
    with np.errstate(over="ignore"):
        for count in range(257):
            below = value < bound if rising else value > bound
            if not (below or (inclusive and value == bound)):
                return count
            value = dtype.type(value + difference)
    return None


@pytest.mark.parametrize("name", ["int8", "uint8"])
def test_the_number_of_trips_is_the_one_of_the_machine_or_is_not_told(name):
    dtype = np.dtype(name)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    edges = sorted({low, low + 1, -1, 0, 1, 5, high - 1, high} & set(range(low, high + 1)))
    told = 0
    for first, bound, step in itertools.product(edges, edges, (-100, -3, -1, 0, 1, 2, 100)):
        for rising, inclusive in itertools.product((True, False), repeat=2):
            count = counted._count((first, step), bound, rising=rising, inclusive=inclusive, dtype=dtype)
            if count is not None:
                told += 1
                assert count == _simulated((first, step), bound, rising, inclusive, dtype)
    assert told > 300
