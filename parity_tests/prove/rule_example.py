"""Two spellings for each thing that a rewrite rule makes equal, and spellings that only look so.

An example is traced in every dtype that jax has; `unlike` are those in which the two sides must not be proved equal,
because their bits differ, or because no rule claims that they agree.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jax import lax

from .values import NAMES

INTEGERS = tuple(name for name in NAMES if "int" in name)
SMALL_INTEGERS = ("int2", "int4", "uint2", "uint4")
COMPLEX = ("complex64",)
FNUZ = tuple(name for name in NAMES if name.endswith("fnuz"))
UNSIGNED_FLOATS = ("float8_e8m0fnu",)
ODD_FLOATS = ("float8_e8m0fnu", "float4_e2m1fn")
FLOATS = tuple(name for name in NAMES if "float" in name)
LESS_THAN_A_BYTE = ("int2", "int4", "uint2", "uint4", "float4_e2m1fn")
CONCATENATING = (
    "transpose",
    "slice",
    "split",
    "unstack",
    "concatenate",
    "stack",
    "padding",
    "pieces",
    "tile",
    "reverse",
)
MAIN = (4, 1, 80)
OTHERS = ((0, 1, 3), (1, 1, 1))


@dataclasses.dataclass(frozen=True)
class Example:
    """Two spellings on `count` arrays of one shape and dtype. `only` narrows the dtypes, `unlike` takes from them."""

    rule: str
    left: Callable
    right: Callable
    count: int = 1
    shape: tuple[int, ...] = MAIN
    others: tuple[tuple[int, ...], ...] = OTHERS
    only: tuple[str, ...] = NAMES
    unlike: tuple[str, ...] = ()

    def runs(self, name: str) -> bool:
        """Whether jaxlib can run it: it aborts the process when it concatenates numbers of less than a byte."""
        return name not in LESS_THAN_A_BYTE or self.rule not in CONCATENATING


def wide(x, shape, dims):
    return lax.broadcast_in_dim(x, shape, dims)


def const(number, x):
    return lax.full(x.shape, np.asarray(number).astype(x.dtype))


def full(number, name, x):
    return lax.full(x.shape, np.asarray(number).astype(name))


def but(*names):
    return tuple(name for name in NAMES if name not in names)
