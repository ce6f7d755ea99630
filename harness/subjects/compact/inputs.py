"""What the programs of a case are fed: abstract shapes, and concrete values drawn by canonical name.

Every leaf is re-randomised, norms, biases, optimizer moments and caches included: default values hide bugs. A value
depends on the leaf's name and the key only, so both backends get the same numbers whatever their trees look like.
Batches are never degenerate: several rows, packed documents, ragged padding, distinct tokens, longer than every window.
"""

import dataclasses
import functools
import typing
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from models.config import Attention, GatedDelta, LatentAttention, LearnedPositions, ModelConfig
from models.training.batch import Batch

from ...program import Leaf

BATCH_SIZE = 3
LENGTH = 12
CACHE_LENGTH = 16
PROMPT_LENGTH = 8
# Of a linear attention's heads and of what a gate reads: factors whatever the model's norms are.
PLAIN_SCALES = ("/norm/scale", "/gate/scale")


@dataclasses.dataclass(frozen=True)
class Extent:
    """Sizes of a program's inputs: rows, tokens a row, cache positions, prompt tokens."""

    batch: int = BATCH_SIZE
    length: int = LENGTH
    cache: int = CACHE_LENGTH
    prompt: int = PROMPT_LENGTH


def extent_of(config: ModelConfig) -> Extent:
    """Small sizes for small models, a global batch of a 256-chip run for published ones."""
    if config.embed_dim < 1024:
        return Extent()
    limit = config.positions.length if isinstance(config.positions, LearnedPositions) else 8192
    length = min(4096, limit)
    return Extent(batch=256, length=length, cache=length, prompt=length // 2)


def abstract_batch(extent: Extent) -> Batch:
    """A batch of shapes."""
    # While a program is traced, a shape stands for the array.
    leaf = typing.cast(jax.Array, jax.ShapeDtypeStruct((extent.batch, extent.length), jnp.int32))
    return Batch(inputs=leaf, targets=leaf, positions=leaf, segment_ids=leaf, target_segment_ids=leaf)


def documents(extent: Extent, vocab_size: int, seed: int) -> dict[str, np.ndarray]:
    """Packed rows [b, t]: two documents and padding, one full row, a short one and padding; then again."""
    rng = np.random.default_rng(seed)
    rows, length = extent.batch, extent.length
    lengths = [(length // 2, length // 3), (length,), (max(3, length // 4), 1)]
    fields = {name: np.zeros((rows, length), np.int32) for name in ("inputs", "targets", "positions", "segment_ids")}
    for row in range(rows):
        start = 0
        for index, size in enumerate(lengths[row % len(lengths)]):
            span = slice(start, start + size)
            text = _tokens(rng, vocab_size, size + 1)
            fields["inputs"][row, span], fields["targets"][row, span] = text[:-1], text[1:]
            fields["positions"][row, span], fields["segment_ids"][row, span] = np.arange(size), index + 1
            start += size
    fields["target_segment_ids"] = fields["segment_ids"].copy()
    return fields


def prompts(extent: Extent, vocab_size: int, seed: int) -> dict[str, np.ndarray]:
    """Ragged right-padded prompts [b, p] with consecutive positions, and one next token a row at its own position."""
    rng = np.random.default_rng(seed)
    rows, length = extent.batch, extent.prompt
    sizes = np.array([max(3, length - 2 * (row % 3)) for row in range(rows)])
    live = np.arange(length)[None] < sizes[:, None]
    tokens = np.stack([_tokens(rng, vocab_size, length) for _ in range(rows)])
    return {
        "tokens": np.where(live, tokens, 0).astype(np.int32),
        "positions": np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length)).copy(),
        "segment_ids": live.astype(np.int32),
        "next_tokens": tokens[:, :1].astype(np.int32),
        "next_positions": sizes[:, None].astype(np.int32),
        "cache_segment_ids": (np.arange(extent.cache)[None] < sizes[:, None]).astype(np.int32),
    }


def _tokens(rng: np.random.Generator, vocab_size: int, count: int) -> np.ndarray:
    if count <= vocab_size:
        return rng.permutation(vocab_size)[:count]
    return rng.integers(0, vocab_size, count)


def draw(leaf: Leaf, config: ModelConfig, extent: Extent, seed: int) -> jax.Array:
    """A value for an input leaf: integers from one batch of documents, floats by the leaf's kind."""
    group, _, rest = (leaf.name or "aux/").partition("/")
    if group in ("batch", "prompt"):
        source = documents if group == "batch" else prompts
        batch, _, field = rest.rpartition("/")
        return jnp.asarray(_cached(source, extent, config.vocab_size, seed + zlib.crc32(batch.encode()))[field])
    if group == "cache" and rest.endswith("cached_segment_ids"):
        ids = _cached(prompts, extent, config.vocab_size, seed)["cache_segment_ids"]
        return jnp.broadcast_to(jnp.asarray(ids), leaf.shape)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.reshape(jax.random.split(_key(leaf.name or "", seed), max(1, int(np.prod(leaf.shape)))), leaf.shape)
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        return jnp.full(leaf.shape, 3, leaf.dtype)
    return _floats(leaf, config, seed)


@functools.lru_cache(maxsize=64)
def _cached(source, extent: Extent, vocab_size: int, seed: int) -> dict[str, np.ndarray]:
    return source(extent, vocab_size, seed)


def _key(name: str, seed: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def _floats(leaf: Leaf, config: ModelConfig, seed: int) -> jax.Array:
    name = leaf.name or ""
    noise = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(leaf.shape)
    if name.startswith("opt_state/") and "/nu/" in name:
        value = (0.1 * noise) ** 2 + 1e-4
    elif name.startswith("opt_state/"):
        value = 0.1 * noise
    elif name.endswith("/scale"):
        is_added_to_one = config.norm.zero_centered and not name.endswith(PLAIN_SCALES)
        value = 0.3 * noise + (0.0 if is_added_to_one else 1.0)
    elif name.endswith("_scale") or "/layer_scale" in name:
        value = 0.3 * noise + 1.0
    elif name.endswith(("bias", "sinks", "A_log")):
        value = 0.3 * noise
    else:
        value = noise * _deviation(name, config)
    return jnp.asarray(value, leaf.dtype)


def _deviation(name: str, config: ModelConfig) -> float:
    """Standard deviation of a kernel or embedding: logits and attention scores of order one."""
    if name.startswith("cache/"):
        return 1.0
    if name.endswith(("wo/kernel", "/wo")):
        return config.mlp.hidden_dim**-0.5
    for attention in map(config.attention_of, config.cycle):
        fan_in = _fan_in(name, attention)
        if fan_in is not None:
            return fan_in**-0.5
    return config.embed_dim**-0.5


def _fan_in(name: str, attention: Attention | LatentAttention | GatedDelta) -> int | None:
    """How many numbers a kernel of this attention adds up; `None` for one that reads the residual stream."""
    match attention:
        case GatedDelta():
            widths = {
                "conv1d/kernel": attention.conv_width,
                "out_proj/kernel": attention.num_value_heads * attention.value_dim,
            }
        case LatentAttention():
            widths = {
                "wkv_b/kernel": attention.kv_rank, "wq_b/kernel": attention.query_rank or 1,
                "out/kernel": attention.num_heads * attention.value_dim,
            }  # fmt: skip
        case Attention():
            widths = {"out/kernel": attention.num_heads * attention.head_dim}
    return next((width for ending, width in widths.items() if name.endswith(ending)), None)
