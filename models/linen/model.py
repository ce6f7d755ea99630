"""The whole model: token embedding and decoder.

B batch, T query position, V vocabulary.
"""

from flax import linen as nn
from jaxtyping import Array, Float, Int

from ..config import ModelConfig
from ..protocol import Mode
from .decoder import Decoder
from .layers import Embed


class Transformer(nn.Module):
    """A decoder-only transformer. In decode mode it keeps keys and values in the collection `cache`."""

    config: ModelConfig
    mode: Mode = Mode.TRAIN
    deterministic: bool = True

    def setup(self) -> None:
        """Declares the two parts."""
        config = self.config
        self.token_embedder = Embed(config, config.vocab_size, config.embed_dim**-0.5)
        self.decoder = Decoder(config, self.mode, self.deterministic)

    def __call__(
        self, tokens_BT: Int[Array, "b t"], positions_BT: Int[Array, "b t"], segments_BT: Int[Array, "b t"]
    ) -> Float[Array, "b t v"]:
        """Logits in float32."""
        x_BTD = self.token_embedder(tokens_BT)
        return self.decoder(x_BTD, self.token_embedder.embedding, positions_BT, segments_BT)
