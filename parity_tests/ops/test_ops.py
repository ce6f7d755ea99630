"""Every op against its oracle, over shapes, dtypes and the values that break kernels."""

from collections.abc import Callable

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import ops
from models.config import Activation, LinearScaling, Llama3Scaling, Rope, Unrotated, YarnScaling

from . import checks, oracles
from .bounds import DTYPES
from .inputs import Values, array, dtypes, few, seeds, values

# batch, query, key, heads, kv heads, head dim: plain, one of everything, one query of a cache on one key head.
ATTENTION_SHAPES = ((2, 3, 3, 4, 2, 4), (1, 1, 1, 1, 1, 2), (2, 1, 5, 3, 1, 2))
# x, kernel, contracted axes: a projection, a fused one, the output projection, one of everything.
DENSE_SHAPES = (
    ((2, 3, 8), (8, 5), 1),
    ((2, 3, 8), (8, 3, 2, 2), 1),
    ((2, 3, 4, 2), (4, 2, 8), 2),
    ((1, 1, 1), (1, 1), 1),
)
ROWS = ((2, 3, 8), (1, 1, 1), (2, 2, 3, 4))


def random_mask(seed: int, shape: tuple[int, int, int]) -> jax.Array:
    """A mask with rows that are full, ragged and empty."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.random(shape) < rng.choice([0.0, 0.5, 1.0], size=(*shape[:2], 1)))


@few
@given(seed=seeds, kind=values, dtype=dtypes)
def test_embed_copies_rows(seed: int, kind: Values, dtype: jnp.dtype) -> None:
    tokens = jnp.asarray(np.random.default_rng(seed).integers(-2, 9, (2, 3)))
    checks.check_embed(ops.embed, tokens, array(kind, seed, (7, 4)), dtype)


@few
@given(seed=seeds, kind=values, dtype=dtypes)
def test_unembed_is_the_product_with_the_table(seed: int, kind: Values, dtype: jnp.dtype) -> None:
    checks.check_unembed(ops.unembed, array(kind, seed, (2, 3, 8), dtype), array(Values.NORMAL, seed + 1, (5, 8)))


@few
@given(seed=seeds, kind=values, dtype=dtypes)
def test_head_is_the_product_with_the_kernel(seed: int, kind: Values, dtype: jnp.dtype) -> None:
    checks.check_head(ops.head, array(kind, seed, (2, 3, 8), dtype), array(Values.NORMAL, seed + 1, (8, 5)))


@few
@given(
    seed=seeds,
    kind=values,
    dtype=dtypes,
    shapes=st.sampled_from(DENSE_SHAPES),
    with_bias=st.booleans(),
)
def test_dense_contracts_and_adds_the_bias(
    seed: int, kind: Values, dtype: jnp.dtype, shapes: tuple, with_bias: bool
) -> None:
    x_shape, kernel_shape, num_contracted = shapes
    bias = array(kind, seed + 2, kernel_shape[num_contracted:]) if with_bias else None
    x, kernel = array(kind, seed, x_shape), array(Values.NORMAL, seed + 1, kernel_shape)
    checks.check_dense(ops.dense, x, kernel, bias, num_contracted=num_contracted, dtype=dtype)


@few
@given(
    seed=seeds, kind=values, dtype=dtypes, shape=st.sampled_from(ROWS),
    settings=st.sampled_from([{"epsilon": 1e-6, "zero_centered": True}, {"epsilon": 1e-2, "zero_centered": False}]),
    with_scale=st.booleans(),
)
def test_rms_norm_divides_by_the_root_mean_square(
    seed: int, kind: Values, dtype: jnp.dtype, shape: tuple[int, ...], settings: dict, with_scale: bool
) -> None:
    x, scale = array(kind, seed, shape, dtype), array(Values.NORMAL, seed + 1, shape[-1:]) if with_scale else None
    checks.check_rms_norm(ops.rms_norm, x, scale, dtype=dtype, **settings)


@few
@given(
    seed=seeds, kind=values, dtype=dtypes, shape=st.sampled_from(ROWS),
    settings=st.sampled_from([{"epsilon": 1e-6, "zero_centered": True}, {"epsilon": 1e-2, "zero_centered": False}]),
)
def test_layer_norm_centres_and_divides_by_the_deviation(
    seed: int, kind: Values, dtype: jnp.dtype, shape: tuple[int, ...], settings: dict
) -> None:
    x, scale = array(kind, seed, shape, dtype), array(Values.NORMAL, seed + 1, shape[-1:])
    bias = array(Values.NORMAL, seed + 2, shape[-1:])
    checks.check_layer_norm(ops.layer_norm, x, scale, bias, dtype=dtype, **settings)


REACHES = (*({"window": window} for window in (None, 1, 2, 3, 100)), *({"window": None, "chunk": c} for c in (1, 2, 4)))
ROPES = (
    Rope(100.0),
    Rope(10_000.0, interleaved=True),
    Rope(500_000.0, fraction=0.5),
    Rope(1_000_000.0, scaling=LinearScaling(8.0)),
    Rope(500_000.0, scaling=Llama3Scaling(8.0, 1.0, 4.0, 512)),
    Rope(500_000.0, interleaved=True, scaling=Llama3Scaling(16.0, 1.0, 1.0, 512)),
    Rope(10_000.0, scaling=YarnScaling(4.0, 256)),
    Rope(1_000_000.0, fraction=0.25, proportional=True),
    Rope(10_000.0, fraction=0.75, proportional=True, scaling=LinearScaling(2.0)),
    Rope(10_000.0, fraction=0.75, interleaved=True, scaling=YarnScaling(2.0, 64, 16.0, 2.0, False, 0.5)),
)


@few
@given(
    seed=seeds, kind=values, dtype=dtypes, rope=st.sampled_from(ROPES),
    positions=st.lists(st.integers(0, 8191), min_size=6, max_size=6),
    shape=st.sampled_from([(2, 3, 4, 8), (2, 3, 1, 16)]),
)
def test_rotate_turns_each_pair_by_its_angle(
    seed: int, kind: Values, dtype: jnp.dtype, rope: Rope, positions: list[int], shape: tuple[int, ...]
) -> None:
    positions_BT = jnp.asarray(positions, jnp.int32).reshape(2, 3)
    checks.check_rotate(ops.rotate, array(kind, seed, shape, dtype), positions_BT, rope)


@few
@given(seed=seeds, num_queries=st.sampled_from([1, 5]), reach=st.sampled_from(REACHES))
def test_attention_mask_is_causal_in_document_window_and_chunk(seed: int, num_queries: int, reach: dict) -> None:
    rng = np.random.default_rng(seed)
    positions = [jnp.asarray(rng.integers(0, 6, (2, n)), jnp.int32) for n in (num_queries, 7)]
    segments = [jnp.asarray(rng.integers(0, 3, (2, n)), jnp.int32) for n in (num_queries, 7)]
    checks.check_attention_mask(ops.attention_mask, *positions, *segments, **reach)


@few
@given(
    seed=seeds, kind=values, dtype=dtypes, shape=st.sampled_from(ATTENTION_SHAPES),
    settings=st.sampled_from([(0.5, None), (1.0, 2.0), (1.0, 50.0)]), with_sinks=st.booleans(), wider=st.integers(0, 1),
)
def test_attend_averages_the_values_of_allowed_keys(
    seed: int, kind: Values, dtype: jnp.dtype, shape: tuple[int, ...], settings: tuple[float, float | None],
    with_sinks: bool, wider: int,
) -> None:  # fmt: skip
    b, t, s, n, k, h = shape
    q, keys = array(kind, seed, (b, t, n, h), dtype), array(Values.NORMAL, seed + 1, (b, s, k, h), dtype)
    v, mask = array(kind, seed + 2, (b, s, k, h + wider), dtype), random_mask(seed, (b, t, s))
    sinks = array(Values.NORMAL, seed + 3, (n,)) if with_sinks else None
    checks.check_attend(ops.attend, q, keys, v, mask, scale=settings[0], soft_cap=settings[1], sinks=sinks)


@few
@given(seed=seeds, kind=values, dtype=dtypes, temperature=st.sampled_from([0.1, 2.0]))
def test_temper_multiplies_a_late_query(seed: int, kind: Values, dtype: jnp.dtype, temperature: float) -> None:
    positions = jnp.asarray(np.random.default_rng(seed).integers(0, [9, 600, 2**24], (2, 3)), jnp.int32)
    checks.check_temper(ops.temper, array(kind, seed, (2, 3, 2, 2), dtype), positions, Unrotated(temperature, 4))


@few
@given(seed=seeds, kind=values, dtype=dtypes, width=st.sampled_from([4, 1]))
def test_sigmoid_gate_lets_a_part_through(seed: int, kind: Values, dtype: jnp.dtype, width: int) -> None:
    x, logits = array(kind, seed, (3, 4), dtype), array(kind, seed + 1, (3, width), dtype)
    checks.check_sigmoid_gate(ops.sigmoid_gate, x, logits)


@few
@given(seed=seeds, kind=values, dtype=dtypes, cap=st.sampled_from([1.0, 30.0]))
def test_soft_cap_is_a_scaled_tanh(seed: int, kind: Values, dtype: jnp.dtype, cap: float) -> None:
    checks.check_soft_cap(ops.soft_cap, array(kind, seed, (3, 4), dtype), cap)


@few
@given(seed=seeds, kind=values, dtype=dtypes, activation=st.sampled_from(Activation))
def test_activate_is_silu_or_a_form_of_gelu(seed: int, kind: Values, dtype: jnp.dtype, activation: Activation) -> None:
    checks.check_activate(ops.activate, array(kind, seed, (3, 4), dtype), activation)


@few
@given(
    seed=seeds, kind=values, dtype=dtypes, activation=st.sampled_from(Activation),
    settings=st.sampled_from([{}, {"clamp": 0.5, "linear_offset": 1.0}, {"clamp": 2.0}, {"linear_offset": 1.0}]),
)
def test_gate_multiplies_the_activated_part(
    seed: int, kind: Values, dtype: jnp.dtype, activation: Activation, settings: dict
) -> None:
    gate, linear = array(kind, seed, (3, 4), dtype), array(kind, seed + 1, (3, 4), dtype)
    checks.check_gate(ops.gate, gate, linear, activation, **settings)


@few
@given(seed=seeds, kind=values, vocab=st.sampled_from([7, 1]), z_loss=st.sampled_from([0.0, 1e-4, 1.0]))
def test_cross_entropy_is_the_negative_log_probability(seed: int, kind: Values, vocab: int, z_loss: float) -> None:
    targets = jnp.asarray(np.random.default_rng(seed).integers(0, vocab, (2, 3)), jnp.int32)
    checks.check_cross_entropy(ops.cross_entropy, array(kind, seed, (2, 3, vocab)), targets, z_loss=z_loss)


@few
@given(
    seed=seeds, kind=values, dtype=st.sampled_from([*DTYPES, jnp.dtype(jnp.int32)]), rest=st.sampled_from([(), (2, 3)]),
    length=st.sampled_from([1, 6]), data=st.data(),
)
def test_write_cache_replaces_only_its_rows(
    seed: int, kind: Values, dtype: jnp.dtype, rest: tuple[int, ...], length: int, data: st.DataObject
) -> None:
    start = [data.draw(st.integers(0, 6 - length), label=f"start of row {row}") for row in range(2)]
    cache, new = (array(kind, seed + i, (2, size, *rest)) for i, size in enumerate((6, length)))
    if dtype == jnp.int32:
        cache, new = jnp.sign(cache), 2 + jnp.sign(new)
    checks.check_write_cache(ops.write_cache, cache.astype(dtype), new.astype(dtype), jnp.asarray(start, jnp.int32))


@pytest.mark.parametrize("rope", ROPES, ids=repr)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rotate_holds_at_position_500(dtype: jnp.dtype, rope: Rope) -> None:
    positions = jnp.asarray([[500, 499, 0], [1, 255, 257]], jnp.int32)
    checks.check_rotate(ops.rotate, array(Values.NORMAL, 0, (2, 3, 2, 8), dtype), positions, rope)


@pytest.mark.parametrize("rope", ROPES, ids=repr)
def test_position_zero_only_gains_the_amplitude(rope: Rope) -> None:
    x = array(Values.NORMAL, 0, (1, 1, 2, 8))
    expected = x if rope.scaling is None else x.at[..., : int(8 * rope.fraction)].multiply(oracles.amplitude(rope))
    np.testing.assert_array_equal(ops.rotate(x, jnp.zeros((1, 1), jnp.int32), rope), expected)


def dot_generals(op: Callable, *operands: jax.Array) -> list[jax.extend.core.JaxprEqn]:
    """The matrix products in the trace of an op."""
    found, jaxprs = [], [jax.make_jaxpr(op)(*operands).jaxpr]
    while jaxprs:
        for equation in jaxprs.pop().eqns:
            found += [equation] if equation.primitive.name == "dot_general" else []
            jaxprs += jax.extend.core.jaxprs_in_params(equation.params)
    return found


def test_matrix_products_of_bfloat16_accumulate_in_float32() -> None:
    """Backends accumulate as they like unless told: equal values on one of them would prove nothing."""
    x, square = array(Values.NORMAL, 0, (2, 3, 8), DTYPES[1]), array(Values.NORMAL, 1, (8, 8), DTYPES[1])
    q, mask = x[:, :, :, None], jnp.ones((2, 3, 3), bool)
    products = [
        *dot_generals(ops.unembed, x, square),
        *dot_generals(ops.head, x, square),
        *dot_generals(lambda x, kernel: ops.dense(x, kernel, dtype=DTYPES[1]), x, square),
        *dot_generals(lambda q, mask: ops.attend(q, q, q, mask, scale=1.0, soft_cap=None), q, mask),
    ]
    assert [product.params["preferred_element_type"] for product in products] == 5 * [jnp.float32]
    assert {operand.aval.dtype for product in products for operand in product.invars} == {DTYPES[1]}
