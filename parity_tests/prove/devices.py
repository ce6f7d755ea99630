"""Programs over devices and Pallas kernels: honest pairs, and faults that look like them. No test by itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

X = jax.ShapeDtypeStruct((8, 4), jnp.float32)
SPLIT = P("a", "b")


@functools.cache
def mesh(sizes=(4, 2), names=("a", "b"), reverse=False):
    """A mesh over the simulated devices; `reverse` places them in the other order."""
    devices = np.array(jax.devices()[: int(np.prod(sizes))])
    placed = (devices[::-1] if reverse else devices).reshape(sizes)
    return jax.sharding.Mesh(placed, names, axis_types=(AxisType.Auto,) * len(sizes))


def over(body, into=SPLIT, out=SPLIT, at=mesh, **options):
    """`shard_map` of a function of one array."""
    return lambda x: jax.shard_map(body, mesh=at(), in_specs=into, out_specs=out, **options)(x)


def unchecked(fn, into=SPLIT, out=SPLIT, **options):
    """A collective between two operations; any output specification is allowed."""
    return over(lambda x: fn(jnp.sin(x)) * 2.0, into, out, check_vma=False, **options)


def spelled(fn, into=SPLIT, out=SPLIT):
    """The same as `unchecked`, spelled otherwise."""
    return over(lambda x: 2.0 * jax.jit(fn)(jnp.sin(x)), into, out, check_vma=False)


def shift(axis, step):
    """Each device's array to the device `step` places further."""
    size = {"a": 4, "b": 2}[axis]
    return lambda x: lax.ppermute(x, axis, [(i, (i + step) % size) for i in range(size)])


def inner(fn):
    """A shard_map over "b" inside one over "a"."""
    return over(lambda x: jax.shard_map(fn, in_specs=P(None, "b"), out_specs=P(None, "b"), axis_names={"b"})(x),
                P("a"), P("a"), axis_names={"a"})  # fmt: skip


def _twice(x):
    return x * 2.0 + lax.axis_index("b")


COLLECTIVES = {
    "psum": (lambda x: lax.psum(x, "a"), lambda x: lax.psum(x, "b")),
    "psum groups": (
        lambda x: lax.psum(x, "a", axis_index_groups=[[0, 1], [2, 3]]),
        lambda x: lax.psum(x, "a", axis_index_groups=[[0, 2], [1, 3]]),
    ),
    "pmax": (lambda x: lax.pmax(x, "a"), lambda x: lax.pmin(x, "a")),
    "pmin": (lambda x: lax.pmin(x, "a"), lambda x: lax.pmin(x, "b")),
    "all_gather": (
        lambda x: lax.all_gather(x, "a", tiled=True),
        lambda x: lax.all_gather(x, "a", axis=1).reshape(8, 2),
    ),
    "all_to_all": (lambda x: lax.all_to_all(x, "b", 0, 1, tiled=True), lambda x: x.reshape(1, 4)),
    "psum_scatter": (lambda x: lax.psum_scatter(x, "b", tiled=True), lambda x: x[:1] + x[1:]),
    "ppermute": (shift("a", 1), shift("a", 2)),
    "pbroadcast": (lambda x: lax.pbroadcast(x, "a", 1), lambda x: lax.pbroadcast(x, "a", 2)),
    "axis_index": (lambda x: x + lax.axis_index("a"), lambda x: x + lax.axis_index("b")),
    "two axes": (lambda x: x + lax.axis_index(("a", "b")), lambda x: x + lax.axis_index(("b", "a"))),
    "loop": (
        lambda x: lax.fori_loop(0, 3, lambda i, y: y + lax.psum(y, "a"), x),
        lambda x: lax.fori_loop(0, 3, lambda i, y: y + lax.psum(x, "a"), x),
    ),
}

# Name: one spelling, another, and a fault.
CHECKED = {
    "checked": (
        over(lambda x: lax.psum(x, "a") * 2, out=P(None, "b")),
        over(lambda x: 2 * lax.psum(x, "a"), out=P(None, "b")),
        over(lambda x: lax.psum(x * x, "a") * 2, out=P(None, "b")),
    ),
    "partly manual": (
        over(lambda x: lax.psum(x, "a") * 2, P("a"), P(), axis_names={"a"}),
        over(lambda x: 2 * lax.psum(x, "a"), P("a"), P(), axis_names={"a"}),
        over(lambda x: 2 * lax.pmax(x, "a"), P("a"), P(), axis_names={"a"}),
    ),
    "nested": (
        inner(_twice),
        inner(lambda x: lax.axis_index("b") + 2.0 * x),
        inner(lambda x: x * 2.0 + 1 - lax.axis_index("b")),
    ),
    "where devices stand": (
        over(lambda x: x + lax.axis_index("a")),
        over(lambda x: x + lax.axis_index("a"), at=functools.partial(mesh, reverse=True)),
        over(lambda x: x + 3 - lax.axis_index("a")),
    ),
    "specification spelled": (
        over(jnp.sin, P("a", None), P("a", None)),
        over(jnp.sin, P(("a",)), P("a")),
        over(jnp.cos, P("a"), P("a")),
    ),
    "gradient": (
        jax.grad(lambda x: over(lambda x: lax.psum(x * x, "a"), out=P(None, "b"))(x).sum()),
        jax.grad(lambda x: over(lambda y: lax.psum(jax.jit(jnp.multiply)(y, y), "a"), out=P(None, "b"))(x).sum()),
        jax.grad(lambda x: over(lambda x: lax.psum(x * x * 2, "a"), out=P(None, "b"))(x).sum()),
    ),
    "mapped dimension": (
        jax.vmap(lambda x: x - lax.psum(x, "i"), axis_name="i"),
        lambda x: x - lax.reduce_sum(x, (0,))[None],
        jax.vmap(lambda x: x - lax.pmax(x, "i"), axis_name="i"),
    ),
    "pmap": (
        jax.pmap(lambda x: lax.psum(x, "i") * 2, axis_name="i"),
        jax.pmap(lambda x: 2 * lax.psum(x, "i"), axis_name="i"),
        jax.pmap(lambda x: 2 * lax.pmax(x, "i"), axis_name="i"),
    ),
}

# Two programs that a careless model of the mesh takes for one.
COLLIDING = {
    "size of the axis": (
        over(lambda x: lax.axis_index("a") + x, P(), P("a"), lambda: mesh((4,), ("a",))),
        over(lambda x: (lax.axis_index("a") + x)[:4], P(), P("a"), lambda: mesh((8,), ("a",))),
    ),
    "input split": (
        over(
            lambda x: lax.psum(x, ("a", "b")),
            P(None, ("a", "b")),
            P(None, ("a", "b")),
            at=lambda: mesh((2, 2)),
            check_vma=False,
        ),
        over(
            lambda x: lax.psum(x, ("a", "b")),
            P(None, ("b", "a")),
            P(None, ("a", "b")),
            at=lambda: mesh((2, 2)),
            check_vma=False,
        ),
    ),
    "output put together": (
        over(lambda x: x + lax.axis_index("b"), out=P("a", "b")),
        over(lambda x: x + lax.axis_index("b"), into=P("b", "a"), out=P("b", "a"), at=lambda: mesh((2, 2))),
    ),
    "constant counted": (
        over(lambda x: x + lax.psum(jnp.sin(1.0), "a"), P("a"), P("a"), lambda: mesh((4, 2))),
        over(lambda x: x + lax.psum(jnp.sin(1.0), "a"), P("a"), P("a"), lambda: mesh((2, 4))),
    ),
    "check switched off": (
        over(lambda x: lax.pmax(x, "a"), out=P(None, "b")),
        over(lambda x: lax.pmax(x, "a"), out=P(None, "b"), check_vma=False),
    ),
    "a key for all devices": (
        over(lambda x: x + jax.random.uniform(jax.random.key(0))),
        over(lambda x: x + jax.random.uniform(jax.random.fold_in(jax.random.key(0), lax.axis_index("a")))),
    ),
}


def kernel(scale=2.0, *, block=4, index=lambda i: (i, 0), name=None, init=0.0, when=0, row=1, **options):
    """A kernel with a condition, scratch memory that it adds to, and a partial write."""

    def body(x_ref, o_ref, total):
        @pl.when(pl.program_id(0) == when)
        def _():
            total[...] = jnp.full_like(total, init)

        total[...] += x_ref[...] * scale
        o_ref[...] = total[...]
        o_ref[0, :] = o_ref[row, :] + 1.0

    spec, out = pl.BlockSpec((block, 4), index), pl.BlockSpec((block, 4), lambda i: (i, 0))
    scratch = [pl.MemoryRef(jax.core.ShapedArray((block, 4), jnp.float32), pl.ANY)]
    call = pl.pallas_call(
        body, out_shape=X, grid=(8 // block,), in_specs=[spec], out_specs=out, scratch_shapes=scratch, name=name,
        **{"interpret": True, **options},
    )  # fmt: skip
    return lambda x: call(x)


def looped(rounds=3):
    """A kernel with a loop over its references, and the size of its grid."""

    def body(x_ref, o_ref):
        o_ref[...] = x_ref[...]
        lax.fori_loop(0, rounds, lambda i, _: o_ref.__setitem__((...,), o_ref[...] * 2.0 + pl.num_programs(0)), None)

    call = pl.pallas_call(body, out_shape=X, grid=(2,), in_specs=[pl.BlockSpec((4, 4), lambda i: (i, 0))],
                          out_specs=pl.BlockSpec((4, 4), lambda i: (i, 0)), interpret=True)  # fmt: skip
    return lambda x: call(x)


COST = pl.CostEstimate(flops=1, bytes_accessed=1, transcendentals=0)
KERNELS = {
    "name and cost": (kernel(), kernel(name="other", cost_estimate=COST)),
    "loop": (looped(), looped()),
    "around it": (lambda x: kernel()(x * 2.0) + 1, lambda x: 1 + kernel()(2.0 * x)),
}
KERNEL_FAULTS = {
    "body": kernel(3.0),
    "block": kernel(block=2),
    "index map": kernel(index=lambda i: (1 - i, 0)),
    "scratch": kernel(init=1.0),
    "place in the grid": kernel(when=1, init=0.5),
    "part that is read": kernel(row=2),
}
