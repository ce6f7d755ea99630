"""The stack of layers between the embedding and the head: one layer, one cycle of layers, the whole stack.

Scanned, the blocks are one module whose parameters are stacked on axis 1, and the loop is a `jax.lax.scan` over its
split state: parameters and keys go in, only the activations and the cache come out. Unscanned, they are `layers_0`,
`layers_1`, ...
Shape letters: B batch, T query, D model, V vocab, L blocks.
"""

import dataclasses
import functools
import math
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from .. import ops
from ..config import LearnedPositions, ModelConfig, Remat
from ..sharding import Rules
from .attention import Attention, Context, LayerCache
from .layers import Dense, Dropout, Embed, constrain, make_norm
from .mlp import Mlp

EMBED_AXES = ("activation_batch", "activation_norm_length", "activation_embed")
LOGITS_AXES = ("activation_embed_and_logits_batch", "activation_norm_length", "activation_vocab")
DRAWS_PER_LAYER = 2

BlockCache = dict[str, LayerCache]
Sown = dict[str, tuple[Array, ...]]
BlockOutput = tuple[BlockCache, Sown]


@dataclasses.dataclass(frozen=True)
class DecoderLayer:
    """One layer of a block's cycle: a view of the parts with its suffix. The block holds them, so names stay flat."""

    block: "Block"
    suffix: str

    def __call__(
        self, x: Float[Array, "b t d"], context: Context, cache: LayerCache, keys: tuple[Array | None, ...]
    ) -> tuple[Float[Array, "b t d"], LayerCache]:
        """Attention, then the MLP, each between its norms and added to the residual stream."""
        norms = self.block.config.block_norms
        attended, cache = self._part("self_attention", self._norm(norms.pre_attention, x), context, cache)
        x = self._add(x, self._norm(norms.post_attention, attended), keys[0])
        hidden = self._part("mlp", self._norm(norms.pre_mlp, x))
        return self._add(x, self._norm(norms.post_mlp, hidden), keys[1]), cache

    def _part(self, word: str, *args: object) -> typing.Any:
        """What the part with this layer's suffix returns; an attention returns its cache too."""
        with jax.named_scope(word + self.suffix):
            return getattr(self.block, word + self.suffix)(*args)

    def _norm(self, name: str | None, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        return x if name is None else self._part(name, x)

    def _add(
        self, x: Float[Array, "b t d"], branch: Float[Array, "b t d"], key: Key[Array, ""] | None
    ) -> Float[Array, "b t d"]:
        return constrain(x + self._part("dropout", branch, key), EMBED_AXES, self.block.rules)


class Block(nnx.Module):
    """One turn of the cycle: the parts of each of its layers, told apart by suffix."""

    def __init__(self, config: ModelConfig, *, rules: Rules, rngs: nnx.Rngs) -> None:
        self.config = config
        self.rules = rules
        for layer in config.cycle:
            suffix = layer.suffix
            setattr(self, "self_attention" + suffix, Attention(config, layer, rules=rules, rngs=rngs))
            setattr(self, "mlp" + suffix, Mlp(config, rules=rules, rngs=rngs))
            setattr(self, "dropout" + suffix, Dropout(config.dropout_rate))
            for name in dataclasses.astuple(config.block_norms):
                if name is not None:
                    setattr(self, name + suffix, make_norm(config))

    def __call__(
        self, x: Float[Array, "b t d"], context: Context, cache: BlockCache, key: Key[Array, ""] | None
    ) -> tuple[Float[Array, "b t d"], BlockCache]:
        """Every layer of the cycle in turn. `cache` is by the attention's name; `key` feeds every dropout."""
        cycle = self.config.cycle
        num_draws = DRAWS_PER_LAYER * len(cycle)
        draws = [None] * num_draws if key is None else list(jax.random.split(key, num_draws))
        written = {}
        for index, layer in enumerate(cycle):
            name = "self_attention" + layer.suffix
            keys = tuple(draws[DRAWS_PER_LAYER * index : DRAWS_PER_LAYER * (index + 1)])
            x, layer_cache = DecoderLayer(self, layer.suffix)(x, context, cache.get(name, {}), keys)
            if layer_cache:
                written[name] = layer_cache
            if context.record:
                self.sow(nnx.Intermediate, "hidden_states" + layer.suffix, x)
        return x, written


class Decoder(nnx.Module):
    """Positions, dropout, blocks, final norm and the untied head. It owns the random stream of every dropout."""

    def __init__(self, config: ModelConfig, *, rules: Rules, rngs: nnx.Rngs) -> None:
        self.config = config
        self.rules = rules
        if isinstance(config.positions, LearnedPositions):
            self.position_embedder = Embed(config.positions.length, std=0.02, config=config, rngs=rngs)
        self.dropout = Dropout(config.dropout_rate)
        if config.dropout_rate > 0:
            self.rngs = nnx.Rngs(dropout=rngs["dropout"])
        if config.scan_layers:
            self.layers = _stacked(config, rules, rngs)
        else:
            for index in range(config.num_blocks):
                setattr(self, f"layers_{index}", Block(config, rules=rules, rngs=rngs))
        self.decoder_norm = make_norm(config)
        if not config.tied_head:
            shapes = (config.embed_dim,), (config.vocab_size,)
            self.logits_dense = Dense(*shapes, ("embed_vocab", "vocab"), bias=False, config=config, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b t d"], context: Context, cache: dict[str, BlockCache], *, deterministic: bool
    ) -> tuple[Float[Array, "b t d"], dict[str, BlockOutput]]:
        """From embedded tokens to the normed output of the last layer, and what each block left, by its name."""
        keys = self._dropout_keys(deterministic)
        if self.config.scale_embedding:
            x = x * jnp.asarray(math.sqrt(self.config.embed_dim), x.dtype)
        if isinstance(self.config.positions, LearnedPositions):
            with jax.named_scope("position_embedder"):
                vectors_BTD = self.position_embedder(context.positions)
            x = x + vectors_BTD
        x = constrain(x, EMBED_AXES, self.rules)
        with jax.named_scope("dropout"):
            x = self.dropout(x, None if keys is None else keys[0])
        run = self._scan if self.config.scan_layers else self._unroll
        x, left = run(x, context, cache, None if keys is None else keys[1:])
        with jax.named_scope("decoder_norm"):
            return self.decoder_norm(x), left

    def head(self, x: Float[Array, "b t d"], table: Float[Array, "v d"]) -> Float[Array, "b t v"]:
        """Float32 logits, from the token table when the head is tied to it."""
        if self.config.tied_head:
            logits_BTV = ops.unembed(x, table)
        else:
            with jax.named_scope("logits_dense"):
                logits_BTV = ops.head(x, self.logits_dense.kernel[...])
        if self.config.final_soft_cap is not None:
            logits_BTV = ops.soft_cap(logits_BTV, self.config.final_soft_cap)
        return constrain(logits_BTV, LOGITS_AXES, self.rules)

    def _dropout_keys(self, deterministic: bool) -> Key[Array, " keys"] | None:
        """One key for the embedding, then one per block, all from a single draw of the stream."""
        if deterministic or self.config.dropout_rate == 0:
            return None
        return jax.random.split(self.rngs.dropout(), 1 + self.config.num_blocks)

    def _scan(
        self, x: Array, context: Context, cache: dict[str, BlockCache], keys: Array | None
    ) -> tuple[Array, dict[str, BlockOutput]]:
        graphdef, params = nnx.split(self.layers)
        params = jax.tree.map(lambda stacked: jnp.moveaxis(stacked, 1, 0), params)
        step = _rematerialised(functools.partial(_run, graphdef, context), self.config)
        with jax.named_scope("layers"):
            x, left = jax.lax.scan(step, x, (params, cache.get("layers", {}), keys))
        return x, {"layers": left}

    def _unroll(
        self, x: Array, context: Context, cache: dict[str, BlockCache], keys: Array | None
    ) -> tuple[Array, dict[str, BlockOutput]]:
        left = {}
        for index in range(self.config.num_blocks):
            name = f"layers_{index}"
            graphdef, params = nnx.split(getattr(self, name))
            step = _rematerialised(functools.partial(_run, graphdef, context), self.config)
            with jax.named_scope(name):
                key = None if keys is None else keys[index]
                x, left[name] = step(x, (params, cache.get(name, {}), key))
        return x, left


def _stacked(config: ModelConfig, rules: Rules, rngs: nnx.Rngs) -> Block:
    """All blocks as one module, each with its own initial values; `layers` becomes axis 1 of every parameter."""
    create = nnx.vmap(
        lambda key: Block(config, rules=rules, rngs=nnx.Rngs(params=key)), out_axes=1,
        transform_metadata={nnx.PARTITION_NAME: "layers"},
    )
    return create(jax.random.split(rngs.params(), config.num_blocks))


def _run(graphdef: nnx.GraphDef, context: Context, x: Array, xs: tuple) -> tuple[Array, BlockOutput]:
    """One block, in the shape of a scan's body: its cache and what it sowed leave the loop beside the activations."""
    params, cache, key = xs
    block = nnx.merge(graphdef, params)
    if not context.record:
        x, written = block(x, context, cache, key)
        return x, (written, {})
    (x, written), sown = nnx.capture(block, nnx.Intermediate)(x, context, cache, key)
    return x, (written, nnx.to_pure_dict(sown))


def _rematerialised(step: Callable, config: ModelConfig) -> Callable:
    """`step` under the remat policy. Inside a scan nothing can be merged across steps, so CSE need not be prevented."""
    if config.remat is Remat.NONE:
        return step
    policies = {
        Remat.FULL: jax.checkpoint_policies.nothing_saveable,
        Remat.SAVE_DOTS: jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
    }
    return jax.checkpoint(step, policy=policies[config.remat], prevent_cse=not config.scan_layers)
