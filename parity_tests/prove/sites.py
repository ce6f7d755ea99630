"""Where a traced program can be changed: every equation of every nested jaxpr, and the program with one exchanged.

A changed program shares all but the changed equation and the calls around it with the original, so that it costs no
trace. Nothing here decides what to change.
"""

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, DropVar, Jaxpr, Literal, Var, primitives

Step = tuple[int, str, int | None]  # equation, parameter, position within the parameter's tuple


@dataclasses.dataclass(frozen=True)
class Place:
    """An equation of a nested jaxpr; as many as there are equations stands for the jaxpr's outputs."""

    path: tuple[Step, ...]
    index: int

    def __str__(self) -> str:
        return "/".join([f"{index}.{name}" for index, name, _ in self.path] + [str(self.index)])


def bodies(equation) -> Iterator[tuple[str, int | None, Any]]:
    """The jaxprs among an equation's parameters: parameter, position in a tuple, jaxpr."""
    for name, value in equation.params.items():
        if isinstance(value, Jaxpr | ClosedJaxpr):
            yield name, None, value
        elif isinstance(value, tuple | list):
            for k, item in enumerate(value):
                if isinstance(item, Jaxpr | ClosedJaxpr):
                    yield name, k, item


def places(closed, path: tuple[Step, ...] = ()) -> Iterator[Place]:
    """Every place that an output of its own jaxpr may depend on, outer ones first."""
    jaxpr = opened(closed)
    for index in live(jaxpr):
        yield Place(path, index)
        for name, k, inner in bodies(jaxpr.eqns[index]):
            yield from places(inner, (*path, (index, name, k)))
    if jaxpr.outvars:
        yield Place(path, len(jaxpr.eqns))


def opened(jaxpr) -> Any:
    """The jaxpr itself, with or without constants."""
    return getattr(jaxpr, "jaxpr", jaxpr)


def live(jaxpr) -> list[int]:
    """The equations that outputs need, and those with effects. Dead ones may be no program at all: jax finds that out
    only when it lowers."""
    needed, found = {var for var in jaxpr.outvars if not isinstance(var, Literal)}, []
    for index in reversed(range(len(jaxpr.eqns))):
        equation = jaxpr.eqns[index]
        if equation.effects or not needed.isdisjoint(equation.outvars):
            found.append(index)
            needed.update(var for var in equation.invars if not isinstance(var, Literal))
    return found[::-1]


def inner(closed, path: Sequence[Step]) -> Any:
    """The jaxpr at the end of a path."""
    for index, name, k in path:
        value = opened(closed).eqns[index].params[name]
        closed = value if k is None else value[k]
    return closed


def exchanged(closed, path: Sequence[Step], new) -> Any:
    """The program with another jaxpr at the end of the path, all else shared."""
    if not path:
        return new
    (index, name, k), rest = path[0], path[1:]
    jaxpr = opened(closed)
    equation = jaxpr.eqns[index]
    value = equation.params[name]
    body = exchanged(value if k is None else value[k], rest, new)
    if k is not None:
        body = type(value)([*value[:k], body, *value[k + 1 :]])
    changed = equation.replace(params={**equation.params, name: body})
    return with_equations(closed, [*jaxpr.eqns[:index], changed, *jaxpr.eqns[index + 1 :]])


def with_equations(closed, equations) -> Any:
    """A jaxpr with other equations, closed if the given one is."""
    return reclosed(closed, opened(closed).replace(eqns=list(equations)))


def reclosed(closed, jaxpr) -> Any:
    """An open jaxpr with the constants of a closed one."""
    return closed.replace(jaxpr=jaxpr) if isinstance(closed, ClosedJaxpr) else jaxpr


def kind_of(atom) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of a variable or literal."""
    return tuple(atom.aval.shape), atom.aval.dtype


def is_float(atom) -> bool:
    """Whether a variable holds floating numbers."""
    return jnp.issubdtype(atom.aval.dtype, jnp.floating)


def is_key(atom) -> bool:
    """Whether a variable holds random keys."""
    return jnp.issubdtype(atom.aval.dtype, jax.dtypes.prng_key)


def literal(value, like) -> Literal:
    """A scalar literal of a variable's dtype."""
    dtype = like.aval.dtype
    return Literal(np.asarray(value, dtype)[()], jax.core.ShapedArray((), dtype))


class Site:
    """One equation, what its jaxpr has in scope there, and the making of equations in its place."""

    def __init__(self, closed, place: Place):
        self.around = inner(closed, place.path)
        self.jaxpr = opened(self.around)
        self.place = place
        self.equation = self.jaxpr.eqns[place.index] if place.index < len(self.jaxpr.eqns) else None
        self.made: list[Any] = []
        self._scope: dict[Any, list[Any]] | None = None

    @property
    def name(self) -> str:
        """The primitive's name, or `outputs`."""
        return self.equation.primitive.name if self.equation is not None else "outputs"

    def scope(self, like) -> list[Any]:
        """The other variables of a variable's type that can be read here."""
        if self._scope is None:
            self._scope = collections.defaultdict(list)
            before = [var for equation in self.jaxpr.eqns[: self.place.index] for var in equation.outvars]
            for var in (*self.jaxpr.constvars, *self.jaxpr.invars, *before):
                if not isinstance(var, DropVar):
                    self._scope[kind_of(var)].append(var)
        return [var for var in self._scope[kind_of(like)] if var is not like]

    def emit(self, primitive, invars, params, avals=None) -> list[Any]:
        """One more equation in this place; its result types are those of the primitive's own abstract evaluation."""
        effects = self.equation.effects
        if avals is None:
            avals, effects = primitive.abstract_eval(*[var.aval for var in invars], **params)
            avals = list(avals) if primitive.multiple_results else [avals]
        outs = [Var(aval) for aval in avals]
        self.made.append(
            self.equation.replace(
                primitive=primitive, invars=list(invars), outvars=outs, params=params, effects=effects
            )
        )
        return list(outs)  # the caller may exchange results

    def again(self, invars=None, params=None) -> list[Any]:
        """The equation itself with other operands of the same types, or with parameters that keep its result types."""
        equation = self.equation
        invars = equation.invars if invars is None else invars
        params = equation.params if params is None else params
        return self.emit(equation.primitive, invars, params, [var.aval for var in equation.outvars])

    def changed(self, params) -> list[Any]:
        """The equation with other parameters, its result types evaluated anew."""
        return self.emit(self.equation.primitive, self.equation.invars, {**self.equation.params, **params})

    def finish(self, results) -> list[Any]:
        """The equations made, the results brought to the types of the original ones and under their names."""
        names: dict[Any, Any] = {}
        for result, wanted in zip(results, self.equation.outvars, strict=True):
            var = self.fitted(result, wanted)
            own = not isinstance(var, Literal) and any(var is out for made in self.made for out in made.outvars)
            if not own or var in names:
                (var,) = self.emit(primitives.copy_p, [var], {})
            names[var] = wanted
        return [
            equation.replace(
                invars=[var if isinstance(var, Literal) else names.get(var, var) for var in equation.invars],
                outvars=[names.get(var, var) for var in equation.outvars],
            )
            for equation in self.made
        ]

    def fitted(self, var, wanted) -> Any:
        """A value of the wanted shape and dtype: converted, reshaped, cut or padded with zeros."""
        dtype = wanted.aval.dtype
        if kind_of(var) == kind_of(wanted):
            return var
        if is_key(var) != is_key(wanted) or (is_key(var) and var.aval.dtype != dtype):
            raise Unfit(f"{var.aval} for {wanted.aval}")
        if var.aval.dtype != dtype:
            var = self.converted(var, dtype)
        shape, size = tuple(wanted.aval.shape), wanted.aval.size
        if var.aval.shape == shape:
            return var
        if var.aval.size != size:
            var = self.resized(self.reshaped(var, (var.aval.size,)), size)
        return self.reshaped(var, shape)

    def resized(self, var, size: int) -> Any:
        """A flat value cut, or padded with zeros, to a size."""
        have = var.aval.size
        if have > size:
            params = {"start_indices": (0,), "limit_indices": (size,), "strides": None}
            return self.emit(primitives.slice_p, [var], params)[0]
        if is_key(var):
            raise Unfit("keys cannot be padded")
        params = {"padding_config": ((0, size - have, 0),)}
        return self.emit(primitives.pad_p, [var, literal(0, var)], params)[0]

    def converted(self, var, dtype) -> Any:
        """The value as another dtype."""
        params = {"new_dtype": np.dtype(dtype), "weak_type": False, "sharding": None}
        return self.emit(primitives.convert_element_type_p, [var], params)[0]

    def reshaped(self, var, shape: tuple[int, ...]) -> Any:
        """The value under another shape."""
        if tuple(var.aval.shape) == shape:
            return var
        return self.emit(primitives.reshape_p, [var], {"new_sizes": shape, "dimensions": None, "sharding": None})[0]

    def transposed(self, var, permutation: tuple[int, ...]) -> Any:
        """The value with its axes reordered."""
        return self.emit(primitives.transpose_p, [var], {"permutation": permutation})[0]


class Unfit(ValueError):
    """A value that no repair brings to the wanted type, so that the change is no program."""


# What jax raises where parameters or types do not fit, each primitive in its own way.
REFUSALS = (Unfit, TypeError, ValueError, IndexError, KeyError, AttributeError, NotImplementedError, AssertionError,
            OverflowError, ZeroDivisionError)  # fmt: skip
