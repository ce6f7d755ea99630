"""Random integer programs of loops, as jaxprs and as NumPy: nested scans and whiles, rows, stacked results, branches.

A program is drawn from a seed. Decisions about its shape come from one stream, its wires (which value an operand, a
carry, a row or a result is, which operation, which direction) from another, so that a program with one wire changed is
`draw(seed, {wire: value})`. As a jaxpr its carries and constants may be put into another order with dead ones among
them, which changes nothing. Nothing here uses the harness.
"""

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, Var, primitives

LENGTH = 3
OPS = ("add", "sub", "mul", "max", "xor", "neg", "choose")
CONSTANTS = (0, 1, -3)
NUM_SCALARS = 2  # arguments x and y, beside one array of rows


@dataclasses.dataclass(frozen=True)
class Op:
    """One operation on scalars: `choose` is `b + c if a > 0 else b - c`, as a conditional."""

    name: str
    args: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop whose body sees its constants, carries (a while loop's counter first) and rows, in this order.

    It adds its final carries to the scalars around it and its stacked results to the arrays. A while loop runs as
    often as the lowest two bits of scalar `bound` say.
    """

    kind: str
    consts: tuple[int, ...]
    inits: tuple[int, ...]
    rows: tuple[int, ...]
    body: "tuple[Op | Loop, ...]"
    outs: tuple[int, ...]
    stacks: tuple[int, ...]
    reverse: bool
    bound: int


@dataclasses.dataclass(frozen=True)
class Description:
    """A program: what it does in order, and which scalars and arrays it returns."""

    steps: tuple[Op | Loop, ...]
    scalars: tuple[int, ...]
    arrays: tuple[int, ...]


class _Drawer:
    def __init__(self, seed: str, changed: Mapping[int, int]):
        self.shape, self._wires, self._changed = random.Random(f"shape {seed}"), random.Random(f"wire {seed}"), changed
        self.options: list[tuple[int, int]] = []  # of each wire: the value drawn, and how many there were

    def wire(self, count: int) -> int:
        value = self._wires.randrange(count)
        self.options.append((value, count))
        return self._changed.get(len(self.options) - 1, value)

    def wires(self, number: int, count: int) -> tuple[int, ...]:
        return tuple(self.wire(count) for _ in range(number))

    def op(self, scalars: int) -> Op:
        return Op(OPS[self.wire(len(OPS))], self.wires(3, scalars))

    def loop(self, scalars: int, arrays: int, depth: int) -> Loop:
        kind = self.shape.choice(("scan", "scan", "while"))
        consts = self.wires(self.shape.randint(0, 2), scalars)
        inits = self._inits(scalars)
        rows = self.wires(self.shape.randint(0, 2) if kind == "scan" and arrays else 0, arrays)
        seen = len(consts) + len(inits) + len(rows) + (kind == "while")
        body = [self.op(seen)]
        seen += 1
        for _ in range(self.shape.randint(0, 2)):
            if depth < 2 and self.shape.random() < 0.3:
                body.append(self.loop(seen, 0, depth + 1))
                seen += len(body[-1].inits)
            else:
                body.append(self.op(seen))
                seen += 1
        outs = self.wires(len(inits), seen)
        stacks = self.wires(self.shape.randint(0, 2) if kind == "scan" and depth == 0 else 0, seen)
        return Loop(kind, consts, inits, rows, tuple(body), outs, stacks, bool(self.wire(2)), self.wire(scalars))

    def _inits(self, scalars: int) -> tuple[int, ...]:
        number = self.shape.randint(1, 4)
        if self.shape.random() < 0.5:  # equal initial values leave the work to the refinement of the carries
            return (self.wire(scalars),) * number
        return self.wires(number, scalars)


def draw(seed: str, changed: Mapping[int, int] | None = None) -> tuple[Description, list[tuple[int, int]]]:
    """The program of a seed with some wires changed, and of each wire its value and the number of its options."""
    drawer = _Drawer(seed, changed or {})
    scalars, arrays, steps = NUM_SCALARS + len(CONSTANTS), 1, []
    for _ in range(drawer.shape.randint(1, 2)):
        steps.append(drawer.loop(scalars, arrays, 0))
        scalars += len(steps[-1].inits)
        arrays += len(steps[-1].stacks)
    last = len(steps[-1].inits)
    results = tuple(scalars - 1 - value for value in drawer.wires(2, last))
    rows = drawer.wires(drawer.shape.randint(0, 1), arrays)
    return Description(tuple(steps), results, rows), drawer.options


# --- NumPy, over many inputs at once: a scalar is [n], an array [length, n] ---

_NUMPY: dict[str, Callable[..., Any]] = {
    "add": lambda a, b, c: a + b,
    "sub": lambda a, b, c: a - b,
    "mul": lambda a, b, c: a * b,
    "max": lambda a, b, c: np.maximum(a, b),
    "xor": lambda a, b, c: a ^ b,
    "neg": lambda a, b, c: -a,
    "choose": lambda a, b, c: np.where(a > 0, b + c, b - c),
}


def brute(program: Description, x, y, w) -> list[np.ndarray]:
    """The results by brute force over 32-bit integers."""
    with np.errstate(over="ignore"):
        scalars, arrays = [x, y, *(np.full_like(x, value) for value in CONSTANTS)], [w]
        _steps(program.steps, scalars, arrays)
    return [*(scalars[k] + x for k in program.scalars), *(arrays[k] + x for k in program.arrays)]


def _steps(steps, scalars, arrays) -> None:
    for step in steps:
        if isinstance(step, Op):
            scalars.append(_NUMPY[step.name](*(scalars[k] for k in step.args)))
        else:
            _loop(step, scalars, arrays)


def _loop(loop: Loop, scalars, arrays) -> None:
    consts, carry = [scalars[k] for k in loop.consts], [scalars[k] for k in loop.inits]
    stacked: list[Any] = [[None] * LENGTH for _ in loop.stacks]
    order = range(LENGTH)
    trips = scalars[loop.bound] & 3 if loop.kind == "while" else None
    for i in reversed(order) if loop.reverse and trips is None else order:
        counter = [] if trips is None else [np.full_like(scalars[0], i)]
        seen = [*consts, *counter, *carry, *(arrays[k][i] for k in loop.rows)]
        _steps(loop.body, seen, [])
        new = [seen[k] for k in loop.outs]
        carry = new if trips is None else [np.where(i < trips, a, b) for a, b in zip(new, carry, strict=True)]
        for column, k in zip(stacked, loop.stacks, strict=True):
            column[i] = seen[k]
    scalars.extend(carry)
    arrays.extend(np.stack(column) for column in stacked)


# --- jaxprs, put together without a trace ---

_INT = jax.core.ShapedArray((), np.dtype(np.int32))
_BOOL = jax.core.ShapedArray((), np.dtype(bool))
_ROWS = jax.core.ShapedArray((LENGTH,), np.dtype(np.int32))
_TEMPLATE = jax.make_jaxpr(lambda x: jax.lax.scan(lambda c, _: (c, None), x, None, length=1)[0])(jnp.int32(0))
_MUL = jax.make_jaxpr(lambda x: x * x)(jnp.int32(0)).eqns[0].params


class _Maker:
    """Equations of one jaxpr in the making. `rng` moves carries and constants about and adds dead ones."""

    def __init__(self, rng: random.Random | None):
        self.rng = rng
        self.equations: list[Any] = []

    def emit(self, primitive, invars, params, avals) -> list[Any]:
        outs = [Var(aval) for aval in avals]
        made = _TEMPLATE.eqns[0].replace(primitive=primitive, invars=list(invars), outvars=outs, params=params)
        self.equations.append(made)
        return list(outs)

    def scalar(self, primitive, *invars, aval=_INT, **params) -> Any:
        return self.emit(primitive, invars, params, [aval])[0]

    def closed(self, invars, outvars) -> ClosedJaxpr:
        jaxpr = _TEMPLATE.jaxpr.replace(constvars=[], invars=list(invars), outvars=list(outvars), eqns=self.equations)
        return ClosedJaxpr(jaxpr, [])

    def steps(self, steps, scalars, arrays) -> None:
        for step in steps:
            if isinstance(step, Op):
                scalars.append(self.op(step.name, *(scalars[k] for k in step.args)))
            else:
                self.loop(step, scalars, arrays)

    def op(self, name: str, a, b, c) -> Any:
        if name == "choose":
            index = self.scalar(primitives.gt_p, a, _literal(0), aval=_BOOL)
            convert = {"new_dtype": np.dtype(np.int32), "weak_type": False, "sharding": None}
            index = self.scalar(primitives.convert_element_type_p, index, **convert)
            return self.scalar(primitives.cond_p, index, b, c, branches=_BRANCHES)
        if name == "neg":
            return self.scalar(primitives.neg_p, a)
        params = _MUL if name == "mul" else {}
        return self.scalar(getattr(primitives, f"{name}_p"), a, b, **params)

    def order(self, count: int) -> list[int]:
        return list(range(count)) if self.rng is None else self.rng.sample(range(count), count)

    def loop(self, loop: Loop, scalars, arrays) -> None:
        inner = _Maker(self.rng)
        consts, carries, rows = ([Var(_INT) for _ in some] for some in (loop.consts, loop.inits, loop.rows))
        counter = [Var(_INT)] if loop.kind == "while" else []
        seen = [*consts, *counter, *carries, *rows]
        inner.steps(loop.body, seen, [])
        # what the body carries: counter, carries, and perhaps one that nobody else reads
        own = [*counter, *carries]
        new = [*(inner.scalar(primitives.add_p, var, _literal(1)) for var in counter), *(seen[k] for k in loop.outs)]
        inits = [*(_literal(0) for _ in counter), *(scalars[k] for k in loop.inits)]
        if self.rng is not None:
            own.append(Var(_INT))
            inits.append(_literal(5))
            new.append(inner.scalar(primitives.sub_p, own[-1], carries[0]))
        moved, const_order, row_order = self.order(len(own)), self.order(len(consts)), self.order(len(rows))
        outer = [scalars[loop.consts[k]] for k in const_order]
        body = inner.closed(
            [*(consts[k] for k in const_order), *(own[k] for k in moved), *(rows[k] for k in row_order)],
            [*(new[k] for k in moved), *(seen[k] for k in loop.stacks)],
        )
        inits = [inits[k] for k in moved]
        if loop.kind == "scan":
            taken = [arrays[loop.rows[k]] for k in row_order]
            params = {**_TEMPLATE.eqns[0].params, "jaxpr": body, "num_consts": len(outer), "num_carry": len(own),
                      "length": LENGTH, "reverse": loop.reverse}  # fmt: skip
            avals = [_INT] * len(own) + [_ROWS] * len(loop.stacks)
            results = self.emit(primitives.scan_p, [*outer, *inits, *taken], params, avals)
        else:
            params = {"cond_jaxpr": self._condition(moved.index(0), len(own)), "body_jaxpr": body, "cond_nconsts": 1,
                      "body_nconsts": len(outer)}  # fmt: skip
            results = self.emit(primitives.while_p, [scalars[loop.bound], *outer, *inits], params, [_INT] * len(own))
        scalars.extend(results[moved.index(len(counter) + k)] for k in range(len(carries)))
        arrays.extend(results[len(own) :])

    def _condition(self, counter: int, count: int) -> ClosedJaxpr:
        made, bound, carries = _Maker(None), Var(_INT), [Var(_INT) for _ in range(count)]
        low = made.scalar(primitives.and_p, bound, _literal(3))
        return made.closed([bound, *carries], [made.scalar(primitives.lt_p, carries[counter], low, aval=_BOOL)])


def _literal(value: int) -> Literal:
    return Literal(np.int32(value), _INT)


def _branch(primitive) -> ClosedJaxpr:
    made, a, b = _Maker(None), Var(_INT), Var(_INT)
    return made.closed([a, b], [made.scalar(primitive, a, b)])


_BRANCHES = (_branch(primitives.sub_p), _branch(primitives.add_p))


def jaxpr(program: Description, rng: random.Random | None = None) -> ClosedJaxpr:
    """The program as a jaxpr of x, y and the rows; with `rng`, carries and constants in a random order, some dead."""
    made = _Maker(rng)
    x, y, w = Var(_INT), Var(_INT), Var(_ROWS)
    scalars: list[Any] = [x, y, *(_literal(value) for value in CONSTANTS)]
    arrays: list[Any] = [w]
    made.steps(program.steps, scalars, arrays)
    outs = [made.scalar(primitives.add_p, scalars[k], x) for k in program.scalars]
    if program.arrays:
        params = {"shape": (LENGTH,), "broadcast_dimensions": (), "sharding": None}
        wide = made.scalar(primitives.broadcast_in_dim_p, x, aval=_ROWS, **params)
        outs += [made.scalar(primitives.add_p, arrays[k], wide, aval=_ROWS) for k in program.arrays]
    return made.closed([x, y, w], outs)


def one_wire_changed(rng: random.Random, options: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Another value for one wire that has one."""
    wires = [k for k, (_, count) in enumerate(options) if count > 1]
    k = rng.choice(wires)
    value, count = options[k]
    return {k: rng.choice([other for other in range(count) if other != value])}
