"""Multi-head latent attention of one layer: what all heads read is one vector and one rotated key of each position.

The cache holds these two and not the heads' keys and values, which are made from it anew in each call.
Shape letters: B batch, T query, S key, N heads, D model, R latent, H key (nope and rope), r rope.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from .. import ops
from ..config import LatentAttention as LatentConfig
from ..config import Layer, ModelConfig, Rope
from ..protocol import Mode
from ..sharding import Rules
from .attention import KEY_AXES, QUERY_AXES, Context, LayerCache, batch_mask, cache_mask
from .layers import Dense, RmsNorm, constrain

# Whole on every device, as the kernels' ranks are: else the compiler follows the norms' scales and moves the kernels.
QUERY_LATENT_AXES = ("activation_batch_attn", "activation_length_attn", "q_lora_up_proj")
LATENT_AXES = ("activation_batch_attn", "activation_length_attn", "kv_lora_up_proj")


class LatentAttention(nnx.Module):
    """Self-attention over the batch (`Mode.TRAIN`) or over the cache (`Mode.DECODE`)."""

    def __init__(self, config: ModelConfig, layer: Layer, *, rules: Rules, rngs: nnx.Rngs) -> None:
        attention, rope = config.attention_of(layer), config.positions_of(layer)
        assert isinstance(attention, LatentConfig)
        assert isinstance(rope, Rope)  # validated
        self.config = config
        self.attention = attention
        self.layer = layer
        self.rope = rope
        self.rules = rules
        embed, heads = (config.embed_dim,), attention.num_heads
        dense = functools.partial(Dense, bias=False, config=config, rngs=rngs)
        query = (heads, attention.nope_dim + attention.rope_dim)
        if attention.query_rank is None:
            self.query = dense(embed, query, ("embed", "q_heads", "kv"))
        else:
            rank = (attention.query_rank,)
            self.wq_a = dense(embed, rank, ("embed", "q_lora_up_proj"))
            self.q_norm = RmsNorm(config, attention.query_rank)
            self.wq_b = dense(rank, query, ("q_lora", "q_heads", "kv"))
        rank, expanded = (attention.kv_rank,), (heads, attention.nope_dim + attention.value_dim)
        self.wkv_a = dense(embed, (attention.kv_rank + attention.rope_dim,), ("embed", "kv_lora_up_proj"))
        self.kv_norm = RmsNorm(config, attention.kv_rank)
        self.wkv_b = dense(rank, expanded, ("kv_lora", "kv_heads", "kv_head_dim"))
        self.out = dense((heads, attention.value_dim), embed, ("heads", "kv", "embed"))

    def __call__(
        self, x: Float[Array, "b t d"], context: Context, cache: LayerCache
    ) -> tuple[Float[Array, "b t d"], LayerCache]:
        """The attention output, and the cache with this call's latents and keys written (empty in `Mode.TRAIN`)."""
        q_BTNH = constrain(self._query(x, context), QUERY_AXES, self.rules)
        latent_BSR, rope_key_BSr = self._latent(x, context)
        if context.mode is Mode.DECODE:
            cache = _write(cache, latent_BSR, rope_key_BSr, context)
            latent_BSR, rope_key_BSr = cache["cached_latent"], cache["cached_rope_key"]
            mask_BTS = cache_mask(context, cache, self.layer)
        else:
            mask_BTS = batch_mask(context, self.layer)
        k_BSNH, v_BSNH = self._expand(latent_BSR, rope_key_BSr)
        out_BTNH = ops.attend(q_BTNH, k_BSNH, v_BSNH, mask_BTS, scale=self.attention.scale, soft_cap=None)
        out_BTNH = constrain(out_BTNH, QUERY_AXES, self.rules)
        with jax.named_scope("out"):
            return self.out(out_BTNH), cache

    def _query(self, x: Float[Array, "b t d"], context: Context) -> Float[Array, "b t n h"]:
        if self.attention.query_rank is None:
            with jax.named_scope("query"):
                q_BTNH = self.query(x)
        else:
            with jax.named_scope("wq_a"):
                latent = constrain(self.wq_a(x), QUERY_LATENT_AXES, self.rules)
            with jax.named_scope("q_norm"):
                latent = self.q_norm(latent)
            with jax.named_scope("wq_b"):
                q_BTNH = self.wq_b(latent)
        nope, rope = jnp.split(q_BTNH, [self.attention.nope_dim], axis=-1)
        return jnp.concatenate([nope, ops.rotate(rope, context.positions, self.rope)], axis=-1)

    def _latent(self, x: Float[Array, "b t d"], context: Context) -> tuple[Array, Array]:
        """What the cache holds of each position: the normed latent vector and the rotated key."""
        with jax.named_scope("wkv_a"):
            both = constrain(self.wkv_a(x), LATENT_AXES, self.rules)
        latent_BTR, rope_key_BTr = jnp.split(both, [self.attention.kv_rank], axis=-1)
        with jax.named_scope("kv_norm"):
            latent_BTR = self.kv_norm(latent_BTR)
        return latent_BTR, ops.rotate(rope_key_BTr[:, :, None], context.positions, self.rope)[:, :, 0]

    def _expand(self, latent_BSR: Float[Array, "b s r"], rope_key_BSr: Float[Array, "b s r"]) -> tuple[Array, Array]:
        """The keys and values of all heads."""
        with jax.named_scope("wkv_b"):
            both = self.wkv_b(latent_BSR)
        nope, v_BSNH = jnp.split(both, [self.attention.nope_dim], axis=-1)
        rope = jnp.broadcast_to(rope_key_BSr[:, :, None], (*nope.shape[:3], rope_key_BSr.shape[-1]))
        k_BSNH = jnp.concatenate([nope, rope], axis=-1)
        return constrain(k_BSNH, KEY_AXES, self.rules), constrain(v_BSNH, KEY_AXES, self.rules)


def _write(
    cache: LayerCache, latent_BTR: Float[Array, "b t r"], rope_key_BTr: Float[Array, "b t r"], context: Context
) -> LayerCache:
    """Padding is written too, under segment 0: what follows a right-padded prompt overwrites it."""
    start_B = context.positions[:, 0]
    return {
        "cached_latent": ops.write_cache(cache["cached_latent"], latent_BTR, start_B),
        "cached_rope_key": ops.write_cache(cache["cached_rope_key"], rope_key_BTr, start_B),
        "cached_segment_ids": ops.write_cache(cache["cached_segment_ids"], context.segment_ids, start_B),
    }
