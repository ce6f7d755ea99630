"""What tells two programs apart beside their values: leaves that do not match, and how each asks to be executed."""

import collections
import functools
import types
import typing
from collections.abc import Iterable

from harness.program import Program
from harness.verdict import Finding

from .execution import Facts
from .sources import FRAMES, lines
from .terms import Origin

_PLACES = 2  # of a fact that one side states more often: how many of its places are shown


def same_function(a: typing.Any, b: typing.Any) -> bool:
    """Whether two callables are one: the object itself, one method of one object, one `partial` of the same values.

    Wrappers and closures are not looked into: a `jit` asks for another execution, and a function that is made twice
    is two, as a model that is built twice is.
    """
    if a is b:
        return True
    if isinstance(a, functools.partial) and isinstance(b, functools.partial):
        same = same_function(a.func, b.func) and a.keywords.keys() == b.keywords.keys()
        return same and _identical([*a.args, *a.keywords.values()], [*b.args, *(b.keywords[key] for key in a.keywords)])
    if isinstance(a, types.MethodType) and isinstance(b, types.MethodType):
        return a.__self__ is b.__self__ and a.__func__ is b.__func__
    return False


def _identical(left: list[typing.Any], right: list[typing.Any]) -> bool:
    return len(left) == len(right) and all(x is y for x, y in zip(left, right, strict=True))


def structure(a: Program, b: Program) -> tuple[Finding, ...]:
    """Leaves that one side lacks, or that have another shape or dtype there. Of an output, the line that makes it."""
    found = []
    for what in ("input", "output"):
        sides = [
            {leaf.name: leaf for leaf in getattr(side.trace(), f"{what}s") if leaf.one_sided is None} for side in (a, b)
        ]
        for name in dict.fromkeys([*sides[0], *sides[1]]):
            pair = [side.get(name) for side in sides]
            if pair[0] is None or pair[1] is None:
                owner, other = (a, b) if pair[1] is None else (b, a)
                title = f"{what} leaf {name} of {owner.name} has no partner in {other.name}"
            elif pair[0].shape == pair[1].shape and pair[0].compared_dtype == pair[1].compared_dtype:
                continue  # which almost all are: no words
            else:
                types = [f"{leaf.compared_dtype}{list(leaf.shape)}" for leaf in pair if leaf is not None]
                title = f"{what} leaf {name} is {types[0]} against {types[1]}" if types[0] != types[1] else ""
            if title:
                at = (_made(a, name), _made(b, name)) if what == "output" else ("", "")
                found.append(Finding(title=title, leaves=(name,), sources=at, kind="structure"))
    return tuple(found)


def _made(program: Program, name: str) -> str:
    """The line of the equation that makes an output, inside a call if the call makes it."""
    traced = program.trace()
    places = (index for index, leaf in enumerate(traced.outputs) if leaf.name == name)
    return next((_maker(traced.jaxpr.jaxpr, index, None) for index in places), "")


def _maker(jaxpr, index: int, caller: Origin | None) -> str:
    wanted = jaxpr.outvars[index]
    for equation in jaxpr.eqns:
        if any(var is wanted for var in equation.outvars):
            origin = Origin(equation, caller, 0)
            inner = equation.params.get("jaxpr") if equation.primitive.name == "jit" else None
            if inner is not None:
                place = next(k for k, var in enumerate(equation.outvars) if var is wanted)
                return _maker(inner.jaxpr, place, origin)
            return " < ".join(lines(origin)[:FRAMES])
    return " < ".join(lines(caller)[:FRAMES])


def execution(a: Facts, b: Facts) -> tuple[Finding, ...]:
    """One finding for each kind of execution fact that the two sides count differently, with the lines that ask."""
    kinds: dict[str, list[str]] = collections.defaultdict(list)
    surplus: dict[str, tuple[list[Origin], list[Origin]]] = collections.defaultdict(lambda: ([], []))
    for fact in sorted(set(a.counts) | set(b.counts)):
        kind, words = fact
        counts = a.counts[fact], b.counts[fact]
        if counts[0] != counts[1]:
            kinds[kind].append(f"{words}: {counts[0]} against {counts[1]}")
            more = 0 if counts[0] > counts[1] else 1
            surplus[kind][more].extend((a, b)[more].places[fact])
    return tuple(
        Finding(
            title=f"{kind} differs (values are unaffected)", detail="; ".join(words), kind="execution",
            sources=(_places(surplus[kind][0]), _places(surplus[kind][1])),
        )
        for kind, words in kinds.items()
    )  # fmt: skip


def _places(origins: Iterable[Origin | None]) -> str:
    """The lines of the first few places, and how many there are."""
    texts = list(dict.fromkeys(" < ".join(lines(origin)[:FRAMES]) for origin in origins if origin is not None))
    more = f", and {len(texts) - _PLACES} more places" if len(texts) > _PLACES else ""
    return ", and ".join(texts[:_PLACES]) + more
