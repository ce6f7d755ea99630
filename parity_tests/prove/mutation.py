"""Random one-place changes of a traced program. Most change its meaning; the rest keep the attack honest.

A kind of change answers with the equations that replace one equation and with words (`kind: more`), followed, if it
changes nothing, by the fields of `Change` that say so; with None where it does not apply. The kinds here fit any
equation; `parameters` changes parameters and `calls` what loops, branches and calls are made of.
"""

import dataclasses
import functools
import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, primitives

from . import calls, parameters
from .sites import REFUSALS, Place, Site, exchanged, is_key, kind_of, literal, reclosed, with_equations

UNARY = ("sin", "cos", "tan", "tanh", "exp", "exp2", "expm1", "log", "log1p", "neg", "sqrt", "rsqrt", "cbrt",
         "logistic", "abs", "square", "floor", "ceil", "round", "sign", "erf", "stop_gradient")  # fmt: skip
BINARY = ("add", "sub", "mul", "div", "max", "min", "rem", "pow", "atan2", "nextafter")
INTEGER = ("add", "sub", "mul", "max", "min", "and", "or", "xor", "div", "rem", "shift_left", "shift_right_logical",
           "shift_right_arithmetic")  # fmt: skip
LOGIC = ("and", "or", "xor", "eq", "ne")
COMPARE = ("lt", "le", "gt", "ge", "eq", "ne")
REDUCE = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod")
CUMULATIVE = ("cumsum", "cumprod", "cummax", "cummin")
SCATTER = ("scatter", "scatter-add", "scatter-mul", "scatter-min", "scatter-max")
COMMUTATIVE = frozenset({"add", "add_any", "mul", "max", "min", "and", "or", "xor", "eq", "ne"})
NARROWER = {
    "float32": ("bfloat16", "float16", "int32"),
    "bfloat16": ("float16", "int8"),
    "int32": ("int8", "int16", "float32", "uint32", "bfloat16"),
    "uint32": ("int32", "uint8", "float32"),
    "bool": ("int32", "float32"),
}


@dataclasses.dataclass(frozen=True)
class Change:
    """A changed program. `neutral` changes must stay proved, with an execution finding where `finding` says so."""

    program: Any
    kind: str
    words: str
    neutral: bool = False
    finding: bool = False


def mutate(closed, place: Place, rng: random.Random, kind: str | None = None) -> Change | None:
    """The program with one random change at the place: of that kind, or of the first that applies."""
    if kind is None and place.index == len(Site(closed, place).jaxpr.eqns):
        return _rewired_output(closed, place, rng)
    names = sorted(KINDS, key=lambda name: rng.random() ** (1 / _WEIGHTS.get(name, 1)), reverse=True)
    for name in names if kind is None else [kind]:
        site = Site(closed, place)
        try:
            made = KINDS[name](rng, site)
        except REFUSALS:
            continue
        if made is not None:
            equations, words, *effect = made
            return _finished(closed, site, equations, *words.split(": ", 1), *effect)
    return None


def parameter_change(closed, place: Place, rng: random.Random, name: str) -> Change | None:
    """The program with another value of one parameter of the equation at the place."""
    site = Site(closed, place)
    for equations, words, *effect in parameters.changes(rng, site, name):
        return _finished(closed, site, equations, f"parameter {name}", words, *effect)
    return None


def _finished(closed, site: Site, equations, kind: str, words: str, *effect: bool) -> Change:
    index, eqns = site.place.index, site.jaxpr.eqns
    around = with_equations(site.around, [*eqns[:index], *equations, *eqns[index + 1 :]])
    program = exchanged(closed, site.place.path, around)
    return Change(program, kind, f"{site.place} {site.name}, {kind}: {words}", *effect)


def _rewired_output(closed, place: Place, rng) -> Change | None:
    """Another value of the same type for one output: of the program, a carry, a stacked output, a condition."""
    site = Site(closed, place)
    outvars = site.jaxpr.outvars
    options = [k for k, var in enumerate(outvars) if site.scope(var)]
    if not options:
        return None
    k = rng.choice(options)
    other = rng.choice(site.scope(outvars[k]))
    jaxpr = site.jaxpr.replace(outvars=[*outvars[:k], other, *outvars[k + 1 :]])
    around = reclosed(site.around, jaxpr)
    words = f"{place} outputs, wire of an output: output {k} of {len(outvars)}"
    return Change(exchanged(closed, place.path, around), "wire of an output", words)


def change_constant(closed, rng: random.Random) -> Change | None:
    """One element of a captured array changed."""
    options = [k for k, value in enumerate(closed.consts) if _is_array(value)]
    if not options:
        return None
    k = rng.choice(options)
    array = np.array(closed.consts[k])
    at = tuple(rng.randrange(size) for size in array.shape)
    array[at] = rng.choice(_values(array[at]))
    consts = [*closed.consts[:k], jnp.asarray(array), *closed.consts[k + 1 :]]
    return Change(closed.replace(consts=consts), "constant", f"element {at} of captured array {k}")


def _is_array(value) -> bool:
    return isinstance(getattr(value, "dtype", None), np.dtype) and bool(np.size(value))


def _values(value) -> list[Any]:
    """Other numbers near a number: by one, by one rounding, by sign, twice, zeros of either sign, NaN."""
    value = np.asarray(value)
    dtype = value.dtype
    if dtype.kind == "b":
        return [~value]
    with np.errstate(all="ignore"):
        near = [value + dtype.type(1), value - dtype.type(1), value * dtype.type(2), -value]
        if jnp.issubdtype(dtype, jnp.floating):
            bits = value.view(f"u{dtype.itemsize}")
            one = bits.dtype.type(1)
            near += [(bits + one).view(dtype), (bits - one).view(dtype)]
            near += [dtype.type(0), dtype.type(-0.0), dtype.type(np.nan)]
    return [np.asarray(item, dtype) for item in near if np.asarray(item, dtype).tobytes() != value.tobytes()]


def _literal(rng, site):
    places = [k for k, var in enumerate(site.equation.invars) if isinstance(var, Literal) and np.ndim(var.val) == 0]
    if not places:
        return None
    k = rng.choice(places)
    old = site.equation.invars[k]
    if is_key(old):
        return None
    value = np.asarray(old.val, old.aval.dtype)
    new = rng.choice(_values(value))
    invars = list(site.equation.invars)
    invars[k] = literal(new, old)
    return site.finish(site.again(invars)), f"literal: {value} to {new}"


def _swap(rng, site):
    invars = list(site.equation.invars)
    pairs = [(i, j) for i in range(len(invars)) for j in range(i) if kind_of(invars[i]) == kind_of(invars[j])]
    if not pairs:
        return None
    i, j = rng.choice(pairs)
    invars[i], invars[j] = invars[j], invars[i]
    kind = "swapped operands" + (" (commutative)" if site.name in COMMUTATIVE else "")
    return site.finish(site.again(invars)), f"{kind}: {j} and {i}"


@functools.cache
def template(name: str, dtype: str) -> tuple[Any, dict[str, Any]] | None:
    """A primitive with the parameters that jax itself gives it for operands of a dtype."""
    function = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"}.get(name, name)
    one = jax.ShapeDtypeStruct((2,), dtype)
    for count in (1, 2):
        try:
            equations = jax.make_jaxpr(getattr(jax.lax, function))(*[one] * count).eqns
        except (TypeError, ValueError, AttributeError):
            continue
        if len(equations) == 1 and equations[0].primitive.name == name:
            return equations[0].primitive, dict(equations[0].params)
    return None


def _other_primitive(rng, site):
    equation = site.equation
    name, first = site.name, equation.invars[0] if equation.invars else None
    family = first is not None and _family(name, first)
    if not family:
        return None
    other = rng.choice([option for option in family if option != name])
    if family in (REDUCE, CUMULATIVE, SCATTER):
        primitive, params = _BY_NAME[other], dict(equation.params)
        if family is REDUCE and other != "reduce_sum" and "out_sharding" in params:
            params["out_sharding"] = None
    else:
        found = template(other, str(first.aval.dtype))
        if found is None:
            return None
        primitive, params = found
    invars = list(equation.invars)
    shapes = {tuple(var.aval.shape) for var in invars}
    if len(shapes) > 1 and family not in (REDUCE, CUMULATIVE, SCATTER) and () not in shapes:
        return None
    results = site.emit(primitive, invars, params)
    return site.finish(results), f"other primitive: {other}"


def _family(name: str, first) -> tuple[str, ...] | None:
    dtype = first.aval.dtype
    if name in COMPARE:
        return COMPARE
    if dtype.kind == "b":
        return LOGIC if name in LOGIC else None
    if jnp.issubdtype(dtype, jnp.integer) and name in INTEGER:
        return INTEGER
    families = (UNARY, BINARY, REDUCE, CUMULATIVE, SCATTER)
    return next((family for family in families if name in family), None)


_BY_NAME = {
    getattr(primitives, name).name: getattr(primitives, name) for name in dir(primitives) if name.endswith("_p")
}


def _drop(rng, site):
    equation = site.equation
    results = []
    for out in equation.outvars:
        same = [var for var in equation.invars if kind_of(var) == kind_of(out)]
        if not same:
            return None
        results.append(rng.choice(same))
    return (site.finish(results), "dropped: an operand instead") if results else None


def _twice(rng, site):
    equation = site.equation
    if len(equation.outvars) != 1:
        return None
    places = [k for k, var in enumerate(equation.invars) if kind_of(var) == kind_of(equation.outvars[0])]
    if not places:
        return None
    (once,) = site.again()
    invars = list(equation.invars)
    invars[rng.choice(places)] = once
    return site.finish(site.again(invars)), "applied twice: to its own result"


def _duplicate(rng, site):
    """The same operation again, the one result or the other used: no change."""
    del rng
    first, second = site.again(), site.again()
    results = [second[k] if k % 2 else first[k] for k in range(len(first))]
    return site.finish(results), "duplicated: the equation", True, False


def _rewire(rng, site):
    invars = list(site.equation.invars)
    options = [k for k, var in enumerate(invars) if not isinstance(var, Literal) or np.ndim(var.val) == 0]
    options = [k for k in options if site.scope(invars[k])]
    if not options:
        return None
    k = rng.choice(options)
    kind = "rng key" if is_key(invars[k]) else "rewired operand"
    invars[k] = rng.choice(site.scope(invars[k]))
    return site.finish(site.again(invars)), f"{kind}: operand {k}"


def _narrow(rng, site):
    """A round trip of an operand or a result through another dtype: often lossy, sometimes exact."""
    invars, outs = list(site.equation.invars), None
    spots = [k for k, var in enumerate(invars) if str(var.aval.dtype) in NARROWER and not isinstance(var, Literal)]
    results = [k for k, var in enumerate(site.equation.outvars) if str(var.aval.dtype) in NARROWER]
    if results and (not spots or rng.random() < 0.5):
        outs = site.again()
        k = rng.choice(results)
        outs[k], words = _round_trip(rng, site, outs[k])
        return site.finish(outs), f"dtype round trip: result {k} through {words}"
    if not spots:
        return None
    k = rng.choice(spots)
    invars[k], words = _round_trip(rng, site, invars[k])
    return site.finish(site.again(invars)), f"dtype round trip: operand {k} through {words}"


def _round_trip(rng, site, var):
    own = var.aval.dtype
    through = rng.choice(NARROWER[str(own)])
    return site.converted(site.converted(var, jnp.dtype(through)), own), through


def _detour(rng, site):
    """A result sent through structural operations and back: by the inverse, or by one that only has the same type."""
    outs = site.again()
    k = rng.randrange(len(outs)) if outs else 0
    if not outs or is_key(outs[k]) or not outs[k].aval.shape:
        return None
    shape = tuple(outs[k].aval.shape)
    axes = list(range(len(shape)))
    way = rng.choice(("transposes", "flat", "reversed twice", "repeated", "merged"))
    if way == "transposes":
        there, back = rng.sample(axes, len(axes)), rng.sample(axes, len(axes))
        back = [there.index(axis) for axis in axes] if rng.random() < 0.5 else back
        outs[k] = site.transposed(site.transposed(outs[k], tuple(there)), tuple(back))
    elif way == "flat":
        outs[k] = site.reshaped(site.reshaped(outs[k], (outs[k].aval.size,)), shape)
    elif way == "merged":  # a transpose, then the elements as they lie
        outs[k] = site.reshaped(site.transposed(outs[k], tuple(rng.sample(axes, len(axes)))), shape)
    elif way == "reversed twice":
        dims = [rng.choice(axes), rng.choice(axes)]
        for dim in dims:
            (outs[k],) = site.emit(primitives.rev_p, [outs[k]], {"dimensions": (dim,)})
    else:
        outs[k] = _repeated(rng, site, outs[k], shape)
    return site.finish(outs), f"detour: {way}"


def _repeated(rng, site, var, shape):
    """Two copies side by side along a new axis, and one of them (or a mixture) taken."""
    at = rng.randrange(len(shape) + 1)
    wide = (*shape[:at], 2, *shape[at:])
    dims = tuple(dim for dim in range(len(wide)) if dim != at)
    params = {"shape": wide, "broadcast_dimensions": dims, "sharding": None}
    (both,) = site.emit(primitives.broadcast_in_dim_p, [var], params)
    if rng.random() < 0.7:
        start, limit = [0] * len(wide), list(wide)
        start[at], limit[at] = 1, 2
        cut = {"start_indices": tuple(start), "limit_indices": tuple(limit), "strides": None}
        (one,) = site.emit(primitives.slice_p, [both], cut)
        return site.reshaped(one, shape)
    return site.reshaped(site.resized(site.reshaped(both, (2 * var.aval.size,)), var.aval.size), shape)


def _parameter(rng, site):
    names = list(site.equation.params)
    rng.shuffle(names)
    for name in names:
        for made in parameters.changes(rng, site, name):
            equations, words, *rest = made
            return equations, f"parameter {name}: {words}", *rest
    return None


# How often a kind comes first, against 1: parameters are many, and what changes nothing is only there for balance.
_WEIGHTS = {"parameter": 4, "rewired operand": 2, "detour": 0.7, "duplicated": 0.15, "wrapped": 0.15, "placement": 0.1,
            "inlined": 0.3}  # fmt: skip
KINDS: dict[str, Callable[[random.Random, Site], Any]] = {
    "literal": _literal,
    "swap": _swap,
    "other primitive": _other_primitive,
    "dropped": _drop,
    "applied twice": _twice,
    "duplicated": _duplicate,
    "rewired operand": _rewire,
    "dtype round trip": _narrow,
    "detour": _detour,
    "parameter": _parameter,
    **calls.KINDS,
}
