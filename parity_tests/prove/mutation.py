"""Random one-place mutations of a traced program. Most change its meaning; the rest keep the attack honest."""

import dataclasses
import enum
import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, primitives

from .eager import CALLS, Interpreter

UNARY = ("sin", "cos", "tanh", "exp", "log", "neg", "sqrt", "rsqrt", "logistic", "abs", "square", "floor", "sign")
BINARY = ("add", "sub", "mul", "div", "max", "min", "rem", "pow", "atan2")
INTEGER = ("add", "sub", "mul", "max", "min", "and", "or", "xor")
COMPARE = ("lt", "le", "gt", "ge", "eq", "ne")
_BY_NAME = {
    getattr(primitives, name).name: getattr(primitives, name) for name in dir(primitives) if name.endswith("_p")
}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A program with one equation changed, and what was changed."""

    fn: Callable[..., Any]
    words: str


def count_equations(closed) -> int:
    """Equations of a jaxpr and of every body in it, as often as the interpreter visits them under a trace."""
    visited = [0]

    def note(equation, operands, bind, scope):
        visited[0] += 1

    jax.make_jaxpr(lambda *args: Interpreter(note, unroll=False).closed(closed, args))(*closed.in_avals)
    return visited[0]


def mutant(closed, place: int, seed: int) -> Mutant:
    """The program with its `place`-th visited equation mutated at random."""
    words = [""]

    def fn(*args):
        visited = [-1]

        def mutate(equation, operands, bind, scope):
            visited[0] += 1
            if visited[0] != place:
                return None
            earlier = {}
            for value in scope.values():
                earlier.setdefault(_type(value), []).append(value)
            result, what = _mutated(random.Random(seed), equation, list(operands), bind, earlier)
            words[0] = f"{equation.primitive.name}: {what}"
            return result

        return Interpreter(mutate, unroll=False).closed(closed, args)

    return Mutant(fn, f"equation {place}, seed {seed}: {words}")


def _mutated(rng, equation, operands, bind, earlier):
    kinds = [_literal, _swap, _other_primitive, _drop, _twice, _rewire, _parameter, _narrow]
    rng.shuffle(kinds)
    for kind in kinds:
        found = kind(rng, equation, operands, bind, earlier)
        if found is not None:
            return found, kind.__name__
    return bind(equation, operands, equation.params), "nothing"


def _literal(rng, equation, operands, bind, earlier):
    places = [k for k, var in enumerate(equation.invars) if isinstance(var, Literal) and np.ndim(var.val) == 0]
    if not places or equation.primitive.name in CALLS:
        return None
    k = rng.choice(places)
    value = np.asarray(equation.invars[k].val, equation.invars[k].aval.dtype)
    changes = [value + value.dtype.type(1), value * value.dtype.type(2)] if value.dtype != bool else [~value]
    if jnp.issubdtype(value.dtype, jnp.floating):
        changes += [-value, np.nextafter(value.astype(np.float32), np.float32(9)).astype(value.dtype)]
    operands[k] = np.asarray(rng.choice(changes), value.dtype)
    return bind(equation, operands, equation.params)


def _swap(rng, equation, operands, bind, earlier):
    if len(operands) < 2 or equation.primitive.name in ("scan", "while", "cond"):
        return None
    i, j = rng.sample(range(len(operands)), 2)
    if _type(operands[i]) != _type(operands[j]):
        return None
    operands[i], operands[j] = operands[j], operands[i]
    return bind(equation, operands, equation.params)


def _type(operand):
    return jnp.shape(operand), jnp.result_type(operand)


def _other_primitive(rng, equation, operands, bind, earlier):
    name, kind = equation.primitive.name, jnp.result_type(operands[0]) if operands else None
    for family in (UNARY, INTEGER if kind is not None and jnp.issubdtype(kind, jnp.integer) else BINARY, COMPARE):
        if name in family:
            other = _BY_NAME[rng.choice([option for option in family if option != name])]
            out = {"square": jnp.square, "sqrt": jnp.sqrt}.get(other.name)
            if out is not None:
                return [out(operands[0])]
            function = getattr(
                jax.lax, {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"}.get(other.name, other.name)
            )
            wide = [jnp.broadcast_to(operand, equation.outvars[0].aval.shape) for operand in operands]
            return [function(*wide)]
    return None


def _drop(rng, equation, operands, bind, earlier):
    if len(equation.outvars) != 1:
        return None
    wanted = (equation.outvars[0].aval.shape, equation.outvars[0].aval.dtype)
    same = [operand for operand in operands if _type(operand) == wanted]
    return [rng.choice(same)] if same else None


def _twice(rng, equation, operands, bind, earlier):
    if len(equation.outvars) != 1 or len(operands) == 0 or equation.primitive.name in ("scan", "while", "cond"):
        return None
    once = bind(equation, operands, equation.params)
    if _type(once[0]) != _type(operands[0]):
        return None
    return bind(equation, [once[0], *operands[1:]], equation.params)


def _rewire(rng, equation, operands, bind, earlier):
    places = [k for k, operand in enumerate(operands) if len(earlier.get(_type(operand), ())) > 1]
    if not places:
        return None
    k = rng.choice(places)
    operands[k] = rng.choice(earlier[_type(operands[k])])
    return bind(equation, operands, equation.params)


def _parameter(rng, equation, operands, bind, earlier):
    """Another value of one parameter, kept only if the result has the type it had."""
    params = dict(equation.params)
    options = [(name, change) for name, value in params.items() for change in _changes(rng, value)]
    if equation.primitive.name in (*CALLS, "while", "cond"):
        return None
    rng.shuffle(options)
    for name, change in options:
        if name in ("jaxpr", "num_consts", "num_carry", "unroll", "update_jaxpr", "sharding", "weak_type"):
            continue
        try:
            results = bind(equation, operands, {**params, name: change})
        except Exception:  # jax refuses most nonsense parameters, each in its own way
            continue
        if [_type(result) for result in results] == [(var.aval.shape, var.aval.dtype) for var in equation.outvars]:
            return results
    return None


def _changes(rng, value):
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, enum.Enum):
        return [option for option in type(value) if option is not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, tuple) and value and all(isinstance(item, int) for item in value):
        return [
            tuple(rng.sample(value, len(value))),
            tuple(item + 1 for item in value),
            tuple(max(0, item - 1) for item in value),
        ]
    if isinstance(value, tuple):
        return [(*value[:k], change, *value[k + 1 :]) for k, item in enumerate(value) for change in _changes(rng, item)]
    return []


def _narrow(rng, equation, operands, bind, earlier):
    results = bind(equation, operands, equation.params)
    k = rng.randrange(len(results)) if results else None
    if k is None or jnp.result_type(results[k]) != jnp.float32:
        return None
    results[k] = results[k].astype(jnp.bfloat16).astype(jnp.float32)
    return results
