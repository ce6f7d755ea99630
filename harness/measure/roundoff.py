"""The unit roundoff that governs each output: the coarsest floating dtype among the operations that lead to it.

A float32 gradient computed in bfloat16 carries bfloat16 noise; its own dtype says nothing about that. Inputs count for
nothing: a parameter stored in bfloat16 is exact.
"""

import functools
import typing

import jax.numpy as jnp
from jax.extend import core

from ..program import Program
from .interpreter import CALLS


def unit_roundoff(dtype: typing.Any) -> float:
    """Half the distance from 1 to the next number; 0 for what is not floating."""
    return float(jnp.finfo(dtype).eps) / 2 if jnp.issubdtype(dtype, jnp.inexact) else 0.0


def output_roundoffs(program: Program) -> list[float]:
    """One unit roundoff per output leaf; at least that of the leaf's own dtype."""
    traced = program.trace()
    closed = traced.jaxpr
    flowing = _flow(closed.jaxpr, [0.0] * len(closed.jaxpr.invars))
    return [max(flow, unit_roundoff(leaf.dtype)) for flow, leaf in zip(flowing, traced.outputs, strict=True)]


def _flow(jaxpr: typing.Any, incoming: list[float]) -> list[float]:
    env = dict(zip(jaxpr.invars, incoming, strict=True))

    def read(atom: typing.Any) -> float:
        return 0.0 if isinstance(atom, core.Literal) else env.get(atom, 0.0)

    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        if eqn.primitive.name in CALLS:
            inner = eqn.params[CALLS[eqn.primitive.name]]
            env.update(zip(eqn.outvars, _flow(getattr(inner, "jaxpr", inner), operands), strict=True))
            continue
        inside = max((_coarsest(sub) for sub in core.jaxprs_in_params(eqn.params)), default=0.0)
        behind = max([inside, *operands])
        env.update({var: max(behind, unit_roundoff(var.aval.dtype)) for var in eqn.outvars})
    return [read(atom) for atom in jaxpr.outvars]


def _coarsest(jaxpr: typing.Any) -> float:
    """The coarsest dtype computed anywhere inside; loops are not followed leaf by leaf."""
    return _coarsest_of(getattr(jaxpr, "jaxpr", jaxpr))


@functools.lru_cache(maxsize=4096)
def _coarsest_of(jaxpr: typing.Any) -> float:
    own = [unit_roundoff(var.aval.dtype) for eqn in jaxpr.eqns for var in eqn.outvars]
    inner = [_coarsest(sub) for eqn in jaxpr.eqns for sub in core.jaxprs_in_params(eqn.params)]
    return max([0.0, *own, *inner])
