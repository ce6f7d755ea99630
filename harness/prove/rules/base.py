"""What a rewrite rule is: a name, the operations it reads, a class, an argument and a function of terms."""

import dataclasses
import enum
import functools
import typing
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from ..params import Params, params_token
from ..primitives import IGNORED
from ..terms import Node


class Strength(enum.IntEnum):
    """How much of equality a rewrite keeps, strongest first."""

    EXACT = 0
    SIGNED_ZERO = 1
    REASSOCIATING = 2

    @property
    def words(self) -> str:
        """As verdicts print it."""
        return ("exact", "modulo signed zero", "reassociating")[self]


STRENGTHS = {strength.words: strength for strength in Strength}


@dataclasses.dataclass(frozen=True)
class Rule:
    """`apply(graph, op, attrs, operands, shape, dtype, origin)` is the equal node, or None where it says nothing.

    It is asked only where an operand is one of the operations it `reads`, or always where none is named.
    """

    name: str
    ops: frozenset[str]
    strength: Strength
    argument: str
    apply: typing.Callable[..., Node | None]
    reads: frozenset[str] = frozenset()


def params(attrs: Mapping[str, typing.Any]) -> bytes:
    """The digest input of an operation's parameters."""
    return attrs.token if type(attrs) is Params else params_token(attrs, IGNORED)


def made(attrs: Mapping[str, typing.Any]) -> Params:
    """Parameters with their digest input."""
    return Params(attrs, params_token(attrs, IGNORED))


def build(graph, op: str, operands, like: Node, origin, attrs: Mapping[str, typing.Any] | None = None) -> Node:
    """An operation with a result of the type of `like`, through the rules."""
    attrs = attrs or {}
    return graph.build(op, params(attrs), attrs, tuple(operands), like.shape, like.dtype, origin)


@dataclasses.dataclass(frozen=True)
class Format:
    """A dtype's range, for questions of what fits into what. `digits` are the bits of the significand or integer."""

    kind: str  # "bool", "int", "float", or "other" for complex numbers and what is not asked about
    name: str = ""  # NumPy makes it anew each time it is asked
    bits: int = 0
    signed: bool = True
    digits: int = 0
    low: int = 0
    high: int = 0
    tiny: float = 0.0


@functools.cache
def format_of(dtype: typing.Any) -> Format:
    """The format of a dtype; keys, complex numbers and floats without sign or zero are `other`."""
    name = getattr(dtype, "name", "")
    if name == "bool":
        return Format("bool", name, 1, False, 1)
    if name.startswith(("int", "uint")):
        info = ml_dtypes.iinfo(dtype)
        signed = info.min < 0
        return Format("int", name, int(info.bits), signed, int(info.bits) - signed)
    if name in UNUSUAL or not name.startswith(("float", "bfloat")):
        return Format("other", name)
    info = ml_dtypes.finfo(dtype)
    return Format(
        "float", name, int(info.bits), True, int(info.nmant) + 1, int(info.minexp), int(info.maxexp), float(info.tiny)
    )


# Neither sign nor zero; infinities and NaN absent. Nothing is claimed about them.
UNUSUAL = frozenset({"float8_e8m0fnu", "float4_e2m1fn"})


def is_complex(dtype: typing.Any) -> bool:
    """Whether one number is two: then a product rounds several times, in an order that the compiler chooses."""
    return isinstance(dtype, np.dtype) and dtype.kind == "c"
