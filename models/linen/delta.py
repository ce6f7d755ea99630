"""Linear attention by the gated delta rule: a convolution over the last tokens, then a state for each value head.

In place of keys and values the cache holds the convolution's last inputs and the states; it has no length.

B batch, T position, D model, K key heads, N value heads, A key dim, V value dim, C channels of the convolution
(queries, keys and values of all heads), W its width (w: less one), G one key head's part of a projection.
"""

import dataclasses
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from .. import ops
from ..config import Activation, ModelConfig, schema
from ..config import RmsNorm as RmsNormConfig
from ..protocol import Mode
from .attention import QUERY
from .layers import Axes, Dense, Initializer, RmsNorm, constrain, declare, dtype_of
from .mlp import HIDDEN

CONV_STATE = ("cache_batch", None, "cache_kv")
RECURRENT_STATE = ("cache_batch", "cache_heads", None, None)


class GatedDelta(nn.Module):
    """Projections, convolution, delta rule, gated norm, output projection."""

    config: ModelConfig
    attention: schema.GatedDelta
    mode: Mode

    @nn.compact
    def __call__(
        self, x_BTD: Float[Array, "b t d"], positions_BT: Int[Array, "b t"], segments_BT: Int[Array, "b t"]
    ) -> Float[Array, "b t d"]:
        """What the layer adds to its residual stream. In decode mode it goes on from the cache and leaves its states.

        A row that begins at position 0 begins with empty states: its slot held another text before.
        """
        config, attention = self.config, self.attention
        is_new_B, documents_BT, valid_BT = positions_BT[:, 0] == 0, ops.documents(segments_BT), segments_BT != 0
        channels_BTC, z_BTNV = self._project(x_BTD)
        log_decay_BTN, beta_BTN = self._decay(x_BTD)
        mixed_BTC = self._convolve(channels_BTC, is_new_B, documents_BT, valid_BT)
        q_BTKA, k_BTKA, v_BTNV = self._heads(mixed_BTC)

        shape = (x_BTD.shape[0], attention.num_value_heads, attention.key_dim, attention.value_dim)
        leaf = self._leaf("recurrent_state", shape, jnp.float32, RECURRENT_STATE)
        with jax.named_scope("delta"):
            out_BTNV, state_BNAV = ops.gated_delta(
                q_BTKA, k_BTKA, v_BTNV, log_decay_BTN, beta_BTN, _begun(leaf, is_new_B), documents_BT, valid_BT,
                chunk=attention.chunk,
            )  # fmt: skip
        _keep(leaf, state_BNAV)
        normed_BTNV = RmsNorm(_with_plain_norm(config), name="norm")(constrain(out_BTNV, QUERY))
        hidden_BTC = _flat(ops.gate(z_BTNV, normed_BTNV, Activation.SILU))
        shape = (attention.num_value_heads * attention.value_dim, config.embed_dim)
        return Dense(config, shape, ("gdn_head", "embed"), name="out_proj")(hidden_BTC)

    @nn.nowrap
    def _project(self, x_BTD: Float[Array, "b t d"]) -> tuple[Float[Array, "b t c"], Float[Array, "b t n v"]]:
        """The convolution's channels, all queries, then all keys, then all values; and every head's output gate."""
        attention = self.attention
        values = attention.num_value_heads // attention.num_key_heads * attention.value_dim
        qkvz_BTKG = self._grouped("in_proj_qkvz", 2 * attention.key_dim + 2 * values, x_BTD)
        *qkv, z_BTKG = jnp.split(
            qkvz_BTKG, [attention.key_dim, 2 * attention.key_dim, 2 * attention.key_dim + values], axis=-1
        )
        channels_BTC = constrain(jnp.concatenate([_flat(part) for part in qkv], axis=-1), HIDDEN)
        z_BTC = constrain(_flat(z_BTKG), HIDDEN)
        return channels_BTC, z_BTC.reshape(*z_BTC.shape[:2], attention.num_value_heads, attention.value_dim)

    @nn.nowrap
    def _decay(self, x_BTD: Float[Array, "b t d"]) -> tuple[Float[Array, "b t n"], Float[Array, "b t n"]]:
        """How much of its state each value head keeps, as a logarithm, and how much of a new value it takes up."""
        attention, dtype = self.attention, self.config.weight_dtype
        heads = (attention.num_value_heads,)
        group = attention.num_value_heads // attention.num_key_heads
        b_BTKG, a_BTKG = jnp.split(self._grouped("in_proj_ba", 2 * group, x_BTD), 2, axis=-1)
        log_rate_N = declare(self, "A_log", typing.cast(Initializer, _log_rate), heads, (None,), dtype)
        bias_N = declare(self, "dt_bias", nn.initializers.ones_init(), heads, (None,), dtype)
        return ops.decay(_flat(a_BTKG), _flat(b_BTKG), log_rate_N, bias_N)

    @nn.nowrap
    def _grouped(self, name: str, size: int, x_BTD: Float[Array, "b t d"]) -> Float[Array, "b t k g"]:
        """A projection to `size` numbers for each key head."""
        heads, dim = self.attention.num_key_heads, self.config.embed_dim
        out_BTC = Dense(self.config, (dim, heads * size), ("embed", "gdn_head"), name=name)(x_BTD)
        return out_BTC.reshape(*out_BTC.shape[:2], heads, size)

    @nn.nowrap
    def _convolve(
        self, channels_BTC: Float[Array, "b t c"],
        is_new_B: Bool[Array, " b"], documents_BT: Int[Array, "b t"], valid_BT: Bool[Array, "b t"],
    ) -> Float[Array, "b t c"]:
        """Each channel over the last tokens of its document, in decode mode also over those that the cache holds."""
        width, (batch, _, channels), dtype = self.attention.conv_width, channels_BTC.shape, dtype_of(self.config.dtype)
        dense = Dense(self.config, (width, 1, channels), (None, None, None), name="conv1d")
        leaf = self._leaf("conv_state", (batch, width - 1, channels), dtype, CONV_STATE)
        with jax.named_scope("conv"):
            mixed_BTC, state_BwC = ops.causal_conv(
                channels_BTC, dense.kernel[:, 0].astype(dtype), _begun(leaf, is_new_B), documents_BT, valid_BT
            )
        _keep(leaf, state_BwC)
        return mixed_BTC

    @nn.nowrap
    def _heads(
        self, mixed_BTC: Float[Array, "b t c"]
    ) -> tuple[Float[Array, "b t k a"], Float[Array, "b t k a"], Float[Array, "b t n v"]]:
        """The channels back in the heads that they came from."""
        attention, (batch, length, _) = self.attention, mixed_BTC.shape
        keys = attention.num_key_heads * attention.key_dim
        q_BTC, k_BTC, v_BTC = jnp.split(mixed_BTC, [keys, 2 * keys], axis=-1)
        key_shape = (batch, length, attention.num_key_heads, attention.key_dim)
        value_shape = (batch, length, attention.num_value_heads, attention.value_dim)
        return q_BTC.reshape(key_shape), k_BTC.reshape(key_shape), v_BTC.reshape(value_shape)

    @nn.nowrap
    def _leaf(self, name: str, shape: tuple[int, ...], dtype: DTypeLike, axes: Axes) -> nn.Variable[Array] | None:
        """The cache's leaf of that name, empty at first; none where nothing is cached."""
        if self.mode is not Mode.DECODE:
            return None
        # `variable` takes the array out of its box.
        empty = typing.cast(Callable[..., Array], nn.with_logical_partitioning(jnp.zeros, axes))
        return self.variable("cache", name, empty, shape, dtype)


def _begun(leaf: nn.Variable[Array] | None, is_new_B: Bool[Array, " b"]) -> Array | None:
    """The state that each row goes on from."""
    if leaf is None:
        return None
    return jnp.where(is_new_B.reshape(-1, *(1,) * (leaf.value.ndim - 1)), 0, leaf.value)


def _keep(leaf: nn.Variable[Array] | None, state: Array) -> None:
    if leaf is not None:
        leaf.value = state


def _flat(x: Float[Array, "b t k g"]) -> Float[Array, "b t c"]:
    return x.reshape(*x.shape[:2], -1)


def _with_plain_norm(config: ModelConfig) -> ModelConfig:
    """With a norm that multiplies by its scale, whatever the model's others do: this one starts at one."""
    return dataclasses.replace(config, norm=RmsNormConfig(epsilon=config.norm.epsilon))


def _log_rate(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Rates of decay between 1 and 16, as logarithms. Source: Dao and Gu, "Transformers are SSMs" (Mamba-2's code)."""
    return jnp.log(jax.random.uniform(key, shape, jnp.float32, 1.0, 16.0)).astype(dtype)
