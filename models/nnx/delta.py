"""Linear attention of one layer by the gated delta rule: projections, convolution, state, gated output.

The cache holds a state however long the text is. The maths is in `models.ops`.
Shape letters: B batch, T query, D model, K key heads, N value heads, A key dim, V value dim, W convolution width,
C channels of the convolution.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from .. import ops
from ..config import Activation, Layer, ModelConfig, schema
from ..config import GatedDelta as DeltaConfig
from ..protocol import Mode
from ..sharding import Rules
from .attention import QUERY_AXES, Context, LayerCache
from .layers import Dense, RmsNorm, constrain, normal, param
from .mlp import HIDDEN_AXES


class GatedDelta(nnx.Module):
    """A state for each value head, from the start of the document (`Mode.TRAIN`) or of the cache (`Mode.DECODE`)."""

    def __init__(self, config: ModelConfig, layer: Layer, *, rules: Rules, rngs: nnx.Rngs) -> None:
        attention = config.attention_of(layer)
        assert isinstance(attention, DeltaConfig)
        self.config = config
        self.attention = attention
        self.rules = rules
        keys = attention.num_key_heads * attention.key_dim
        values = attention.num_value_heads * attention.value_dim
        embed, heads = (config.embed_dim,), (attention.num_value_heads,)
        dense = functools.partial(Dense, bias=False, config=config, rngs=rngs)
        self.in_proj_qkvz = dense(embed, (2 * keys + 2 * values,), ("embed", "gdn_head"))
        self.in_proj_ba = dense(embed, (2 * attention.num_value_heads,), ("embed", "gdn_head"))
        width, channels = attention.conv_width, 2 * keys + values
        kernel = normal(rngs.params(), (width, 1, channels), width**-0.5, config)
        self.conv1d = nnx.Dict(kernel=param(kernel, (None, None, None)))
        dtype = jnp.dtype(config.weight_dtype)
        rates = jax.random.uniform(rngs.params(), heads, minval=1.0, maxval=16.0)
        self.A_log = param(jnp.log(rates).astype(dtype), (None,))
        self.dt_bias = param(jnp.ones(heads, dtype), (None,))
        plain = config.replace(norm=schema.RmsNorm(config.norm.epsilon))  # never zero-centred
        self.norm = RmsNorm(plain, attention.value_dim)
        self.out_proj = dense((values,), embed, ("gdn_head", "embed"))

    def __call__(
        self, x: Float[Array, "b t d"], context: Context, cache: LayerCache
    ) -> tuple[Float[Array, "b t d"], LayerCache]:
        """The output, and the cache as it stands after this call (empty in `Mode.TRAIN`)."""
        channels_BTC, z_BTNV, a_BTN, b_BTN = self._project(x)
        conv_BwC, state_BNAV = _states(context, cache)
        documents_BT, valid_BT = ops.documents(context.segment_ids), context.segment_ids != 0
        with jax.named_scope("conv"):
            kernel_WC = self.conv1d["kernel"][...][:, 0].astype(self.config.dtype)
            mixed_BTC, conv_BwC = ops.causal_conv(channels_BTC, kernel_WC, conv_BwC, documents_BT, valid_BT)
        q_BTKA, k_BTKA, v_BTNV = self._heads(mixed_BTC)
        with jax.named_scope("delta"):
            log_decay_BTN, beta_BTN = ops.decay(a_BTN, b_BTN, self.A_log[...], self.dt_bias[...])
            out_BTNV, state_BNAV = ops.gated_delta(
                q_BTKA, k_BTKA, v_BTNV, log_decay_BTN, beta_BTN, state_BNAV, documents_BT, valid_BT,
                chunk=self.attention.chunk,
            )
        out_BTNV = constrain(out_BTNV, QUERY_AXES, self.rules)
        with jax.named_scope("norm"):
            normed_BTNV = self.norm(out_BTNV)
        gated_BTNV = ops.gate(z_BTNV, normed_BTNV, Activation.SILU)
        with jax.named_scope("out_proj"):
            out_BTD = self.out_proj(gated_BTNV.reshape(*x.shape[:2], -1))
        if context.mode is Mode.TRAIN:
            return out_BTD, cache
        return out_BTD, {"conv_state": conv_BwC, "recurrent_state": state_BNAV}

    def _project(self, x: Float[Array, "b t d"]) -> tuple[Array, Array, Array, Array]:
        """The convolution's channels, the gate z, and a and b; the kernels' columns are grouped by key head."""
        attention, length = self.attention, x.shape[:2]
        num_keys, num_values = attention.num_key_heads, attention.num_value_heads
        with jax.named_scope("in_proj_qkvz"):
            qkvz = self.in_proj_qkvz(x).reshape(*length, num_keys, -1)
        with jax.named_scope("in_proj_ba"):
            ba = self.in_proj_ba(x).reshape(*length, num_keys, -1)
        own_values = num_values // num_keys * attention.value_dim
        q, k, v, z = jnp.split(qkvz, [attention.key_dim, 2 * attention.key_dim, 2 * attention.key_dim + own_values], -1)
        b, a = jnp.split(ba, 2, axis=-1)
        channels_BTC = jnp.concatenate([part.reshape(*length, -1) for part in (q, k, v)], axis=-1)
        channels_BTC = constrain(channels_BTC, HIDDEN_AXES, self.rules)
        z = constrain(z.reshape(*length, -1), HIDDEN_AXES, self.rules)
        z_BTNV = z.reshape(*length, num_values, attention.value_dim)
        return channels_BTC, z_BTNV, a.reshape(*length, num_values), b.reshape(*length, num_values)

    def _heads(self, mixed_BTC: Float[Array, "b t c"]) -> tuple[Array, Array, Array]:
        """Query, key and value of the convolved channels."""
        attention, length = self.attention, mixed_BTC.shape[:2]
        keys = attention.num_key_heads * attention.key_dim
        q, k, v = jnp.split(mixed_BTC, [keys, 2 * keys], axis=-1)
        key_heads = (*length, attention.num_key_heads, attention.key_dim)
        v_BTNV = v.reshape(*length, attention.num_value_heads, attention.value_dim)
        return q.reshape(key_heads), k.reshape(key_heads), v_BTNV


def _states(context: Context, cache: LayerCache) -> tuple[Array | None, Array | None]:
    """What the convolution and the rule go on from. A row that starts at position 0 has nothing before it."""
    if context.mode is Mode.TRAIN:
        return None, None
    begins_B = context.positions[:, 0] == 0
    conv_BwC = jnp.where(begins_B[:, None, None], 0, cache["conv_state"])
    return conv_BwC, jnp.where(begins_B[:, None, None, None], 0, cache["recurrent_state"])
