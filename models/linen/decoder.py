"""Layers, the block that a cycle of layers makes, and the stack of blocks with norm and head.

B batch, T query position, D model, V vocabulary.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from .. import ops
from ..config import Layer, LearnedPositions, ModelConfig, Remat, schema
from ..protocol import Mode
from .attention import Attention
from .delta import GatedDelta
from .latent import LatentAttention
from .layers import RESIDUAL, Dense, Dropout, Embed, constrain, declare, dtype_of, make_norm
from .mlp import Mlp
from .moe import ROUTING, Moe

LOGITS = ("activation_embed_and_logits_batch", "activation_norm_length", "activation_vocab")
POLICIES = {
    Remat.FULL: jax.checkpoint_policies.nothing_saveable,
    Remat.SAVE_DOTS: jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
}


@dataclasses.dataclass(frozen=True)
class DecoderLayer:
    """One layer of the cycle. Not a module: its parts carry its suffix and belong to the block that calls it.

    `scale_1` is that block's parameter too, of a layer that ends with one.
    """

    config: ModelConfig
    layer: Layer
    mode: Mode
    deterministic: bool
    scale_1: Float[Array, "1"] | None

    def __call__(
        self, x_BTD: Float[Array, "b t d"], positions_BT: Int[Array, "b t"], segments_BT: Int[Array, "b t"]
    ) -> Float[Array, "b t d"]:
        """The residual stream after attention and feed-forward part."""
        norms = self.config.block_norms
        dropout = Dropout(self.config.dropout_rate, self.deterministic, name=f"dropout{self.layer.suffix}")

        h_BTD = self._norm(norms.pre_attention, x_BTD)
        h_BTD = self._attention()(h_BTD, positions_BT, segments_BT)
        h_BTD = dropout(self._norm(norms.post_attention, h_BTD))
        x_BTD = constrain(x_BTD + h_BTD, RESIDUAL)

        h_BTD = self._norm(norms.pre_mlp, x_BTD)
        h_BTD = self._feed_forward(h_BTD, x_BTD, segments_BT)
        h_BTD = dropout(self._norm(norms.post_mlp, h_BTD))
        x_BTD = x_BTD + h_BTD
        if self.scale_1 is not None:
            x_BTD = x_BTD * self.scale_1.astype(x_BTD.dtype)[None, None]
        return constrain(x_BTD, RESIDUAL)

    def _attention(self) -> Attention | LatentAttention | GatedDelta:
        name = f"self_attention{self.layer.suffix}"
        match self.config.attention_of(self.layer):
            case schema.Attention() as attention:
                return Attention(self.config, attention, self.layer, self.mode, name=name)
            case schema.LatentAttention() as attention:
                return LatentAttention(self.config, attention, self.layer, self.mode, name=name)
            case schema.GatedDelta() as attention:
                return GatedDelta(self.config, attention, self.mode, name=name)

    def _feed_forward(
        self, x_BTD: Float[Array, "b t d"], residual_BTD: Float[Array, "b t d"], segments_BT: Int[Array, "b t"]
    ) -> Float[Array, "b t d"]:
        """Of the normed `x`; a mixture may read the residual stream beside it."""
        match self.config.mlp_of(self.layer):
            case schema.Mlp() as mlp:
                return Mlp(self.config, mlp, name=f"mlp{self.layer.suffix}")(x_BTD)
            case schema.Moe() as moe:
                return Moe(self.config, moe, name=f"moe{self.layer.suffix}")(x_BTD, residual_BTD, segments_BT)

    def _norm(self, name: str | None, x_BTD: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        return x_BTD if name is None else make_norm(self.config, f"{name}{self.layer.suffix}")(x_BTD)


class Block(nn.Module):
    """One cycle of layers: the body of the scan. A layer with a name of its own is a block of that name inside it."""

    config: ModelConfig
    cycle: tuple[Layer, ...]
    mode: Mode
    deterministic: bool

    @nn.compact
    def __call__(
        self, x_BTD: Float[Array, "b t d"], positions_BT: Int[Array, "b t"], segments_BT: Int[Array, "b t"]
    ) -> tuple[Float[Array, "b t d"], None]:
        """The residual stream as the scan's carry, and no output for each step."""
        inputs = (positions_BT, segments_BT)
        for layer in self.cycle:
            if layer.name is None:
                scale_1 = self._scale(layer)
                x_BTD = DecoderLayer(self.config, layer, self.mode, self.deterministic, scale_1)(x_BTD, *inputs)
                self.sow("intermediates", f"hidden_states{layer.suffix}", x_BTD)
            else:
                inner = (dataclasses.replace(layer, name=None),)
                block = Block(self.config, inner, self.mode, self.deterministic, name=layer.name)
                x_BTD, _ = block(x_BTD, *inputs)
        return x_BTD, None

    @nn.nowrap
    def _scale(self, layer: Layer) -> Float[Array, "1"] | None:
        """What the layer's residual stream is multiplied by at its end, if the model has that."""
        if not self.config.layer_scale:
            return None
        ones, name = nn.initializers.ones_init(), f"layer_scale{layer.suffix}"
        return declare(self, name, ones, (1,), (None,), self.config.weight_dtype)


@functools.cache
def _lifted_block(remat: Remat, scan_length: int | None, axis: str) -> type[nn.Module]:
    """The block class under remat and, when a length is given, under scan: parameters stacked on axis 1, called so."""
    block = Block
    if remat is not Remat.NONE:
        block = nn.remat(block, policy=POLICIES[remat], prevent_cse=scan_length is None)
    if scan_length is None:
        return block
    return nn.scan(
        block,
        variable_axes={"params": 1, "cache": 0, "intermediates": 0, ROUTING: 0},
        split_rngs={"params": True, "dropout": True},
        # Flax leaves this parameter without a type, so the checker takes that of its default.
        in_axes=(nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType]
        length=scan_length,
        metadata_params={nn.PARTITION_NAME: axis},
        check_constancy_invariants=False,  # it would trace the body twice
    )


class Decoder(nn.Module):
    """Everything between the token embedding and the logits."""

    config: ModelConfig
    mode: Mode
    deterministic: bool

    @nn.compact
    def __call__(
        self, x_BTD: Float[Array, "b t d"], table_VD: Float[Array, "v d"],
        positions_BT: Int[Array, "b t"], segments_BT: Int[Array, "b t"],
    ) -> Float[Array, "b t v"]:
        """Logits in float32 from embedded tokens. `table_VD` is the token table, read by a tied head."""
        config = self.config
        if config.scale_embedding:
            x_BTD = x_BTD * jnp.asarray(config.embed_dim**0.5, dtype_of(config.dtype))
        if isinstance(config.positions, LearnedPositions):
            embedder = Embed(config, config.positions.length, 0.02, name="position_embedder")
            x_BTD = x_BTD + embedder(positions_BT)
        x_BTD = constrain(x_BTD, RESIDUAL)
        x_BTD = Dropout(config.dropout_rate, self.deterministic, name="dropout")(x_BTD)
        x_BTD = self._blocks(x_BTD, positions_BT, segments_BT)
        x_BTD = make_norm(config, "decoder_norm")(x_BTD)
        return self._logits(x_BTD, table_VD)

    @nn.nowrap
    def _blocks(
        self, x_BTD: Float[Array, "b t d"], positions_BT: Int[Array, "b t"], segments_BT: Int[Array, "b t"]
    ) -> Float[Array, "b t d"]:
        config = self.config
        for stack in config.stacks:
            block = _lifted_block(config.remat, stack.length if stack.scanned else None, stack.axis)
            for name in stack.names:
                run = block(config, stack.cycle, self.mode, self.deterministic, name=name)
                x_BTD, _ = run(x_BTD, positions_BT, segments_BT)
        return x_BTD

    @nn.nowrap
    def _logits(self, x_BTD: Float[Array, "b t d"], table_VD: Float[Array, "v d"]) -> Float[Array, "b t v"]:
        config = self.config
        if config.tied_head:
            logits_BTV = ops.unembed(x_BTD, table_VD)
        else:
            shape = (config.embed_dim, config.vocab_size)
            dense = Dense(config, shape, ("embed_vocab", "vocab"), name="logits_dense")
            with jax.named_scope("logits_dense"):
                logits_BTV = ops.head(x_BTD, dense.kernel)
        if config.final_soft_cap is not None:
            logits_BTV = ops.soft_cap(logits_BTV, config.final_soft_cap)
        return constrain(logits_BTV, LOGITS)
