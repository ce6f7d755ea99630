"""The layers between the embedding and the head: one layer, one cycle of layers, the stacks of blocks.

Scanned, the blocks are one module whose parameters are stacked on axis 1, and the loop is a `jax.lax.scan` over its
split state: parameters and keys go in, only the activations and the cache come out. Unscanned, they are `layers_0`,
`layers_1`, ... A prefix is a stack of its own before them. What the last whole cycle leaves is a block of its own,
`layers_remainder`, which is never scanned.
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
from ..config import GatedDelta as DeltaConfig
from ..config import LatentAttention as LatentConfig
from ..config import Layer, LearnedPositions, ModelConfig, Remat, Stack
from ..config import Mlp as MlpConfig
from ..sharding import Rules
from .attention import Attention, Context, LayerCache
from .delta import GatedDelta
from .latent import LatentAttention
from .layers import Dense, Dropout, Embed, constrain, make_norm, param
from .mlp import Mlp
from .moe import Moe

EMBED_AXES = ("activation_batch", "activation_norm_length", "activation_embed")
LOGITS_AXES = ("activation_embed_and_logits_batch", "activation_norm_length", "activation_vocab")
DRAWS_PER_LAYER = 2

PartCaches = dict[str, LayerCache]
BlockCache = dict[str, typing.Any]
Sown = dict[str, typing.Any]
BlockOutput = tuple[BlockCache, Sown]


def add_parts(holder: nnx.Module, config: ModelConfig, layer: Layer, *, rules: Rules, rngs: nnx.Rngs) -> None:
    """Gives `holder` one layer's parts: attention, MLP or MoE, dropout, norms, scale. Their names end in its suffix."""
    suffix, feed_forward = layer.suffix, config.mlp_of(layer)
    attention = _attention_class(config, layer)
    setattr(holder, "self_attention" + suffix, attention(config, layer, rules=rules, rngs=rngs))
    if isinstance(feed_forward, MlpConfig):
        setattr(holder, "mlp" + suffix, Mlp(config, feed_forward, rules=rules, rngs=rngs))
    else:
        setattr(holder, "moe" + suffix, Moe(config, feed_forward, rules=rules, rngs=rngs))
    setattr(holder, "dropout" + suffix, Dropout(config.dropout_rate))
    for name in dataclasses.astuple(config.block_norms):
        if name is not None:
            setattr(holder, name + suffix, make_norm(config))
    if config.layer_scale:
        setattr(holder, "layer_scale" + suffix, param(jnp.ones((1,), jnp.dtype(config.weight_dtype)), (None,)))


def _attention_class(config: ModelConfig, layer: Layer) -> type[Attention | LatentAttention | GatedDelta]:
    attention = config.attention_of(layer)
    if isinstance(attention, DeltaConfig):
        return GatedDelta
    return LatentAttention if isinstance(attention, LatentConfig) else Attention


@dataclasses.dataclass(frozen=True)
class DecoderLayer:
    """One layer of a block's cycle: a view of the parts with its suffix in their holder, so that names stay flat."""

    holder: nnx.Module
    layer: Layer
    config: ModelConfig
    rules: Rules

    def __call__(
        self, x: Float[Array, "b t d"], context: Context, caches: PartCaches, keys: tuple[Array | None, ...]
    ) -> tuple[Float[Array, "b t d"], PartCaches]:
        """Attention, then the MLP or MoE, each between its norms and added to the residual stream."""
        norms, name = self.config.block_norms, "self_attention" + self.layer.suffix
        normed = self._norm(norms.pre_attention, x)
        attended, cache = self._part("self_attention", normed, context, caches.get(name, {}))
        x = constrain(self._add(x, self._norm(norms.post_attention, attended), keys[0]), EMBED_AXES, self.rules)
        hidden = self._feed_forward(self._norm(norms.pre_mlp, x), x, context)
        x = self._add(x, self._norm(norms.post_mlp, hidden), keys[1])
        x = constrain(self._scaled(x), EMBED_AXES, self.rules)
        if context.record:
            self.holder.sow(nnx.Intermediate, "hidden_states" + self.layer.suffix, x)
        return x, {name: cache} if cache else {}

    def _feed_forward(
        self, x: Float[Array, "b t d"], residual: Float[Array, "b t d"], context: Context
    ) -> Float[Array, "b t d"]:
        if isinstance(self.config.mlp_of(self.layer), MlpConfig):
            return self._part("mlp", x)
        return self._part("moe", x, residual, context)

    def _part(self, word: str, *args: object) -> typing.Any:
        """What the part with this layer's suffix returns; an attention returns its cache too."""
        name = word + self.layer.suffix
        with jax.named_scope(name):
            return getattr(self.holder, name)(*args)

    def _norm(self, name: str | None, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        return x if name is None else self._part(name, x)

    def _add(
        self, x: Float[Array, "b t d"], branch: Float[Array, "b t d"], key: Key[Array, ""] | None
    ) -> Float[Array, "b t d"]:
        return x + self._part("dropout", branch, key)

    def _scaled(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        if not self.config.layer_scale:
            return x
        scale_1 = getattr(self.holder, "layer_scale" + self.layer.suffix)[...]
        return x * scale_1.astype(x.dtype)[None, None, :]


class Block(nnx.Module):
    """One turn of a cycle: its layers' parts, each layer's in a module of the layer's name or told apart by suffix."""

    def __init__(self, config: ModelConfig, cycle: tuple[Layer, ...], *, rules: Rules, rngs: nnx.Rngs) -> None:
        self.config = config
        self.cycle = cycle
        self.rules = rules
        for layer in cycle:
            if layer.name is not None and not hasattr(self, layer.name):
                setattr(self, layer.name, nnx.Module())
            add_parts(self._holder(layer), config, layer, rules=rules, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b t d"], context: Context, cache: BlockCache, key: Key[Array, ""] | None
    ) -> tuple[Float[Array, "b t d"], BlockCache]:
        """Every layer of the cycle in turn. `cache` is by module path; `key` feeds every dropout."""
        num_draws = DRAWS_PER_LAYER * len(self.cycle)
        draws = [None] * num_draws if key is None else list(jax.random.split(key, num_draws))
        written: BlockCache = {}
        for index, layer in enumerate(self.cycle):
            keys = tuple(draws[DRAWS_PER_LAYER * index : DRAWS_PER_LAYER * (index + 1)])
            run = DecoderLayer(self._holder(layer), layer, self.config, self.rules)
            if layer.name is None:
                x, caches = run(x, context, cache, keys)
                written |= caches
            else:
                with jax.named_scope(layer.name):
                    x, caches = run(x, context, cache.get(layer.name, {}), keys)
                if caches:
                    written[layer.name] = written.get(layer.name, {}) | caches
        return x, written

    def _holder(self, layer: Layer) -> nnx.Module:
        return self if layer.name is None else getattr(self, layer.name)


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
        for stack in config.stacks:
            for name in stack.names:
                setattr(self, name, _make_block(config, stack, rules, rngs))
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
        x, left = self._run_stacks(x, context, cache, keys)
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
        return jax.random.split(self.rngs.dropout(), 1 + sum(stack.length for stack in self.config.stacks))

    def _run_stacks(
        self, x: Array, context: Context, cache: dict[str, BlockCache], keys: Array | None
    ) -> tuple[Array, dict[str, BlockOutput]]:
        left: dict[str, BlockOutput] = {}
        first = 1  # key 0 is the embedding's
        for stack in self.config.stacks:
            own_keys = None if keys is None else keys[first : first + stack.length]
            run = self._scan if stack.scanned else self._unroll
            x, outputs = run(stack, x, context, cache, own_keys)
            left |= outputs
            first += stack.length
        return x, left

    def _scan(
        self, stack: Stack, x: Array, context: Context, cache: dict[str, BlockCache], keys: Array | None
    ) -> tuple[Array, dict[str, BlockOutput]]:
        (name,) = stack.names
        graphdef, params = nnx.split(getattr(self, name))
        params = jax.tree.map(lambda stacked: jnp.moveaxis(stacked, 1, 0), params)
        step = _rematerialised(functools.partial(_run, graphdef, context), self.config.remat, prevent_cse=False)
        with jax.named_scope(name):
            x, left = jax.lax.scan(step, x, (params, cache.get(name, {}), keys))
        return x, {name: left}

    def _unroll(
        self, stack: Stack, x: Array, context: Context, cache: dict[str, BlockCache], keys: Array | None
    ) -> tuple[Array, dict[str, BlockOutput]]:
        left = {}
        for index, name in enumerate(stack.names):
            graphdef, params = nnx.split(getattr(self, name))
            step = _rematerialised(functools.partial(_run, graphdef, context), self.config.remat, prevent_cse=True)
            with jax.named_scope(name):
                key = None if keys is None else keys[index]
                x, left[name] = step(x, (params, cache.get(name, {}), key))
        return x, left


def _make_block(config: ModelConfig, stack: Stack, rules: Rules, rngs: nnx.Rngs) -> Block:
    """One block; of a scanned stack all in one module, each with its own initial values, stacked on axis 1 of each."""
    if not stack.scanned:
        return Block(config, stack.cycle, rules=rules, rngs=rngs)
    create = nnx.vmap(
        lambda key: Block(config, stack.cycle, rules=rules, rngs=nnx.Rngs(params=key)), out_axes=1,
        transform_metadata={nnx.PARTITION_NAME: stack.axis},
    )
    return create(jax.random.split(rngs.params(), stack.length))


def _run(graphdef: nnx.GraphDef, context: Context, x: Array, xs: tuple) -> tuple[Array, BlockOutput]:
    """One block, in the shape of a scan's body: its cache and what it sowed leave the loop beside the activations."""
    params, cache, key = xs
    block = nnx.merge(graphdef, params)
    if not context.record:
        x, written = block(x, context, cache, key)
        return x, (written, {})
    (x, written), sown = nnx.capture(block, nnx.Intermediate)(x, context, cache, key)
    return x, (written, nnx.to_pure_dict(sown))


def _rematerialised(step: Callable, remat: Remat, *, prevent_cse: bool) -> Callable:
    """`step` under the remat policy. Inside a scan nothing can be merged across steps, so CSE need not be prevented."""
    if remat is Remat.NONE:
        return step
    policies = {
        Remat.FULL: jax.checkpoint_policies.nothing_saveable,
        Remat.SAVE_DOTS: jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
    }
    return jax.checkpoint(step, policy=policies[remat], prevent_cse=prevent_cse)
