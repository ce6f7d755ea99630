"""`shard_map` and collectives: what a device holds, as a term over the devices' coordinates.

Inside the body each term stands for one array per device, a function of the device's coordinate along every manual
axis. `enter` is the device's part of a global array, `exit` puts the parts together again; a collective combines the
parts along its axes. These carry the mesh (names and sizes of its axes, in order) and the manual axes, all other
operations act on each device alone and need not know. Which device stands at a coordinate is placement, no value.

An output axis that the specification does not mention says that all devices along it hold the same; with the check for
that switched off, `exit` takes what it is given on trust, and says so in its identity.
"""

import dataclasses
import typing

from jax.sharding import PartitionSpec

from .params import Unmodelled, params_token, token
from .primitives import IGNORED, by_name

# The parameter that names the axes. The two "invariant" forms differ in what the type system knows of their result.
_AXES = {
    "psum": "axes", "psum_invariant": "axes", "pmax": "axes", "pmin": "axes", "all_gather": "axis_name",
    "all_gather_invariant": "axis_name", "all_to_all": "axis_name", "axis_index": "axis_name",
    "pbroadcast": "axis_name", "ppermute": "axis_name", "ragged_all_to_all": "axis_name", "reduce_scatter": "axis_name",
}  # fmt: skip
_SAME = {"psum_invariant": "psum", "all_gather_invariant": "all_gather"}
_OVER_DIMENSIONS = {"psum": "reduce_sum", "pmax": "reduce_max", "pmin": "reduce_min"}
COLLECTIVES = by_name(_AXES)
SHARD_MAP = by_name(("shard_map",))


@dataclasses.dataclass(frozen=True)
class Context:
    """The mesh that a body is written for, by names and sizes, and the axes whose coordinates it may know."""

    mesh: tuple[tuple[str, int], ...]
    manual: frozenset[str]

    @property
    def token(self) -> bytes:
        """Digest input."""
        return token((self.mesh, tuple(sorted(self.manual))))


def handlers(evaluator) -> dict[typing.Any, typing.Any]:
    """`shard_map` and the collectives."""
    manual = _Manual(evaluator)
    return {**dict.fromkeys(SHARD_MAP, manual.shard_map), **dict.fromkeys(COLLECTIVES, manual.collective)}


class _Manual:
    def __init__(self, evaluator):
        self.evaluator = evaluator

    def shard_map(self, equation, operands, origin, used):
        """The body over the device's parts of the operands; its outputs put together."""
        params, evaluator = equation.params, self.evaluator
        unknown = set(params) - {"mesh", "in_specs", "out_specs", "jaxpr", "check_vma", "newly_manual_axes"}
        if unknown:
            raise Unmodelled(f"the parameter {sorted(unknown)[0]} is not known to the prover")
        outer, context = evaluator.manual, self._context(params)
        new = params["newly_manual_axes"]
        ins, outs = ([_spec(spec, new) for spec in params[side]] for side in ("in_specs", "out_specs"))
        args = [
            self._node("enter", context, spec, operand, var.aval, origin)
            for spec, operand, var in zip(ins, operands, params["jaxpr"].invars, strict=True)
        ]
        evaluator.manual = context
        try:
            results = evaluator.closed(params["jaxpr"], args, origin, used)
        finally:
            evaluator.manual = outer
        return [
            self._node("exit", context, spec, result, var.aval, origin, trusted=not params["check_vma"])
            for spec, result, var in zip(outs, results, equation.outvars, strict=True)
        ]

    def _context(self, params) -> Context:
        outer = self.evaluator.manual
        mesh = tuple((str(name), int(size)) for name, size in params["mesh"].shape.items())
        new = frozenset(params["newly_manual_axes"])
        if outer is None:
            return Context(mesh, new)
        if outer.mesh != mesh or outer.manual & new:
            raise Unmodelled("a mesh inside another one")
        return Context(mesh, outer.manual | new)

    def _node(self, op, context, spec, operand, aval, origin, *, trusted=False):
        new = context.manual - (self.evaluator.manual.manual if self.evaluator.manual else frozenset())
        trusted = trusted and new != {axis for axes in spec for axis in axes}
        words = {"spec": PartitionSpec(*spec), "mesh": dict(context.mesh), "manual": tuple(sorted(new))}
        data = context.token + token((tuple(sorted(new)), spec, trusted))
        attrs = {**words, "unchecked": True} if trusted else words
        return self.evaluator.graph.raw(op, data, attrs, (operand,), tuple(aval.shape), aval.dtype, origin)

    def collective(self, equation, operands, origin, used):
        """A combination of what the devices along some axes hold."""
        del used
        name, params = equation.primitive.name, dict(equation.params)
        axes = params[_AXES[name]]
        axes = tuple(axes) if isinstance(axes, tuple | list) else (axes,)
        if all(isinstance(axis, int) for axis in axes):
            return self._over_dimensions(name, params, axes, operands, equation, origin)
        context = self.evaluator.manual
        if context is None or not context.manual.issuperset(axes):
            raise Unmodelled("an axis that no shard_map around it makes manual")
        params[_AXES[name]] = axes
        if name in _SAME:  # the forms of one collective lack what the other can say
            params.setdefault("axis_index_groups", None)
        if "perm" in params:
            params["perm"] = tuple(sorted(tuple(pair) for pair in params["perm"]))
        op, graph = _SAME.get(name, name), self.evaluator.graph
        data = context.token + params_token(params, IGNORED)
        attrs = {**params, "mesh": dict(context.mesh)}
        return [
            graph.raw(op, data + (b"result %d" % k if k else b""), attrs, tuple(operands), tuple(var.aval.shape),
                      var.aval.dtype, origin)
            for k, var in enumerate(equation.outvars)
        ]  # fmt: skip

    def _over_dimensions(self, name, params, axes, operands, equation, origin):
        """Under `vmap` a collective over its axis is a reduction over that dimension."""
        op = _OVER_DIMENSIONS.get(name)
        if op is None or params.get("axis_index_groups") is not None or len(operands) != 1:
            raise Unmodelled("a collective over a mapped dimension")
        aval, attrs = equation.outvars[0].aval, {"axes": axes, "out_sharding": None}
        data = params_token(attrs, IGNORED)
        return [self.evaluator.graph.build(op, data, attrs, tuple(operands), tuple(aval.shape), aval.dtype, origin)]


def _spec(spec, manual: frozenset[str]) -> tuple[tuple[str, ...], ...]:
    """The axes along which each dimension is split, one-sided forms made alike."""
    if getattr(spec, "unreduced", None) or getattr(spec, "reduced", None):
        raise Unmodelled("a partial sum that crosses the border of a shard_map")
    entries = [() if entry is None else tuple(entry) if isinstance(entry, tuple) else (entry,) for entry in spec]
    while entries and not entries[-1]:
        entries.pop()
    for axes in entries:
        if not manual.issuperset(axes):
            raise Unmodelled("a specification that names another axis than the manual ones")
    return tuple(entries)
