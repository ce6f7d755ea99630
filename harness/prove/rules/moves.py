"""Movements of elements in normal form: constants, reshapes, repetitions, transpositions, slices, concatenations.

Builders, not rules: each returns the canonical term for a movement of a term, and the rules call them. They follow one
order: axes of size 1 are dropped from within and put back by a reshape outermost, a slice or a transposition is taken
into a repetition or a concatenation, neighbouring slices of one term are joined. None of them computes anything.
"""

import functools
import math
from collections.abc import Sequence

import jax
import numpy as np

from ..params import array_token, token
from ..terms import Node

Shape = tuple[int, ...]


def constant(graph, array: np.ndarray, origin) -> Node:
    """A constant; one whose elements all have the same bytes is a repeated scalar, 0, 1, 2, ... is an iota."""
    if array.ndim and array.size and _is_uniform(array):
        return broadcast(graph, constant(graph, array.reshape(-1)[0], origin), array.shape, (), origin)
    array = np.asarray(array)
    if array.ndim == 1 and array.size > 1 and array.dtype.kind in "iu" and _counts(array):
        return iota(graph, array.size, array.dtype, origin)
    return graph.leaf("constant", array_token(array), array.shape, array.dtype, attrs=array, origin=origin)


def _is_uniform(array: np.ndarray) -> bool:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(array.size, -1)
    return bool((flat == flat[0]).all())


def _counts(array: np.ndarray) -> bool:
    return array[0] == 0 and array[1] == 1 and np.array_equal(array, np.arange(array.size))


def iota(graph, size: int, dtype, origin) -> Node:
    """0, 1, 2, ... along one axis."""
    if size == 1:
        return reshape(graph, constant(graph, np.zeros((), dtype), origin), (1,), origin)
    return graph.leaf("iota", b"", (size,), dtype, attrs={}, origin=origin)


def uniform(node: Node) -> np.ndarray | None:
    """The value of a term whose elements are all one constant, else None."""
    while node.op in ("broadcast_in_dim", "reshape"):
        node = node.operands[0]
    return node.attrs if node.op == "constant" and not node.shape and isinstance(node.attrs, np.ndarray) else None


@functools.lru_cache(maxsize=4096)
def squeezed(shape: Shape) -> Shape:
    """The sizes other than 1."""
    return tuple([size for size in shape if size != 1])


def _wide(shape: Shape) -> list[int]:
    return [dim for dim, size in enumerate(shape) if size != 1]


def reshape(graph, node: Node, shape: Shape, origin) -> Node:
    """The same elements in row-major order under another shape."""
    if node.shape == shape:
        return node
    if node.op == "reshape":
        return reshape(graph, node.operands[0], shape, origin)
    if node.op == "broadcast_in_dim":
        alike = squeezed(node.shape) == squeezed(shape)
        if alike or not node.operands[0].shape:
            place = dict(zip(_wide(node.shape), _wide(shape), strict=False))
            dims = tuple(place[dim] for dim in node.attrs["broadcast_dimensions"])
            return broadcast(graph, node.operands[0], shape, dims, origin)
    if node.op == "concatenate" and squeezed(node.shape) == squeezed(shape):
        old = node.attrs["dimension"]
        new = _wide(shape)[_wide(node.shape).index(old)]
        parts = [
            reshape(graph, part, (*shape[:new], part.shape[old], *shape[new + 1 :]), origin) for part in node.operands
        ]
        return concatenate(graph, parts, new, origin)
    if 1 in node.shape and node.op in ("broadcast_in_dim", "concatenate"):
        return reshape(graph, reshape(graph, node, squeezed(node.shape), origin), shape, origin)
    return graph.raw("reshape", b"", {"new_sizes": shape}, (node,), shape, node.dtype, origin)


def broadcast(graph, node: Node, shape: Shape, dims: Shape, origin) -> Node:
    """`node`'s axes placed at `dims` of `shape`, the rest repeated. Axes of size 1 are dropped first."""
    kept = tuple(dim for dim, size in zip(dims, node.shape, strict=True) if size != 1)
    node = reshape(graph, node, squeezed(node.shape), origin)
    if math.prod(shape) == math.prod(node.shape) and math.prod(shape) > 0:
        return reshape(graph, node, shape, origin)
    if node.op == "broadcast_in_dim":
        inner = node.attrs["broadcast_dimensions"]
        return broadcast(graph, node.operands[0], shape, tuple(kept[dim] for dim in inner), origin)
    attrs = {"shape": shape, "broadcast_dimensions": kept}
    return graph.raw("broadcast_in_dim", token(kept), attrs, (node,), shape, node.dtype, origin)


def transpose(graph, node: Node, permutation: Shape, origin) -> Node:
    """Axes reordered. Moving axes of size 1 is a reshape; a repetition or concatenation is reordered within."""
    shape = tuple([node.shape[dim] for dim in permutation])
    moved = [dim for dim in permutation if node.shape[dim] != 1]
    if moved == sorted(moved):
        return reshape(graph, node, shape, origin)
    if len(moved) < len(shape):
        rank = {dim: place for place, dim in enumerate(sorted(moved))}
        inner = reshape(graph, node, squeezed(node.shape), origin)
        inner = transpose(graph, inner, tuple([rank[dim] for dim in moved]), origin)
        return reshape(graph, inner, shape, origin)
    if node.op == "transpose":
        inner = node.attrs["permutation"]
        return transpose(graph, node.operands[0], tuple([inner[dim] for dim in permutation]), origin)
    if node.op == "broadcast_in_dim":
        places = [permutation.index(dim) for dim in node.attrs["broadcast_dimensions"]]
        order = tuple(sorted(range(len(places)), key=places.__getitem__))
        inner = transpose(graph, node.operands[0], order, origin)
        return broadcast(graph, inner, shape, tuple(sorted(places)), origin)
    if node.op == "concatenate":
        parts = [transpose(graph, part, permutation, origin) for part in node.operands]
        return concatenate(graph, parts, permutation.index(node.attrs["dimension"]), origin)
    return graph.raw("transpose", token(permutation), {"permutation": permutation}, (node,), shape, node.dtype, origin)


Cut = tuple[int, int, int]  # first element, number of elements, stride


def cut(graph, node: Node, cuts: Sequence[Cut], origin) -> Node:
    """A slice by its cut of each axis."""
    cuts = [(start, count, stride) if count > 1 else (start * count, count, 1) for start, count, stride in cuts]
    shape = tuple([count for _, count, _ in cuts])
    if shape == node.shape:
        return node
    if 0 not in shape:
        inward = _INWARD.get(node.op)
        found = inward(graph, node, cuts, shape, origin) if inward is not None else None
        if found is not None:
            return found
    starts = tuple([start for start, _, _ in cuts])
    strides = tuple([stride for _, _, stride in cuts])
    attrs = {"start_indices": starts, "slice_sizes": shape, "strides": strides}
    return graph.raw("slice", token((starts, strides)), attrs, (node,), shape, node.dtype, origin)


def whole(shape: Shape) -> list[Cut]:
    """The cut of every axis that takes all of it."""
    return [(0, size, 1) for size in shape]


def cuts_of(node: Node) -> list[Cut]:
    """The cuts of a slice in normal form."""
    return list(zip(node.attrs["start_indices"], node.shape, node.attrs["strides"], strict=True))


def _cut_slice(graph, node, cuts, shape, origin):
    del shape
    both = zip(cuts_of(node), cuts, strict=True)
    joined = [(first + start * step, count, step * stride) for (first, _, step), (start, count, stride) in both]
    return cut(graph, node.operands[0], joined, origin)


def _cut_concatenation(graph, node, cuts, shape, origin):
    del shape
    dim = node.attrs["dimension"]
    start, count, stride = cuts[dim]
    if stride != 1:
        return None
    parts, offset = [], 0
    for part in node.operands:
        size = part.shape[dim]
        first, last = max(start - offset, 0), min(start + count - offset, size)
        if first < last:
            parts.append(cut(graph, part, [*cuts[:dim], (first, last - first, 1), *cuts[dim + 1 :]], origin))
        offset += size
    return concatenate(graph, parts, dim, origin)


def _cut_repetition(graph, node, cuts, shape, origin):
    dims = node.attrs["broadcast_dimensions"]
    return broadcast(graph, cut(graph, node.operands[0], [cuts[dim] for dim in dims], origin), shape, dims, origin)


def _cut_reshape(graph, node, cuts, shape, origin):
    source = node.operands[0]
    if squeezed(source.shape) != squeezed(node.shape):
        return None
    inner = whole(source.shape)
    for old, new in zip(_wide(source.shape), _wide(node.shape), strict=True):
        inner[old] = cuts[new]
    return reshape(graph, cut(graph, source, inner, origin), shape, origin)


def _cut_transpose(graph, node, cuts, shape, origin):
    del shape
    permutation, inner = node.attrs["permutation"], list(cuts)
    for place, dim in enumerate(permutation):
        inner[dim] = cuts[place]
    return transpose(graph, cut(graph, node.operands[0], inner, origin), permutation, origin)


def _cut_split(graph, node, cuts, shape, origin):
    """Key i of a split is the key folded with i, however many there are: else a key used twice would look like two."""
    (key,), ((start, count, _), *others) = node.operands, cuts
    if count != 1 or others or key.shape or token(node.dtype) != _COUNTED_KEYS:
        return None
    index = constant(graph, np.asarray(start, np.uint32), origin)
    folded = graph.build("random_fold_in", b"", {}, (key, index), (), node.dtype, origin)
    return reshape(graph, folded, shape, origin)


def _cut_unwrap(graph, node, cuts, shape, origin):
    rank = len(node.operands[0].shape)
    inner, numbers = cuts[:rank], cuts[rank:]
    if numbers != whole(node.shape[rank:]):
        return None
    keys = cut(graph, node.operands[0], inner, origin)
    keys = reshape(graph, keys, squeezed(keys.shape), origin)
    of_one = (*keys.shape, *(count for _, count, _ in numbers))
    data = graph.build("random_unwrap", node.token, node.attrs, (keys,), of_one, node.dtype, origin)
    return reshape(graph, data, shape, origin)


# Partitionable threefry, which the harness's settings switch on, makes key i from a counter alone.
_COUNTED_KEYS = token(jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32")).dtype)
_INWARD = {
    "random_split": _cut_split,
    "random_unwrap": _cut_unwrap,
    "slice": _cut_slice,
    "concatenate": _cut_concatenation,
    "broadcast_in_dim": _cut_repetition,
    "reshape": _cut_reshape,
    "transpose": _cut_transpose,
}


def concatenate(graph, parts: Sequence[Node], dim: int, origin) -> Node:
    """Terms one after the other: flat, without empty ones, neighbouring slices of one term joined."""
    flat: list[Node] = []
    for part in parts:
        inner = part.operands if part.op == "concatenate" and part.attrs["dimension"] == dim else (part,)
        for node in inner:
            joined = _joined(graph, flat[-1], node, dim, origin) if flat else None
            if joined is not None:
                flat[-1] = joined
            elif node.shape[dim]:
                flat.append(node)
    if len(flat) <= 1:
        return flat[0] if flat else parts[0]
    shape = (*flat[0].shape[:dim], sum(part.shape[dim] for part in flat), *flat[0].shape[dim + 1 :])
    return graph.raw("concatenate", token(dim), {"dimension": dim}, tuple(flat), shape, flat[0].dtype, origin)


def _joined(graph, left: Node, right: Node, dim: int, origin) -> Node | None:
    """Two slices of one term as one, if the second begins where the first ends."""
    if left.op != "slice" or right.op != "slice" or left.operands[0] is not right.operands[0]:
        return None
    first, second = cuts_of(left), cuts_of(right)
    (start, count, stride), (following, more, step) = first.pop(dim), second.pop(dim)
    if first != second or following != start + count or stride != 1 or step != 1:
        return None
    first.insert(dim, (start, count + more, 1))
    return cut(graph, left.operands[0], first, origin)
