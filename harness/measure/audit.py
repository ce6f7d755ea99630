"""The audit of a proof: both programs run op by op, where equal denotation means equal bits.

Each primitive runs on its own and loops run in Python, so no compiler fuses anything across equations. NaNs are one
class. A proof modulo key derivation is audited with the draws of one side replayed into the other.
"""

import dataclasses
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from .. import settings
from ..program import Program
from ..verdict import Kind, Verdict
from .execute import measure, same_bits
from .host_ops import run_on_host
from .inputs import Inputs, draw_inputs
from .interpreter import Interpreter, Scope, Values
from .pairing import Pair, pair
from .truth import is_key, to_host

SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 1.0, -1.0])
"""Values sprinkled over the floating inputs of the second run."""
SPECIAL_SHARE = 0.02
_KEY_DERIVATION = "modulo key derivation"


class Contradiction(AssertionError):
    """Two programs were proved equal and gave different bits op by op: the prover is wrong."""


def audit(a: Program, b: Program, verdict: Verdict, seed: int = 0) -> Verdict:
    """Executes what was proved.

    Args:
        a: one program.
        b: the other.
        verdict: what `prove` or `check` answered; leaves that are not `proved` are left alone.
        seed: of the inputs.

    Returns:
        The same verdict; `reason` says what was executed.

    Raises:
        Contradiction: a proved leaf differs.
        ProgramError: a program has no concrete inputs.
        Unsupported: a program cannot be run op by op.
    """
    proved = {leaf.name for leaf in verdict.leaves if leaf.kind is Kind.PROVED}
    pairs = [pair_ for pair_ in pair(a, b).outputs if pair_.name in proved]
    missing = proved - {pair_.name for pair_ in pairs}
    if missing:
        raise Contradiction(f"proved leaf {min(missing)} is not an output of both programs")
    if not pairs:
        return verdict
    if "reassociating" in verdict.strength:
        return _measured(a, b, verdict, seed)
    drawn = draw_inputs(a, b, seed)
    replay = _KEY_DERIVATION in verdict.strength
    for inputs in (drawn, _special(a, b, drawn, seed)):
        _run_once(a, b, pairs, inputs, _comparison(verdict.strength), replay=replay)
    return dataclasses.replace(verdict, reason=f"audited op by op: {len(pairs)} leaves have equal bits on two inputs")


def op_by_op(program: Program, flat: tuple[typing.Any, ...], draws: "Draws | None" = None) -> list[np.ndarray]:
    """A program's outputs, every primitive run on its own."""

    def apply(eqn: typing.Any, values: Values, scope: Scope) -> Values:
        del scope
        if draws is not None and eqn.primitive.name == "random_bits":
            return [draws(eqn, values[0])]
        results = run_on_host(eqn.primitive.name, eqn.params, values)
        if results is not None:
            for value, var in zip(results, eqn.outvars, strict=True):
                assert (value.shape, value.dtype) == (var.aval.shape, var.aval.dtype), (eqn.primitive.name, var.aval)
            return list(results)
        answer = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
        return list(answer) if eqn.primitive.multiple_results else [answer]

    interpreter = Interpreter(apply=apply, python_loops=True)
    with settings.tracing():
        return [to_host(value) for value in interpreter.closed(program.trace().jaxpr, list(flat))]


class Draws:
    """Numbers the distinct draws of a run by shape and order; replays another run's bits under the same numbers.

    A draw repeated with the same key, as recomputation does, is the same draw.
    """

    def __init__(self, replayed: "Draws | None" = None):
        self.bits: dict[tuple[typing.Any, ...], typing.Any] = {}
        self._numbers: dict[tuple[typing.Any, ...], int] = {}
        self._counts: dict[typing.Any, int] = {}
        self._replayed = replayed

    def __call__(self, eqn: typing.Any, key: typing.Any) -> typing.Any:
        kind = (tuple(eqn.outvars[0].aval.shape), eqn.params["bit_width"])
        identity = (kind, np.asarray(jax.random.key_data(key)).tobytes())
        if identity not in self._numbers:
            self._numbers[identity] = self._counts.get(kind, 0)
            self._counts[kind] = self._numbers[identity] + 1
        name = (kind, self._numbers[identity])
        if self._replayed is None:
            self.bits[name] = eqn.primitive.bind(key, **eqn.params)
        else:
            if name not in self._replayed.bits:
                raise Contradiction(f"draw {name[1]} of shape {list(kind[0])} has no counterpart to replay")
            self.bits[name] = self._replayed.bits[name]
        return self.bits[name]


def _run_once(
    a: Program, b: Program, pairs: list[Pair], inputs: Inputs, equal: Callable[..., bool], *, replay: bool
) -> None:
    ours = Draws() if replay else None
    theirs = Draws(ours) if replay else None
    outs_a, outs_b = op_by_op(a, inputs.a, ours), op_by_op(b, inputs.b, theirs)
    if ours is not None and theirs is not None and set(ours.bits) != set(theirs.bits):
        raise Contradiction(f"{a.name} makes {len(ours.bits)} draws and {b.name} {len(theirs.bits)}")
    for pair_ in pairs:
        left, right = outs_a[pair_.index_a], outs_b[pair_.index_b]
        left, right = left.astype(pair_.a.compared_dtype), right.astype(pair_.b.compared_dtype)
        if not equal(left, right):
            index = tuple(int(i) for i in np.argwhere(~_equal_places(left, right))[0])
            raise Contradiction(
                f"{pair_.name} was proved equal, but op by op ({inputs.group}) it is {left[index]!r} in {a.name} and"
                f" {right[index]!r} in {b.name} at {list(index)}"
            )


def _comparison(strength: str) -> Callable[[np.ndarray, np.ndarray], bool]:
    if "signed zero" in strength:
        return lambda left, right: bool(_equal_places(left, right, signed_zero=False).all())
    return same_bits


def _equal_places(left: np.ndarray, right: np.ndarray, *, signed_zero: bool = True) -> np.ndarray:
    equal = left == right
    if jnp.issubdtype(left.dtype, jnp.floating):
        equal |= np.isnan(left) & np.isnan(right)
        if signed_zero:
            equal &= np.isnan(left) | (np.signbit(left) == np.signbit(right))
    return equal


def _special(a: Program, b: Program, drawn: Inputs, seed: int) -> Inputs:
    """The same inputs with a few zeros, infinities, NaNs and subnormals among the floating values."""
    random = np.random.default_rng(seed)
    by_name: dict[str, typing.Any] = {}
    first = tuple(_sprinkle(value, random) for value in drawn.a)
    for leaf, value in zip(a.inputs, first, strict=True):
        if leaf.one_sided is None:
            by_name[leaf.name] = value
    second = []
    for leaf, value in zip(b.inputs, drawn.b, strict=True):
        shared = by_name.get(leaf.name) if leaf.one_sided is None else None
        second.append(value if shared is None or shared.dtype != leaf.dtype else shared)
    return Inputs("special values", first, tuple(second))


def _sprinkle(value: typing.Any, random: np.random.Generator) -> typing.Any:
    if not hasattr(value, "dtype") or is_key(value) or not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    array = np.array(value)
    chosen = random.random(array.shape) < SPECIAL_SHARE
    values = random.choice(SPECIAL, size=array.shape)
    return np.where(chosen, values.astype(array.dtype), array).astype(array.dtype)


def _measured(a: Program, b: Program, verdict: Verdict, seed: int) -> Verdict:
    """A reassociating proof promises the value, not the bits: the noise ratio audits it."""
    answer = measure(a, b, seed=seed)
    if answer.kind is Kind.DIVERGED:
        raise Contradiction(f"proved modulo reassociation, but measured diverged:\n{answer.explain()}")
    return dataclasses.replace(verdict, reason=f"audited by execution: {answer.kind}")
