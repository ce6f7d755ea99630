"""Each check against an oracle is shown able to fail: a planted fault in the op's place must be refused."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from models import ops
from models.config import Activation, LinearScaling, Llama3Scaling, Rope, Unrotated, YarnScaling

from . import checks, expert_faults, recurrent_faults
from .bounds import BFLOAT16, FLOAT32
from .inputs import Values, array

TOKENS = jnp.asarray([[1, 5, 3], [0, -1, 9]], jnp.int32)
POSITIONS = jnp.asarray([[0, 1, 2, 3], [0, 1, 0, 1]], jnp.int32)
LATE = jnp.asarray([[0, 1, 500], [7, 70, 257]], jnp.int32)
EDGES = jnp.asarray([[0, 5, 6, 7, 12, 14], [6, 7, 8, 13, 20, 21]], jnp.int32)
SEGMENTS = jnp.asarray([[1, 1, 1, 0], [1, 1, 2, 2]], jnp.int32)
CAUSAL = ops.attention_mask(POSITIONS, POSITIONS, SEGMENTS, SEGMENTS, window=None)
ATTENTION = {"scale": 0.5, "soft_cap": 2.0}


def normal(seed: int, *shape: int, dtype: jnp.dtype = FLOAT32) -> jax.Array:
    return array(Values.NORMAL, seed, shape, dtype)


# 32 pairs, so that the blends of Llama 3 and YaRN hold several frequencies each.
SCALED = {
    "part": Rope(10_000.0, fraction=0.25),
    "neighbours": Rope(10_000.0, interleaved=True),
    "linear": Rope(1_000_000.0, scaling=LinearScaling(8.0)),
    "llama3": Rope(500_000.0, scaling=Llama3Scaling(8.0, 1.0, 4.0, 8192)),
    "step": Rope(500_000.0, interleaved=True, scaling=Llama3Scaling(16.0, 1.0, 1.0, 8192)),
    "proportional": Rope(1_000_000.0, fraction=0.25, proportional=True),
    "yarn": Rope(500_000.0, scaling=YarnScaling(8.0, 8192)),
    "yarn whole": Rope(150_000.0, scaling=YarnScaling(32.0, 4096, truncate=False, attention_factor=0.75)),
}


def _scaled_probe(rope: Rope, op: Callable) -> None:
    checks.check_rotate(op, normal(0, 1, 3, 1, 64), LATE[:1], rope)


# What each op is probed with, the same for the op and for its faults; one probe per op, and one for each way to rotate.
PROBES: dict[str, Callable[[Callable], None]] = {
    "embed": lambda op: checks.check_embed(op, TOKENS, normal(0, 7, 4), FLOAT32),
    "unembed": lambda op: checks.check_unembed(op, normal(0, 2, 3, 8, dtype=BFLOAT16), normal(1, 8, 8)),
    "head": lambda op: checks.check_head(op, normal(0, 2, 3, 8, dtype=BFLOAT16), normal(1, 8, 8)),
    "dense": lambda op: checks.check_dense(
        op, normal(0, 2, 3, 4, 4), normal(1, 4, 4, 5), normal(2, 5), num_contracted=2, dtype=FLOAT32
    ),
    "rms_norm": lambda op: checks.check_rms_norm(
        op, 1e-3 * normal(0, 2, 3, 8), normal(1, 8), epsilon=1e-6, zero_centered=True, dtype=FLOAT32
    ),
    "layer_norm": lambda op: checks.check_layer_norm(
        op, 1e-3 * normal(0, 2, 3, 8) + 1.0, normal(1, 8), normal(2, 8), epsilon=1e-6, zero_centered=True, dtype=FLOAT32
    ),
    "rms_norm, plain": lambda op: checks.check_rms_norm(
        op, 1e-3 * normal(0, 2, 3, 8), None, epsilon=1e-6, zero_centered=False, dtype=FLOAT32
    ),
    "rotate": lambda op: checks.check_rotate(op, normal(0, 2, 3, 2, 8, dtype=BFLOAT16), LATE, Rope(500_000.0)),
    **{f"rotate, {name}": functools.partial(_scaled_probe, rope) for name, rope in SCALED.items()},
    "attention_mask": lambda op: checks.check_attention_mask(op, POSITIONS, POSITIONS, SEGMENTS, SEGMENTS, window=2),
    "attention_mask, chunk": lambda op: checks.check_attention_mask(
        op, EDGES, EDGES, jnp.ones_like(EDGES), jnp.ones_like(EDGES), window=None, chunk=7
    ),
    "temper": lambda op: checks.check_temper(op, normal(0, 2, 3, 2, 4), LATE, Unrotated(0.1, 4)),
    "attend": lambda op: checks.check_attend(
        op, 3 * normal(0, 2, 4, 4, 8), normal(1, 2, 4, 2, 8), normal(2, 2, 4, 2, 8), CAUSAL, **ATTENTION
    ),
    "attend, sinks": lambda op: checks.check_attend(
        op, normal(0, 2, 4, 4, 8), normal(1, 2, 4, 2, 8), normal(2, 2, 4, 2, 6), CAUSAL, scale=0.5, soft_cap=None,
        sinks=normal(3, 4),
    ),
    "soft_cap": lambda op: checks.check_soft_cap(op, 3 * normal(0, 3, 4), 2.0),
    "activate": lambda op: checks.check_activate(op, normal(0, 3, 4), Activation.GELU),
    "gate": lambda op: checks.check_gate(op, normal(0, 3, 4), normal(1, 3, 4), Activation.SILU),
    "gate, clamped": lambda op: checks.check_gate(
        op, normal(0, 3, 4), normal(1, 3, 4), Activation.QUICK_GELU, clamp=0.5, linear_offset=1.0
    ),
    "sigmoid_gate": lambda op: checks.check_sigmoid_gate(op, normal(0, 3, 4), normal(1, 3, 4)),
    "sigmoid_gate, one for all": lambda op: checks.check_sigmoid_gate(
        op, normal(0, 3, 4, dtype=BFLOAT16), 3 * normal(1, 3, 1, dtype=BFLOAT16)
    ),
    "cross_entropy": lambda op: checks.check_cross_entropy(op, normal(0, 2, 3, 10) + 20, abs(TOKENS), z_loss=1e-2),
    "write_cache": lambda op: checks.check_write_cache(
        op, normal(0, 2, 5, 2), normal(1, 2, 2, 2), jnp.asarray([0, 3], jnp.int32)
    ),
    **expert_faults.PROBES,
    **recurrent_faults.PROBES,
}


def _mask(
    q_pos: jax.Array, k_pos: jax.Array, q_seg: jax.Array, k_seg: jax.Array, *, window: int, **faults: bool
) -> jax.Array:
    """The mask in the fault's own words, so that one word can be wrong."""
    distance = q_pos[:, :, None] - k_pos[:, None, :]
    causal = distance > 0 if faults.get("strict") else distance >= 0
    inside = distance <= window if faults.get("wide") else distance < window
    document = (q_seg[:, :, None] == k_seg[:, None, :]) | faults.get("packed", False)
    return causal & inside & document & ((q_seg[:, :, None] != 0) | faults.get("padding", False))


def _permuted(x: jax.Array) -> jax.Array:
    """Key heads the other way round: query head n then reads the wrong group."""
    return x[:, :, ::-1]


def _difference_of_squares(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, epsilon: float, zero_centered: bool, dtype: jnp.dtype
) -> jax.Array:
    """The variance as `mean(x**2) - mean(x)**2`, which cancels where the mean is large."""
    variance = jnp.mean(x * x, -1, keepdims=True) - jnp.mean(x, -1, keepdims=True) ** 2
    normed = (x - jnp.mean(x, -1, keepdims=True)) / jnp.sqrt(variance + epsilon)
    return (normed * (float(zero_centered) + scale)[None, None] + bias[None, None]).astype(dtype)


def _rope(**changes: object) -> Callable:
    """Rotation that reads other words than it is given."""
    return lambda x, positions, rope: ops.rotate(x, positions, dataclasses.replace(rope, **changes))


def _scaling(**changes: object) -> Callable:
    """Rotation that reads other words of the scaling."""
    return lambda x, positions, rope: ops.rotate(
        x, positions, dataclasses.replace(rope, scaling=dataclasses.replace(rope.scaling, **changes))
    )


def _last_part(x: jax.Array, positions: jax.Array, rope: Rope) -> jax.Array:
    """The end of the head turns instead of its start."""
    return ops.rotate(x[..., ::-1], positions, rope)[..., ::-1]


def _in_bfloat16(op: Callable) -> Callable:
    """The op with its float operands rounded to bfloat16 first: precision lost inside."""

    def lossy(*operands: jax.Array, **settings: object) -> jax.Array:
        floats = (jnp.issubdtype(operand.dtype, jnp.floating) for operand in operands)
        lost = [o.astype(BFLOAT16).astype(o.dtype) if f else o for o, f in zip(operands, floats, strict=True)]
        return op(*lost, **settings)

    return lossy


def _loss(
    logits: jax.Array, targets: jax.Array, *, z_loss: float, common: float = 0.0, add: bool = False
) -> ops.TokenLoss:
    loss = ops.cross_entropy(logits + common, targets, z_loss=z_loss)
    return ops.TokenLoss(loss.xent_BT + loss.z_loss_BT if add else loss.xent_BT, loss.z_loss_BT)


FAULTS: dict[tuple[str, str], Callable] = {
    ("embed", "negative tokens wrap"): lambda tokens, table, dtype: table[jnp.where(tokens < 0, tokens % 7, tokens)],
    ("embed", "tokens clamp"): lambda tokens, table, dtype: table[jnp.clip(tokens, 0, 6)],
    ("unembed", "kernel transposed"): lambda x, table: ops.unembed(x, table.T),
    ("unembed", "table not rounded"): lambda x, table: ops.unembed(x.astype(FLOAT32), table),
    ("unembed", "logits rounded"): lambda x, table: ops.unembed(x, table).astype(BFLOAT16).astype(FLOAT32),
    ("head", "kernel transposed"): lambda x, kernel: ops.head(x, kernel.T),
    ("head", "result in bfloat16"): lambda x, kernel: ops.head(x, kernel).astype(BFLOAT16),
    ("dense", "bias dropped"): lambda x, kernel, bias, **kw: ops.dense(x, kernel, **kw),
    ("dense", "axes swapped"): lambda x, kernel, bias, **kw: ops.dense(x.swapaxes(2, 3), kernel, bias, **kw),
    ("dense", "operands in bfloat16"): _in_bfloat16(ops.dense),
    ("rms_norm", "epsilon of another model"): lambda x, s, **kw: ops.rms_norm(x, s, **{**kw, "epsilon": 1e-5}),
    ("rms_norm", "scale not centred on one"): lambda x, s, **kw: ops.rms_norm(x, s, **{**kw, "zero_centered": False}),
    ("rms_norm", "in bfloat16"): _in_bfloat16(ops.rms_norm),
    ("rms_norm, plain", "epsilon of another model"): lambda x, s, **kw: ops.rms_norm(x, s, **{**kw, "epsilon": 1e-5}),
    ("rms_norm, plain", "one mean for all rows"): lambda x, s, **kw: (
        ops.rms_norm(x.reshape(1, -1), s, **kw).reshape(x.shape)
    ),
    ("rms_norm, plain", "length one"): lambda x, s, **kw: 8**-0.5 * ops.rms_norm(x, s, **kw),
    ("layer_norm", "epsilon of another model"): lambda *a, **kw: ops.layer_norm(*a, **{**kw, "epsilon": 1e-5}),
    ("layer_norm", "mean kept"): lambda x, s, b, **kw: ops.rms_norm(x, s, **kw) + b[None, None],
    ("layer_norm", "bias dropped"): lambda x, s, b, **kw: ops.layer_norm(x, s, jnp.zeros_like(b), **kw),
    ("layer_norm", "difference of squares"): _difference_of_squares,
    ("layer_norm", "unbiased variance"): lambda x, s, b, **kw: ops.layer_norm(x, s, b, **kw) * (7 / 8) ** 0.5,
    ("rotate", "other base"): _rope(max_timescale=10_000.0),
    ("rotate", "other direction"): lambda x, p, rope: ops.rotate(x, -p, rope),
    ("rotate", "neighbours as pairs"): _rope(interleaved=True),
    ("rotate", "positions in bfloat16"): lambda x, p, rope: ops.rotate(
        x, p.astype(BFLOAT16).astype(jnp.int32), rope
    ),
    ("rotate, part", "all of the head turns"): _rope(fraction=1.0),
    ("rotate, part", "the other part turns"): _last_part,
    ("rotate, neighbours", "halves as pairs"): _rope(interleaved=False),
    ("rotate, neighbours", "base off by a ten-thousandth"): _rope(max_timescale=10_001.0),
    ("rotate, linear", "not scaled"): _rope(scaling=None),
    ("rotate, linear", "frequencies multiplied"): _rope(scaling=LinearScaling(0.25)),
    ("rotate, llama3", "linear"): _rope(scaling=LinearScaling(8.0)),
    ("rotate, llama3", "bounds swapped for others"): _scaling(low_frequency_factor=2.0),
    ("rotate, llama3", "other high bound"): _scaling(high_frequency_factor=5.0),
    ("rotate, llama3", "other original length"): _scaling(original_length=4096),
    ("rotate, step", "not scaled"): _rope(scaling=None),
    ("rotate, step", "all scaled"): _rope(scaling=LinearScaling(16.0)),
    ("rotate, step", "a blend"): _scaling(high_frequency_factor=4.0),
    ("rotate, step", "step elsewhere"): _scaling(low_frequency_factor=4.0, high_frequency_factor=4.0),
    ("rotate, proportional", "the first part alone"): _rope(proportional=False),
    ("rotate, proportional", "frequencies of the part"): _rope(max_timescale=1_000_000.0**4),
    ("rotate, proportional", "all of the head turns"): _rope(fraction=1.0),
    ("rotate, proportional", "the last pairs turn"): lambda x, p, rope: ops.rotate(x[..., ::-1], -p, rope)[..., ::-1],
    ("temper", "position counted from zero"): lambda q, p, unrotated: ops.temper(q, p - 1, unrotated),
    ("temper", "no steps"): lambda q, p, unrotated: (
        q * (1 + 0.1 * jnp.log1p((p + 1).astype(FLOAT32) / 4))[:, :, None, None]
    ),
    ("temper", "another temperature"): lambda q, p, unrotated: ops.temper(q, p, Unrotated(0.2, 4)),
    ("temper", "another length"): lambda q, p, unrotated: ops.temper(q, p, Unrotated(0.1, 8)),
    ("temper", "nothing for the first stretch"): lambda q, p, unrotated: ops.temper(
        q, jnp.maximum(p - 4, 0), unrotated
    ),
    ("attention_mask, chunk", "chunk forgotten"): lambda *a, window, chunk: ops.attention_mask(*a, window=window),
    ("attention_mask, chunk", "a window"): lambda *a, window, chunk: ops.attention_mask(*a, window=chunk),
    ("attention_mask, chunk", "one too long"): lambda *a, window, chunk: ops.attention_mask(
        *a, window=window, chunk=chunk + 1
    ),
    ("attention_mask, chunk", "counted from one"): lambda q, k, *a, window, chunk: ops.attention_mask(
        q + 1, k + 1, *a, window=window, chunk=chunk
    ),
    ("rotate, yarn", "linear"): _rope(scaling=LinearScaling(8.0)),
    ("rotate, yarn", "not truncated"): _scaling(truncate=False),
    ("rotate, yarn", "fast and slow one off"): _scaling(beta_slow=2.0),
    ("rotate, yarn", "no attention factor"): _scaling(attention_factor=1.0),
    ("rotate, yarn", "other original length"): _scaling(original_length=4096),
    ("rotate, yarn whole", "truncated"): _scaling(truncate=True),
    ("rotate, yarn whole", "attention factor of its own"): _scaling(attention_factor=None),
    ("attention_mask", "a query does not see itself"): lambda *a, window: _mask(*a, window=window, strict=True),
    ("attention_mask", "window one too wide"): lambda *a, window: _mask(*a, window=window, wide=True),
    ("attention_mask", "window forgotten"): lambda *a, window: ops.attention_mask(*a, window=None),
    ("attention_mask", "documents mixed"): lambda *a, window: _mask(*a, window=window, packed=True),
    ("attention_mask", "padding attends"): lambda *a, window: _mask(*a, window=window, padding=True),
    ("attend", "soft cap missing"): lambda *a, **kw: ops.attend(*a, **{**kw, "soft_cap": None}),
    ("attend", "scale missing"): lambda *a, **kw: ops.attend(*a, **{**kw, "scale": 1.0}),
    ("attend", "mask missing"): lambda q, k, v, mask, **kw: ops.attend(q, k, v, jnp.ones_like(mask), **kw),
    ("attend", "empty rows average"): lambda q, k, v, mask, **kw: ops.attend(
        q, k, v, mask | ~mask.any(-1, keepdims=True), **kw
    ),
    ("attend", "wrong key head"): lambda q, k, v, mask, **kw: ops.attend(q, _permuted(k), _permuted(v), mask, **kw),
    ("attend", "heads interleaved"): lambda q, k, v, mask, **kw: ops.attend(q[:, :, [0, 2, 1, 3]], k, v, mask, **kw)[
        :, :, jnp.asarray([0, 2, 1, 3])
    ],
    ("attend", "in bfloat16"): _in_bfloat16(ops.attend),
    ("attend, sinks", "no sink"): lambda *a, sinks, **kw: ops.attend(*a, **kw),
    ("attend, sinks", "other heads' sinks"): lambda *a, sinks, **kw: ops.attend(*a, sinks=sinks[::-1], **kw),
    ("attend, sinks", "sinks scaled"): lambda *a, sinks, scale, **kw: ops.attend(
        *a, sinks=scale * sinks, scale=scale, **kw
    ),
    ("soft_cap", "clipped instead"): lambda x, cap: jnp.clip(x, -cap, cap),
    ("soft_cap", "cap squared"): lambda x, cap: ops.soft_cap(x, cap * cap),
    ("activate", "exact gelu"): lambda x, activation: jax.nn.gelu(x, approximate=False),
    ("activate", "in bfloat16"): lambda x, activation: ops.activate(x.astype(BFLOAT16), activation).astype(FLOAT32),
    ("gate", "parts swapped"): lambda gate, linear, **kw: ops.gate(linear, gate, **kw),
    ("gate", "other activation"): lambda *a, **kw: ops.gate(*a, **{**kw, "activation": Activation.GELU}),
    ("gate, clamped", "not clamped"): lambda *a, **kw: ops.gate(*a, **{**kw, "clamp": None}),
    ("gate, clamped", "no offset"): lambda *a, **kw: ops.gate(*a, **{**kw, "linear_offset": 0.0}),
    ("gate, clamped", "silu"): lambda *a, **kw: ops.gate(*a, **{**kw, "activation": Activation.SILU}),
    ("gate, clamped", "gate clamped below too"): lambda gate, linear, clamp, **kw: ops.gate(
        jnp.maximum(gate, -clamp), linear, clamp=clamp, **kw
    ),
    ("gate, clamped", "linear part clamped above alone"): lambda gate, linear, clamp, **kw: ops.gate(
        jnp.minimum(gate, clamp), jnp.minimum(linear, clamp), **kw
    ),
    ("sigmoid_gate", "parts swapped"): lambda x, logits: ops.sigmoid_gate(logits, x),
    ("sigmoid_gate", "silu"): lambda x, logits: ops.gate(logits, x, Activation.SILU),
    ("sigmoid_gate", "all open"): lambda x, logits: x,
    ("sigmoid_gate", "in bfloat16"): _in_bfloat16(ops.sigmoid_gate),
    ("sigmoid_gate, one for all", "rounded twice"): lambda x, logits: x * jax.nn.sigmoid(logits),
    ("sigmoid_gate, one for all", "the other way"): lambda x, logits: ops.sigmoid_gate(x, -logits),
    ("cross_entropy", "z-loss added twice"): lambda *a, z_loss: _loss(*a, z_loss=z_loss, add=True),
    ("cross_entropy", "z-loss of shifted logits"): lambda *a, z_loss: _loss(*a, z_loss=z_loss, common=-20.0),
    ("cross_entropy", "target one off"): lambda logits, targets, z_loss: _loss(logits, targets // 2, z_loss=z_loss),
    ("write_cache", "start ignored"): lambda cache, new, start: ops.write_cache(cache, new, jnp.zeros_like(start)),
    ("write_cache", "first row's start for all"): lambda cache, new, start: ops.write_cache(
        cache, new, jnp.broadcast_to(start[:1], start.shape)
    ),
    **expert_faults.FAULTS,
    **recurrent_faults.FAULTS,
}


@pytest.mark.parametrize("probe", PROBES, ids=lambda word: word.replace(" ", "-"))
def test_the_op_itself_passes_its_probe(probe: str) -> None:
    PROBES[probe](getattr(ops, probe.partition(",")[0]))


def test_every_op_has_a_probe() -> None:
    assert {probe.partition(",")[0] for probe in PROBES} == {
        name for name in ops.__all__ if not isinstance(getattr(ops, name), type)
    }


@pytest.mark.parametrize(("name", "fault"), FAULTS, ids=lambda word: word.replace(" ", "-"))
def test_a_planted_fault_is_refused(name: str, fault: str) -> None:
    with pytest.raises(AssertionError, match=r"beyond the bound|not equal|dtype"):
        PROBES[name](FAULTS[name, fault])


def test_every_op_has_a_fault() -> None:
    assert set(PROBES) == {name for name, _ in FAULTS}
