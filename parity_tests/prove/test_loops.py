"""Soundness and completeness of loops: random small loops against brute force over 32-bit integers."""

import dataclasses
import itertools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness import Kind, Program, prove
from harness.prove.terms import Graph, Origin, Table

OPS = ("add", "sub", "mul", "xor", "first", "not")
STARTS = ("x", "y", "one")
INPUTS = tuple(itertools.product((-7, 0, 1, 5, 1 << 30), (3, -1, 2)))


@dataclasses.dataclass(frozen=True)
class Carry:
    """One carry: its initial value, and `op(carry[left], carry[right])` as its next one."""

    start: str
    op: str
    left: int
    right: int


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop of `length` trips over its carries; the result is carry `result`."""

    carries: tuple[Carry, ...]
    length: int
    result: int


def _apply(op, a, b, xor):
    return {"add": lambda: a + b, "sub": lambda: a - b, "mul": lambda: a * b, "xor": lambda: xor(a, b),
            "first": lambda: a, "not": lambda: -a}[op]()  # fmt: skip


def brute(loop: Loop, x: int, y: int) -> int:
    """The result in NumPy, carry by carry."""
    starts = {"x": np.int32(x), "y": np.int32(y), "one": np.int32(1)}
    values = [starts[carry.start] for carry in loop.carries]
    with np.errstate(over="ignore"):
        for _ in range(loop.length):
            values = [_apply(c.op, values[c.left], values[c.right], np.bitwise_xor) for c in loop.carries]
    return int(values[loop.result])


def traced(loop: Loop, kind: str):
    """The loop as a jax function, as a scan or a while loop. The inputs always count, so that no output is vacuous."""

    def fn(x, y):
        starts = {"x": x, "y": y, "one": jnp.int32(1)}
        values = tuple(starts[carry.start] for carry in loop.carries)

        def step(values):
            return tuple(_apply(c.op, values[c.left], values[c.right], jnp.bitwise_xor) for c in loop.carries)

        if kind == "scan":
            values = jax.lax.scan(lambda v, _: (step(v), None), values, None, length=loop.length)[0]
        else:
            bound = (jnp.int32(0), values)
            values = jax.lax.while_loop(lambda s: s[0] < loop.length, lambda s: (s[0] + 1, step(s[1])), bound)[1]
        return values[loop.result] ^ (x & 0) ^ (y & 0)

    return fn


def program(loop: Loop, kind: str) -> Program:
    scalar = jax.ShapeDtypeStruct((), jnp.int32)
    return Program(traced(loop, kind), (scalar, scalar))


def random_loop(rng: random.Random) -> Loop:
    size = rng.randint(2, 4)
    same = rng.random() < 0.5  # equal initial values leave the work to the refinement
    carries = tuple(
        Carry("x" if same else rng.choice(STARTS), rng.choice(OPS), rng.randrange(size), rng.randrange(size))
        for _ in range(size)
    )
    return Loop(carries, rng.choice((1, 2, 7, 20)), rng.randrange(size))


def reordered(loop: Loop, rng: random.Random) -> Loop:
    """The same loop with its carries in another order, and one that nobody reads."""
    order = list(range(len(loop.carries)))
    rng.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    moved = tuple(dataclasses.replace(loop.carries[old], left=place[loop.carries[old].left],
                                      right=place[loop.carries[old].right]) for old in order)  # fmt: skip
    return Loop((*moved, Carry("y", "mul", 0, len(moved))), loop.length, place[loop.result])


def changed(loop: Loop, rng: random.Random) -> Loop:
    """The same loop with one wire, operation or start changed."""
    k, field = rng.randrange(len(loop.carries)), rng.choice(("left", "right", "op", "start"))
    options = {"left": range(len(loop.carries)), "right": range(len(loop.carries)), "op": OPS, "start": STARTS}
    carry = dataclasses.replace(loop.carries[k], **{field: rng.choice(options[field])})
    return dataclasses.replace(loop, carries=(*loop.carries[:k], carry, *loop.carries[k + 1 :]))


@pytest.mark.parametrize("kind", ["scan", "while"])
def test_changed_loops_are_proved_only_if_brute_force_agrees(kind):
    rng = random.Random(f"changed {kind}")
    proved = 0
    for _ in range(150):
        loop = random_loop(rng)
        other = changed(changed(loop, rng), rng) if rng.random() < 0.3 else changed(loop, rng)
        if prove(program(loop, kind), program(other, kind)).kind is Kind.PROVED:
            proved += 1
            for x, y in INPUTS:
                assert brute(loop, x, y) == brute(other, x, y), f"proved equal, but differ at {x, y}: {loop} {other}"
    assert proved >= 10, "a prover that always says no would pass"


@pytest.mark.parametrize("kind", ["scan", "while"])
def test_reordered_loops_with_dead_carries_are_proved(kind):
    rng = random.Random(f"reordered {kind}")
    for _ in range(40):
        loop = random_loop(rng)
        other = reordered(loop, rng)
        assert prove(program(loop, kind), program(other, kind)).kind is Kind.PROVED, f"{loop} {other}"


def _four_carries(read: int):
    def body(carry, _):
        _, b, c, d = carry
        return (jnp.sin(b), jnp.sin(c), jnp.sin(d), jnp.cos(carry[read])), None

    return lambda x: jax.lax.scan(body, (x, x, x, x), None, length=20)[0][3]


def test_four_carries_that_differ_in_one_wire_do_not_collide():
    """As many refinement rounds as classes are too few for this pair; the quotient itself tells them apart."""
    scalar = (jax.ShapeDtypeStruct((), jnp.float32),)
    assert prove(Program(_four_carries(0), scalar), Program(_four_carries(1), scalar)).kind is Kind.UNDECIDED
    assert prove(Program(_four_carries(0), scalar), Program(_four_carries(0), scalar)).kind is Kind.PROVED


def test_carries_with_equal_values_are_one():
    """Two carries that swap places, both started alike, follow the same recurrence as one."""

    def swapping(x):
        return jax.lax.scan(lambda c, _: ((jnp.sin(c[1]), jnp.sin(c[0])), None), (x, x), None, length=5)[0][0]

    def single(x):
        return jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=5)[0]

    scalar = (jax.ShapeDtypeStruct((), jnp.float32),)
    assert prove(Program(swapping, scalar), Program(single, scalar)).kind is Kind.PROVED


@pytest.mark.parametrize("change", ["length", "reverse", "start", "rows", "nothing"])
def test_two_scans_over_stacked_outputs(change):
    """The second loop reads what the first one stacked, backwards, as a gradient does."""

    def build(length, reverse, start, rows):
        def fn(x, w):
            total, saved = jax.lax.scan(lambda c, row: (jnp.sin(c + row), c * row), x, w[:length])
            return jax.lax.scan(lambda c, row: (c * row + total, None), start * x, saved if rows else w[:length],
                                reverse=reverse)[0]  # fmt: skip

        return Program(fn, (jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((6,), jnp.float32)))

    plain = {"length": 5, "reverse": True, "start": 1.0, "rows": True}
    other = plain | {"length": {"length": 4}, "reverse": {"reverse": False}, "start": {"start": 2.0},
                     "rows": {"rows": False}, "nothing": {}}[change]  # fmt: skip
    expected = Kind.PROVED if change == "nothing" else Kind.UNDECIDED
    assert prove(build(**plain), build(**other)).kind is expected


def test_recomputing_is_the_same_value_as_saving():
    def loss(layer):
        def fn(w, x):
            return jnp.sum(jax.lax.scan(lambda c, row: (layer(c, row), None), x, w)[0])

        return jax.value_and_grad(fn, argnums=(0, 1))

    def layer(c, row):
        return c + jnp.tanh(c * row)

    args = (jax.ShapeDtypeStruct((3, 4), jnp.float32), jax.ShapeDtypeStruct((4,), jnp.float32))
    for policy in (None, jax.checkpoint_policies.dots_saveable, jax.checkpoint_policies.everything_saveable):
        remat = jax.checkpoint(layer, policy=policy)
        verdict = prove(Program(loss(layer), args), Program(loss(remat), args))
        assert verdict.kind is Kind.PROVED, verdict.explain()


def test_inner_loops_keep_apart_from_outer_ones():
    """An inner loop over the outer row, against one over the outer carry."""

    def build(inner_of_carry):
        def outer(c, row):
            source = c if inner_of_carry else row
            inner = jax.lax.scan(lambda d, r: (d * r + source.sum(), d), jnp.float32(0), row)
            return c + inner[0] + inner[1], inner[1]

        return Program(lambda x, w: jax.lax.scan(outer, x, w), (
            jax.ShapeDtypeStruct((4,), jnp.float32), jax.ShapeDtypeStruct((3, 4), jnp.float32)))  # fmt: skip

    assert prove(build(True), build(True)).kind is Kind.PROVED
    assert prove(build(True), build(False)).kind is Kind.UNDECIDED


def test_a_term_rewritten_there_and_back_keeps_its_places():
    """Nested loops are rewritten often, and places that doubled each time filled the memory."""
    graph = Graph(Table({}))
    x, y = (graph.leaf("input", name, (), np.dtype(np.float32), attrs=name) for name in (b"x", b"y"))
    terms = [graph.raw("sin", b"", {}, (node,), (), np.dtype(np.float32), None) for node in (x, y)]
    graph.written = {term.digest: [Origin(None, None, 0)] for term in terms}
    for _ in range(8):
        graph.rewrite(terms[:1], lambda node: y if node is x else None)
        graph.rewrite(terms[1:], lambda node: x if node is y else None)
    assert [len(graph.written[term.digest]) for term in terms] == [2, 2]
