"""The variable census: each side's variables, their kind, shape, dtype and size, at any moment."""

import dataclasses
import math
from collections.abc import Iterable, Mapping

from .observation import Observation, observe


@dataclasses.dataclass(frozen=True)
class Variable:
    """One variable. `kind` is a word both sides agree on: parameter, moment, counter, rng, cache ..."""

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


def compare_census(
    a: Iterable[Variable],
    b: Iterable[Variable],
    *,
    one_sided: Mapping[str, str] | None = None,
    names: tuple[str, str] = ("a", "b"),
    when: str = "",
) -> Observation:
    """Compares two censuses by variable name.

    Args:
        a: one side's variables.
        b: the other's.
        one_sided: variable name to the reason why only one side has it.
        names: how reports call the sides.
        when: `init`, `after a step`, `on disk` ...; part of the observable's name.

    Raises:
        ValueError: a side lists a name twice.
    """
    ours, theirs = _table(a, names[0]), _table(b, names[1])
    elements = sum(math.prod(variable.shape) for variable in ours.values())
    observable = "variables" + (f" {when}" if when else "")
    return observe(observable, ours, theirs, _facts, one_sided=one_sided, names=names, num_elements=elements)


def _table(variables: Iterable[Variable], side: str) -> dict[str, Variable]:
    table: dict[str, Variable] = {}
    for variable in variables:
        if variable.name in table:
            raise ValueError(f"the census of {side} lists {variable.name} twice: names must be unique")
        table[variable.name] = variable
    return table


def _facts(variable: Variable) -> dict[str, str]:
    return {
        "shape": str(list(variable.shape)),
        "dtype": variable.dtype,
        "kind": variable.kind,
        "bytes": str(variable.bytes),
    }
