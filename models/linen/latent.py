"""Multi-head latent attention: a cache of one vector and one rotated key a token, for all heads.

B batch, T query position, S key position, N heads, H head dim (N or V its part without position or of the value),
D model, R rank of keys and values, Q rank of queries, P rotated dim.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from .. import ops
from ..config import Layer, ModelConfig, Rope, schema
from ..protocol import Mode
from .attention import CACHED_SEGMENTS, KEY, QUERY, cached_mask, own_mask, write
from .layers import Axes, Dense, RmsNorm, constrain

CACHED = ("cache_batch", "cache_sequence", "cache_kv")
# A rank is whole on every device. Left open, the compiler would take the split of the norm's scale over to the kernel.
QUERY_LATENT = ("activation_batch_attn", "activation_length_attn", "q_lora_up_proj")
LATENT = ("activation_batch_attn", "activation_length_attn", "kv_lora_up_proj")


class LatentAttention(nn.Module):
    """Low-rank projections and their norms, rotation of a part of each head, attention, output projection."""

    config: ModelConfig
    attention: schema.LatentAttention
    layer: Layer
    mode: Mode

    @nn.compact
    def __call__(
        self, x_BTD: Float[Array, "b t d"], positions_BT: Int[Array, "b t"], segments_BT: Int[Array, "b t"]
    ) -> Float[Array, "b t d"]:
        """What the layer adds to its residual stream. In decode mode it reads and writes the cache."""
        config, attention = self.config, self.attention
        q_BTNH = constrain(self._query(x_BTD, positions_BT), QUERY)
        latent, rope_key = self._latent(x_BTD, positions_BT)
        if self.mode is Mode.DECODE:
            start_B = positions_BT[:, 0]
            latent = write(self, "cached_latent", latent, start_B, CACHED)
            rope_key = write(self, "cached_rope_key", rope_key, start_B, CACHED)
            segments_BS = write(self, "cached_segment_ids", segments_BT, start_B, CACHED_SEGMENTS)
            mask_BTS = cached_mask(positions_BT, segments_BT, segments_BS, self.layer)
        else:
            mask_BTS = own_mask(positions_BT, segments_BT, self.layer)
        k_BSNH, v_BSNV = self._expanded(latent, rope_key)
        k_BSNH, v_BSNV = constrain(k_BSNH, KEY), constrain(v_BSNV, KEY)
        out_BTNV = ops.attend(q_BTNH, k_BSNH, v_BSNV, mask_BTS, scale=attention.scale, soft_cap=None)
        out_BTNV = constrain(out_BTNV, QUERY)
        shape = (attention.num_heads, attention.value_dim, config.embed_dim)
        return self._dense("out", shape, ("heads", "kv", "embed"), num_contracted=2)(out_BTNV)

    @nn.nowrap
    def _query(self, x_BTD: Float[Array, "b t d"], positions_BT: Int[Array, "b t"]) -> Float[Array, "b t n h"]:
        """Every head's query: what has no position, then what is rotated."""
        attention, dim, rank = self.attention, self.config.embed_dim, self.attention.query_rank
        heads = (attention.num_heads, attention.nope_dim + attention.rope_dim)
        if rank is None:
            q_BTNH = self._dense("query", (dim, *heads), ("embed", "q_heads", "kv"))(x_BTD)
        else:
            q_BTQ = self._dense("wq_a", (dim, rank), ("embed", "q_lora_up_proj"))(x_BTD)
            q_BTQ = constrain(q_BTQ, QUERY_LATENT)
            q_BTQ = RmsNorm(self.config, name="q_norm")(q_BTQ)
            q_BTNH = self._dense("wq_b", (rank, *heads), ("q_lora", "q_heads", "kv"))(q_BTQ)
        plain_BTNN, turning_BTNP = jnp.split(q_BTNH, [attention.nope_dim], axis=-1)
        turned_BTNP = ops.rotate(turning_BTNP, positions_BT, self._rope())
        return jnp.concatenate([plain_BTNN, turned_BTNP], axis=-1)

    @nn.nowrap
    def _latent(
        self, x_BTD: Float[Array, "b t d"], positions_BT: Int[Array, "b t"]
    ) -> tuple[Float[Array, "b t r"], Float[Array, "b t p"]]:
        """What the cache keeps of a token: its normed latent, and the rotated key of all heads."""
        rank = self.attention.kv_rank
        shape = (self.config.embed_dim, rank + self.attention.rope_dim)
        both = constrain(self._dense("wkv_a", shape, ("embed", "kv_lora_up_proj"))(x_BTD), LATENT)
        latent_BTR, key_BTP = jnp.split(both, [rank], axis=-1)
        key_BT1P = ops.rotate(key_BTP[:, :, None], positions_BT, self._rope())
        return RmsNorm(self.config, name="kv_norm")(latent_BTR), key_BT1P[:, :, 0]

    @nn.nowrap
    def _expanded(
        self, latent_BSR: Float[Array, "b s r"], rope_key_BSP: Float[Array, "b s p"]
    ) -> tuple[Float[Array, "b s n h"], Float[Array, "b s n v"]]:
        """Every head's key and value of the positions that the latents are of."""
        attention = self.attention
        shape = (attention.kv_rank, attention.num_heads, attention.nope_dim + attention.value_dim)
        both = self._dense("wkv_b", shape, ("kv_lora", "kv_heads", "kv_head_dim"))(latent_BSR)
        plain_BSNN, v_BSNV = jnp.split(both, [attention.nope_dim], axis=-1)
        shared_BSNP = jnp.broadcast_to(rope_key_BSP[:, :, None], (*plain_BSNN.shape[:3], attention.rope_dim))
        return jnp.concatenate([plain_BSNN, shared_BSNP], axis=-1), v_BSNV

    @nn.nowrap
    def _dense(self, name: str, shape: tuple[int, ...], axes: Axes, *, num_contracted: int = 1) -> Dense:
        return Dense(self.config, shape, axes, num_contracted=num_contracted, name=name)

    @nn.nowrap
    def _rope(self) -> Rope:
        rope = self.config.positions_of(self.layer)
        assert isinstance(rope, Rope)  # the configuration has no latent attention without one
        return rope
