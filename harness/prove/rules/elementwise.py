"""Rules about where an elementwise operation stands: its scalar operands, axes of size 1, repetitions, pieces.

They hold for operations whose result for each element is determined by that element alone, to the last bit. Of exp,
tanh and their like that is not so: a compiler computes the elements at the end of a row by other instructions than the
rest, and their last bits may differ. So those operations stay where they were written.
"""

from ..params import Unmodelled
from ..primitives import ELEMENTWISE
from ..terms import Node
from . import moves
from .base import is_complex, params

# Defined for each element by IEEE 754 or by integer arithmetic.
_DETERMINED = """
abs add and ceil clamp clz convert_element_type div eq floor ge gt integer_pow is_finite le lt max min mul ne neg
nextafter not or population_count reduce_precision rem round select_n shift_left shift_right_arithmetic
shift_right_logical sign sqrt square sub xor
"""
DETERMINED = frozenset(_DETERMINED.split())
SCALARS_REPEATED = ELEMENTWISE - {"polygamma"} | {"select_n", "clamp"}


def repeated_operand(graph, op, attrs, operands, shape, dtype, origin):
    """A scalar beside arrays, or an operand with axes of size 1, is repeated to the shape of the result."""
    for operand in operands:
        if operand.shape != shape:
            break
    else:
        return None
    wide = tuple([x if x.shape == shape else _repeated(graph, x, shape, origin) for x in operands])
    return graph.build(op, params(attrs), attrs, wide, shape, dtype, origin)


def _repeated(graph, node: Node, shape: moves.Shape, origin) -> Node:
    found = graph.repeated.get((node, shape))
    if found is None:
        if node.shape and (
            len(node.shape) != len(shape) or any(a not in (1, b) for a, b in zip(node.shape, shape, strict=True))
        ):
            raise Unmodelled("operands of these shapes")
        found = moves.broadcast(graph, node, shape, tuple(range(len(node.shape))), origin)
        graph.repeated[(node, shape)] = found
    return found


def unit_axes(graph, op, attrs, operands, shape, dtype, origin):
    """Axes of size 1 are dropped from the operands and put back on the result."""
    if 1 not in shape or _undetermined(op, operands, dtype):
        return None
    inner = moves.squeezed(shape)
    parts = tuple([moves.reshape(graph, operand, inner, origin) for operand in operands])
    return moves.reshape(graph, graph.build(op, params(attrs), attrs, parts, inner, dtype, origin), shape, origin)


def _undetermined(op: str, operands, dtype) -> bool:
    return op not in _BY_PARTS and (is_complex(dtype) or is_complex(operands[0].dtype))


_BY_PARTS = frozenset({"add", "sub", "neg", "eq", "ne", "select_n", "convert_element_type"})  # of complex numbers


def repeated_alike(graph, op, attrs, operands, shape, dtype, origin):
    """Operands that are all repeated along the same axes: the result is."""
    source = None
    for operand in operands:
        if operand.op != "broadcast_in_dim":
            return None
        inner = operand.operands[0].shape
        if inner:
            place = (inner, operand.attrs["broadcast_dimensions"])
            if source is not None and source != place:
                return None
            source = place
    if _undetermined(op, operands, dtype):
        return None
    inner, dims = source or ((), ())
    sources = [operand.operands[0] for operand in operands]
    parts = tuple([
        source if source.shape == inner else moves.broadcast(graph, source, inner, (), origin) for source in sources
    ])  # fmt: skip
    return moves.broadcast(
        graph, graph.build(op, params(attrs), attrs, parts, inner, dtype, origin), shape, dims, origin
    )


def pieces(graph, op, attrs, operands, shape, dtype, origin):
    """Operands put together of pieces alike: the result is put together of the pieces' results."""
    first = None
    for operand in operands:
        if operand.op == "concatenate":
            first = operand
        elif operand.op != "broadcast_in_dim":
            return None
    if first is None or _undetermined(op, operands, dtype):
        return None
    dim = first.attrs["dimension"]
    sizes = [part.shape[dim] for part in first.operands]
    columns = [_pieces_of(graph, operand, dim, sizes, origin) for operand in operands]
    if any(column is None for column in columns):
        return None
    data = params(attrs)
    parts = [
        graph.build(op, data, attrs, row, (*shape[:dim], size, *shape[dim + 1 :]), dtype, origin)
        for size, *row in zip(sizes, *columns, strict=True)
    ]
    return moves.concatenate(graph, parts, dim, origin)


def _pieces_of(graph, node: Node, dim: int, sizes: list[int], origin) -> list[Node] | None:
    if node.op == "concatenate":
        alike = node.attrs["dimension"] == dim and [part.shape[dim] for part in node.operands] == sizes
        return list(node.operands) if alike else None
    parts, start = [], 0
    for size in sizes:
        cuts = moves.whole(node.shape)
        cuts[dim] = (start, size, 1)
        parts.append(moves.cut(graph, node, cuts, origin))
        start += size
    return parts
