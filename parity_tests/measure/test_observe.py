"""Censuses, shardings, checkpoints, cost: equal facts pass, each single change fails, nothing compared is undecided."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from harness import Kind, Program
from harness.observe.census import Variable, compare_census
from harness.observe.checkpoints import Stored, compare_trees, stored
from harness.observe.cost import compare_cost, compile_count, cost
from harness.observe.shardings import (
    compare_axes,
    compare_constraints,
    compare_specs,
    compiled_shardings,
    constraints,
    fitting,
    large_replicated,
    normalised,
)

MESH = {"data": 2, "fsdp": 2, "tensor": 2}
CENSUS = (
    Variable("decoder/kernel", "parameter", (4, 8), "float32", 128),
    Variable("decoder/count", "counter", (), "int32", 4),
)


def _changed(**changes):
    return (dataclasses.replace(CENSUS[0], **changes), CENSUS[1])


def test_equal_censuses_agree():
    found = compare_census(CENSUS, reversed(CENSUS), when="at init")
    assert found.kind is Kind.BITWISE
    assert (found.num_leaves, found.num_elements) == (2, 33)


@pytest.mark.parametrize(
    "other",
    [
        CENSUS[:1],
        (*CENSUS, Variable("rng/key", "rng", (), "key", 8)),
        _changed(name="decoder/kernels"),
        _changed(kind="moment"),
        _changed(shape=(8, 4)),
        _changed(dtype="bfloat16"),
        _changed(bytes=64),
    ],
    ids=["missing", "extra", "name", "kind", "shape", "dtype", "bytes"],
)
def test_any_change_to_a_census_diverges(other):
    found = compare_census(CENSUS, other)
    assert found.kind is Kind.DIVERGED
    assert found.mismatches


def test_a_declared_one_sided_variable_is_listed_and_must_be_one_sided():
    more = (*CENSUS, Variable("rng/key", "rng", (), "key", 8))
    declared = {"rng/key": "only b keeps its key"}
    found = compare_census(CENSUS, more, one_sided=declared)
    assert found
    assert "only b keeps its key" in found.explain()
    assert not compare_census(more, more, one_sided=declared)
    assert not compare_census(CENSUS, CENSUS, one_sided=declared)


def test_a_census_that_repeats_a_name_is_refused():
    with pytest.raises(ValueError, match="twice"):
        compare_census((*CENSUS, CENSUS[0]), CENSUS)


def test_nothing_compared_is_undecided():
    assert compare_census((), ()).kind is Kind.UNDECIDED
    assert compare_trees({}, {}).kind is Kind.UNDECIDED
    assert compare_axes({}, {}).kind is Kind.UNDECIDED
    assert compare_specs({}, {}, MESH).kind is Kind.UNDECIDED
    only = {"x": stored(np.ones(2))}
    assert compare_trees(only, {}, one_sided={"x": "why"}).kind is Kind.UNDECIDED


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (P("fsdp"), P("fsdp", None)),
        (P("fsdp"), P(("fsdp",))),
        (P(("data", "one"), None), P("data")),
        (P(None, "one"), P()),
        (P(), None),
    ],
    ids=str,
)
def test_specs_that_mean_the_same_are_equal(left, right):
    mesh = {**MESH, "one": 1}
    assert normalised(left, mesh) == normalised(right, mesh)
    assert compare_specs({"w": left}, {"w": right}, mesh)


@pytest.mark.parametrize(
    "other", [P("tensor", "fsdp"), P("fsdp"), P("fsdp", None, "tensor"), P(("fsdp", "tensor")), P()], ids=str
)
def test_any_change_to_a_spec_diverges(other):
    found = compare_specs({"w": P("fsdp", "tensor")}, {"w": other}, MESH, when="after a step")
    assert found.kind is Kind.DIVERGED
    assert "after a step" in found.observable
    assert found.mismatches[0].leaf == "w"


def test_the_order_of_the_axes_of_one_dimension_counts():
    assert not compare_specs({"w": P(("data", "fsdp"))}, {"w": P(("fsdp", "data"))}, MESH)


def test_a_spec_with_an_unknown_axis_is_refused():
    with pytest.raises(ValueError, match="stage"):
        compare_specs({"w": P("stage")}, {"w": P("stage")}, MESH)


@pytest.mark.parametrize("other", [("mlp", "embed"), ("embed",), ("embed", None), ("embed", "mlp", None)], ids=str)
def test_any_change_to_logical_axes_diverges(other):
    assert compare_axes({"w": ("embed", "mlp")}, {"w": ("embed", "mlp")})
    assert not compare_axes({"w": ("embed", "mlp")}, {"w": other})


def test_large_leaves_left_replicated_are_named():
    shapes = {"small": (4,), "large": (2048, 1024), "one": (2048, 1024), "sharded": (2048, 1024)}
    specs = {"small": P(), "large": P(None, None), "one": P("one"), "sharded": P(None, "fsdp")}
    assert large_replicated(specs, shapes, {**MESH, "one": 1}) == ["large", "one"]
    with pytest.raises(ValueError, match="shape"):
        large_replicated({**specs, "more": P()}, shapes, MESH)


def _devices():
    return jax.make_mesh((2, 2, 2), tuple(MESH), axis_types=(AxisType.Auto,) * 3)


def _layer(spec):
    def run(x, w):
        y = jax.lax.with_sharding_constraint(x @ w, NamedSharding(_devices(), spec))
        return {"y": y, "total": y.sum()}

    structs = (jax.ShapeDtypeStruct((8, 4), jnp.float32), jax.ShapeDtypeStruct((4, 6), jnp.float32))
    return Program(run, structs, name_input=lambda path: "xw"[int(path[0])])


def test_what_the_compiler_chose_is_read_and_compared():
    given = {"x": P("data"), "w": P(None, "tensor")}
    chosen = [compiled_shardings(_layer(spec), _devices(), given) for spec in (P("data", "tensor"), P("fsdp"))]
    assert chosen[0] == {"in/x": ("data",), "in/w": (None, "tensor"), "out/total": (), "out/y": ("data", "tensor")}
    assert compare_specs(chosen[0], chosen[0], MESH)
    assert [mismatch.leaf for mismatch in compare_specs(*chosen, MESH).mismatches] == ["out/y"]


def test_uneven_input_shardings_are_refused_by_name():
    with pytest.raises(ValueError, match="w of shape"):
        compiled_shardings(_layer(P()), _devices(), {"w": P(None, ("data", "fsdp"))})
    specs = {"x": P("data"), "w": P(None, ("data", "fsdp"))}
    assert fitting(specs, {"x": (8, 4), "w": (4, 6)}, MESH) == {"x": P("data")}
    with pytest.raises(ValueError, match="no input"):
        compiled_shardings(_layer(P()), _devices(), {"v": P()})


def test_constraints_are_counted_by_shape_and_spec():
    assert constraints(_layer(P("data", None))) == {((8, 6), ("data",)): 1}
    assert compare_constraints(_layer(P("data")), _layer(P("data", None)))
    assert not compare_constraints(_layer(P("data")), _layer(P("fsdp")))
    bare = Program(lambda x: x + 1, (jnp.ones(3),))
    assert compare_constraints(bare, bare).kind is Kind.UNDECIDED


TREE = {"params/w": stored(np.arange(6.0, dtype=np.float32).reshape(2, 3)), "step": stored(np.int32(3))}


@pytest.mark.parametrize(
    "other",
    [
        {"params/w": TREE["params/w"]},
        {**TREE, "rngs/key": stored(np.zeros(2, np.uint32))},
        {**TREE, "step": stored(np.uint32(3))},
        {**TREE, "step": stored(np.int32(4))},
        {**TREE, "params/w": stored(np.arange(6.0, dtype=np.float32).reshape(3, 2))},
        {"params/string": TREE["params/w"], "step": TREE["step"]},
        {**TREE, "params/w": stored(-0.0 * np.arange(6.0, dtype=np.float32).reshape(2, 3))},
    ],
    ids=["missing", "extra", "dtype", "value", "shape", "name", "bytes"],
)
def test_any_change_to_a_checkpoint_diverges(other):
    assert compare_trees(TREE, dict(reversed(TREE.items())))
    assert compare_trees(TREE, other).kind is Kind.DIVERGED


def test_a_tree_without_bytes_is_only_compared_as_a_tree():
    bare = {path: dataclasses.replace(entry, digest="") for path, entry in TREE.items()}
    with pytest.raises(ValueError, match="no digest"):
        compare_trees(TREE, bare)
    found = compare_trees(bare, bare, bytes_too=False)
    assert found
    assert found.observable == "checkpoint tree"
    assert isinstance(bare["step"], Stored)


def test_an_observation_says_what_differs_and_is_plain_data():
    found = compare_trees(TREE, {"step": stored(np.uint32(3))}, names=("linen", "nnx"))
    assert "params/w: only in linen" in found.explain()
    assert "step: dtype is int32 in linen and uint32 in nnx" in found.explain()
    assert found.to_json()["kind"] == "diverged"


def test_cost_counts_loops_and_notices_one_more_operation():
    def loop(x, extra=0.0):
        return jax.lax.scan(lambda c, _: (jnp.sin(c) + extra * c if extra else jnp.sin(c), None), x, length=7)[0]

    x = jnp.ones((4,))
    a, b = Program(loop, (x,)), Program(lambda x: loop(x, 2.0), (x,))
    assert cost(a).primitives["sin"] == 7
    assert cost(a).output_bytes == 16
    assert compare_cost(a, a)
    assert "primitive mul" in compare_cost(a, b).explain()


def test_recompiles_are_counted():
    calls = [(jnp.ones(3),), (jnp.zeros(3),), (jnp.ones(4),)]
    assert compile_count(lambda x: x + 1, calls) == 2
