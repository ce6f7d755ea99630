"""Gradients against central differences of the float64 oracle, and the gradients that tend to become NaN."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import ops
from models.config import Activation, Rope, Unrotated, YarnScaling

from . import oracles
from .bounds import DTYPES, FLOAT32, U32, float64
from .inputs import Values, array

# The error of a central difference with this step: step**2 of the third derivative, 1e-16 / step of the value.
STEP = 1e-4
DIFFERENCE_ERROR = 1e-7


def normal(seed: int, *shape: int) -> jax.Array:
    return array(Values.NORMAL, seed, shape)


def differences(function: Callable[..., float], operands: Sequence[np.ndarray], index: int) -> np.ndarray:
    """The derivative of a scalar float64 function by each element of one operand."""
    out = np.zeros(operands[index].shape)
    for element in np.ndindex(*out.shape):
        sides = []
        for sign in (1.0, -1.0):
            moved = [np.array(operand) for operand in operands]
            moved[index][element] += sign * STEP
            sides.append(function(*moved))
        out[element] = (sides[0] - sides[1]) / (2 * STEP)
    return out


def check_gradients(op: Callable, oracle: Callable, operands: Sequence[jax.Array], *, count: int) -> None:
    """Every operand's gradient of a random projection of the result; `count` roundings of the largest gradient."""
    cotangent = np.random.default_rng(7).normal(size=oracle(*map(float64, operands)).shape)
    numbers = tuple(range(len(operands)))
    weights = jnp.asarray(cotangent, FLOAT32)
    grads = jax.jit(jax.grad(lambda *args: (weights * op(*args)).sum(), numbers))(*operands)
    exact = [float64(operand) for operand in operands]
    for number, grad in zip(numbers, grads, strict=True):
        truth = differences(lambda *args: float((float64(weights) * oracle(*args)).sum()), exact, number)
        bound = U32 * count * max(1.0, np.abs(truth).max()) + DIFFERENCE_ERROR
        np.testing.assert_allclose(float64(grad), truth, rtol=0, atol=bound, err_msg=f"operand {number}")


@pytest.mark.parametrize("with_sinks", [False, True], ids=["plain", "sinks"])
@pytest.mark.parametrize("soft_cap", [None, 2.0])
def test_attend_gradients(soft_cap: float | None, with_sinks: bool) -> None:
    mask = jnp.asarray([[[1, 0, 0], [1, 1, 0], [0, 0, 0]]], bool)
    settings = {"scale": 0.5, "soft_cap": soft_cap}
    operands = [normal(0, 1, 3, 4, 2), normal(1, 1, 3, 2, 2), normal(2, 1, 3, 2, 3)]
    operands += [normal(3, 4)] if with_sinks else []
    check_gradients(
        lambda q, k, v, sinks=None: ops.attend(q, k, v, mask, sinks=sinks, **settings),
        lambda q, k, v, sinks=None: oracles.attend(q, k, v, np.asarray(mask), sinks=sinks, **settings),
        operands,
        count=64,
    )


@pytest.mark.parametrize("zero_centered", [False, True])
def test_norm_gradients(zero_centered: bool) -> None:
    settings = {"epsilon": 1e-3, "zero_centered": zero_centered}
    operands = (normal(0, 2, 2, 5), normal(1, 5), normal(2, 5))
    check_gradients(
        lambda x, scale: ops.rms_norm(x, scale, dtype=FLOAT32, **settings),
        lambda x, scale: oracles.rms_norm(x, scale, **settings),
        operands[:2],
        count=64,
    )
    check_gradients(
        lambda x, scale, bias: ops.layer_norm(x, scale, bias, dtype=FLOAT32, **settings),
        lambda x, scale, bias: oracles.layer_norm(x, scale, bias, **settings),
        operands,
        count=64,
    )


ROPES = {
    "plain": Rope(100.0),
    "scaled": Rope(100.0, 0.5, True, YarnScaling(4.0, 16)),
    "proportional": Rope(100.0, 0.5, proportional=True),
}


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
def test_rotate_gradients(rope: Rope) -> None:
    positions = jnp.asarray([[0, 3]], jnp.int32)
    check_gradients(
        lambda x: ops.rotate(x, positions, rope),
        lambda x: oracles.rotate(x, np.asarray(positions), rope),
        [normal(0, 1, 2, 2, 8)],
        count=64,
    )


def test_gradients_of_tempered_gated_and_plainly_normed_heads() -> None:
    positions = jnp.asarray([[0, 30]], jnp.int32)
    unrotated = Unrotated(0.5, 4)
    check_gradients(
        lambda q: ops.temper(q, positions, unrotated),
        lambda q: oracles.temper(q, np.asarray(positions), unrotated),
        [normal(0, 1, 2, 2, 3)],
        count=32,
    )
    check_gradients(ops.sigmoid_gate, oracles.sigmoid_gate, [normal(0, 2, 3, 4), normal(1, 2, 3, 1)], count=64)
    settings = {"epsilon": 1e-3, "zero_centered": False}
    check_gradients(
        lambda x: ops.rms_norm(x, None, dtype=FLOAT32, **settings),
        lambda x: oracles.rms_norm(x, None, **settings),
        [normal(0, 2, 2, 5)],
        count=64,
    )


def test_cross_entropy_gradients() -> None:
    targets = jnp.asarray([[0, 4, 2]], jnp.int32)

    def op(logits: jax.Array) -> jax.Array:
        loss = ops.cross_entropy(logits, targets, z_loss=0.1)
        return jnp.stack([loss.xent_BT, loss.z_loss_BT])

    def oracle(logits: np.ndarray) -> np.ndarray:
        return np.stack(oracles.cross_entropy(logits, np.asarray(targets), z_loss=0.1))

    check_gradients(op, oracle, [normal(0, 1, 3, 5)], count=32)


@pytest.mark.parametrize("settings", [{}, {"clamp": 0.5, "linear_offset": 1.0}], ids=["plain", "clamped"])
@pytest.mark.parametrize("activation", list(Activation))
def test_gate_gradients(activation: Activation, settings: dict) -> None:
    check_gradients(
        lambda gate, linear: ops.gate(gate, linear, activation, **settings),
        lambda gate, linear: oracles.gate(gate, linear, activation, **settings),
        [normal(0, 2, 5), normal(1, 2, 5)],
        count=64,
    )


def test_dense_gradients() -> None:
    check_gradients(
        lambda x, kernel, bias: ops.dense(x, kernel, bias, num_contracted=2, dtype=FLOAT32),
        lambda x, kernel, bias: oracles.dense(x, kernel, bias, num_contracted=2),
        [normal(0, 1, 2, 2, 3), normal(1, 2, 3, 4), normal(2, 4)],
        count=32,
    )


def test_embedding_gradients_add_up_over_repeated_tokens() -> None:
    tokens = jnp.asarray([[1, 1, 3]], jnp.int32)
    check_gradients(
        lambda table: ops.embed(tokens, table, dtype=FLOAT32),
        lambda table: oracles.embed(np.asarray(tokens), table),
        [normal(0, 4, 2)],
        count=8,
    )


def test_head_gradients() -> None:
    check_gradients(ops.unembed, oracles.unembed, [normal(0, 1, 2, 3), normal(1, 4, 3)], count=32)
    check_gradients(ops.head, oracles.head, [normal(0, 1, 2, 3), normal(1, 3, 4)], count=32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_without_keys_is_zero_and_its_gradients_are_zero(dtype: jnp.dtype) -> None:
    q, k, v = (normal(seed, 1, 2, 4, 8).astype(dtype) for seed in range(3))
    mask = jnp.zeros((1, 2, 2), bool).at[0, 0, 0].set(True)

    def row(q: jax.Array, k: jax.Array, v: jax.Array, index: int) -> jax.Array:
        return ops.attend(1e4 * q, k, v, mask, scale=1.0, soft_cap=None)[:, index].astype(FLOAT32)

    assert not np.asarray(row(q, k, v, 1)).any()
    for grad in jax.jit(jax.grad(lambda *args: row(*args, 1).sum(), (0, 1, 2)))(q, k, v):
        assert grad.dtype == dtype
        assert not float64(grad).any()
    for grad in jax.jit(jax.grad(lambda *args: row(*args, 0).sum(), (0, 1, 2)))(q, k, v):
        assert np.isfinite(float64(grad)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_norm_of_zeros_is_its_bias_with_finite_gradients(dtype: jnp.dtype) -> None:
    zeros, scale = jnp.zeros((1, 2, 4), dtype), jnp.ones(4)
    settings = {"epsilon": 1e-6, "zero_centered": False, "dtype": dtype}
    assert not float64(ops.rms_norm(zeros, scale, **settings)).any()
    np.testing.assert_array_equal(float64(ops.layer_norm(zeros, scale, scale, **settings)), 1.0)
    for norm in (ops.rms_norm, lambda x, s, **kw: ops.layer_norm(x, s, s, **kw)):
        total = jax.jit(jax.grad(lambda *args, f=norm: f(*args, **settings).astype(FLOAT32).sum(), (0, 1)))
        for grad in total(zeros, scale):
            assert np.isfinite(float64(grad)).all()
