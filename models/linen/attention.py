"""Grouped-query self-attention, over the batch alone or over a cache of earlier keys.

B batch, T query position, S key position, N query heads, K key heads, H head dim, D model,
W heads times head dim.
"""

import typing
from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from .. import ops
from ..config import Layer, ModelConfig, Projection, QkNorm, Rope, Unrotated, schema
from ..protocol import Mode
from .layers import Axes, Dense, RmsNorm, constrain, declare, dtype_of

QUERY = ("activation_batch_attn", "activation_length_attn", "activation_heads", "activation_kv")
KEY = ("activation_batch_attn", "activation_length_attn", "activation_kv_heads", "activation_kv")
CACHED_KEY = ("cache_batch", "cache_sequence", "cache_heads", "cache_kv")
CACHED_SEGMENTS = ("cache_batch", "cache_sequence")


class Attention(nn.Module):
    """Projections, their norms, positions, attention as far as the layer reads, output gate and projection."""

    config: ModelConfig
    attention: schema.Attention
    layer: Layer
    mode: Mode

    @nn.compact
    def __call__(
        self, x_BTD: Float[Array, "b t d"], positions_BT: Int[Array, "b t"], segments_BT: Int[Array, "b t"]
    ) -> Float[Array, "b t d"]:
        """What the layer adds to its residual stream. In decode mode it reads and writes the cache."""
        config, attention = self.config, self.attention
        q_BTNH, k_BTKH, v_BTKH = self._project(x_BTD)
        gate_BTNH = None
        if attention.out_gate:
            q_BTNH, gate_BTNH = jnp.split(q_BTNH, 2, axis=-1)
        q_BTNH, k_BTKH = self._norm("query_norm", q_BTNH), self._norm("key_norm", k_BTKH)
        q_BTNH, k_BTKH = self._positioned(q_BTNH, k_BTKH, positions_BT)
        q_BTNH, k_BTKH, v_BTKH = constrain(q_BTNH, QUERY), constrain(k_BTKH, KEY), constrain(v_BTKH, KEY)
        if self.mode is Mode.DECODE:
            keys = self._cached(k_BTKH, v_BTKH, positions_BT, segments_BT)
        else:
            keys = (k_BTKH, v_BTKH, own_mask(positions_BT, segments_BT, self.layer))
        sinks_N = self._sinks()
        out_BTNH = ops.attend(q_BTNH, *keys, sinks=sinks_N, scale=attention.scale, soft_cap=attention.soft_cap)
        out_BTNH = constrain(out_BTNH, QUERY)
        if gate_BTNH is not None:
            out_BTNH = ops.sigmoid_gate(out_BTNH, gate_BTNH)
        shape = (attention.num_heads, attention.head_dim, config.embed_dim)
        return self._dense("out", shape, ("heads", "kv", "embed"), num_contracted=2)(out_BTNH)

    @nn.nowrap
    def _project(self, x_BTD: Float[Array, "b t d"]) -> tuple[Array, Array, Array]:
        """Query, key and value; the value with its norm, the query with its gate beside it in each head."""
        attention, dim = self.attention, self.config.embed_dim
        heads, kv_heads, head_dim = attention.num_heads, attention.num_kv_heads, attention.head_dim
        if attention.projection is Projection.FUSED:
            qkv_BT3NH = self._dense("qkv_proj", (dim, 3, heads, head_dim), ("embed", "qkv", "heads", "kv"))(x_BTD)
            q_BTNH, k_BTKH, v_BTKH = qkv_BT3NH[:, :, 0], qkv_BT3NH[:, :, 1], qkv_BT3NH[:, :, 2]
        else:
            kv_shape, kv_axes = (dim, kv_heads, head_dim), ("embed", "kv_heads", "kv_head_dim")
            query_dim = 2 * head_dim if attention.out_gate else head_dim
            q_BTNH = self._dense("query", (dim, heads, query_dim), ("embed", "q_heads", "kv"))(x_BTD)
            k_BTKH = self._dense("key", kv_shape, kv_axes)(x_BTD)
            v_BTKH = k_BTKH if attention.share_kv else self._dense("value", kv_shape, kv_axes)(x_BTD)
        return q_BTNH, k_BTKH, self._unscaled_norm(v_BTKH) if attention.value_norm else v_BTKH

    @nn.nowrap
    def _dense(self, name: str, shape: tuple[int, ...], axes: Axes, *, num_contracted: int = 1) -> Dense:
        attention = self.attention
        use_bias = attention.out_bias if name == "out" else attention.qkv_bias
        return Dense(self.config, shape, axes, num_contracted=num_contracted, use_bias=use_bias, name=name)

    @nn.nowrap
    def _norm(self, name: str, x_BTNH: Float[Array, "b t n h"]) -> Float[Array, "b t n h"]:
        """The heads normed each on its own or all as one vector, or as they are."""
        match self.attention.qk_norm:
            case None | QkNorm.L2:
                return x_BTNH
            case QkNorm.HEAD:
                return RmsNorm(self.config, name=name)(x_BTNH)
            case QkNorm.WIDTH:
                wide_BTW = x_BTNH.reshape(*x_BTNH.shape[:2], -1)
                return RmsNorm(self.config, name=name)(wide_BTW).reshape(x_BTNH.shape)

    @nn.nowrap
    def _positioned(
        self, q_BTNH: Float[Array, "b t n h"], k_BTKH: Float[Array, "b t k h"], positions_BT: Int[Array, "b t"]
    ) -> tuple[Float[Array, "b t n h"], Float[Array, "b t k h"]]:
        """Query and key turned, and normed if that comes after; without rotation the query may grow with position."""
        match self.config.positions_of(self.layer):
            case Rope() as rope:
                q_BTNH, k_BTKH = ops.rotate(q_BTNH, positions_BT, rope), ops.rotate(k_BTKH, positions_BT, rope)
                if self.attention.qk_norm is QkNorm.L2:
                    q_BTNH, k_BTKH = self._unscaled_norm(q_BTNH), self._unscaled_norm(k_BTKH)
            case Unrotated() as unrotated if unrotated.temperature > 0:
                q_BTNH = ops.temper(q_BTNH, positions_BT, unrotated)
        return q_BTNH, k_BTKH

    @nn.nowrap
    def _unscaled_norm(self, x_BTNH: Float[Array, "b t n h"]) -> Float[Array, "b t n h"]:
        """Each head normed on its own, without a parameter."""
        config = self.config
        dtype = dtype_of(config.dtype)
        return ops.rms_norm(x_BTNH, None, epsilon=config.norm.epsilon, zero_centered=False, dtype=dtype)

    @nn.nowrap
    def _sinks(self) -> Float[Array, " n"] | None:
        """The trained logit of each head that no key answers to, if there is one."""
        if not self.attention.sinks:
            return None
        zeros, shape = nn.initializers.zeros_init(), (self.attention.num_heads,)
        return declare(self, "sinks", zeros, shape, (None,), self.config.weight_dtype)

    @nn.nowrap
    def _cached(
        self, k_BTKH: Float[Array, "b t k h"], v_BTKH: Float[Array, "b t k h"],
        positions_BT: Int[Array, "b t"], segments_BT: Int[Array, "b t"],
    ) -> tuple[Float[Array, "b s k h"], Float[Array, "b s k h"], Bool[Array, "b t s"]]:
        """Writes from each row's first position on. Returns the cache's keys and values, and the mask on them."""
        start_B = positions_BT[:, 0]
        key_BSKH = write(self, "cached_key", k_BTKH, start_B, CACHED_KEY)
        value_BSKH = write(self, "cached_value", v_BTKH, start_B, CACHED_KEY)
        segments_BS = write(self, "cached_segment_ids", segments_BT, start_B, CACHED_SEGMENTS)
        return key_BSKH, value_BSKH, cached_mask(positions_BT, segments_BT, segments_BS, self.layer)


def own_mask(positions_BT: Int[Array, "b t"], segments_BT: Int[Array, "b t"], layer: Layer) -> Bool[Array, "b t t"]:
    """Which tokens of a batch without a cache read which: by their order in the row, whatever their positions.

    With a chunk by their positions, since chunks are counted from a document's start.
    """
    order_BT = _arange(*segments_BT.shape) if layer.chunk is None else positions_BT
    return ops.attention_mask(order_BT, order_BT, segments_BT, segments_BT, window=layer.window, chunk=layer.chunk)


def cached_mask(
    positions_BT: Int[Array, "b t"], segments_BT: Int[Array, "b t"], segments_BS: Int[Array, "b s"], layer: Layer
) -> Bool[Array, "b t s"]:
    """Which cached positions each token reads. `segments_BS` are the cache's own, this batch's already among them."""
    key_positions_BS = _arange(*segments_BS.shape)
    return ops.attention_mask(
        positions_BT, key_positions_BS, segments_BT, segments_BS, window=layer.window, chunk=layer.chunk
    )


def write(module: nn.Module, name: str, new: Array, start_B: Int[Array, " b"], axes: Axes) -> Array:
    """A cache leaf of `module` with `new` written in. At init the call's own length becomes the cache's."""
    # `variable` takes the array out of its box.
    empty = typing.cast(Callable[..., Array], nn.with_logical_partitioning(jnp.zeros, axes))
    leaf = module.variable("cache", name, empty, new.shape, new.dtype)
    leaf.value = ops.write_cache(leaf.value, new, start_B)
    return leaf.value


def _arange(batch_size: int, length: int) -> Int[Array, "b s"]:
    return jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch_size, length))
