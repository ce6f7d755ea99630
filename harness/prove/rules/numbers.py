"""Rules about numbers: conversions, constants, signs, comparisons, choices. Each holds bit for bit, NaNs as one class.

A processor may take subnormal numbers for zero. A rule that drops an arithmetic operation, which would have flushed
them, is therefore not exact; one that drops a conversion or a change of sign, which would not have, is.
"""

import functools
import math

import numpy as np

from ..params import Params
from ..terms import Node
from . import moves
from .base import UNUSUAL, build, format_of, is_complex, made, params

_PRODUCT = made({"out_dtype": None})


def convert(graph, node: Node, dtype, origin) -> Node:
    """`node` as another dtype, through the rules."""
    attrs = _conversion(dtype)
    return graph.build("convert_element_type", attrs.token, attrs, (node,), node.shape, dtype, origin)


@functools.cache
def _conversion(dtype) -> Params:
    return made({"new_dtype": dtype})


def embeds(small, large) -> bool:
    """Whether every value of the first dtype is one of the second: zeros, infinities and subnormals too."""
    a, b = format_of(small), format_of(large)
    if "other" in (a.kind, b.kind) or b.kind == "bool":
        return False
    if a.kind != "float" and b.kind != "float":
        return a.digits <= b.digits and (b.signed or not a.signed)
    if a.kind != "float":
        return a.digits <= b.digits and a.bits <= b.high
    if b.kind != "float" or "fnuz" in b.name:
        return False
    return a.digits <= b.digits and a.low - a.digits >= b.low - b.digits and a.high <= b.high and _has_infinity(large)


def _has_infinity(dtype) -> bool:
    return format_of(dtype).name in ("float16", "bfloat16", "float32", "float64")


def _comes_back(inner, outer) -> bool:
    """Whether a value survives conversion to the second dtype and back."""
    a, b = format_of(inner), format_of(outer)
    return embeds(inner, outer) or (a.kind == b.kind == "int" and b.bits >= a.bits)


def _passes(inner, middle, outer) -> bool:
    """Whether the step over the middle dtype leaves the conversion what it is without."""
    a, b, c = format_of(inner), format_of(middle), format_of(outer)
    if "other" in (a.kind, b.kind, c.kind):
        return False
    if a.kind != "float" and b.kind == "int" and c.kind == "int":
        return embeds(inner, middle) or b.bits >= c.bits
    if a.kind == "bool":
        return True
    return embeds(inner, middle) and embeds(inner, outer)


def no_op_conversion(graph, op, attrs, operands, shape, dtype, origin):
    """To the own dtype, there and back, or by way of a dtype that holds every value."""
    del op, attrs, shape
    (node,) = operands
    if node.dtype == dtype:
        return node
    if node.op == "convert_element_type":
        inner = node.operands[0]
        if inner.dtype == dtype:
            return inner if _comes_back(inner.dtype, node.dtype) else None
        if _passes(inner.dtype, node.dtype, dtype):
            return convert(graph, inner, dtype, origin)
    return None


_RING = frozenset({"add", "sub", "mul"})


def twos_complement(graph, op, attrs, operands, shape, dtype, origin):
    """Sums, differences and products of integers as integers of the other sign."""
    del op, attrs
    (node,) = operands
    if node.op not in _RING:
        return None
    old, new = format_of(node.dtype), format_of(dtype)
    if not (old.kind == new.kind == "int" and old.bits == new.bits and old.signed != new.signed):
        return None
    if any(operand.dtype != node.dtype for operand in node.operands):
        return None
    parts = tuple([convert(graph, operand, dtype, origin) for operand in node.operands])
    return graph.build(node.op, node.token, node.attrs, parts, shape, dtype, node.origin)


def constant_conversion(graph, op, attrs, operands, shape, dtype, origin):
    """A scalar constant as another dtype."""
    del op, attrs
    (node,) = operands
    if node.op != "constant" or shape or not isinstance(node.attrs, np.ndarray):
        return None
    value = converted(node.attrs, dtype)
    return None if value is None else moves.constant(graph, value, origin)


def converted(array: np.ndarray, dtype) -> np.ndarray | None:
    """The scalar in another dtype where that is beyond doubt: the same number, the same integer modulo 2**bits, or a
    float32 rounded to a narrower float with a normal result."""
    old, new = format_of(array.dtype), format_of(dtype)
    if "other" in (old.kind, new.kind):
        return None
    if old.kind == "int" and new.kind == "int":
        return np.asarray((int(array) + 2 ** (new.bits - 1) * new.signed) % 2**new.bits
                          - 2 ** (new.bits - 1) * new.signed).astype(dtype)  # fmt: skip
    number = float(array)
    if math.isinf(number):
        return np.asarray(array).astype(dtype) if _has_infinity(array.dtype) and _has_infinity(dtype) else None
    if not _is_plain(number, old) or (number == 0 and math.copysign(1, number) < 0):
        return None
    if new.kind == "bool":
        return np.asarray(number != 0)
    if new.kind == "int":
        low = -(2**new.digits) if new.signed else 0
        inside = number == int(number) and low <= number < 2**new.digits and abs(number) <= 2**24
        return np.asarray(int(number)).astype(dtype) if inside else None
    with np.errstate(all="ignore"):
        rounded = np.asarray(array).astype(np.float32).astype(dtype)
    if float(rounded) == number and _is_plain(number, new):
        return rounded
    narrows = array.dtype == np.float32 and new.name in ("float16", "bfloat16")
    return rounded if narrows and math.isfinite(float(rounded)) and _is_plain(float(rounded), new) else None


def _is_plain(number: float, form) -> bool:
    """Neither NaN nor infinite, and not near the subnormal numbers."""
    return math.isfinite(number) and (number == 0 or abs(number) >= 4 * form.tiny)


_FOLDED = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative, "max": np.maximum,
    "min": np.minimum, "sqrt": np.sqrt, "lt": np.less, "le": np.less_equal, "eq": np.equal, "ne": np.not_equal,
    "and": np.bitwise_and, "or": np.bitwise_or, "not": np.invert,
}  # fmt: skip
FOLDED = frozenset(_FOLDED)
_FOLDED_DTYPES = frozenset({"bool", "float16", "bfloat16", "float32"})


def folding(graph, op, attrs, operands, shape, dtype, origin):
    """Arithmetic on scalar constants, where the processor cannot but agree."""
    del attrs
    if shape:
        return None
    for operand in operands:
        if operand.op != "constant" or not isinstance(operand.attrs, np.ndarray):
            return None
    forms = {operand.dtype: format_of(operand.dtype) for operand in operands}
    if len(forms) != 1:
        return None
    ((kind, form),) = forms.items()
    whole = form.kind == "int" and kind.kind in "iu" and op != "div"
    if not whole and form.name not in _FOLDED_DTYPES:
        return None
    with np.errstate(all="ignore"):
        value = np.asarray(_FOLDED[op](*[operand.attrs for operand in operands]))
    if value.dtype != dtype or (form.kind == "float" and not _certain(op, operands, value, form)):
        return None
    return moves.constant(graph, value, origin)


def _certain(op: str, operands, value: np.ndarray, form) -> bool:
    """No operand or result that is infinite, NaN or near the subnormals, and no choice between zeros."""
    numbers = [float(operand.attrs) for operand in operands]
    if not all(_is_plain(number, form) for number in [*numbers, float(value)]):
        return False
    if op in ("max", "min") and numbers == [0, 0]:
        return False
    return op not in ("mul", "div") or float(value) != 0 or 0 in numbers


_OWN_FORMAT = {"float32": (8, 23), "bfloat16": (8, 7), "float16": (5, 10)}


def own_precision(graph, op, attrs, operands, shape, dtype, origin):
    """Rounding to the bits that the dtype has."""
    del graph, op, shape, origin
    own = _OWN_FORMAT.get(format_of(dtype).name)
    return operands[0] if (attrs["exponent_bits"], attrs["mantissa_bits"]) == own else None


def square(graph, op, attrs, operands, shape, dtype, origin):
    """The square as a product, the first power as the number."""
    del shape
    if op == "integer_pow" and attrs["y"] == 1:
        return operands[0]
    if (op == "integer_pow" and attrs["y"] != 2) or is_complex(dtype):
        return None
    return build(graph, "mul", (operands[0], operands[0]), operands[0], origin, _PRODUCT)


def commutativity(graph, op, attrs, operands, shape, dtype, origin):
    """Operands in the order of their digests."""
    left, right = operands
    if left.digest <= right.digest or left.shape != right.shape or (op in _ORDERED and is_complex(left.dtype)):
        return None
    return graph.raw(op, params(attrs), attrs, (right, left), shape, dtype, origin)


_ORDERED = frozenset({"mul", "max", "min"})
_TURNED = {"gt": "lt", "ge": "le"}


def comparison(graph, op, attrs, operands, shape, dtype, origin):
    """`a > b` as `b < a`."""
    return graph.build(_TURNED[op], params(attrs), attrs, operands[::-1], shape, dtype, origin)


def negation(graph, op, attrs, operands, shape, dtype, origin):
    """What is negated twice is as it was."""
    del graph, attrs, shape, origin
    (node,) = operands
    return node.operands[0] if node.op == op and getattr(dtype, "name", "") not in UNUSUAL else None


def _opposite(graph, node: Node, origin) -> Node | None:
    """The term of which this one is the negative: under a sign, or a constant below zero."""
    if node.op == "neg":
        return node.operands[0]
    if node.op not in ("broadcast_in_dim", "constant"):
        return None
    value = moves.uniform(node)
    form = format_of(node.dtype) if value is not None else None
    if value is None or form is None or not form.signed or form.kind not in ("int", "float"):
        return None
    if form.kind == "int":
        if node.dtype.kind != "i" or not -(2**form.digits) < int(value) < 0:
            return None
    elif not math.copysign(1, float(value)) < 0 or math.isnan(float(value)) or "fnuz" in form.name:
        return None
    return moves.broadcast(graph, moves.constant(graph, -value, origin), node.shape, (), origin)


def sign_of_a_term(graph, op, attrs, operands, shape, dtype, origin):
    """A sum with a negative is a difference, a difference of a negative a sum."""
    del attrs, shape
    left, right = operands
    if format_of(dtype).name in UNUSUAL:
        return None
    other = _opposite(graph, right, origin)
    if other is not None:
        return build(graph, "sub" if op == "add" else "add", (left, other), left, origin)
    other = _opposite(graph, left, origin)
    if op == "add" and other is not None:
        return build(graph, "sub", (right, other), right, origin)
    if left.op == "neg" and op == "sub" and left.operands[0].digest > right.digest:
        return graph.raw("sub", b"", {}, (build(graph, "neg", (right,), right, origin), left.operands[0]),
                         left.shape, dtype, origin)  # fmt: skip
    return None


def sign_of_a_factor(graph, op, attrs, operands, shape, dtype, origin):
    """The sign of a factor is the sign of the product."""
    form = format_of(dtype)
    if form.kind not in ("int", "float") or (form.kind == "int" and op == "div") or attrs.get("out_dtype") is not None:
        return None
    for place, node in enumerate(operands):
        other = _opposite(graph, node, origin)
        if other is not None:
            parts = (*operands[:place], other, *operands[place + 1 :])
            inner = graph.build(op, params(attrs), attrs, parts, shape, dtype, origin)
            return build(graph, "neg", (inner,), inner, origin)
    return None


def power_of_two(graph, op, attrs, operands, shape, dtype, origin):
    """Dividing by a power of two is multiplying by its inverse."""
    del op, attrs, shape
    value, form = moves.uniform(operands[1]), format_of(dtype)
    if value is None or form.name not in _OWN_FORMAT or not math.isfinite(float(value)) or float(value) == 0:
        return None
    mantissa, _ = math.frexp(float(value))
    inverse = 1 / float(value)
    if abs(mantissa) != 0.5 or not form.tiny <= abs(inverse) < 2.0 ** (form.high - 1) or abs(float(value)) < form.tiny:
        return None
    scale = moves.constant(graph, np.asarray(inverse).astype(dtype), origin)
    scale = moves.broadcast(graph, scale, operands[1].shape, (), origin)
    return build(graph, "mul", (operands[0], scale), operands[0], origin, _PRODUCT)


_NEUTRAL = {"add": (0, False), "sub": (0, True), "mul": (1, False), "div": (1, True)}


def _without_neutral(op: str, operands) -> Node | None:
    number, right_only = _NEUTRAL[op]
    for place, node in enumerate(operands):
        if (place or not right_only) and node.op in ("constant", "broadcast_in_dim"):
            value = moves.uniform(node)
            if value is not None and complex(value) == number:
                return operands[1 - place]
    return None


def neutral_integer(graph, op, attrs, operands, shape, dtype, origin):
    """Adding zero to an integer, or multiplying it by one."""
    del graph, shape, origin
    if dtype.kind not in "iu" or attrs.get("out_dtype") is not None:
        return None
    return _without_neutral(op, operands)


def neutral_number(graph, op, attrs, operands, shape, dtype, origin):
    """The same for floats."""
    del graph, shape, origin
    if format_of(dtype).kind != "float" or attrs.get("out_dtype") is not None:
        return None
    return _without_neutral(op, operands)


def bound_at_infinity(graph, op, attrs, operands, shape, dtype, origin):
    """The maximum with minus infinity, the minimum with infinity."""
    del graph, attrs, shape, origin
    if format_of(dtype).kind != "float":
        return None
    for place, node in enumerate(operands):
        value = moves.uniform(node) if node.op in ("constant", "broadcast_in_dim") else None
        if value is not None and float(value) == (-math.inf if op == "max" else math.inf):
            return operands[1 - place]
    return None


def choice(graph, op, attrs, operands, shape, dtype, origin):
    """A choice that is settled, between equals, by a negated condition, or between one and zero."""
    which, *cases = operands
    if all(case is cases[0] for case in cases):
        return cases[0]
    chosen = moves.uniform(which)
    if chosen is not None:
        return cases[int(chosen)] if 0 <= int(chosen) < len(cases) else None
    if len(cases) != 2 or which.dtype != np.bool_:
        return None
    if which.op == "not":
        return graph.build(op, params(attrs), attrs, (which.operands[0], *cases[::-1]), shape, dtype, origin)
    if cases[0].op in ("constant", "broadcast_in_dim") and format_of(dtype).kind in ("bool", "int", "float"):
        values = [moves.uniform(case) for case in cases]
        numbers = [_signed(value) for value in values if value is not None]
        if numbers == _ZERO_AND_ONE:
            return convert(graph, which, dtype, origin)
        if numbers == _ZERO_AND_ONE[::-1]:
            return convert(graph, build(graph, "not", (which,), which, origin), dtype, origin)
    return None


def _signed(value) -> tuple[float, float]:
    return float(value), math.copysign(1, float(value))


_ZERO_AND_ONE = [(0.0, 1.0), (1.0, 1.0)]


def clamp(graph, op, attrs, operands, shape, dtype, origin):
    """A clamped number as the minimum of a maximum."""
    del op, attrs, shape
    low, node, high = operands
    if is_complex(dtype):
        return None
    return build(graph, "min", (build(graph, "max", (node, low), node, origin), high), node, origin)


def iota(graph, op, attrs, operands, shape, dtype, origin):
    """0, 1, 2, ... along one axis, repeated; as floats, the integers converted."""
    del op
    form = format_of(dtype)
    if operands or form.kind not in ("int", "float"):
        return None
    size = shape[attrs["dimension"]]
    if form.kind == "float":
        if size > 2 ** min(form.digits, form.high - 1):
            return None
        row = convert(graph, moves.iota(graph, size, np.dtype(np.int32), origin), dtype, origin)
    else:
        row = moves.iota(graph, size, dtype, origin)
    return moves.broadcast(graph, row, shape, (attrs["dimension"],), origin)
