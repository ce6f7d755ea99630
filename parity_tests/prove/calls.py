"""Changes of what loops, branches and calls are made of: bodies, splits of operands, carries, branches, wrappers.

Those marked neutral change nothing by construction, and a proof must stand.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random as jax_random
from jax.extend.core import DropVar, Literal, Var, primitives

from .sites import Site, kind_of, literal, opened, reclosed

CALLS = {"jit": "jaxpr", "closed_call": "call_jaxpr", "remat2": "jaxpr", "custom_jvp_call": "call_jaxpr",
         "custom_vjp_call": "call_jaxpr"}  # fmt: skip
_MESH = jax.sharding.AbstractMesh((2, 2), ("data", "model"))


def _scalar(fn, *args):
    return jax.make_jaxpr(fn)(*args).eqns[0]


@functools.cache
def _templates():
    """Equations that jax makes for calls and placements; their parameters are taken from here."""
    one = np.float32(1)
    with jax.sharding.use_abstract_mesh(_MESH):
        spec = jax.sharding.PartitionSpec()
        constraint = _scalar(lambda x: jax.lax.with_sharding_constraint(x, spec), np.zeros((2, 2), np.float32))
    key = jax.eval_shape(lambda: jax.random.key(0))
    return {
        "jit": _scalar(jax.jit(lambda x: x * x), one),
        "remat2": _scalar(jax.checkpoint(lambda x: x * x), one),
        "sharding_constraint": constraint,
        "random_unwrap": _scalar(jax.random.key_data, key),
        "random_wrap": _scalar(jax.random.wrap_key_data, jax.ShapeDtypeStruct((2,), jnp.uint32)),
        "optimization_barrier": _scalar(lambda x: jax.lax.optimization_barrier(x), one),
    }


# --- parameters: (primitive, name) -> equations and words, or None ---


def _flag(name):
    def change(rng, site: Site):
        params = site.equation.params
        return site.finish(site.again(params={**params, name: not params[name]})), f"{not params[name]}"

    return change


def _body(name):
    """Another value of the same type for one output of a called function, or its negative."""

    def change(rng, site: Site):
        closed = site.equation.params[name]
        k = rng.randrange(len(closed)) if isinstance(closed, tuple) else None
        body = closed if k is None else closed[k]
        made = _other_output(rng, body)
        if made is None:
            return None
        value = made if k is None else (*closed[:k], made, *closed[k + 1 :])
        return site.finish(site.again(params={**site.equation.params, name: value})), "another output of the body"

    return change


def _other_output(rng, closed):
    jaxpr = opened(closed)
    inside = [*jaxpr.constvars, *jaxpr.invars, *(var for equation in jaxpr.eqns for var in equation.outvars)]
    inside = [var for var in inside if not isinstance(var, DropVar)]
    options = [
        (k, var) for k, out in enumerate(jaxpr.outvars) for var in inside if kind_of(var) == kind_of(out)
        and var is not out
    ]  # fmt: skip
    if not options:
        return _negated(closed)
    k, var = rng.choice(options)
    return reclosed(closed, jaxpr.replace(outvars=[*jaxpr.outvars[:k], var, *jaxpr.outvars[k + 1 :]]))


def _negated(closed):
    """The first output that can be, negated, where there is an equation to copy the context of."""
    jaxpr = opened(closed)
    for k, out in enumerate(jaxpr.outvars):
        if jaxpr.eqns and isinstance(out.aval.dtype, np.dtype):
            primitive = primitives.not_p if out.aval.dtype == bool else primitives.neg_p
            new = Var(out.aval)
            step = jaxpr.eqns[-1].replace(primitive=primitive, invars=[out], outvars=[new], params={},
                                          effects=frozenset())  # fmt: skip
            outvars = [*jaxpr.outvars[:k], new, *jaxpr.outvars[k + 1 :]]
            return reclosed(closed, jaxpr.replace(eqns=[*jaxpr.eqns, step], outvars=outvars))
    return None


def _length(rng, site: Site):
    """One iteration less: rows are cut off, stacked results padded."""
    params = site.equation.params
    first, length = params["num_consts"] + params["num_carry"], params["length"]
    if length < 2:
        return None
    start = rng.randrange(2)
    invars = list(site.equation.invars)
    for k in range(first, len(invars)):
        shape = tuple(invars[k].aval.shape)
        cut = {"start_indices": (start, *[0] * (len(shape) - 1)), "strides": None,
               "limit_indices": (start + length - 1, *shape[1:])}  # fmt: skip
        (invars[k],) = site.emit(primitives.slice_p, [invars[k]], cut)
    outs = site.emit(site.equation.primitive, invars, {**params, "length": length - 1})
    return site.finish(outs), f"{length} to {length - 1}"


def _split(rng, site: Site):
    """The last constant as a carry: passed through (neutral), or exchanged for another value of the body."""
    params = site.equation.params
    if site.name == "scan":
        last, name, counts = params["num_consts"] - 1, "jaxpr", {"num_consts": -1, "num_carry": 1}
        at = last
    else:
        last, name, counts = params["cond_nconsts"] + params["body_nconsts"] - 1, "body_jaxpr", {"body_nconsts": -1}
        at = params["body_nconsts"] - 1
    if at < 0:
        return None
    body = params[name]
    jaxpr = opened(body)
    own = jaxpr.invars[at]
    values = [*jaxpr.invars, *(var for equation in jaxpr.eqns for var in equation.outvars)]
    others = [var for var in values if kind_of(var) == kind_of(own) and var is not own and not isinstance(var, DropVar)]
    neutral = not others or rng.random() < 0.5
    new = own if neutral else rng.choice(others)
    changed = {**params, **{key: params[key] + step for key, step in counts.items()}}
    changed[name] = reclosed(body, jaxpr.replace(outvars=[new, *jaxpr.outvars]))
    if site.name == "while":
        condition = params["cond_jaxpr"]
        inner, first = opened(condition), params["cond_nconsts"]
        invars = [*inner.invars[:first], Var(own.aval), *inner.invars[first:]]
        changed["cond_jaxpr"] = reclosed(condition, inner.replace(invars=invars))
    avals = [site.equation.invars[last].aval, *(var.aval for var in site.equation.outvars)]
    outs = site.emit(site.equation.primitive, site.equation.invars, changed, avals)
    return site.finish(outs[1:]), f"a constant made a carry, {'unchanged' if neutral else 'changed'}", neutral, False


def _unread_constant(count, name):
    """One more constant of a loop, which its condition or body does not read."""

    def change(rng, site: Site):
        params, invars = site.equation.params, site.equation.invars
        start = params["cond_nconsts"] if count == "body_nconsts" else 0
        at, extra = params[count], rng.choice([var for var in invars if not isinstance(var, Literal)] or invars)
        inner = opened(params[name])
        wider = inner.replace(invars=[*inner.invars[:at], Var(extra.aval), *inner.invars[at:]])
        params = {**params, count: at + 1, name: reclosed(params[name], wider)}
        outs = site.again([*invars[: start + at], extra, *invars[start + at :]], params)
        return site.finish(outs), "a constant that nothing reads", True, False

    return change


def _body_constants(rng, site: Site):
    """A constant of the body more, or one made a carry."""
    made = _split(rng, site) if site.equation.params["body_nconsts"] else None
    return made or _unread_constant("body_nconsts", "body_jaxpr")(rng, site)


def _scan_constants(rng, site: Site):
    """A constant of a scan made a carry, or one more that its body does not read."""
    made = _split(rng, site) if site.equation.params["num_consts"] else None
    return made or _unread_constant("num_consts", "jaxpr")(rng, site)


def _scan_carries(rng, site: Site):
    """A constant of a scan made a carry, or one more carry that only it reads itself."""
    return _split(rng, site) if site.equation.params["num_consts"] else _dead_carry(rng, site)


def _branches(rng, site: Site):
    params = site.equation.params
    branches = params["branches"]
    new = tuple(rng.choice(([*branches[1:], branches[0]], [branches[0]] * len(branches))))
    return site.finish(site.again(params={**params, "branches": new})), "branches exchanged"


def _generator(rng, site: Site):
    """Keys of another generator, their data cut and taken for keys of the first."""
    made = _templates()
    params = {**site.equation.params, "impl": rng.choice([jax_random.rbg_prng_impl, jax_random.unsafe_rbg_prng_impl])}
    (keys,) = site.emit(site.equation.primitive, site.equation.invars, params)
    (data,) = site.emit(made["random_unwrap"].primitive, [keys], {})
    start = [0] * (len(data.aval.shape) - 1)
    cut = {"start_indices": (*start, 0), "limit_indices": (*data.aval.shape[:-1], 2), "strides": None}
    (data,) = site.emit(primitives.slice_p, [data], cut)
    wrap = made["random_wrap"]
    return site.finish(site.emit(wrap.primitive, [data], wrap.params)), "another generator"


def _iota(rng, site: Site):
    """The numbers laid along another axis."""
    shape = tuple(site.equation.params["shape"])
    axis = rng.randrange(len(shape) + 1)
    wide = (*shape[:axis], 3, *shape[axis:])
    (square,) = site.changed({"shape": wide, "dimension": axis})
    start = [0] * len(wide)
    start[axis] = rng.randrange(3)
    limit = [*shape[:axis], start[axis] + 1, *shape[axis:]]
    cut = {"start_indices": tuple(start), "limit_indices": tuple(limit), "strides": None}
    return site.finish(site.emit(primitives.slice_p, [square], cut)), f"along a new axis {axis}"


def _repeated_along(rng, site: Site):
    """Repeated along other axes, the elements then taken as they lie; a scalar as one row, wherever it lies."""
    shape, dims = site.equation.params["shape"], site.equation.params["broadcast_dimensions"]
    wide = [axis in dims for axis, size in enumerate(shape) if size != 1]
    for order in [rng.sample(range(len(shape)), len(shape)) for _ in range(30)]:
        moved = [order.index(dim) for dim in dims]
        pattern = [axis in dims for axis in order if shape[axis] != 1]
        if moved == sorted(moved) and pattern != wide:  # else the same elements are repeated
            new = tuple(shape[axis] for axis in order)
            return site.finish(site.changed({"shape": new, "broadcast_dimensions": tuple(moved)})), f"to {new}"
    if dims or not shape:
        return None
    row, at = site.reshaped(site.equation.invars[0], (1,)), rng.randrange(len(shape))
    params = {**site.equation.params, "broadcast_dimensions": (at,)}
    return site.finish(site.emit(site.equation.primitive, [row], params)), f"to {at}"


def _split_axis(rng, site: Site):
    """Parts along another axis, of other sizes."""
    shape, params = site.equation.invars[0].aval.shape, site.equation.params
    options = [axis for axis, size in enumerate(shape) if axis != params["axis"] and size >= len(params["sizes"])]
    if not options:
        return None
    axis, count = rng.choice(options), len(params["sizes"])
    sizes = (1,) * (count - 1) + (shape[axis] - count + 1,)
    return site.finish(site.changed({"axis": axis, "sizes": sizes})), f"along axis {axis}"


PARAMETERS = {
    ("broadcast_in_dim", "broadcast_dimensions"): _repeated_along,
    ("iota", "dimension"): _iota,
    ("split", "axis"): _split_axis,
    ("scan", "reverse"): _flag("reverse"),
    ("scan", "length"): _length,
    ("scan", "num_consts"): _scan_constants,
    ("scan", "num_carry"): _scan_carries,
    ("scan", "jaxpr"): _body("jaxpr"),
    ("while", "cond_nconsts"): _unread_constant("cond_nconsts", "cond_jaxpr"),
    ("while", "body_nconsts"): _body_constants,
    ("while", "body_jaxpr"): _body("body_jaxpr"),
    ("while", "cond_jaxpr"): _body("cond_jaxpr"),
    ("cond", "branches"): _branches,
    ("random_seed", "impl"): _generator,
    **{(name, parameter): _body(parameter) for name, parameter in CALLS.items()},
}


# --- kinds of change ---


def _wrap(rng, site: Site):
    """The equation inside a call, jitted or rematerialised."""
    equation, name = site.equation, rng.choice(("jit", "remat2"))
    made = _templates()[name]
    outer = list(dict.fromkeys(var for var in equation.invars if not isinstance(var, Literal)))
    inner = {var: Var(var.aval) for var in outer}
    invars = [var if isinstance(var, Literal) else inner[var] for var in equation.invars]
    results = [Var(var.aval) for var in equation.outvars]
    body = equation.replace(invars=invars, outvars=results)
    old = made.params["jaxpr"]
    jaxpr = opened(old).replace(invars=list(inner.values()), outvars=results, eqns=[body], effects=equation.effects)
    params = {**made.params, "jaxpr": reclosed(old, jaxpr)}
    if name == "jit":
        for key in ("in_shardings", "in_layouts", "donated_invars"):
            params[key] = params[key][:1] * len(outer)
        for key in ("out_shardings", "out_layouts"):
            params[key] = params[key][:1] * len(results)
    outs = site.emit(made.primitive, outer, params, [var.aval for var in results])
    return site.finish(outs), f"wrapped: in {name}", True, name == "remat2"


def _place(rng, site: Site):
    """A sharding constraint or a barrier behind one result."""
    outs = site.again()
    name = rng.choice(("sharding_constraint", "optimization_barrier"))
    spots = [k for k, var in enumerate(outs) if isinstance(var.aval.dtype, np.dtype)]
    if not spots:
        return None
    k, made = rng.choice(spots), _templates()[name]
    (outs[k],) = site.emit(made.primitive, [outs[k]], made.params, [outs[k].aval])
    return site.finish(outs), f"placement: {name}", True, True


def _loop_parts(site: Site):
    """Constants, carries and rows of a loop, and where its carries begin in the body."""
    params = site.equation.params
    if site.name == "scan":
        consts = params["num_consts"]
        return "jaxpr", consts, consts, params["num_carry"]
    consts = params["cond_nconsts"] + params["body_nconsts"]
    return "body_jaxpr", consts, params["body_nconsts"], len(site.equation.invars) - consts


def _carry_wires(rng, site: Site):
    """Two carries of one type exchanged where the body returns them."""
    if site.name not in ("scan", "while"):
        return None
    name, _, _, count = _loop_parts(site)
    body = site.equation.params[name]
    outs = list(opened(body).outvars)
    pairs = [(i, j) for i in range(count) for j in range(i) if kind_of(outs[i]) == kind_of(outs[j])]
    if not pairs:
        return None
    i, j = rng.choice(pairs)
    outs[i], outs[j] = outs[j], outs[i]
    params = {**site.equation.params, name: reclosed(body, opened(body).replace(outvars=outs))}
    return site.finish(site.again(params=params)), f"carry wires: carries {j} and {i}"


def _carry_order(rng, site: Site):
    """Carries in another order, everywhere alike."""
    if site.name not in ("scan", "while"):
        return None
    name, outer, within, count = _loop_parts(site)
    if count < 2:
        return None
    order = rng.sample(range(count), count)
    params, equation = dict(site.equation.params), site.equation

    def moved(items, start):
        items = list(items)
        return [*items[:start], *(items[start + k] for k in order), *items[start + count :]]

    body = opened(params[name])
    jaxpr = body.replace(invars=moved(body.invars, within), outvars=moved(body.outvars, 0))
    params[name] = reclosed(params[name], jaxpr)
    if site.name == "while":
        condition = opened(params["cond_jaxpr"])
        invars = moved(condition.invars, params["cond_nconsts"])
        params["cond_jaxpr"] = reclosed(params["cond_jaxpr"], condition.replace(invars=invars))
    avals = [var.aval for var in moved(equation.outvars, 0)]
    outs = site.emit(equation.primitive, moved(equation.invars, outer), params, avals)
    back = [outs[order.index(k)] for k in range(count)] + outs[count:]
    return site.finish(back), f"carry order: {order}", True, False


def _dead_carry(rng, site: Site):
    """One more carry of a scan, which only it reads itself."""
    if site.name != "scan":
        return None
    params, equation = site.equation.params, site.equation
    at, old = params["num_consts"], params["jaxpr"]
    jaxpr = opened(old)
    like = jax.core.ShapedArray((), np.dtype(np.float32))
    own, next_one = Var(like), Var(like)
    one = literal(1, own)
    step = jaxpr.eqns[0].replace(primitive=primitives.sin_p, invars=[own], outvars=[next_one],
                                 params={"accuracy": None}, effects=frozenset()) if jaxpr.eqns else None  # fmt: skip
    if step is None:
        return None
    body = jaxpr.replace(invars=[*jaxpr.invars[:at], own, *jaxpr.invars[at:]], outvars=[next_one, *jaxpr.outvars],
                         eqns=[step, *jaxpr.eqns])  # fmt: skip
    params = {**params, "num_carry": params["num_carry"] + 1, "jaxpr": reclosed(old, body)}
    avals = [like, *(var.aval for var in equation.outvars)]
    outs = site.emit(equation.primitive, [*equation.invars[:at], one, *equation.invars[at:]], params, avals)
    return site.finish(outs[1:]), "dead carry: added", True, False


def _inline(rng, site: Site):
    """A call exchanged for what it calls."""
    if site.name not in CALLS:
        return None
    closed = site.equation.params[CALLS[site.name]]
    jaxpr = opened(closed)
    if jaxpr.constvars:
        return None
    names = dict(zip(jaxpr.invars, site.equation.invars, strict=True))

    def read(atom):
        return atom if isinstance(atom, Literal) else names.get(atom, atom)

    for equation in jaxpr.eqns:
        outs = site.emit(equation.primitive, [read(var) for var in equation.invars], equation.params,
                         [var.aval for var in equation.outvars])  # fmt: skip
        names.update(zip(equation.outvars, outs, strict=True))
    return site.finish([read(var) for var in jaxpr.outvars]), "inlined: a call", True, site.name == "remat2"


KINDS = {
    "wrapped": _wrap,
    "placement": _place,
    "carry wires": _carry_wires,
    "carry order": _carry_order,
    "dead carry": _dead_carry,
    "inlined": _inline,
}
