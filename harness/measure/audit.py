"""The audit of a proof: both programs run op by op, where equal denotation means equal bits.

Each primitive runs on its own and loops run in Python, so no compiler fuses anything across equations. NaNs are one
class. A proof modulo key derivation is audited with the draws of one side replayed into the other.
"""

import dataclasses
import typing
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from ..program import Program
from ..verdict import Kind, Verdict
from .execute import measure, same_bits
from .inputs import Inputs, draw_inputs
from .pairing import Pair, pair
from .stepwise import DrawMismatch, Draws, op_by_op
from .truth import is_key

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


def _run_once(
    a: Program, b: Program, pairs: list[Pair], inputs: Inputs, equal: Callable[..., bool], *, replay: bool
) -> None:
    ours = Draws() if replay else None
    theirs = Draws(ours) if replay else None
    try:
        outs_a, outs_b = op_by_op(a, inputs.a, draws=ours), op_by_op(b, inputs.b, draws=theirs)
    except DrawMismatch as error:
        raise Contradiction(f"{a.name} and {b.name} were proved equal, but {error}") from error
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
