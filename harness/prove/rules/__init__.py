"""Rewrite rules, as data. Each has a name, a class and an argument, and a test that runs both of its sides.

The first rule that answers wins; its result was itself built through the rules, so terms are always in normal form.
"""

import functools

from ..primitives import COMMUTATIVE
from ..terms import Table
from . import elementwise, numbers, shapes, sums
from .base import STRENGTHS, Rule, Strength, params
from .moves import broadcast, concatenate, constant, cut, iota, reshape, uniform
from .nan import READS_BITS, refuse_computed_floats
from .numbers import convert

__all__ = ["READS_BITS", "RULES", "STRENGTHS", "Rule", "Strength", "broadcast", "concatenate", "constant", "convert",
           "cut", "iota", "params", "refuse_computed_floats", "reshape", "table", "uniform"]  # fmt: skip


def _rule(name, ops, argument, apply, strength=Strength.EXACT, reads="") -> Rule:
    ops = frozenset(ops.split() if isinstance(ops, str) else ops)
    return Rule(name, ops, strength, argument, apply, frozenset(reads.split()))


_UNIFORM = "constant broadcast_in_dim"  # what a term of one constant is

RULES = (
    _rule("reshape family", "reshape squeeze",
          "reshape and squeeze keep the elements and their row-major order", shapes.reshape_family),
    _rule("broadcast", "broadcast_in_dim",
          "repeating is decided by the axes of other sizes; two repetitions are one", shapes.broadcast),
    _rule("transpose", "transpose",
          "permutations compose; moving axes of size 1 only keeps row-major order", shapes.transpose),
    _rule("slice", "slice", "a slice of a slice, a repetition, a concatenation or a transposition is one of slices;"
          " a slice of everything changes nothing; one key of a split is the key folded with its number",
          shapes.static_slice),
    _rule("split", "split", "the parts of a split are slices", shapes.split),
    _rule("unstack", "unstack", "the rows of an array are slices", shapes.unstack),
    _rule("slice at constants", "dynamic_slice",
          "a dynamic slice at constant starts, which are clamped into range, is a slice", shapes.dynamic_slice),
    _rule("concatenate", "concatenate", "concatenation is associative; empty parts add nothing; neighbouring slices of"
          " one array are one slice", shapes.concatenate),
    _rule("stack", "stack_arrays", "to stack is to concatenate along a new axis", shapes.stack),
    _rule("padding", "pad", "a border of one value is a concatenation with its repetition", shapes.padding),
    _rule("tile", "tile", "tiling is repetition along new axes", shapes.tile),
    _rule("reverse", "rev", "reversing an axis of size 1 changes nothing", shapes.reverse),
    _rule("iota", "iota", "counting along one axis is repeated along the others; small integers are floats",
          numbers.iota),
    _rule("scalar operand", elementwise.SCALARS_REPEATED,
          "an elementwise operation repeats its scalar operands and axes of size 1", elementwise.repeated_operand),
    _rule("axes of size 1", elementwise.DETERMINED,
          "an operation that IEEE 754 or integer arithmetic defines for each element does not see them",
          elementwise.unit_axes),
    _rule("repeated alike", elementwise.DETERMINED,
          "such an operation gives the same for every repetition", elementwise.repeated_alike,
          reads="broadcast_in_dim"),
    _rule("pieces", elementwise.DETERMINED,
          "such an operation acts on each piece of a concatenation", elementwise.pieces, reads="concatenate"),
    _rule("reduced axes", shapes.REDUCTIONS,
          "axes are reduced as a set; the reduction of one element is that element", shapes.reduced_axes),
    _rule("result type", "dot_general",
          "a contraction gives its operands' type unless asked otherwise", shapes.result_type),
    _rule("no-op conversion", "convert_element_type",
          "converting to the own dtype, or by way of one that holds every value, changes nothing",
          numbers.no_op_conversion),
    _rule("two's complement", "convert_element_type",
          "integer addition, subtraction and multiplication do not see the sign", numbers.twos_complement,
          reads="add sub mul"),
    _rule("constant conversion", "convert_element_type",
          "a number that both dtypes represent converts to itself, others to the nearest", numbers.constant_conversion,
          reads="constant"),
    _rule("folding", numbers.FOLDED,
          "arithmetic on constants away from infinities and subnormals is defined by IEEE 754", numbers.folding,
          reads="constant"),
    _rule("own precision", "reduce_precision",
          "rounding to the exponent and mantissa bits of the own format changes nothing", numbers.own_precision),
    _rule("raw key", "random_wrap random_unwrap",
          "a key of a generator and the numbers it is made of determine each other", shapes.raw_key,
          reads="random_wrap random_unwrap"),
    _rule("square", "square integer_pow",
          "the square of a real number is defined as the product with itself, the first power as itself",
          numbers.square),
    _rule("comparison turned", "gt ge", "a > b is b < a, with NaN too", numbers.comparison),
    _rule("double negation", "neg not", "changing a sign or every bit twice changes nothing", numbers.negation,
          reads="neg not"),
    _rule("integer with nothing", "add sub mul div",
          "an integer plus zero or times one is itself", numbers.neutral_integer, reads=_UNIFORM),
    _rule("sum with a negative", "add sub",
          "a difference is defined as the sum with the negative", numbers.sign_of_a_term, reads=_UNIFORM + " neg"),
    _rule("product with a negative", "mul div",
          "the sign of a product is the product of the signs, and rounding is symmetric", numbers.sign_of_a_factor,
          reads=_UNIFORM + " neg"),
    _rule("power of two", "div",
          "dividing by a power of two and multiplying by its inverse round the same number", numbers.power_of_two,
          reads=_UNIFORM + " reshape"),
    _rule("settled choice", "select_n", "a constant condition chooses; equal cases leave no choice; a negated condition"
          " turns the cases; a choice of one or zero is the condition", numbers.choice),
    _rule("clamp", "clamp", "clamping is defined as the minimum of a maximum", numbers.clamp),
    _rule("number with nothing", "add sub mul div",
          "x + 0 and x * 1 are x, but for x = -0 and for subnormals, which the processor may take for zero",
          numbers.neutral_number, Strength.SIGNED_ZERO, _UNIFORM),
    _rule("bound at infinity", "max min", "no number lies beyond infinity; the processor may take subnormals for zero",
          numbers.bound_at_infinity, Strength.SIGNED_ZERO, _UNIFORM),
    _rule("sum of pieces", "reduce_sum",
          "real addition is associative", sums.sum_of_pieces, Strength.REASSOCIATING, "concatenate"),
    _rule("sum of sums", "reduce_sum",
          "real addition is associative and commutative", sums.sum_of_sums, Strength.REASSOCIATING),
    _rule("sum in any order", "add", "real addition is associative", sums.any_order, Strength.REASSOCIATING),
    _rule("contraction", "dot_general", "the same products are summed, by another loop",
          sums.contraction, Strength.REASSOCIATING),
    _rule("commutativity", COMMUTATIVE,
          "the operation is symmetric in operands of one shape (all NaNs are one value); not so products, maxima and"
          " minima of complex numbers", numbers.commutativity),
)  # fmt: skip


@functools.cache
def table(allow: Strength) -> Table:
    """The rules up to a class, by the operation they apply to."""
    active = [rule for rule in RULES if rule.strength <= allow]
    ops = frozenset().union(*(rule.ops for rule in active))
    return Table({op: tuple(rule for rule in active if op in rule.ops) for op in ops})
