"""Ways to execute two programs side by side: compiled, or op by op with the draws of one replayed into the other."""

import dataclasses
import typing
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.extend import core

from .. import settings
from ..program import Program
from .inputs import Inputs
from .stepwise import Draws, Jitter, op_by_op
from .truth import to_host

Runner = Callable[[Sequence[typing.Any]], list[np.ndarray]]
KEY_DERIVATION = "modulo key derivation"


@dataclasses.dataclass(frozen=True)
class Runners:
    """How each side is executed, flat arguments to flat host arrays; `a` is called first on every input.

    Without truths of their own, the programs' compiled truths are used. `latest` holds the draws that `a` made last,
    where draws are replayed.
    """

    a: Runner
    b: Runner
    truth_a: Runner | None = None
    truth_b: Runner | None = None
    latest: list[Draws] = dataclasses.field(default_factory=list)

    def jittered(self, program: Program, flat: Sequence[typing.Any], jitter: Jitter) -> list[np.ndarray]:
        """The truth of a side, every operation moved by one rounding."""
        draws = Draws(self.latest[0]) if self.latest else None
        return op_by_op(program, flat, draws=draws, float64=True, jitter=jitter)


def compiled(program: Program, **compiler_options: typing.Any) -> Runner:
    """A program jitted as a whole under the harness's settings."""
    function = core.jaxpr_as_fun(program.trace().jaxpr)
    options = settings.compiler_options() | compiler_options
    run = jax.jit(lambda *values: function(*values), compiler_options=options or None)

    def runner(flat: Sequence[typing.Any]) -> list[np.ndarray]:
        with settings.tracing():
            return [to_host(value) for value in run(*flat)]

    return runner


def stepwise(program: Program) -> Runner:
    """A program op by op."""
    return lambda flat: op_by_op(program, flat)


def replaying(a: Program, b: Program) -> Runners:
    """Both op by op; on each input `b` and the truths get the draws that `a` made on it."""
    latest: list[Draws] = []

    def first(flat: Sequence[typing.Any]) -> list[np.ndarray]:
        latest[:] = [Draws()]
        return op_by_op(a, flat, draws=latest[0])

    def after(program: Program, *, float64: bool) -> Runner:
        return lambda flat: op_by_op(program, flat, draws=Draws(latest[0]), float64=float64)

    return Runners(first, after(b, float64=False), after(a, float64=True), after(b, float64=True), latest)


def draw_differently(a: Program, b: Program, inputs: Inputs) -> bool:
    """Whether both sides draw random numbers and, on the same inputs, get different ones."""
    if not (_draws(a.trace().jaxpr.jaxpr) and _draws(b.trace().jaxpr.jaxpr)):
        return False
    ours, theirs = Draws(), Draws()
    op_by_op(a, inputs.a, draws=ours)
    op_by_op(b, inputs.b, draws=theirs)
    return {name: to_host(bits).tobytes() for name, bits in ours.bits.items()} != {
        name: to_host(bits).tobytes() for name, bits in theirs.bits.items()
    }


def _draws(jaxpr: typing.Any) -> bool:
    return any(
        eqn.primitive.name == "random_bits"
        or any(_draws(getattr(inner, "jaxpr", inner)) for inner in core.jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )
