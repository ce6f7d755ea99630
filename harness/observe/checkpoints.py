"""Two saved trees: which arrays each holds, their shapes and dtypes, and the digest of their bytes."""

import dataclasses
import hashlib
import math
import typing
from collections.abc import Mapping

import numpy as np

from .observation import Observation, observe


@dataclasses.dataclass(frozen=True)
class Stored:
    """One array on disk. An empty digest means that bytes were not read; two of those never count as equal bytes."""

    shape: tuple[int, ...]
    dtype: str
    digest: str = ""


def stored(array: typing.Any) -> Stored:
    """The entry of an array read back: shape, dtype and SHA-256 of its bytes in C order."""
    values = np.ascontiguousarray(array)
    return Stored(tuple(np.shape(array)), str(values.dtype), hashlib.sha256(values.tobytes()).hexdigest())


def compare_trees(
    a: Mapping[str, Stored],
    b: Mapping[str, Stored],
    *,
    one_sided: Mapping[str, str] | None = None,
    names: tuple[str, str] = ("a", "b"),
    bytes_too: bool = True,
) -> Observation:
    """Compares two saved trees path by path.

    Args:
        a: path to entry.
        b: the other tree.
        one_sided: path to the reason why only one tree holds it.
        names: how reports call the trees.
        bytes_too: compare digests; without, only the trees.

    Raises:
        ValueError: `bytes_too` and an entry has no digest.
    """
    for tree, name in zip((a, b), names, strict=True):
        for path, entry in tree.items():
            if bytes_too and not entry.digest:
                raise ValueError(f"{name}: {path} has no digest: read its bytes, or compare with bytes_too=False")

    def facts(entry: Stored) -> dict[str, str]:
        found = {"shape": str(list(entry.shape)), "dtype": entry.dtype}
        return {**found, "bytes": entry.digest[:16]} if bytes_too else found

    elements = sum(math.prod(entry.shape) for entry in a.values())
    observable = "checkpoint" if bytes_too else "checkpoint tree"
    return observe(observable, a, b, facts, one_sided=one_sided, names=names, num_elements=elements)
