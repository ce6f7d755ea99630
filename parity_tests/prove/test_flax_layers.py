"""Flax's own layers, written twice by its authors: each in Linen against the same in NNX, forward and gradients.

Not here, and why: attention, where NNX scales the scores and Linen the queries; a GRU cell and the recurrent kernels of
an optimised LSTM cell, of which NNX multiplies all gates at once by one parameter; LayerNorm in bfloat16, whose
statistics NNX takes of the rounded input (shown below: the prover finds it).
"""

import dataclasses
import typing

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from harness import Kind, OneSided, Program, prove

X, IMAGE, IDS = ((2, 5, 6), jnp.float32), ((2, 8, 8, 6), jnp.float32), ((2, 5), jnp.int32)
STATE, INPUT = ((2, 4), jnp.float32), ((2, 6), jnp.float32)
STATISTICS = ("mean", "var")


@dataclasses.dataclass(frozen=True)
class Twins:
    """A layer of each kind, the shapes of its inputs, and Linen's names for parameters that NNX calls otherwise."""

    linen: typing.Any
    nnx: typing.Callable[[nnx.Rngs], typing.Any]
    inputs: tuple[typing.Any, ...] = (X,)
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)


LAYERS = {
    "Dense": Twins(nn.Dense(4), lambda r: nnx.Linear(6, 4, rngs=r)),
    "Dense without bias in bfloat16": Twins(
        nn.Dense(4, use_bias=False, dtype=jnp.bfloat16),
        lambda r: nnx.Linear(6, 4, use_bias=False, dtype=jnp.bfloat16, rngs=r)),
    "DenseGeneral": Twins(nn.DenseGeneral((3, 4)), lambda r: nnx.LinearGeneral(6, (3, 4), rngs=r)),
    "DenseGeneral over two axes": Twins(
        nn.DenseGeneral(7, axis=(-2, -1)), lambda r: nnx.LinearGeneral((3, 4), 7, axis=(-2, -1), rngs=r),
        (((2, 5, 3, 4), jnp.float32),)),
    "DenseGeneral by batch": Twins(
        nn.DenseGeneral(7, axis=(-1,), batch_dims=(0,)),
        lambda r: nnx.LinearGeneral(6, 7, axis=(-1,), batch_axis={0: 2}, rngs=r)),
    "Einsum": Twins(nn.Einsum((6, 3, 4), "btd,dnh->btnh"),
                    lambda r: nnx.Einsum("btd,dnh->btnh", (6, 3, 4), (3, 4), rngs=r)),
    "Conv": Twins(nn.Conv(4, (3,)), lambda r: nnx.Conv(6, 4, (3,), rngs=r)),
    "Conv with strides": Twins(
        nn.Conv(4, (3, 3), strides=2, padding="VALID"),
        lambda r: nnx.Conv(6, 4, (3, 3), strides=2, padding="VALID", rngs=r), (IMAGE,)),
    "causal depthwise Conv": Twins(
        nn.Conv(6, (3,), padding="CAUSAL", feature_group_count=6),
        lambda r: nnx.Conv(6, 6, (3,), padding="CAUSAL", feature_group_count=6, rngs=r)),
    "ConvTranspose": Twins(nn.ConvTranspose(4, (3,), strides=(2,)),
                           lambda r: nnx.ConvTranspose(6, 4, (3,), strides=(2,), rngs=r)),
    "Embed": Twins(nn.Embed(7, 4), lambda r: nnx.Embed(7, 4, rngs=r), (IDS,)),
    "LayerNorm": Twins(nn.LayerNorm(), lambda r: nnx.LayerNorm(6, rngs=r)),
    "LayerNorm by the slow variance": Twins(
        nn.LayerNorm(use_fast_variance=False), lambda r: nnx.LayerNorm(6, use_fast_variance=False, rngs=r)),
    "RMSNorm": Twins(nn.RMSNorm(), lambda r: nnx.RMSNorm(6, rngs=r)),
    "GroupNorm": Twins(nn.GroupNorm(num_groups=3), lambda r: nnx.GroupNorm(6, num_groups=3, rngs=r)),
    "BatchNorm in use": Twins(nn.BatchNorm(use_running_average=True),
                              lambda r: nnx.BatchNorm(6, use_running_average=True, rngs=r)),
    "BatchNorm in training": Twins(nn.BatchNorm(use_running_average=False),
                                   lambda r: nnx.BatchNorm(6, use_running_average=False, rngs=r)),
    "LSTMCell": Twins(nn.LSTMCell(4), lambda r: nnx.LSTMCell(6, 4, rngs=r), ((STATE, STATE), INPUT), {"if": "if_"}),
    "SimpleCell": Twins(nn.SimpleCell(4), lambda r: nnx.SimpleCell(6, 4, rngs=r), (STATE, INPUT),
                        {"h": "dense_h", "i": "dense_i"}),
    "PReLU": Twins(nn.PReLU(), lambda r: nnx.PReLU()),
    "Dropout": Twins(nn.Dropout(0.3, deterministic=False), lambda r: nnx.Dropout(0.3, deterministic=False, rngs=r)),
}  # fmt: skip


def _abstract(shape) -> typing.Any:
    if isinstance(shape[0], int | tuple) and not isinstance(shape[1], tuple):
        return jax.ShapeDtypeStruct(*shape)
    return tuple(_abstract(part) for part in shape)


def _value_and_gradients(apply):
    """`(outputs, new statistics), gradients` of a layer, by a loss that no axis escapes."""

    def loss(params, inputs, rest):
        outputs, changed = apply({**params, **rest}, *inputs)
        return sum(jnp.sum(jnp.sin(y.astype(jnp.float32))) for y in jax.tree.leaves(outputs)), (outputs, changed)

    def run(params, rest, *inputs):
        whole = any(jnp.issubdtype(x.dtype, jnp.integer) for x in jax.tree.leaves(inputs))
        (_, kept), grads = jax.value_and_grad(loss, argnums=0 if whole else (0, 1), has_aux=True)(params, inputs, rest)
        return kept, grads

    return run


def _linen(twins: Twins, inputs) -> Program:
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = dict(jax.eval_shape(lambda *x: twins.linen.init(keys, *x), *inputs))
    params = {"params": variables.pop("params", {})}

    def apply(variables, *x):
        return twins.linen.apply(variables, *x, rngs={"dropout": jax.random.key(3)}, mutable=["batch_stats"])

    def name(path):
        return "/".join(twins.renamed.get(key, key) for key in path if key not in ("params", "batch_stats"))

    run = _value_and_gradients(apply)
    return Program(run, (params, variables, *inputs), name_input=name, name_output=name, name="linen")


def _nnx(twins: Twins, inputs) -> Program:
    graph, state = nnx.split(nnx.eval_shape(lambda: twins.nnx(nnx.Rngs(0))))
    values = nnx.to_pure_dict(state)
    rest = {key: values.pop(key) for key in ("rngs", *STATISTICS) if key in values}

    def apply(values, *x):
        full = jax.tree.map(lambda leaf: leaf, state)
        nnx.replace_by_pure_dict(full, values)
        layer = nnx.merge(graph, full)
        outputs = layer(*x)
        changed = nnx.to_pure_dict(nnx.state(layer))
        return outputs, {key: changed[key] for key in STATISTICS if key in changed}

    def name(path):
        return OneSided("the counter of its random keys") if "rngs" in path else "/".join(path)

    run = _value_and_gradients(apply)
    return Program(run, (values, rest, *inputs), name_input=name, name_output=name, name="nnx")


def _verdict(twins: Twins):
    inputs = tuple(_abstract(shape) for shape in twins.inputs)
    return prove(_linen(twins, inputs), _nnx(twins, inputs))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_linen_is_the_layer_of_nnx(name):
    verdict = _verdict(LAYERS[name])
    assert verdict.kind is Kind.PROVED, verdict.explain()
    assert verdict.strength == ("exact, modulo key derivation" if name == "Dropout" else "exact")


def test_a_layer_norm_in_half_precision_is_not_the_same_layer():
    twins = Twins(nn.LayerNorm(dtype=jnp.bfloat16), lambda r: nnx.LayerNorm(6, dtype=jnp.bfloat16, rngs=r))
    assert _verdict(twins).kind is Kind.UNDECIDED
