"""A jaxpr run op by op, and run with one equation mutated. Written for the tests, from jax alone.

Each primitive is executed on its own, loops and conditionals in Python, calls inlined: here equal denotation means
equal bits. Under a trace the same interpreter rebuilds a (mutated) program.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

CALLS = {"jit": "jaxpr", "closed_call": "call_jaxpr", "remat2": "jaxpr", "custom_jvp_call": "call_jaxpr",
         "custom_vjp_call": "call_jaxpr"}  # fmt: skip
Mutation = Callable[[Any, list[Any], Callable[..., list[Any]], dict[Any, Any]], list[Any] | None]


class Interpreter:
    """Evaluates a jaxpr; `mutate(equation, operands, bind, scope)` may answer for an equation in its place.

    `unroll` runs loops in Python (concrete values only); without it loops are rebuilt with `jax.lax`.
    """

    def __init__(self, mutate: Mutation | None = None, *, unroll: bool = True):
        self.mutate = mutate
        self.unroll = unroll

    def closed(self, closed, args: Sequence[Any]) -> list[Any]:
        """The outputs of a closed or constant-free jaxpr."""
        jaxpr = getattr(closed, "jaxpr", closed)
        env = dict(zip(jaxpr.constvars, getattr(closed, "consts", ()), strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))

        def read(var):
            return np.asarray(var.val, var.aval.dtype) if isinstance(var, Literal) else env[var]

        for equation in _live(jaxpr):
            operands = [read(var) for var in equation.invars]
            results = self.mutate(equation, operands, self.bind, env) if self.mutate is not None else None
            if results is None:
                results = self.bind(equation, operands, equation.params)
            env.update(zip(equation.outvars, results, strict=True))
        return [read(var) for var in jaxpr.outvars]

    def bind(self, equation, operands, params) -> list[Any]:
        """One equation with these operands and parameters."""
        name = equation.primitive.name
        if name in CALLS:
            return self.closed(params[CALLS[name]], operands)
        special = {"scan": self._scan, "while": self._while, "cond": self._cond}.get(name)
        if special is not None:
            return special(operands, params)
        out = equation.primitive.bind(*operands, **params)
        return list(out) if equation.primitive.multiple_results else [out]

    def _scan(self, operands, params) -> list[Any]:
        start, stop = params["num_consts"], params["num_consts"] + params["num_carry"]
        consts, carry, arrays = operands[:start], operands[start:stop], operands[stop:]

        def body(carry, row):
            outs = self.closed(params["jaxpr"], [*consts, *carry, *row])
            return outs[: len(carry)], outs[len(carry) :]

        if not self.unroll:
            carry, stacked = jax.lax.scan(
                body, list(carry), list(arrays), length=params["length"], reverse=params["reverse"]
            )
            return [*carry, *stacked]
        rows = [None] * params["length"]
        order = range(params["length"])
        for i in reversed(order) if params["reverse"] else order:
            carry, rows[i] = body(carry, [jax.lax.index_in_dim(array, i, keepdims=False) for array in arrays])
        stacked = [np.stack([np.asarray(row[k]) for row in rows]) for k in range(len(rows[0]))] if rows else []
        return [*carry, *stacked]

    def _while(self, operands, params) -> list[Any]:
        first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        cond_consts, body_consts, carry = operands[:first], operands[first:second], operands[second:]
        if not self.unroll:
            return jax.lax.while_loop(
                lambda carry: self.closed(params["cond_jaxpr"], [*cond_consts, *carry])[0],
                lambda carry: self.closed(params["body_jaxpr"], [*body_consts, *carry]),
                list(carry),
            )
        for _ in range(1000):
            if not bool(self.closed(params["cond_jaxpr"], [*cond_consts, *carry])[0]):
                return list(carry)
            carry = self.closed(params["body_jaxpr"], [*body_consts, *carry])
        raise RuntimeError("a test loop did not end")

    def _cond(self, operands, params) -> list[Any]:
        index, *rest = operands
        if not self.unroll:
            branches = [lambda *xs, b=branch: self.closed(b, list(xs)) for branch in params["branches"]]
            return jax.lax.switch(index, branches, *rest)
        return self.closed(params["branches"][int(np.clip(int(index), 0, len(params["branches"]) - 1))], rest)


def _live(jaxpr) -> list[Any]:
    """The equations that outputs need. Dead ones may be no program at all: jax finds that out only when it lowers."""
    needed, live = {var for var in jaxpr.outvars if not isinstance(var, Literal)}, []
    for equation in reversed(jaxpr.eqns):
        if not needed.isdisjoint(equation.outvars):
            live.append(equation)
            needed.update(var for var in equation.invars if not isinstance(var, Literal))
    return live[::-1]


def same_bits(left, right) -> bool:
    """Whether two arrays hold the same bits, all NaNs being one value."""
    left, right = np.asarray(left), np.asarray(right)
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    if left.dtype.kind in "biu":
        return bool((left == right).all())
    a, b = (np.ascontiguousarray(x).reshape(-1).view(f"u{x.dtype.itemsize}") for x in (left, right))
    nan = np.isnan(left.astype(np.float32)).reshape(-1) & np.isnan(right.astype(np.float32)).reshape(-1)
    return bool(((a == b) | nan).all())


def awkward(shape: tuple[int, ...], dtype, seed: int) -> np.ndarray:
    """Values of a dtype that break careless rewrites: signed zeros, infinities, NaN, denormals, huge and tiny."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        special = [0, 1, 2, 3, info.max, info.min, info.max - 1, info.min + 1]
        values = np.where(
            rng.random(shape) < 0.4, rng.choice(special, shape), rng.integers(-5 if dtype.kind == "i" else 0, 9, shape)
        )
        return values.astype(dtype)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3e38, -3e38, 1.0, -1.0, 0.5, 65504.0, 1e-8])
    values = np.where(rng.random(shape) < 0.3, rng.choice(special, shape), rng.standard_normal(shape))
    return values.astype(np.float32).astype(dtype)
