"""What a program costs, by counting: operations, arithmetic, bytes of its outputs, and how often it compiles."""

import collections
import dataclasses
import math
import typing
from collections.abc import Callable, Sequence

import jax
from jax.extend import core

from .. import settings
from ..program import Program
from .observation import Observation, observe


@dataclasses.dataclass(frozen=True)
class Cost:
    """`flops` and `bytes_accessed` are the lowered program's own estimate, None where the platform gives none.

    `primitives` counts equations by name, loops' bodies times their length where it is known.
    """

    flops: float | None
    bytes_accessed: float | None
    output_bytes: int
    primitives: dict[str, int]


def cost(program: Program) -> Cost:
    """Counts a program without running or compiling it."""
    closed = program.trace().jaxpr
    function = core.jaxpr_as_fun(closed)
    with settings.tracing():
        structs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in closed.in_avals]
        analysis = jax.jit(lambda *flat: function(*flat)).lower(*structs).cost_analysis() or {}
    counted: collections.Counter[str] = collections.Counter()
    _count(closed.jaxpr, 1, counted)
    sizes = [math.prod(aval.shape) * aval.dtype.itemsize for aval in closed.out_avals]
    return Cost(analysis.get("flops"), analysis.get("bytes accessed"), sum(sizes), dict(sorted(counted.items())))


def compare_cost(a: Program, b: Program) -> Observation:
    """Compares flops, output bytes and the count of each primitive that computes."""
    facts = _table(cost(a)), _table(cost(b))
    return observe("cost", facts[0], facts[1], lambda count: {"count": str(count)}, names=(a.name, b.name))


def compile_count(fn: Callable[..., typing.Any], calls: Sequence[tuple[typing.Any, ...]]) -> int:
    """How often `fn`, jitted, is traced anew over a sequence of calls; each trace is one compile."""
    traces = 0

    def counted(*args: typing.Any) -> typing.Any:
        nonlocal traces
        traces += 1
        return fn(*args)

    compiled = jax.jit(counted)
    with settings.tracing():
        for args in calls:
            jax.block_until_ready(compiled(*args))
    return traces


# Calls and moves that cost nothing by themselves and that honest twins place differently.
_FREE = frozenset({
    "jit", "pjit", "closed_call", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call", "copy", "name",
    "sharding_constraint", "reshape", "squeeze", "broadcast_in_dim", "stop_gradient",
})  # fmt: skip


def _table(counted: Cost) -> dict[str, typing.Any]:
    table: dict[str, typing.Any] = {
        f"primitive {name}": count for name, count in counted.primitives.items() if name not in _FREE
    }
    table["output bytes"] = counted.output_bytes
    if counted.flops is not None:
        table["flops"] = counted.flops
    return table


def _count(jaxpr: typing.Any, times: int, counted: collections.Counter[str]) -> None:
    for eqn in jaxpr.eqns:
        counted[eqn.primitive.name] += times
        inside = times * (eqn.params["length"] if eqn.primitive.name == "scan" else 1)
        if not eqn.primitive.name.startswith("scatter"):
            for inner in core.jaxprs_in_params(eqn.params):
                _count(getattr(inner, "jaxpr", inner), inside, counted)
