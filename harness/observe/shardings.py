"""How leaves are laid out: logical axis names, specs on meshes, what the compiler chose, and constraints inside.

Specs are compared in a normal form: axes of size 1 do not shard, `("x",)` is `"x"`, trailing Nones vanish.
"""

import collections
import math
import typing
from collections.abc import Iterator, Mapping, Sequence

import jax
from jax.extend import core
from jax.extend.core import jaxpr_as_fun
from jax.sharding import NamedSharding, PartitionSpec

from .. import settings
from ..program import Leaf, Program
from .observation import Observation, observe

Axes = Sequence[str | None]
Spec = PartitionSpec | Sequence[typing.Any] | None
LARGE = 1 << 20
"""Elements from which a leaf replicated on every device is worth a complaint."""


def normalised(spec: Spec, mesh: Mapping[str, int]) -> tuple[typing.Any, ...]:
    """A spec's entries without axes of size 1 (or absent from the mesh), single axes bare, trailing Nones cut."""
    entries: list[typing.Any] = []
    for entry in () if spec is None else tuple(spec):
        kept = tuple(axis for axis in _names(entry) if mesh.get(axis, 1) > 1)
        entries.append(None if not kept else kept[0] if len(kept) == 1 else kept)
    while entries and entries[-1] is None:
        entries.pop()
    return tuple(entries)


def compare_axes(
    a: Mapping[str, Axes],
    b: Mapping[str, Axes],
    *,
    one_sided: Mapping[str, str] | None = None,
    names: tuple[str, str] = ("a", "b"),
) -> Observation:
    """Compares logical axis names leaf by leaf, exactly: a missing name is not a None."""

    def facts(axes: Axes) -> dict[str, str]:
        return {"axes": str(tuple(axes))}

    return observe("logical axes", a, b, facts, one_sided=one_sided, names=names)


def compare_specs(
    a: Mapping[str, Spec],
    b: Mapping[str, Spec],
    mesh: Mapping[str, int],
    *,
    one_sided: Mapping[str, str] | None = None,
    names: tuple[str, str] = ("a", "b"),
    when: str = "",
) -> Observation:
    """Compares specs on one mesh (axis name to size) in normal form; `when` says which moment they come from.

    Raises:
        ValueError: a spec names an axis that the mesh does not have.
    """
    for table, name in zip((a, b), names, strict=True):
        for leaf, spec in table.items():
            unknown = _axes_of(spec) - set(mesh)
            if unknown:
                raise ValueError(f"{name}: {leaf} is sharded over {min(unknown)}, which is no axis of {dict(mesh)}")

    def facts(spec: Spec) -> dict[str, str]:
        return {"spec": str(normalised(spec, mesh))}

    observable = "specs on " + "x".join(f"{axis}:{size}" for axis, size in mesh.items()) + (f" {when}" if when else "")
    return observe(observable, a, b, facts, one_sided=one_sided, names=names)


def large_replicated(
    specs: Mapping[str, Spec], shapes: Mapping[str, Sequence[int]], mesh: Mapping[str, int], *, elements: int = LARGE
) -> list[str]:
    """Leaves of at least `elements` elements that no mesh axis shards, in order of their names.

    Raises:
        ValueError: a spec without a shape or a shape without a spec.
    """
    if set(specs) != set(shapes):
        odd = min(set(specs) ^ set(shapes))
        raise ValueError(f"{odd} has {'a spec but no shape' if odd in specs else 'a shape but no spec'}")
    return sorted(
        leaf for leaf, spec in specs.items()
        if math.prod(shapes[leaf]) >= elements and not normalised(spec, mesh)
    )  # fmt: skip


def compiled_shardings(
    program: Program, mesh: jax.sharding.Mesh, in_shardings: Mapping[str, Spec] | None = None
) -> dict[str, tuple[typing.Any, ...]]:
    """What the compiler chose on real or simulated devices.

    Args:
        program: compiled as a whole, not run.
        mesh: of devices.
        in_shardings: input leaf name to spec; the others are left to the compiler.

    Returns:
        `in/<name>` and `out/<name>` to the normalised spec, one-sided leaves included.

    Raises:
        ValueError: `in_shardings` names a leaf that is not an input, or a spec that does not divide it.
    """
    given = dict(in_shardings or {})
    unknown = set(given) - {leaf.name for leaf in program.inputs}
    if unknown:
        raise ValueError(f"{min(unknown)} is no input of {program.name}: use the names that its name_input gives")
    structs = [_struct(leaf, given, mesh) for leaf in program.inputs]
    tree = jax.tree.structure(program.args)

    def flat_function(*flat: typing.Any) -> list[typing.Any]:
        return jax.tree.leaves(program.fn(*jax.tree.unflatten(tree, flat)))

    with settings.tracing(), jax.set_mesh(mesh):
        compiled = jax.jit(flat_function, keep_unused=True).lower(*structs).compile()
    chosen = (("in", program.inputs, compiled.input_shardings[0]), ("out", program.outputs, compiled.output_shardings))
    return {
        f"{side}/{leaf.name}": _chosen(sharding, mesh)
        for side, leaves, shardings in chosen
        for leaf, sharding in zip(leaves, shardings, strict=True)
    }


def lowered(program: Program, mesh: jax.sharding.AbstractMesh, in_shardings: Mapping[str, Spec], platform: str) -> str:
    """The program as the compiler of a platform would get it for all chips of a mesh: StableHLO, from its trace.

    Args:
        program: its trace is what is lowered; nothing is compiled and no chip is needed.
        mesh: the abstract one that its constraints name.
        in_shardings: input leaf name to spec; the others are replicated.
        platform: `tpu`, `cuda` or `cpu`.
    """
    traced = program.trace()
    structs = [
        jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, PartitionSpec(*(spec or ()))))
        for leaf in traced.inputs
        for spec in [in_shardings.get(leaf.name or "")]
    ]
    with settings.tracing():
        return jax.jit(jaxpr_as_fun(traced.jaxpr)).trace(*structs).lower(lowering_platforms=(platform,)).as_text()


def fitting(specs: Mapping[str, Spec], shapes: Mapping[str, Sequence[int]], mesh: Mapping[str, int]) -> dict[str, Spec]:
    """The specs whose leaves divide evenly on the mesh; a compiler takes no others as inputs."""
    return {leaf: spec for leaf, spec in specs.items() if not _uneven(shapes[leaf], spec, mesh)}


def _uneven(shape: Sequence[int], spec: Spec, mesh: Mapping[str, int]) -> list[int]:
    """Dimensions whose size is no multiple of the devices that share it."""
    entries = normalised(spec, mesh)
    parts = [math.prod(mesh[axis] for axis in _names(entry)) for entry in entries]
    return [dim for dim, count in enumerate(parts) if shape[dim] % count]


def _struct(leaf: Leaf, given: Mapping[str, Spec], mesh: jax.sharding.Mesh) -> jax.ShapeDtypeStruct:
    if leaf.name not in given:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    spec, sizes = given[leaf.name], dict(mesh.shape)
    uneven = _uneven(leaf.shape, spec, sizes)
    if uneven:
        raise ValueError(
            f"{leaf.name} of shape {list(leaf.shape)} does not divide by {spec} on {sizes} in dimension {uneven[0]}:"
            " leave it out of in_shardings (see `fitting`) or use sizes that divide"
        )
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, PartitionSpec(*(spec or ()))))


def constraints(program: Program) -> collections.Counter[tuple[tuple[int, ...], tuple[typing.Any, ...]]]:
    """How often each `(shape, spec)` is constrained inside a program, loops' bodies counted once.

    Raises:
        ValueError: a constraint that is not a named one.
    """
    counted: collections.Counter[tuple[tuple[int, ...], tuple[typing.Any, ...]]] = collections.Counter()
    for eqn in _equations(program.trace().jaxpr.jaxpr):
        if eqn.primitive.name == "sharding_constraint":
            sharding = eqn.params["sharding"]
            if not isinstance(sharding, NamedSharding):
                raise ValueError(f"{program.name} constrains by {type(sharding).__name__}: use named shardings")
            spec = normalised(sharding.spec, dict(sharding.mesh.shape))
            counted[tuple(eqn.outvars[0].aval.shape), spec] += 1
    return counted


def compare_constraints(a: Program, b: Program) -> Observation:
    """Compares the multisets of constraints of two programs; none on either side leaves it undecided."""
    ours, theirs = _counts(a), _counts(b)

    def facts(count: int) -> dict[str, str]:
        return {"count": str(count)}

    return observe("activation constraints", ours, theirs, facts, names=(a.name, b.name))


def _counts(program: Program) -> dict[str, int]:
    return {f"{list(shape)} {spec}": count for (shape, spec), count in constraints(program).items()}


def _names(entry: typing.Any) -> tuple[str, ...]:
    """The mesh axes of one entry of a spec."""
    return () if entry is None else tuple(entry) if isinstance(entry, tuple | list) else (entry,)


def _axes_of(spec: Spec) -> set[str]:
    return {axis for entry in (() if spec is None else tuple(spec)) for axis in _names(entry)}


def _chosen(sharding: typing.Any, mesh: jax.sharding.Mesh) -> tuple[typing.Any, ...]:
    if sharding.is_fully_replicated:
        return ()
    if not isinstance(sharding, NamedSharding):
        return (f"{type(sharding).__name__} {sharding}",)
    return normalised(sharding.spec, dict(mesh.shape))


def _equations(jaxpr: typing.Any) -> Iterator[typing.Any]:
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in core.jaxprs_in_params(eqn.params):
            yield from _equations(getattr(inner, "jaxpr", inner))
