"""Rules about sums that hold for real numbers and only nearly for floats: the order of addition, of contraction."""

from ..terms import Node
from . import moves
from .base import build, params

_MOST_TERMS = 4096  # a sum doubled again and again has more terms than can be listed


def any_order(graph, op, attrs, operands, shape, dtype, origin):
    """A sum as its terms in the order of their digests."""
    terms, stack = [], list(operands)
    while stack:
        node = stack.pop()
        if node.op == "add" and node.shape == shape:
            stack.extend(node.operands)
        else:
            terms.append(node)
        if len(terms) + len(stack) > _MOST_TERMS:
            return None
    if len(terms) == 2 or any(term.shape != shape for term in terms):
        return None
    total, *rest = sorted(terms, key=lambda node: node.digest)
    for term in rest:
        pair = tuple(sorted((total, term), key=lambda node: node.digest))
        total = graph.raw(op, params(attrs), attrs, pair, shape, dtype, origin)
    return total


def sum_of_pieces(graph, op, attrs, operands, shape, dtype, origin):
    """The sum over what was put together is the sum of the pieces' sums."""
    (node,) = operands
    if node.op != "concatenate" or node.attrs["dimension"] not in attrs["axes"] or node.dtype != dtype:
        return None
    total = None
    for part in node.operands:
        one = graph.build(op, params(attrs), attrs, (part,), shape, dtype, origin)
        total = one if total is None else build(graph, "add", (total, one), one, origin)
    return total


def sum_of_sums(graph, op, attrs, operands, shape, dtype, origin):
    """A sum over a reshape, a transposition or a sum is the sum over all of it, where every axis is summed."""
    (node,) = operands
    if shape or node.dtype != dtype or node.op not in _SUMMED_THROUGH:
        return None
    inner = node
    while inner.op in _SUMMED_THROUGH:
        inner = inner.operands[0]
    inner = moves.reshape(graph, inner, moves.squeezed(inner.shape), origin)
    if inner is node:
        return None
    attrs = {**attrs, "axes": tuple(range(len(inner.shape)))}
    return graph.build(op, params(attrs), attrs, (inner,), shape, dtype, origin)


_SUMMED_THROUGH = frozenset({"reshape", "transpose", "reduce_sum"})


def contraction(graph, op, attrs, operands, shape, dtype, origin):
    """A contraction by its axes: operands in the order of their digests, transpositions taken into the numbers."""
    if operands[0].dtype != operands[1].dtype or len(set(_precisions(attrs))) != 1:
        return None
    (contract, batch) = attrs["dimension_numbers"]
    sides = [
        _bare(node, list(dims), list(batched)) for node, dims, batched in zip(operands, contract, batch, strict=True)
    ]
    free = [[dim for dim in range(len(node.shape)) if dim not in (*dims, *batched)] for node, dims, batched in sides]
    # The axes of the result: first the batch axes, then the free axes of the left operand, then of the right.
    before = [("batch", dim) for dim in sides[0][2]]
    for side, operand in enumerate(operands):
        before += [(side, dim) for dim in _free(operand, sides[side][0], contract[side], batch[side])]
    first, second = (0, 1) if operands[0].digest and sides[0][0].digest <= sides[1][0].digest else (1, 0)
    (left, left_dims, left_batch), (right, right_dims, right_batch) = sides[first], sides[second]
    pairs = sorted(zip(left_dims, right_dims, strict=True))
    batches = sorted(zip(left_batch, right_batch, strict=True))
    names = {dim: sides[0][2][left_batch.index(dim)] for dim in left_batch}
    after = [("batch", names[dim]) for dim, _ in batches]
    after += [(first, dim) for dim in free[first]] + [(second, dim) for dim in free[second]]
    numbers = (tuple(zip(*pairs, strict=True)) or ((), ()), tuple(zip(*batches, strict=True)) or ((), ()))
    if (left, right) == tuple(operands) and numbers == _plain_numbers(contract, batch) and before == after:
        return None
    sizes = dict(zip(before, shape, strict=True))
    attrs = {**attrs, "dimension_numbers": numbers}
    result = graph.raw(op, params(attrs), attrs, (left, right), tuple(sizes[axis] for axis in after), dtype, origin)
    return moves.transpose(graph, result, tuple(after.index(axis) for axis in before), origin)


def _precisions(attrs):
    precision = attrs.get("precision")
    return precision if isinstance(precision, tuple) else (precision,)


def _plain_numbers(contract, batch):
    return (tuple(map(tuple, contract)), tuple(map(tuple, batch)))


def _bare(node: Node, dims: list[int], batched: list[int]) -> tuple[Node, list[int], list[int]]:
    """The operand under its transposition, with the same axes."""
    if node.op == "transpose":
        permutation = node.attrs["permutation"]
        return node.operands[0], [permutation[dim] for dim in dims], [permutation[dim] for dim in batched]
    return node, dims, batched


def _free(operand: Node, bare: Node, dims, batched) -> list[int]:
    """The free axes in the order of the result, as axes of the bare operand."""
    rest = [dim for dim in range(len(operand.shape)) if dim not in (*dims, *batched)]
    return rest if bare is operand else [operand.attrs["permutation"][dim] for dim in rest]
