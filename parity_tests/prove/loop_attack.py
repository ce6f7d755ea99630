"""The attack on loops: random integer programs against ones with a wire changed, held against brute force in NumPy."""

import dataclasses
import random

import jax
import jax.numpy as jnp
import numpy as np

from harness import Kind, Program, Verdict, prove

from . import random_loops
from .random_loops import LENGTH, Description

CANDIDATES = 3  # wires tried for one that changes a result
_COLUMNS = 12
_RNG = np.random.default_rng(0)
X = np.array([-7, 0, 1, 5, 1 << 30, 3, -2, 11, 2, -1, 6, 4], np.int32)
Y = np.array([3, -1, 2, 0, 7, 1, -5, 2, 1 << 29, 5, 3, -4], np.int32)
W = _RNG.integers(-9, 9, (LENGTH, _COLUMNS)).astype(np.int32)


@dataclasses.dataclass
class Counts:
    """Pairs judged, and proved; those that brute force tells apart; proofs that it contradicts."""

    judged: int = 0
    unlike: int = 0
    proved: int = 0
    unsound: list[str] = dataclasses.field(default_factory=list)


def run(seed: str, pairs: int) -> Counts:
    """Random programs against themselves with one wire changed, carries and constants moved about as well."""
    counts = Counts()
    for number in range(pairs):
        name = f"{seed} {number}"
        rng = random.Random(name)
        program, options = random_loops.draw(name)
        expected = random_loops.brute(program, X, Y, W)
        for _ in range(CANDIDATES):
            changed = random_loops.one_wire_changed(rng, options)
            other, _ = random_loops.draw(name, changed)
            alike = _equal(expected, random_loops.brute(other, X, Y, W))
            if not alike:
                break
        counts.judged += 1
        counts.unlike += not alike
        if verdict(program, other, rng).kind is Kind.PROVED:
            counts.proved += 1
            if not alike:
                counts.unsound.append(f"draw({name!r}) against draw({name!r}, {changed}): {program} {other}")
    return counts


def verdict(a: Description, b: Description, rng: random.Random | None) -> Verdict:
    """What the prover says of two descriptions; with `rng` the second one's carries and constants are moved about."""
    return prove(_program(a, None), _program(b, rng))


def _equal(left, right) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def _program(description: Description, rng) -> Program:
    closed = random_loops.jaxpr(description, rng)
    made = Program(lambda *args: args, _ARGS, name="loops")
    pattern = _pattern(len(description.arrays))
    vars(made).update(inputs=pattern.inputs, _traced=dataclasses.replace(pattern.trace(), jaxpr=closed))
    return made


_ARGS = (*(jax.ShapeDtypeStruct((), jnp.int32),) * 2, jax.ShapeDtypeStruct((LENGTH,), jnp.int32))
_PATTERNS = [Program(lambda x, y, w, rows=rows: (x, y, *[w] * rows), _ARGS) for rows in (0, 1)]


def _pattern(rows: int) -> Program:
    """A program with the same outputs, for their names."""
    return _PATTERNS[rows]
