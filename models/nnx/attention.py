"""Grouped-query attention of one layer: projections, positions, cache, output. The maths is in `models.ops`.

Shape letters: B batch, T query, S key, N query heads, K key heads, H head dim, D model.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from .. import ops
from ..config import Attention as AttentionConfig
from ..config import Layer, ModelConfig, Projection, QkNorm, Rope, Unrotated
from ..protocol import Mode
from ..sharding import Rules
from .layers import Dense, RmsNorm, constrain, param

QUERY_AXES = ("activation_batch_attn", "activation_length_attn", "activation_heads", "activation_kv")
KEY_AXES = ("activation_batch_attn", "activation_length_attn", "activation_kv_heads", "activation_kv")

LayerCache = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Context:
    """What every layer reads besides the activations: positions, segments, whether there is a cache, what to record."""

    positions: Int[Array, "b t"]
    segment_ids: Int[Array, "b t"]
    mode: Mode
    record: bool = False


class Attention(nnx.Module):
    """Self-attention over the batch (`Mode.TRAIN`) or over the cache (`Mode.DECODE`)."""

    def __init__(self, config: ModelConfig, layer: Layer, *, rules: Rules, rngs: nnx.Rngs) -> None:
        attention, embed = config.attention_of(layer), (config.embed_dim,)
        assert isinstance(attention, AttentionConfig)
        self.config = config
        self.attention = attention
        self.layer = layer
        self.positions = config.positions_of(layer)
        self.rules = rules
        heads = (attention.num_heads, attention.head_dim)
        key_heads = (attention.num_kv_heads, attention.head_dim)
        dense = functools.partial(Dense, config=config, rngs=rngs)
        if attention.projection is Projection.FUSED:
            self.qkv_proj = dense(embed, (3, *heads), ("embed", "qkv", "heads", "kv"), bias=attention.qkv_bias)
        else:
            key_axes = ("embed", "kv_heads", "kv_head_dim")
            queries = (attention.num_heads, attention.head_dim * (2 if attention.out_gate else 1))
            self.query = dense(embed, queries, ("embed", "q_heads", "kv"), bias=attention.qkv_bias)
            self.key = dense(embed, key_heads, key_axes, bias=attention.qkv_bias)
            if not attention.share_kv:
                self.value = dense(embed, key_heads, key_axes, bias=attention.qkv_bias)
        if attention.qk_norm in (QkNorm.HEAD, QkNorm.WIDTH):
            per_head = attention.qk_norm is QkNorm.HEAD
            self.query_norm = RmsNorm(config, attention.head_dim if per_head else math.prod(heads))
            self.key_norm = RmsNorm(config, attention.head_dim if per_head else math.prod(key_heads))
        self.out = dense(heads, embed, ("heads", "kv", "embed"), bias=attention.out_bias)
        zeros = jnp.zeros((attention.num_heads,), jnp.dtype(config.weight_dtype))
        self.sinks = param(zeros, (None,)) if attention.sinks else None

    def __call__(
        self, x: Float[Array, "b t d"], context: Context, cache: LayerCache
    ) -> tuple[Float[Array, "b t d"], LayerCache]:
        """The attention output, and the cache with this call's keys and values written (empty in `Mode.TRAIN`)."""
        q_BTNH, k_BTKH, v_BTKH = self._project(x)
        gate_BTNH = None
        if self.attention.out_gate:
            q_BTNH, gate_BTNH = jnp.split(q_BTNH, 2, axis=-1)
        if self.attention.value_norm:
            v_BTKH = self._plain_norm(v_BTKH)
        q_BTNH, k_BTKH = self._positioned(q_BTNH, k_BTKH, context)
        q_BTNH = constrain(q_BTNH, QUERY_AXES, self.rules)
        k_BTKH = constrain(k_BTKH, KEY_AXES, self.rules)
        v_BTKH = constrain(v_BTKH, KEY_AXES, self.rules)
        if context.mode is Mode.DECODE:
            cache = _write(cache, k_BTKH, v_BTKH, context)
            k_BSKH, v_BSKH = cache["cached_key"], cache["cached_value"]
            mask_BTS = cache_mask(context, cache, self.layer)
        else:
            k_BSKH, v_BSKH, mask_BTS = k_BTKH, v_BTKH, batch_mask(context, self.layer)
        out_BTNH = ops.attend(
            q_BTNH, k_BSKH, v_BSKH, mask_BTS, scale=self.attention.scale, soft_cap=self.attention.soft_cap,
            sinks=None if self.sinks is None else self.sinks[...],
        )
        out_BTNH = constrain(out_BTNH, QUERY_AXES, self.rules)
        if gate_BTNH is not None:
            out_BTNH = ops.sigmoid_gate(out_BTNH, gate_BTNH)
        with jax.named_scope("out"):
            return self.out(out_BTNH), cache

    def _project(self, x: Float[Array, "b t d"]) -> tuple[Array, Array, Array]:
        """Query (with the gate of what it reads in the same heads, if there is one), key and value."""
        if self.attention.projection is Projection.FUSED:
            with jax.named_scope("qkv_proj"):
                qkv = self.qkv_proj(x)
            return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        with jax.named_scope("query"):
            q_BTNH = self.query(x)
        with jax.named_scope("key"):
            k_BTKH = self.key(x)
        if self.attention.share_kv:
            return q_BTNH, k_BTKH, k_BTKH
        with jax.named_scope("value"):
            v_BTKH = self.value(x)
        return q_BTNH, k_BTKH, v_BTKH

    def _positioned(
        self, q_BTNH: Float[Array, "b t n h"], k_BTKH: Float[Array, "b t k h"], context: Context
    ) -> tuple[Array, Array]:
        """Query and key with their norms and positions: a norm with a scale goes first, one without goes last."""
        if self.attention.qk_norm in (QkNorm.HEAD, QkNorm.WIDTH):
            with jax.named_scope("query_norm"):
                q_BTNH = self._normed(q_BTNH, self.query_norm)
            with jax.named_scope("key_norm"):
                k_BTKH = self._normed(k_BTKH, self.key_norm)
        if isinstance(self.positions, Rope):
            q_BTNH = ops.rotate(q_BTNH, context.positions, self.positions)
            k_BTKH = ops.rotate(k_BTKH, context.positions, self.positions)
            if self.attention.qk_norm is QkNorm.L2:
                q_BTNH, k_BTKH = self._plain_norm(q_BTNH), self._plain_norm(k_BTKH)
        elif isinstance(self.positions, Unrotated) and self.positions.temperature > 0:
            q_BTNH = ops.temper(q_BTNH, context.positions, self.positions)
        return q_BTNH, k_BTKH

    def _plain_norm(self, x: Float[Array, "b t n h"]) -> Float[Array, "b t n h"]:
        """Each head normed, without a scale."""
        epsilon, dtype = self.config.norm.epsilon, jnp.dtype(self.config.dtype)
        return ops.rms_norm(x, None, epsilon=epsilon, zero_centered=False, dtype=dtype)

    def _normed(self, x: Float[Array, "b t n h"], norm: RmsNorm) -> Float[Array, "b t n h"]:
        if self.attention.qk_norm is QkNorm.HEAD:
            return norm(x)
        return norm(x.reshape(*x.shape[:2], -1)).reshape(x.shape)


def batch_mask(context: Context, layer: Layer) -> Bool[Array, "b t t"]:
    """Which positions of the batch each one sees. Chunks are counted from the start of a document, not of the row."""
    index_BT = _indices(*context.segment_ids.shape) if layer.chunk is None else context.positions
    return ops.attention_mask(
        index_BT, index_BT, context.segment_ids, context.segment_ids, window=layer.window, chunk=layer.chunk
    )


def cache_mask(context: Context, cache: LayerCache, layer: Layer) -> Bool[Array, "b t s"]:
    """Which positions of the cache each one of the batch sees."""
    segments_BS = cache["cached_segment_ids"]
    return ops.attention_mask(
        context.positions, _indices(*segments_BS.shape), context.segment_ids, segments_BS, window=layer.window,
        chunk=layer.chunk,
    )


def _indices(batch_size: int, length: int) -> Int[Array, "b s"]:
    return jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch_size, length))


def _write(
    cache: LayerCache, k_BTKH: Float[Array, "b t k h"], v_BTKH: Float[Array, "b t k h"], context: Context
) -> LayerCache:
    """Padding is written too, under segment 0: what follows a right-padded prompt overwrites it."""
    start_B = context.positions[:, 0]
    return {
        "cached_key": ops.write_cache(cache["cached_key"], k_BTKH, start_B),
        "cached_value": ops.write_cache(cache["cached_value"], v_BTKH, start_B),
        "cached_segment_ids": ops.write_cache(cache["cached_segment_ids"], context.segment_ids, start_B),
    }
