"""Other values for one parameter of an equation, the result brought back to the type it had.

`NEUTRAL` names the parameters that say nothing about a value, each with its reason: changed, a proof must stand.
"""

import dataclasses
import enum
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.layout import Layout
from jax.extend import random as jax_random

from . import calls
from .sites import REFUSALS, Site

# Primitives whose special changes do not fit every place; the values of `other_values` then may.
_ALSO_PLAIN = frozenset({"broadcast_in_dim", "split"})

# Parameters of which no other value can be told from the first, once the result has its type again: why.
HARMLESS = {
    ("squeeze", "dimensions"): "any axes of size one may go: the elements keep their order",
    ("random_seed", "impl"): "a proof holds for all noise, however the keys are made",
    ("while", "cond_nconsts"): "what is added is never read",
    ("while", "body_nconsts"): "what is added is never read, and what is made a carry is often not changed",
    ("random_split", "shape"): "a proof holds for all noise, however the keys are made",
}
# Parameters that have no other value for operands of the same types: why.
FIXED = {("conv_general_dilated", "feature_group_count"): "the operands' channels allow one number of groups"}
ATTEMPTS = 24
MESH = jax.sharding.AbstractMesh((2, 2), ("data", "model"))
_SHARDED = jax.sharding.NamedSharding(MESH, jax.sharding.PartitionSpec("data"))

# (primitive, parameter) -> (why no value depends on it, whether a changed one is an execution finding)
_PLACED = "says where a result lives, not what it is"
NEUTRAL: dict[tuple[str, str], tuple[str, bool]] = {
    ("jit", "name"): ("a name for people", False),
    ("jit", "inline"): ("when the call is inlined; the canonical form always inlines it", False),
    ("jit", "keep_unused"): ("whether unused arguments are passed", False),
    ("jit", "ctx_mesh"): ("the mesh that was current while the call was traced", False),
    ("jit", "in_layouts"): ("the order of an argument's bytes in memory", False),
    ("jit", "out_layouts"): ("the order of a result's bytes in memory", False),
    ("jit", "in_shardings"): (_PLACED, True),
    ("jit", "out_shardings"): (_PLACED, True),
    ("jit", "donated_invars"): ("whether an argument's memory may be used again", True),
    ("jit", "compiler_options_kvs"): ("how the compiler is asked to work", True),
    ("remat2", "policy"): ("what the backward pass keeps", True),
    ("remat2", "prevent_cse"): ("whether the compiler may undo the recomputation", True),
    ("remat2", "differentiated"): ("which of the two passes this is", True),
    ("scan", "unroll"): ("how many iterations one trip of the compiled loop makes", True),
    ("convert_element_type", "weak_type"): ("steers promotion while Python runs and nothing afterwards", False),
    ("sharding_constraint", "sharding"): (_PLACED, True),
    ("sharding_constraint", "unconstrained_dims"): (_PLACED, True),
    ("sharding_constraint", "context_mesh"): (_PLACED, False),
    ("sharding_constraint", "layout"): ("the order of a value's bytes in memory", False),
    ("custom_vjp_call", "fwd_jaxpr_thunk"): ("a rule for a derivative that was not taken", False),
    ("custom_vjp_call", "bwd"): ("a rule for a derivative that was not taken", False),
    ("custom_vjp_call", "out_trees"): ("a rule for a derivative that was not taken", False),
    ("custom_vjp_call", "symbolic_zeros"): ("a rule for a derivative that was not taken", False),
    ("custom_vjp_call", "num_consts"): ("a rule for a derivative that was not taken", False),
    ("custom_jvp_call", "jvp_jaxpr_fun"): ("a rule for a derivative that was not taken", False),
    ("custom_jvp_call", "symbolic_zeros"): ("a rule for a derivative that was not taken", False),
    ("custom_jvp_call", "num_consts"): ("a rule for a derivative that was not taken", False),
    **{(name, "sharding"): (_PLACED, True) for name in ("broadcast_in_dim", "convert_element_type", "iota", "reshape")},
    **{(name, "out_sharding"): (_PLACED, True) for name in ("dot_general", "reduce_sum", "conv_general_dilated")},
}


def changes(rng, site: Site, name: str) -> Iterator[Any]:
    """The equations with other values of the parameter, where well typed: equations, words, neutral, finding."""
    primitive, value = site.name, site.equation.params[name]
    special = calls.PARAMETERS.get((primitive, name))
    if special is not None:
        made = attempt(site, lambda: special(rng, site))
        if made is not None:
            yield made
        if made is not None or site.name not in _ALSO_PLAIN:
            return
    neutral = NEUTRAL.get((primitive, name))
    if neutral is not None:
        for other in _neutral_values(primitive, name, value, site.equation):
            site.made = []
            outs = site.again(params={**site.equation.params, name: other})
            yield site.finish(outs), f"{name} neutral", True, neutral[1]
        return
    options = other_values(rng, primitive, name, value)
    rng.shuffle(options)
    for other in options[:ATTEMPTS]:
        made = attempt(site, lambda other=other: site.finish(site.changed({name: other})))
        if made is not None:
            yield made, f"{_short(value)} to {_short(other)}"


def attempt(site: Site, make) -> Any:
    """What a change makes, or None where jax refuses it."""
    site.made = []
    try:
        return make()
    except REFUSALS:
        return None


def _short(value) -> str:
    text = " ".join(str(value).split())
    return text if len(text) < 60 else text[:57] + "..."


def _neutral_values(primitive: str, name: str, value, equation) -> list[Any]:
    """Other values of a parameter that no value depends on."""
    if isinstance(value, bool):
        return [not value]
    if (primitive, name) == ("sharding_constraint", "unconstrained_dims"):
        return [frozenset({0}) ^ frozenset(value)]
    first = {"in_shardings": _SHARDED, "out_shardings": _SHARDED, "donated_invars": True}
    if name in ("in_layouts", "out_layouts"):
        rank = len((equation.invars + equation.outvars)[0].aval.shape)
        first[name] = Layout(tuple(range(rank)))
    if name in first:  # one entry for each operand or result
        return [(first[name], *value[1:])] if value else []
    if name == "policy":
        policies = (jax.checkpoint_policies.dots_saveable, jax.checkpoint_policies.everything_saveable)
        return [policy for policy in policies if policy is not value]
    plain = {"unroll": 2, "sharding": _SHARDED, "out_sharding": _SHARDED, "ctx_mesh": MESH, "context_mesh": MESH,
             "compiler_options_kvs": (("xla_embed_ir_in_executable", True),), "name": "another"}  # fmt: skip
    return [plain.get(name)]


def other_values(rng, primitive: str, name: str, value) -> list[Any]:
    """Other values of a parameter, by its name where its type does not tell, else by its type."""
    if name == "accuracy":
        return [lax.AccuracyMode.HIGHEST if value is None else None]
    if name == "precision":
        return [None, lax.Precision.DEFAULT, (lax.Precision.HIGHEST, lax.Precision.DEFAULT)]
    if name == "fill_value":
        return [0.5, -1.0, 3]
    if name == "strides":
        return _strides(value)
    if name in ("out_dtype", "preferred_element_type") and value is None:
        return [np.dtype(jnp.bfloat16), np.dtype(np.float32), np.dtype(np.int32)]
    if name == "impl":
        return [jax_random.rbg_prng_impl, jax_random.unsafe_rbg_prng_impl]
    if name == "dimensions" and primitive == "reshape":
        return [(1, 0), (0, 2, 1), (2, 1, 0), (1, 0, 2, 3), (0, 1, 3, 2), (0,), (4, 3, 2, 1, 0)]
    if name in ("update_jaxpr", "update_consts"):
        return _updates(name, value)
    return varied(rng, value)


def _strides(value) -> list[Any]:
    if value is None:
        return [tuple([1] * rank) for rank in range(1, 6)] + [tuple([1] * rank + [2]) for rank in range(5)]
    return [None] + [(*value[:k], value[k] + 1, *value[k + 1 :]) for k in range(len(value))]


def _updates(name: str, value) -> list[Any]:
    """Another small function for what a scatter does with two elements, or a constant that it does not take."""
    if name == "update_consts":
        return [(np.float32(1),)]
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    return [jax.make_jaxpr(fn)(scalar, scalar).jaxpr for fn in (lax.mul, lax.sub, lax.max)]


def varied(rng, value) -> list[Any]:
    """Values of the same type beside one: other flags and members, numbers one off, tuples changed or reordered."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, enum.Enum):
        return [option for option in type(value) if option is not value]
    if isinstance(value, int | np.integer):
        return [int(value) + 1, int(value) - 1, int(value) + 2] + ([int(value) // 2] if value > 3 else [])
    if isinstance(value, float):
        return [value + 1, -value]
    if isinstance(value, np.dtype):
        names = ("float32", "bfloat16", "float16", "int32", "uint32", "int16", "uint8", "bool")
        return [np.dtype(jnp.dtype(name)) for name in names if jnp.dtype(name) != value]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        fields = [(field, other) for field in value._fields for other in varied(rng, getattr(value, field))]
        return [value._replace(**{field: other}) for field, other in fields]
    if isinstance(value, tuple | list) and not isinstance(value, str):
        return _varied_sequence(rng, value)
    if hasattr(value, "__dataclass_fields__"):
        return _varied_dataclass(rng, value)
    return []


def _varied_sequence(rng, value) -> list[Any]:
    items = list(value)
    single = [[*items[:k], other, *items[k + 1 :]] for k, item in enumerate(items) for other in varied(rng, item)]
    orders = [rng.sample(items, len(items)) for _ in range(3)] + [items[::-1]] if len(items) > 1 else []
    shifted = []
    if len(items) > 1 and all(isinstance(item, int | np.integer) for item in items):  # sizes that must add up
        i, j = rng.sample(range(len(items)), 2)
        shifted = [[int(item) + (k == i) - (k == j) for k, item in enumerate(items)]]
        shifted.append([item + 1 for item in items])
    longer = [items[:-1], [*items, 0]] if all(isinstance(item, int | np.integer) for item in items) else []
    plain = [[int(item) if isinstance(item, np.integer) else item for item in new] for new in
             single + shifted + orders + longer]  # fmt: skip
    return [type(value)(new) for new in plain if new != items]


def _varied_dataclass(rng, value) -> list[Any]:
    names = [field.name for field in dataclasses.fields(value)]
    return [
        dataclasses.replace(value, **{name: other}) for name in names for other in varied(rng, getattr(value, name))
    ]
