"""What attention must do whatever its formula: influence ends at the window, padding is silent, caches agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import ops
from models.config import Rope

from .bounds import DTYPES, float64
from .inputs import Values, array

LENGTH = 6
HEADS = {"scale": 0.5, "soft_cap": None}
attend = jax.jit(ops.attend, static_argnames=("scale", "soft_cap"))


def operands(dtype: jnp.dtype = DTYPES[0]) -> tuple[jax.Array, jax.Array, jax.Array]:
    return (
        array(Values.NORMAL, 0, (1, LENGTH, 4, 4), dtype),
        array(Values.NORMAL, 1, (1, LENGTH, 2, 4), dtype),
        array(Values.NORMAL, 2, (1, LENGTH, 2, 4), dtype),
    )


def index(length: int = LENGTH) -> jax.Array:
    return jnp.arange(length, dtype=jnp.int32)[None]


def readers(window: int | None, key: int, segments: jax.Array, chunk: int | None = None) -> set[int]:
    """The queries whose result moves when one key and its value do."""
    q, k, v = operands()
    mask = ops.attention_mask(index(), index(), segments, segments, window=window, chunk=chunk)
    before = attend(q, k, v, mask, **HEADS)
    after = attend(q, k.at[:, key].add(1.0), v.at[:, key].add(1.0), mask, **HEADS)
    return set(np.flatnonzero((float64(before) != float64(after)).any((0, 2, 3))).tolist())


@pytest.mark.parametrize("window", [1, 2, 4])
def test_a_key_at_the_windows_distance_has_no_influence(window: int) -> None:
    assert readers(window, 1, jnp.ones_like(index())) == set(range(1, min(1 + window, LENGTH)))


def test_a_key_is_read_in_its_own_chunk_alone() -> None:
    ones = jnp.ones_like(index())
    assert readers(None, 1, ones, chunk=4) == {1, 2, 3}
    assert readers(None, 4, ones, chunk=4) == {4, 5}


def test_without_a_window_every_later_query_reads_a_key() -> None:
    assert readers(None, 1, jnp.ones_like(index())) == {1, 2, 3, 4, 5}


def test_documents_of_a_packed_row_do_not_read_each_other() -> None:
    segments = jnp.asarray([[1, 1, 2, 2, 2, 0]], jnp.int32)
    assert readers(None, 0, segments) == {0, 1}
    assert readers(None, 2, segments) == {2, 3, 4}
    assert readers(None, 5, segments) == set()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_single_key_gives_its_value(dtype: jnp.dtype) -> None:
    q, k, v = (operand[:, :1] for operand in operands(dtype))
    out = attend(q, k, v, jnp.ones((1, 1, 1), bool), **HEADS)
    np.testing.assert_array_equal(float64(out), np.repeat(float64(v), 2, axis=2))


def test_grouped_heads_equal_repeated_key_heads() -> None:
    q, k, v = operands()
    mask = ops.attention_mask(index(), index(), jnp.ones_like(index()), jnp.ones_like(index()), window=None)
    repeated = attend(q, jnp.repeat(k, 2, axis=2), jnp.repeat(v, 2, axis=2), mask, **HEADS)
    np.testing.assert_allclose(attend(q, k, v, mask, **HEADS), repeated, rtol=1e-6, atol=1e-6)


def test_rotated_products_depend_on_the_distance_alone() -> None:
    q, k, _ = operands()
    turned = [
        np.einsum(
            "BTNH,BTNH->BTN",
            float64(ops.rotate(q[:, :, :2], index() + 9 + shift, Rope(100.0))),
            float64(ops.rotate(k, index() + shift, Rope(100.0))),
        )
        for shift in (0, 200)
    ]
    np.testing.assert_allclose(turned[0], turned[1], atol=2e-4)


def test_a_query_over_a_written_cache_equals_the_whole_row() -> None:
    q, k, v = operands()
    ones = jnp.ones_like(index())
    mask = ops.attention_mask(index(), index(), ones, ones, window=3)
    whole = attend(q, k, v, mask, **HEADS)
    empty = jnp.zeros((1, LENGTH + 2, 2, 4))
    start = jnp.zeros(1, jnp.int32)
    segments = ops.write_cache(jnp.zeros((1, LENGTH + 2), jnp.int32), ones, start)
    slots = index(LENGTH + 2)
    for t in range(LENGTH):
        query_mask = ops.attention_mask(index()[:, t : t + 1], slots, ones[:, :1], segments, window=3)
        keys, values = (ops.write_cache(empty, part, start) for part in (k, v))
        out = attend(q[:, t : t + 1], keys, values, query_mask, **HEADS)
        np.testing.assert_allclose(out[:, 0], whole[:, t], rtol=1e-6, atol=1e-6)
