"""One check per op: run it, run its oracle, bound the difference. The op is an argument: a fault can take its place.

Bounds: `U32 * count` for `count` roundings in float32, `roundoff(dtype)` where the op rounds to `dtype` at the end.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from models.config import Activation, Rope, Unrotated

from . import oracles
from .bounds import FLOAT32, LIBRARY, U32, assert_equal, assert_within, float64, rounded, roundoff

Op = Callable[..., jax.Array]


@functools.cache
def _compiled(op: Op, settings: tuple[tuple[str, object], ...]) -> Op:
    return jax.jit(functools.partial(op, **dict(settings)))


def run(op: Op, *operands: object, **settings: object) -> jax.Array:
    """The op as it is used, under jit; compiled once per op, settings and shapes. A setting may be an array."""
    arrays = {name: setting for name, setting in settings.items() if isinstance(setting, jax.Array)}
    fixed = tuple((name, setting) for name, setting in settings.items() if name not in arrays)
    return _compiled(op, fixed)(*operands, **arrays)


def _last(truth: np.ndarray, dtype: jnp.dtype) -> np.ndarray:
    """The error of the one rounding to the result's dtype."""
    return roundoff(dtype) * np.abs(truth)


def check_embed(op: Op, tokens: jax.Array, table: jax.Array, dtype: jnp.dtype) -> None:
    """A lookup rounds once and adds nothing: the bits are decided."""
    out = run(op, tokens, table, dtype=dtype)
    assert out.dtype == dtype
    assert_equal(out, oracles.embed(np.asarray(tokens), rounded(table, dtype)))


def check_unembed(op: Op, x: jax.Array, table: jax.Array) -> None:
    """Inner products of length d, accumulated in float32, table rounded to the dtype of x."""
    x64, table64 = float64(x), rounded(table, x.dtype)
    bound = U32 * (x.shape[-1] + 1) * oracles.unembed(abs(x64), abs(table64))
    assert_within(run(op, x, table), oracles.unembed(x64, table64), bound, dtype=FLOAT32)


def check_head(op: Op, x: jax.Array, kernel: jax.Array) -> None:
    """As `check_unembed`, for the untied head."""
    x64, kernel64 = float64(x), rounded(kernel, x.dtype)
    bound = U32 * (x.shape[-1] + 1) * oracles.head(abs(x64), abs(kernel64))
    assert_within(run(op, x, kernel), oracles.head(x64, kernel64), bound, dtype=FLOAT32)


def check_dense(
    op: Op, x: jax.Array, kernel: jax.Array, bias: jax.Array | None, *, num_contracted: int, dtype: jnp.dtype
) -> None:
    """Products accumulated in float32, then two roundings to `dtype`: of the product and of the sum with the bias."""
    operands = [None if array is None else rounded(array, dtype) for array in (x, kernel, bias)]
    truth = oracles.dense(*operands, num_contracted=num_contracted)
    magnitude = oracles.dense(*(None if a is None else abs(a) for a in operands), num_contracted=num_contracted)
    count = math.prod(kernel.shape[:num_contracted]) + 1
    out = run(op, x, kernel, bias, num_contracted=num_contracted, dtype=dtype)
    assert_within(out, truth, (U32 * count + 2 * roundoff(dtype)) * magnitude, dtype=dtype)


def check_rms_norm(
    op: Op, x: jax.Array, scale: jax.Array | None, *, epsilon: float, zero_centered: bool, dtype: jnp.dtype
) -> None:
    """A sum of d squares, halved in its relative error by the root, one library call, two products."""
    scale64 = None if scale is None else float64(scale)
    truth = oracles.rms_norm(float64(x), scale64, epsilon=epsilon, zero_centered=zero_centered)
    count = (x.shape[-1] + 2) / 2 + LIBRARY + 3
    out = run(op, x, scale, epsilon=epsilon, zero_centered=zero_centered, dtype=dtype)
    assert_within(out, truth, U32 * count * abs(truth) + _last(truth, dtype), dtype=dtype)


def check_layer_norm(
    op: Op, x: jax.Array, scale: jax.Array, bias: jax.Array, *, epsilon: float, zero_centered: bool, dtype: jnp.dtype
) -> None:
    """The centred values carry the error of the mean, `shift` in units of the deviation; the rest is as in rms_norm.

    A normed value is at most `sqrt(d)`, whatever the errors: where the mean dwarfs the deviation that is what is left.
    """
    x64, dim = float64(x), x.shape[-1]
    settings = {"epsilon": epsilon, "zero_centered": zero_centered}
    truth = oracles.layer_norm(x64, float64(scale), float64(bias), **settings)
    factor = abs(float64(scale) + (1.0 if zero_centered else 0.0))
    normed = abs(oracles.layer_norm(x64, np.ones(dim), np.zeros(dim), epsilon=epsilon, zero_centered=False))
    deviation = np.sqrt(x64.var(-1, keepdims=True) + epsilon)
    shift = U32 * (dim + 2) * abs(x64).max(-1, keepdims=True) / deviation
    error = shift * (1 + normed * (1 + shift / 2)) + normed * U32 * ((dim + 2) / 2 + LIBRARY)
    bound = factor * np.minimum(error, 2 * math.sqrt(dim)) + 3 * U32 * (factor * normed + abs(float64(bias)))
    out = run(op, x, scale, bias, epsilon=epsilon, zero_centered=zero_centered, dtype=dtype)
    assert_within(out, truth, bound + _last(truth, dtype) + roundoff(dtype) * bound, dtype=dtype)


def check_rotate(op: Op, x: jax.Array, positions: jax.Array, rope: Rope) -> None:
    """The angle has two roundings, of the product and of what is added to it; a library call; then the pair turns."""
    x64, positions64 = float64(x), np.asarray(positions)
    truth = oracles.rotate(x64, positions64, rope)
    bound, still = np.zeros(x.shape), np.ones(x.shape[-1], bool)
    for first, second, frequency in oracles.pairs(rope, x.shape[-1]):
        length = np.hypot(x64[..., first], x64[..., second])
        angles = np.abs(positions64)[:, :, None] * frequency
        turned = oracles.amplitude(rope) * U32 * (2 * angles + LIBRARY + 5)
        for dim in (first, second):
            bound[..., dim], still[dim] = turned * 2 * length, False
    out = run(op, x, positions, rope=rope)
    assert_within(out, truth, bound + _last(truth, x.dtype), dtype=x.dtype)
    assert_equal(out[..., still], x64[..., still])


def check_temper(op: Op, q: jax.Array, positions: jax.Array, unrotated: Unrotated) -> None:
    """A library call, a product and a sum that are all positive, then the product with the query."""
    truth = oracles.temper(float64(q), np.asarray(positions), unrotated)
    bound = U32 * (LIBRARY + 3) * abs(truth)
    assert_within(run(op, q, positions, unrotated=unrotated), truth, bound + _last(truth, q.dtype), dtype=q.dtype)


def check_attention_mask(op: Op, *operands: jax.Array, **reach: int | None) -> None:
    """Integers and truth values: exact."""
    out = run(op, *operands, **reach)
    assert out.dtype == jnp.bool_
    assert_equal(out, oracles.attention_mask(*map(np.asarray, operands), **reach))


def check_attend(
    op: Op,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    *,
    scale: float,
    soft_cap: float | None,
    sinks: jax.Array | None = None,
) -> None:
    """An error `e` of the logits is a factor up to `exp(2 e)` on the weights; then one weighted sum of s values.

    An average never leaves the values' range, whatever the errors: huge logits are held to that.
    """
    q64, k64, v64, mask64 = float64(q), float64(k), float64(v), np.asarray(mask)
    settings = {"scale": scale, "soft_cap": soft_cap, "sinks": None if sinks is None else float64(sinks)}
    truth = oracles.attend(q64, k64, v64, mask64, **settings)
    spread = oracles.attend(q64, k64, abs(v64), mask64, **settings)
    group = q.shape[2] // k.shape[2]
    sizes = scale * np.einsum("btnh,bsnh->btns", abs(q64), np.repeat(abs(k64), group, axis=2))
    peak = sizes.max(-1)
    logits = U32 * ((q.shape[3] + 2) * peak + LIBRARY * (peak if soft_cap is None else np.minimum(peak, soft_cap)) + 2)
    weights = np.minimum(np.expm1(np.minimum(2 * logits, 10.0)) + U32 * (LIBRARY + k.shape[1] + 3), 2.0)
    relative = weights[..., None] + roundoff(v.dtype) + U32 * (k.shape[1] + 1)
    largest = np.where(mask64.any(-1)[:, :, None, None], abs(v64).max(), 0.0)
    bound = np.where(weights[..., None] < 1.0, relative * spread, 2 * largest)
    out = run(op, q, k, v, mask, scale=scale, soft_cap=soft_cap, sinks=sinks)
    assert_within(out, truth, bound + _last(truth, v.dtype) * (1 + relative), dtype=v.dtype)


def check_soft_cap(op: Op, x: jax.Array, cap: float) -> None:
    """Two products and a tanh in the dtype of x; tanh never amplifies a relative error."""
    truth = oracles.soft_cap(float64(x), cap)
    assert_within(run(op, x, cap=cap), truth, roundoff(x.dtype) * (LIBRARY + 2) * abs(truth), dtype=x.dtype)


def _activation_error(x64: np.ndarray) -> np.ndarray:
    """`x` times a factor in [0, 1] whose absolute error is a library call's and a few sums' (`1 + tanh` cancels)."""
    return U32 * (LIBRARY + 8) * abs(x64)


def check_activate(op: Op, x: jax.Array, activation: Activation) -> None:
    """Point-wise, in float32, rounded once."""
    truth = oracles.activate(float64(x), activation)
    bound = _activation_error(float64(x)) + _last(truth, x.dtype)
    assert_within(run(op, x, activation=activation), truth, bound * (1 + roundoff(x.dtype)), dtype=x.dtype)


def check_gate(
    op: Op,
    gate: jax.Array,
    linear: jax.Array,
    activation: Activation,
    *,
    clamp: float | None = None,
    linear_offset: float = 0.0,
) -> None:
    """The activation's error times the linear part, the offset's and the product's own rounding."""
    settings = {"clamp": clamp, "linear_offset": linear_offset}
    truth = oracles.gate(float64(gate), float64(linear), activation, **settings)
    bounded = abs(float64(linear)) if clamp is None else np.minimum(abs(float64(linear)), clamp)
    factor = bounded + abs(linear_offset)
    # A gate that the clamp changed is the clamp, and no nonlinearity exceeds its operand.
    size = abs(float64(gate)) if clamp is None else np.where(float64(gate) > clamp, clamp, abs(float64(gate)))
    offset = roundoff(gate.dtype) * size * factor * (linear_offset != 0.0)
    bound = _activation_error(size) * factor + 2 * _last(truth, gate.dtype) + 2 * offset
    # The gate underflows before the product does.
    lost = 4 * float(jnp.finfo(gate.dtype).tiny) * factor
    out = run(op, gate, linear, activation=activation, **settings)
    assert_within(out, truth, bound * (1 + roundoff(gate.dtype)) + lost, dtype=gate.dtype)


def check_sigmoid_gate(op: Op, x: jax.Array, logits: jax.Array) -> None:
    """A sigmoid's relative error, whatever its argument, and the product's rounding."""
    truth = oracles.sigmoid_gate(float64(x), float64(logits))
    # The sigmoid underflows before the product does.
    lost = 4 * float(jnp.finfo(FLOAT32).tiny) * abs(float64(x))
    bound = U32 * (2 * LIBRARY + 2) * abs(truth) + lost
    assert_within(run(op, x, logits), truth, bound + _last(truth, x.dtype) * (1 + U32), dtype=x.dtype)


def check_cross_entropy(op: Callable, logits: jax.Array, targets: jax.Array, *, z_loss: float) -> None:
    """Each shifted logit is rounded once; the logarithm averages those errors with the softmax as weights."""
    logits64, targets64 = float64(logits), np.asarray(targets)
    xent, z_losses = oracles.cross_entropy(logits64, targets64, z_loss=z_loss)
    peak = logits64.max(-1, keepdims=True)
    shifted = abs(logits64 - peak)
    probabilities = np.exp(-shifted) / np.exp(-shifted).sum(-1, keepdims=True)
    log_sum = U32 * ((probabilities * shifted).sum(-1) + logits.shape[-1] + 2 * LIBRARY)
    of_target = U32 * np.take_along_axis(shifted, targets64[:, :, None], -1)[:, :, 0]
    out = run(op, logits, targets, z_loss=z_loss)
    assert_within(out.xent_BT, xent, log_sum + of_target + U32 * 2 * abs(xent), dtype=FLOAT32)
    log_z = abs(oracles.cross_entropy(logits64, targets64, z_loss=1.0)[1]) ** 0.5
    error = log_sum + 2 * U32 * log_z
    bound = z_loss * (2 * log_z * error + error**2) + 4 * U32 * z_losses
    assert_within(out.z_loss_BT, z_losses, bound, dtype=FLOAT32)


def check_write_cache(op: Op, cache: jax.Array, new: jax.Array, start: jax.Array) -> None:
    """A copy: exact."""
    out = run(op, cache, new, start)
    assert out.dtype == cache.dtype
    assert_equal(out, oracles.write_cache(float64(cache), float64(new), np.asarray(start)))
