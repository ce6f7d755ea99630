"""The whole transformer: token embedding, decoder, head.

Shape letters: B batch, T query, D model, V vocab.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ..config import ModelConfig
from ..protocol import Mode
from ..sharding import Rules
from .attention import Context
from .decoder import BlockCache, Decoder, Sown
from .layers import Embed


@dataclasses.dataclass(frozen=True)
class Output:
    """Float32 logits, the cache as it stands after the call (`Mode.DECODE`), and what the layers sowed if asked to."""

    logits: Float[Array, "b t v"]
    cache: dict[str, typing.Any]
    intermediates: dict[str, Sown]


class Transformer(nnx.Module):
    """A decoder-only language model. `rngs` needs the stream `params`, and `dropout` if the config drops anything."""

    def __init__(self, config: ModelConfig, *, rules: Rules, rngs: nnx.Rngs) -> None:
        self.config = config
        self.token_embedder = Embed(config.vocab_size, std=config.embed_dim**-0.5, config=config, rngs=rngs)
        self.decoder = Decoder(config, rules=rules, rngs=rngs)

    def __call__(
        self,
        tokens: Int[Array, "b t"],
        *,
        positions: Int[Array, "b t"] | None = None,
        segment_ids: Int[Array, "b t"] | None = None,
        mode: Mode = Mode.TRAIN,
        cache: dict[str, BlockCache] | None = None,
        deterministic: bool = True,
        record: bool = False,
    ) -> Output:
        """Logits of every position. `cache` is by block name, then by path in the block; `Mode.DECODE` needs it."""
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
        if segment_ids is None:
            segment_ids = jnp.ones(tokens.shape, jnp.int32)
        context = Context(positions, segment_ids, mode, record)
        with jax.named_scope("token_embedder"):
            x = self.token_embedder(tokens)
        with jax.named_scope("decoder"):
            x, left = self.decoder(x, context, cache or {}, deterministic=deterministic)
            logits_BTV = self.decoder.head(x, self.token_embedder.embedding[...])
        written = {name: cache for name, (cache, _) in left.items()}
        return Output(logits_BTV, written, {name: sown for name, (_, sown) in left.items()})
