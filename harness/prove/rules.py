"""Rewrite rules, as data. Each has a name, a class and an argument, and a test that runs both of its sides.

The first rule that answers wins; its result was itself built through the rules, so terms are always in normal form.
"""

import dataclasses
import enum
import functools
import math
import typing

import ml_dtypes
import numpy as np

from .params import Unmodelled, array_token, params_token, token
from .primitives import COMMUTATIVE, ELEMENTWISE, IGNORED
from .terms import Node


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
    """`apply(graph, op, attrs, operands, shape, dtype, origin)` is the equal node, or None where it says nothing."""

    name: str
    ops: frozenset[str]
    strength: Strength
    argument: str
    apply: typing.Callable[..., Node | None]


def constant(graph, array: np.ndarray, origin) -> Node:
    """A constant; one whose elements all have the same bytes is a broadcast scalar."""
    if array.ndim and array.size and _is_uniform(array):
        return broadcast(graph, constant(graph, array.reshape(-1)[0], origin), array.shape, (), origin)
    array = np.asarray(array)
    return graph.leaf("constant", array_token(array), array.shape, array.dtype, attrs=array, origin=origin)


def _is_uniform(array: np.ndarray) -> bool:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(array.size, -1)
    return bool((flat == flat[0]).all())


def reshape(graph, node: Node, shape: tuple[int, ...], origin) -> Node:
    """The same elements in row-major order under another shape."""
    if node.shape == shape:
        return node
    if node.op == "reshape":
        return reshape(graph, node.operands[0], shape, origin)
    if node.op == "broadcast_in_dim":
        wide = [dim for dim, size in enumerate(node.shape) if size != 1]
        place = dict(zip(wide, (dim for dim, size in enumerate(shape) if size != 1), strict=False))
        if not node.operands[0].shape or [node.shape[dim] for dim in wide] == [size for size in shape if size != 1]:
            dims = tuple(place[dim] for dim in node.attrs["broadcast_dimensions"])
            return broadcast(graph, node.operands[0], shape, dims, origin)
    return graph.raw("reshape", b"", {"new_sizes": shape}, (node,), shape, node.dtype, origin)


def broadcast(graph, node: Node, shape: tuple[int, ...], dims: tuple[int, ...], origin) -> Node:
    """`node`'s axes placed at `dims` of `shape`, the rest repeated. Axes of size 1 are dropped first."""
    kept = tuple(dim for dim, size in zip(dims, node.shape, strict=True) if size != 1)
    node = reshape(graph, node, tuple(size for size in node.shape if size != 1), origin)
    if math.prod(shape) == math.prod(node.shape) and math.prod(shape) > 0:
        return reshape(graph, node, shape, origin)
    if node.op == "broadcast_in_dim":
        inner = node.attrs["broadcast_dimensions"]
        return broadcast(graph, node.operands[0], shape, tuple(kept[dim] for dim in inner), origin)
    attrs = {"shape": shape, "broadcast_dimensions": kept}
    return graph.raw("broadcast_in_dim", token(kept), attrs, (node,), shape, node.dtype, origin)


def transpose(graph, node: Node, permutation: tuple[int, ...], origin) -> Node:
    """Axes reordered; moving axes of size 1 only is a reshape."""
    shape = tuple(node.shape[dim] for dim in permutation)
    moved = [dim for dim in permutation if node.shape[dim] != 1]
    if moved == sorted(moved):
        return reshape(graph, node, shape, origin)
    if node.op == "transpose":
        inner = node.attrs["permutation"]
        return transpose(graph, node.operands[0], tuple(inner[dim] for dim in permutation), origin)
    return graph.raw("transpose", token(permutation), {"permutation": permutation}, (node,), shape, node.dtype, origin)


def _reshape_rule(graph, op, attrs, operands, shape, dtype, origin):
    del dtype
    if len(operands) != 1:
        return None
    if math.prod(operands[0].shape) != math.prod(shape):  # jax checks this only when it lowers
        raise Unmodelled("the number of elements changes, so this is no program")
    order = attrs.get("dimensions") if op == "reshape" else None
    if order is None:
        return reshape(graph, operands[0], shape, origin)
    if sorted(order) != list(range(len(operands[0].shape))):
        raise Unmodelled("the order of the axes names not each of them once, so this is no program")
    return reshape(graph, transpose(graph, operands[0], tuple(order), origin), shape, origin)


def _broadcast_rule(graph, op, attrs, operands, shape, dtype, origin):
    del op, dtype
    return broadcast(graph, operands[0], shape, attrs["broadcast_dimensions"], origin) if len(operands) == 1 else None


def _transpose_rule(graph, op, attrs, operands, shape, dtype, origin):
    del op, shape, dtype
    return transpose(graph, operands[0], attrs["permutation"], origin)


def _scalar_rule(graph, op, attrs, operands, shape, dtype, origin):
    if not shape or all(operand.shape for operand in operands):
        return None
    wide = [operand if operand.shape else broadcast(graph, operand, shape, (), origin) for operand in operands]
    if all(new is old for new, old in zip(wide, operands, strict=True)):
        return None
    return graph.build(op, _params(attrs), attrs, tuple(wide), shape, dtype, origin)


def _params(attrs) -> bytes:
    return params_token(attrs, IGNORED)


def _commute_rule(graph, op, attrs, operands, shape, dtype, origin):
    left, right = operands
    if left.shape != right.shape or left.digest <= right.digest:
        return None
    return graph.raw(op, _params(attrs), attrs, (right, left), shape, dtype, origin)


_HOLDS = {  # every value of the first type survives the second
    ("bfloat16", "float32"), ("float16", "float32"), ("int32", "uint32"), ("uint32", "int32"), ("int8", "int32"),
    ("uint8", "int32"), ("int16", "int32"), ("uint16", "int32"), ("bool", "int32"), ("bool", "float32"),
    ("bool", "bfloat16"), ("bool", "int8"), ("bool", "uint32"), ("uint8", "uint32"),
    ("int4", "int8"), ("int8", "float32"),
}  # fmt: skip


def _convert_rule(graph, op, attrs, operands, shape, dtype, origin):
    del op, attrs, shape, origin
    (node,) = operands
    if node.dtype == dtype:
        return node
    if node.op == "convert_element_type":
        inner = node.operands[0]
        if inner.dtype == dtype and (str(inner.dtype), str(node.dtype)) in _HOLDS:
            return inner
    return None


def convert(graph, node: Node, dtype, origin) -> Node:
    """`node` as another dtype, through the rules."""
    attrs = {"new_dtype": dtype}
    return graph.build("convert_element_type", _params(attrs), attrs, (node,), node.shape, dtype, origin)


_TWOS_COMPLEMENT = {("int32", "uint32"), ("uint32", "int32")}
_RING = frozenset({"add", "sub", "mul"})


def _ring_rule(graph, op, attrs, operands, shape, dtype, origin):
    del op, attrs
    (node,) = operands
    if node.op not in _RING or (str(node.dtype), str(dtype)) not in _TWOS_COMPLEMENT:
        return None
    if any(operand.dtype != node.dtype for operand in node.operands):  # a product may ask for another dtype
        return None
    parts = tuple(convert(graph, operand, dtype, origin) for operand in node.operands)
    return graph.build(node.op, node.token, node.attrs, parts, shape, dtype, node.origin)


def _fold_rule(graph, op, attrs, operands, shape, dtype, origin):
    del op, attrs
    (node,) = operands
    if node.op == "broadcast_in_dim" and not node.operands[0].shape and node.operands[0].op == "constant":
        return broadcast(graph, convert(graph, node.operands[0], dtype, origin), shape, (), origin)
    if node.op != "constant" or shape:
        return None
    value = _exactly(node.attrs, dtype)
    return None if value is None else constant(graph, value, origin)


def _exactly(array: np.ndarray, dtype) -> np.ndarray | None:
    """The scalar in another dtype if it is the same number there (or the same bits, between int32 and uint32)."""
    if (str(array.dtype), str(dtype)) in _TWOS_COMPLEMENT:
        return array.view(dtype)
    if "bool" in (str(array.dtype), str(dtype)) or str(dtype) not in _FOLDED or str(array.dtype) not in _FOLDED:
        return None
    number = float(array) if abs(float(array)) <= 2**24 else math.nan
    if math.isnan(number) or (number == 0 and math.copysign(1, number) < 0):
        return None
    if str(dtype) in _INTEGERS and (number != int(number) or not _INTEGERS[str(dtype)][0] <= number <= 2**24):
        return None
    converted = np.asarray(number).astype(dtype)
    tiny = 2.0**-100
    return converted if float(converted) == number and (number == 0 or abs(number) > tiny) else None


_INTEGERS = {"int32": (-(2**24), 2**24), "uint32": (0, 2**24)}
_FOLDED = {"float32", "bfloat16", "int32", "uint32"}
_OWN_FORMAT = {"float32": (8, 23), "bfloat16": (8, 7), "float16": (5, 10)}


def _precision_rule(graph, op, attrs, operands, shape, dtype, origin):
    del graph, op, shape, origin
    own = _OWN_FORMAT.get(str(dtype))
    return operands[0] if (attrs["exponent_bits"], attrs["mantissa_bits"]) == own else None


def _raw_key_rule(graph, op, attrs, operands, shape, dtype, origin):
    del graph, origin
    (node,) = operands
    inverse = {"random_wrap": "random_unwrap", "random_unwrap": "random_wrap"}[op]
    if node.op != inverse:
        return None
    inner = node.operands[0]
    return inner if inner.dtype == dtype and inner.shape == shape else None


def _square_rule(graph, op, attrs, operands, shape, dtype, origin):
    if op == "integer_pow" and attrs["y"] != 2:
        return None
    attrs = {"out_dtype": None}
    return graph.build("mul", _params(attrs), attrs, (operands[0], operands[0]), shape, dtype, origin)


def _zero_rule(graph, op, attrs, operands, shape, dtype, origin):
    del graph, op, attrs, shape, origin
    if not np.issubdtype(np.dtype(dtype), np.floating) and dtype != ml_dtypes.bfloat16:
        return None
    for zero, other in (operands, operands[::-1]):
        scalar = zero.operands[0] if zero.op == "broadcast_in_dim" else zero
        if scalar.op == "constant" and not scalar.shape and float(scalar.attrs) == 0:
            return other
    return None


def _sum_rule(graph, op, attrs, operands, shape, dtype, origin):
    terms, stack = [], list(operands)
    while stack:
        node = stack.pop()
        if node.op == "add" and node.shape == shape:
            stack.extend(node.operands)
        else:
            terms.append(node)
    if len(terms) == 2 or any(term.shape != shape for term in terms):
        return None
    total, *rest = sorted(terms, key=lambda node: node.digest)
    for term in rest:
        pair = tuple(sorted((total, term), key=lambda node: node.digest))
        total = graph.raw(op, _params(attrs), attrs, pair, shape, dtype, origin)
    return total


def _rule(name, ops, strength, argument, apply) -> Rule:
    return Rule(name, frozenset(ops), strength, argument, apply)


_BINARY = ELEMENTWISE - {"polygamma"}
RULES = (
    _rule("reshape family", ("reshape", "squeeze"), Strength.EXACT,
          "reshape and squeeze keep the elements and their row-major order", _reshape_rule),
    _rule("broadcast", ("broadcast_in_dim",), Strength.EXACT,
          "repeating is decided by the axes of other sizes; two repetitions are one", _broadcast_rule),
    _rule("transpose", ("transpose",), Strength.EXACT,
          "permutations compose; moving axes of size 1 only keeps row-major order", _transpose_rule),
    _rule("no-op conversion", ("convert_element_type",), Strength.EXACT,
          "converting to the own dtype, or to one that holds every value and back, changes nothing", _convert_rule),
    _rule("two's complement", ("convert_element_type",), Strength.EXACT,
          "int32 and uint32 addition, subtraction and multiplication are the same operation on 32 bits", _ring_rule),
    _rule("constant conversion", ("convert_element_type",), Strength.EXACT,
          "a small number that both dtypes represent converts to itself", _fold_rule),
    _rule("own precision", ("reduce_precision",), Strength.EXACT,
          "rounding to the exponent and mantissa bits of the own format changes nothing", _precision_rule),
    _rule("raw key", ("random_wrap", "random_unwrap"), Strength.EXACT,
          "a key of a generator and the numbers it is made of determine each other", _raw_key_rule),
    _rule("square", ("square", "integer_pow"), Strength.EXACT,
          "the square is defined as the product with itself", _square_rule),
    _rule("scalar operand", _BINARY, Strength.EXACT,
          "an elementwise operation repeats its scalar operand", _scalar_rule),
    _rule("sum with zero", ("add",), Strength.SIGNED_ZERO, "x + 0 is x, but for x = -0", _zero_rule),
    _rule("sum in any order", ("add",), Strength.REASSOCIATING, "real addition is associative", _sum_rule),
    _rule("commutativity", COMMUTATIVE, Strength.EXACT,
          "the operation is symmetric in operands of one shape (all NaNs are one value)", _commute_rule),
)  # fmt: skip


@functools.cache
def table(allow: Strength) -> dict[str, tuple[Rule, ...]]:
    """The rules up to a class, by the operation they apply to."""
    active = [rule for rule in RULES if rule.strength <= allow]
    return {op: tuple(rule for rule in active if op in rule.ops) for op in frozenset().union(*(r.ops for r in active))}
