"""A jaxpr run op by op. Written for the tests, from jax alone: it shares no line with the harness.

Each primitive is executed on its own, loops and conditionals in Python, calls inlined: here equal denotation means
equal bits. Operations that only move elements are left to NumPy, which needs no compile.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from .sites import bodies, live, opened

CALLS = {"jit": "jaxpr", "closed_call": "call_jaxpr", "remat2": "jaxpr", "custom_jvp_call": "call_jaxpr",
         "custom_vjp_call": "call_jaxpr"}  # fmt: skip
PLACEMENT = ("sharding_constraint", "optimization_barrier")
LIMIT = 1000  # trips of a while loop


class Endless(RuntimeError):
    """A while loop that goes on for longer than a test waits."""


class Memo:
    """Results of equations that many programs share, by the identity of equation and operands.

    Values are kept once for their bits, so that a mutant is evaluated only where its values really differ. `shared`
    are the programs whose equations may be remembered; they must live as long as this does.
    """

    def __init__(self, shared: Sequence[Any], *, draws: bool):
        self.equations: set[int] = set()
        self.results: dict[tuple[Any, ...], list[Any]] = {}
        self.values: dict[tuple[Any, ...], Any] = {}
        for closed in shared:
            self._learn(closed, draws)

    def _learn(self, closed, draws: bool) -> bool:
        """Notes the equations, but those that draw where draws are replaced; answers whether there are any."""
        found = False
        for equation in opened(closed).eqns:
            drawing = [self._learn(inner, draws) for _, _, inner in bodies(equation)]
            own = draws and (any(drawing) or equation.primitive.name == "random_bits")
            found |= own
            if not own:
                self.equations.add(id(equation))
        return found

    def canonical(self, value) -> Any:
        """The one array with these bits."""
        if _is_key(value):
            array, kind = np.asarray(jax.random.key_data(value)), str(value.dtype)
        else:
            array = value = np.asarray(value)
            kind = array.dtype
        key = (kind, array.shape, hashlib.blake2b(array.tobytes(), digest_size=16).digest())
        return self.values.setdefault(key, value)


def _is_key(value) -> bool:
    return jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


class Noise:
    """Random bits by shape and order of the distinct keys, whatever the keys are: the same for two programs."""

    def __init__(self):
        self.numbers: dict[Any, int] = {}
        self.counts: dict[Any, int] = {}

    def __call__(self, equation, key) -> list[Any]:
        aval = equation.outvars[0].aval
        kind = (tuple(aval.shape), str(aval.dtype))
        identity = (kind, np.asarray(jax.random.key_data(key)).tobytes())
        if identity not in self.numbers:
            self.numbers[identity] = self.counts.get(kind, 0)
            self.counts[kind] = self.numbers[identity] + 1
        rng = np.random.default_rng([self.numbers[identity], *kind[0]])
        return [rng.integers(0, np.iinfo(aval.dtype).max, kind[0], aval.dtype, endpoint=True)]


class Interpreter:
    """Evaluates a jaxpr on concrete values. With `noise`, draws take their bits from there, not from their keys."""

    def __init__(self, *, memo: Memo | None = None, noise: Callable[[Any, Any], list[Any]] | None = None):
        self.memo = memo
        self.noise = noise

    def closed(self, closed, args: Sequence[Any]) -> list[Any]:
        """The outputs of a closed or constant-free jaxpr."""
        jaxpr = opened(closed)
        env = dict(zip(jaxpr.constvars, map(self._kept, getattr(closed, "consts", ())), strict=True))
        env.update(zip(jaxpr.invars, map(self._kept, args), strict=True))

        def read(var):
            if isinstance(var, Literal):
                return self._kept(var.val if _is_key(var.aval) else np.asarray(var.val, var.aval.dtype))
            return env[var]

        for index in live(jaxpr):
            equation = jaxpr.eqns[index]
            results = self._results(equation, [read(var) for var in equation.invars])
            env.update(zip(equation.outvars, results, strict=True))
        return [read(var) for var in jaxpr.outvars]

    def _kept(self, value) -> Any:
        return value if self.memo is None else self.memo.canonical(value)

    def _results(self, equation, operands) -> list[Any]:
        memo = self.memo
        if memo is None or equation.effects:
            return self.bind(equation, operands)
        key = (id(equation), *map(id, operands)) if id(equation) in memo.equations else None
        found = memo.results.get(key) if key is not None else None
        if found is None:
            found = [memo.canonical(value) for value in self.bind(equation, operands)]
            if key is not None:
                memo.results[key] = found
        return found

    def bind(self, equation, operands) -> list[Any]:
        """One equation on concrete operands."""
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            return self.closed(params[CALLS[name]], operands)
        if name in PLACEMENT:
            return operands
        special = {"scan": self._scan, "while": self._while, "cond": self._cond}.get(name)
        if special is not None:
            return special(equation, operands)
        if name == "random_bits" and self.noise is not None:
            return self.noise(equation, operands[0])
        moved = _moved(name, params, operands)
        if moved is not None:
            return [moved]
        out = equation.primitive.bind(*operands, **equation.primitive.get_bind_params(params))
        return list(out) if equation.primitive.multiple_results else [out]

    def _scan(self, equation, operands) -> list[Any]:
        params = equation.params
        start, stop, length = params["num_consts"], params["num_consts"] + params["num_carry"], params["length"]
        consts, carry, arrays = operands[:start], operands[start:stop], operands[stop:]
        rows: list[Any] = [None] * length
        for i in reversed(range(length)) if params["reverse"] else range(length):
            outs = self.closed(params["jaxpr"], [*consts, *carry, *[_row(array, i) for array in arrays]])
            carry, rows[i] = outs[: len(carry)], outs[len(carry) :]
        stacked = [_stacked([row[k] for row in rows], var) for k, var in enumerate(equation.outvars[len(carry) :])]
        return [*carry, *stacked]

    def _while(self, equation, operands) -> list[Any]:
        params = equation.params
        first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        cond_consts, body_consts, carry = operands[:first], operands[first:second], operands[second:]
        for _ in range(LIMIT):
            if not bool(self.closed(params["cond_jaxpr"], [*cond_consts, *carry])[0]):
                return list(carry)
            carry = self.closed(params["body_jaxpr"], [*body_consts, *carry])
        raise Endless("a test loop did not end")

    def _cond(self, equation, operands) -> list[Any]:
        index, *rest = operands
        branches = equation.params["branches"]
        return self.closed(branches[int(np.clip(int(index), 0, len(branches) - 1))], rest)


def _row(array, i: int) -> Any:
    return array[i] if _is_key(array) else np.asarray(array)[i]


def _stacked(rows, var) -> Any:
    if not rows:
        return np.zeros(var.aval.shape, var.aval.dtype)
    return jnp.stack(rows) if _is_key(rows[0]) else np.stack([np.asarray(row) for row in rows])


def _moved(name: str, params, operands) -> Any:
    """The result of an operation that only moves elements, or None for any other."""
    if name not in ("reshape", "broadcast_in_dim", "transpose", "squeeze") or _is_key(operands[0]) or len(operands) > 1:
        return None
    array = np.asarray(operands[0])
    if name == "transpose":
        return array.transpose(params["permutation"])
    if name == "squeeze":
        return array.squeeze(tuple(params["dimensions"]))
    if name == "reshape":
        return array.reshape(params["new_sizes"]) if params["dimensions"] is None else None
    shape, dims = params["shape"], params["broadcast_dimensions"]
    if any(a not in (1, shape[dim]) for a, dim in zip(array.shape, dims, strict=True)):
        return None
    place = dict(zip(dims, array.shape, strict=True))
    return np.broadcast_to(array.reshape([place.get(dim, 1) for dim in range(len(shape))]), shape)


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
