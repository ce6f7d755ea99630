"""A jaxpr interpreter with two choices: what each equation does, and whether loops are traced or run in Python.

Calls (jit, remat, custom derivatives) are inlined and placement is dropped: neither changes a value. What the
interpreter does not understand it refuses by name; it never guesses.
"""

import dataclasses
import typing
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

Values = list[typing.Any]
Scope = tuple[str, ...]


class Unsupported(ValueError):
    """A program that this interpreter cannot run faithfully. The message names the primitive."""


# Primitive -> parameter that holds the function to inline.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
_PLACEMENT = frozenset({"sharding_constraint", "optimization_barrier", "layout_constraint", "mesh_cast", "reshard"})
_REFUSED = frozenset({"shard_map", "pallas_call", "ffi_call", "pure_callback", "io_callback", "debug_callback"})


def _same_literal(value: typing.Any, aval: typing.Any) -> typing.Any:
    return np.asarray(value, dtype=aval.dtype)


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """`apply(eqn, values, scope)` runs one first-order equation; `literal(value, aval)` makes a constant.

    `python_loops` runs scan and while in Python, one equation at a time, and gives each iteration its own scope word.
    """

    apply: Callable[[typing.Any, Values, Scope], Values]
    literal: Callable[[typing.Any, typing.Any], typing.Any] = _same_literal
    python_loops: bool = False

    def closed(self, closed: typing.Any, values: Sequence[typing.Any], scope: Scope = ()) -> Values:
        """Runs a closed jaxpr, or an open one without constants."""
        jaxpr = getattr(closed, "jaxpr", closed)
        consts = [self.constant(value, var) for value, var in zip(closed.consts, jaxpr.constvars, strict=True)]
        return self.run(jaxpr, consts, values, scope)

    def constant(self, value: typing.Any, var: typing.Any) -> typing.Any:
        """A closed-over array, in this interpreter's dtypes; keys stay keys."""
        return value if jnp.issubdtype(var.aval.dtype, jax.dtypes.extended) else self.literal(value, var.aval)

    def run(self, jaxpr: typing.Any, consts: Values, values: Sequence[typing.Any], scope: Scope = ()) -> Values:
        """Runs an open jaxpr, equation by equation, and returns its outputs."""
        if jaxpr.effects:
            effects = ", ".join(map(str, jaxpr.effects))
            raise Unsupported(f"the program has side effects ({effects}): compare it without them")
        env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *values], strict=True))

        def read(atom: typing.Any) -> typing.Any:
            return self.literal(atom.val, atom.aval) if isinstance(atom, core.Literal) else env[atom]

        last = _last_uses(jaxpr)
        for number, eqn in enumerate(jaxpr.eqns):
            results = self.equation(eqn, [read(atom) for atom in eqn.invars], scope)
            env.update(zip(eqn.outvars, results, strict=True))
            for var in last.get(number, ()):
                env.pop(var, None)
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, eqn: typing.Any, values: Values, scope: Scope) -> Values:
        """Runs one equation of any order."""
        name = eqn.primitive.name
        scope = (*scope, str(eqn.source_info.name_stack))
        if name in CALLS:
            inner = eqn.params[CALLS[name]]
            return self.closed(inner, values, scope) if hasattr(inner, "consts") else self.run(inner, [], values, scope)
        if name in _PLACEMENT:
            return values
        if name in _REFUSED or name.startswith("io_") or "callback" in name:
            raise Unsupported(f"primitive {name} cannot be interpreted: measure the program without it")
        if name == "cond":
            return self._cond(eqn, values, scope)
        if name == "scan":
            return self._scan(eqn, values, scope)
        if name == "while":
            return self._while(eqn, values, scope)
        return self.apply(eqn, values, scope)

    def _cond(self, eqn: typing.Any, values: Values, scope: Scope) -> Values:
        index, *operands = values
        branches = eqn.params["branches"]
        if self.python_loops:
            chosen = int(np.clip(int(index), 0, len(branches) - 1))
            return self.closed(branches[chosen], operands, scope)
        functions = [lambda *args, branch=branch: self.closed(branch, args, scope) for branch in branches]
        return list(lax.switch(jnp.asarray(index, jnp.int32), functions, *operands))

    def _scan(self, eqn: typing.Any, values: Values, scope: Scope) -> Values:
        params = eqn.params
        num_consts, num_carry = params["num_consts"], params["num_carry"]
        consts, carry, xs = _split(values, num_consts, num_carry)
        body = params["jaxpr"]
        if self.python_loops:
            return self._python_scan(eqn, consts, carry, xs, scope)

        def step(carry: Values, x: Values) -> tuple[Values, Values]:
            results = self.closed(body, [*consts, *carry, *x], scope)
            return results[:num_carry], results[num_carry:]

        carry, ys = lax.scan(step, carry, xs, params["length"], reverse=params["reverse"], unroll=params["unroll"])
        return [*carry, *ys]

    def _python_scan(self, eqn: typing.Any, consts: Values, carry: Values, xs: Values, scope: Scope) -> Values:
        params = eqn.params
        order = range(params["length"])
        rows: list[Values] = []
        for number in reversed(order) if params["reverse"] else order:
            x = [_slice(value, number) for value in xs]
            results = self.closed(params["jaxpr"], [*consts, *carry, *x], (*scope, f"[{number}]"))
            carry, row = results[: params["num_carry"]], results[params["num_carry"] :]
            rows.append(row)
        if params["reverse"]:
            rows.reverse()
        outs = eqn.outvars[params["num_carry"] :]
        columns = zip(*rows, strict=True) if rows else [[] for _ in outs]
        return [*carry, *(self._stack(list(column), var) for column, var in zip(columns, outs, strict=True))]

    def _stack(self, column: Values, var: typing.Any) -> typing.Any:
        if not column:
            return self.literal(np.zeros(var.aval.shape, var.aval.dtype), var.aval)
        if jnp.issubdtype(var.aval.dtype, jax.dtypes.extended):
            return jnp.stack(column)
        return np.stack([np.asarray(value) for value in column])

    def _while(self, eqn: typing.Any, values: Values, scope: Scope) -> Values:
        params = eqn.params
        cond_consts, body_consts, carry = _split(values, params["cond_nconsts"], params["body_nconsts"])

        def go_on(carry: Values) -> typing.Any:
            return self.closed(params["cond_jaxpr"], [*cond_consts, *carry], scope)[0]

        def body(carry: Values) -> Values:
            return self.closed(params["body_jaxpr"], [*body_consts, *carry], scope)

        if not self.python_loops:
            return list(lax.while_loop(go_on, body, carry))
        number = 0
        while bool(go_on(carry)):
            carry = self.closed(params["body_jaxpr"], [*body_consts, *carry], (*scope, f"[{number}]"))
            number += 1
        return carry


def _split(values: Values, first: int, second: int) -> tuple[Values, Values, Values]:
    return values[:first], values[first : first + second], values[first + second :]


def _slice(value: typing.Any, number: int) -> typing.Any:
    if jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return value[number]
    return np.asarray(value)[number]


def _last_uses(jaxpr: typing.Any) -> dict[int, list[typing.Any]]:
    """Equation number -> variables read there for the last time, so that large intermediates are freed."""
    kept = {atom for atom in jaxpr.outvars if not isinstance(atom, core.Literal)}
    seen: dict[typing.Any, int] = {}
    for number, eqn in enumerate(jaxpr.eqns):
        for atom in eqn.invars:
            if not isinstance(atom, core.Literal):
                seen[atom] = number
    last: dict[int, list[typing.Any]] = {}
    for var, number in seen.items():
        if var not in kept:
            last.setdefault(number, []).append(var)
    return last
