"""Rules that bring jax's own movements, and reductions over nothing, to the normal form of `moves`."""

import math

from ..params import Unmodelled
from ..terms import Node
from . import moves
from .base import params


def reshape_family(graph, op, attrs, operands, shape, dtype, origin):
    """reshape and squeeze."""
    del dtype
    if len(operands) != 1:
        return None
    if math.prod(operands[0].shape) != math.prod(shape):  # jax checks this only when it lowers
        raise Unmodelled("the number of elements changes, so this is no program")
    order = attrs.get("dimensions") if op == "reshape" else None
    if order is None:
        return moves.reshape(graph, operands[0], shape, origin)
    if sorted(order) != list(range(len(operands[0].shape))):
        raise Unmodelled("the order of the axes names not each of them once, so this is no program")
    return moves.reshape(graph, moves.transpose(graph, operands[0], tuple(order), origin), shape, origin)


def broadcast(graph, op, attrs, operands, shape, dtype, origin):
    """broadcast_in_dim."""
    del op, dtype
    dims = attrs["broadcast_dimensions"]
    return moves.broadcast(graph, operands[0], shape, tuple(dims), origin) if len(operands) == 1 else None


def transpose(graph, op, attrs, operands, shape, dtype, origin):
    """transpose."""
    del op, shape, dtype
    return moves.transpose(graph, operands[0], tuple(attrs["permutation"]), origin)


def static_slice(graph, op, attrs, operands, shape, dtype, origin):
    """slice."""
    del op, dtype
    strides = attrs["strides"] or (1,) * len(shape)
    return moves.cut(graph, operands[0], list(zip(attrs["start_indices"], shape, strides, strict=True)), origin)


def split(graph, op, attrs, operands, shape, dtype, origin):
    """split."""
    del op, dtype
    start = sum(attrs["sizes"][: attrs["output"]])
    return _piece(graph, operands[0], attrs["axis"], int(start), shape[attrs["axis"]], origin)


def unstack(graph, op, attrs, operands, shape, dtype, origin):
    """unstack."""
    del op, dtype
    piece = _piece(graph, operands[0], attrs["axis"], attrs["output"], 1, origin)
    return moves.reshape(graph, piece, shape, origin)


def _piece(graph, node: Node, dim: int, start: int, count: int, origin) -> Node:
    cuts = moves.whole(node.shape)
    cuts[dim] = (start, count, 1)
    return moves.cut(graph, node, cuts, origin)


def dynamic_slice(graph, op, attrs, operands, shape, dtype, origin):
    """dynamic_slice at constants, moved inside as jax does."""
    del op, attrs, dtype
    node, *indices = operands
    cuts = []
    for index, size, count in zip(indices, node.shape, shape, strict=True):
        if count == size:
            cuts.append((0, size, 1))
            continue
        value = moves.uniform(index)
        if value is None:
            return None
        cuts.append((min(max(int(value), 0), size - count), count, 1))
    return moves.cut(graph, node, cuts, origin)


def concatenate(graph, op, attrs, operands, shape, dtype, origin):
    """concatenate."""
    del op, shape, dtype
    return moves.concatenate(graph, operands, attrs["dimension"], origin)


def stack(graph, op, attrs, operands, shape, dtype, origin):
    """stack."""
    del op, dtype
    dim = attrs["axis"]
    row = (*shape[:dim], 1, *shape[dim + 1 :])
    return moves.concatenate(graph, [moves.reshape(graph, part, row, origin) for part in operands], dim, origin)


def tile(graph, op, attrs, operands, shape, dtype, origin):
    """tile."""
    del op, dtype
    (node,) = operands
    sizes, dims = [], []
    for times, size in zip(attrs["reps"], node.shape, strict=True):
        dims.append(len(sizes) + 1)
        sizes += [times, size]
    return moves.reshape(graph, moves.broadcast(graph, node, tuple(sizes), tuple(dims), origin), shape, origin)


def reverse(graph, op, attrs, operands, shape, dtype, origin):
    """rev."""
    kept = tuple(sorted(dim for dim in attrs["dimensions"] if shape[dim] != 1))
    if not kept:
        return operands[0]
    if kept == tuple(attrs["dimensions"]):
        return None
    attrs = {"dimensions": kept}
    return graph.raw(op, params(attrs), attrs, operands, shape, dtype, origin)


REDUCTIONS = frozenset(
    {"reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "reduce_xor"}
)


def reduced_axes(graph, op, attrs, operands, shape, dtype, origin):
    """Reductions: axes in order, those of size 1 only dropped."""
    (node,) = operands
    if node.dtype != dtype:
        return None
    axes = tuple(sorted(attrs["axes"]))
    if 1 in node.shape:
        rank = {dim: place for place, dim in enumerate(dim for dim, size in enumerate(node.shape) if size != 1)}
        inner = moves.reshape(graph, node, moves.squeezed(node.shape), origin)
        axes = tuple(rank[dim] for dim in axes if dim in rank)
        kept = tuple(size for dim, size in enumerate(inner.shape) if dim not in axes)
        found = graph.build(op, params({**attrs, "axes": axes}), {**attrs, "axes": axes}, (inner,), kept, dtype, origin)
        return moves.reshape(graph, found, shape, origin)
    if not axes:
        return node
    if axes == tuple(attrs["axes"]):
        return None
    attrs = {**attrs, "axes": axes}
    return graph.raw(op, params(attrs), attrs, operands, shape, dtype, origin)


def padding(graph, op, attrs, operands, shape, dtype, origin):
    """pad: nothing added is no change, a border of constants is a concatenation."""
    del op, dtype
    node, filler = operands
    config = [tuple(int(number) for number in numbers) for numbers in attrs["padding_config"]]
    if any(low < 0 or high < 0 or inner for low, high, inner in config) or 0 in node.shape:
        return None
    for dim, (low, high, _) in enumerate(config):
        border = [(*node.shape[:dim], count, *node.shape[dim + 1 :]) for count in (low, high)]
        first, last = (moves.broadcast(graph, filler, size, (), origin) for size in border)
        node = moves.concatenate(graph, [first, node, last], dim, origin)
    assert node.shape == tuple(shape)
    return node


def result_type(graph, op, attrs, operands, shape, dtype, origin):
    """dot_general: asking for the result type that it has anyway."""
    left, right = operands
    wanted, precision = attrs["preferred_element_type"], attrs["precision"]
    if wanted is None or not (left.dtype == right.dtype == dtype) or not isinstance(precision, tuple | None):
        return None
    attrs = {**attrs, "preferred_element_type": None}
    return graph.build(op, params(attrs), attrs, operands, shape, dtype, origin)


def raw_key(graph, op, attrs, operands, shape, dtype, origin):
    """random_wrap, random_unwrap."""
    del graph, attrs, origin
    (node,) = operands
    inverse = {"random_wrap": "random_unwrap", "random_unwrap": "random_wrap"}[op]
    if node.op != inverse:
        return None
    inner = node.operands[0]
    return inner if inner.dtype == dtype and inner.shape == shape else None
