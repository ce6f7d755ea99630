"""Who sees the bits of a NaN. All NaNs count as one value, and rules rely on it: `x + y` and `y + x` may make two.

So an operation that reads bits, and not numbers, is understood only on floats that were not computed.
"""

from collections.abc import Sequence

from ..params import Unmodelled
from ..terms import Node
from .base import format_of, is_complex

READS_BITS = frozenset({"bitcast_convert_type", "eq_to", "le_to", "lt_to"})
_MOVED = """
input constant iota reshape broadcast_in_dim transpose slice concatenate rev gather select_n cond slice_at stack
dynamic_slice
"""
_MOVES = frozenset(_MOVED.split())


def refuse_computed_floats(operands: Sequence[Node]) -> None:
    """Lets integers, and floats that were only moved, pass.

    Raises:
        Unmodelled: an operand is a computed float.
    """
    seen, pending = set(), list(operands)
    while pending:
        node = pending.pop()
        if node.digest in seen or not _has_nan(node.dtype):
            continue
        seen.add(node.digest)
        if node.op not in _MOVES:
            raise Unmodelled("the bits of a computed float, which may be any NaN's")
        pending.extend(node.operands)


def _has_nan(dtype) -> bool:
    name = getattr(dtype, "name", "")
    return format_of(dtype).kind == "float" or is_complex(dtype) or "float" in name
