"""What the numbers in a MaxText checkpoint mean in our words: the same tree under other conventions.

Facts, each read in MaxText's sources (2026):

* Separate query kernels are stored divided by `sqrt(head_dim)`: `layers/attentions.py` (`init_query_w`) folds the
  factor into the initializer, `checkpoint_conversion` folds it into imported weights, and the forward pass multiplies
  by nothing unless `query_pre_attn_scalar` is set, which neither llama nor gemma2 does. So `query_scale` is 1 there.
* gpt3's fused projection is stored plain: `models/gpt3.py` divides the query by `sqrt(head_dim)` as it runs.
* Llama's and gemma2's RMSNorm multiply by the stored scale (`layers/normalizations.py`, `scale_offset = 0`), so
  gemma2's scales are stored with their one added. gpt3's LayerNorm adds the one itself (`Gpt3LayerNorm`: `scale + 1`).
* gemma2's token table is stored multiplied by `sqrt(embed_dim)` and read without a factor; the tied head divides its
  logits by `sqrt(embed_dim)` (`normalize_embedding_logits`, true by default). Ours multiplies as it reads and never
  divides, so this table is rescaled on the way: no config alone could say it, since both ends read the one table.
* gpt3 sets `normalize_embedding_logits` to false and scales nothing.
* The tied head rounds its table to bfloat16 in every dtype (`attend_on_embedding`). That is arithmetic, not a stored
  number: the logits of a tied float32 model differ from MaxText's by that rounding.
"""

import dataclasses
import pathlib
import typing
from collections.abc import Mapping

from ..config import ModelConfig, Projection
from .store import load

if typing.TYPE_CHECKING:
    from ..protocol import Params

TOKEN_TABLE = "token_embedder/embedding"


@dataclasses.dataclass(frozen=True)
class Convention:
    """The config under which MaxText's stored weights mean the same model, once `factors` have multiplied them."""

    config: ModelConfig
    factors: Mapping[str, float]


def maxtext_convention(config: ModelConfig) -> Convention:
    """How to read weights that MaxText stored for the model of `config`."""
    attention, norm = config.attention, config.norm
    fused = attention.projection is Projection.FUSED
    if not fused:
        attention = dataclasses.replace(attention, query_scale=1.0)
        norm = dataclasses.replace(norm, zero_centered=False)
    rescaled = config.scale_embedding and config.tied_head
    factors = {TOKEN_TABLE: config.embed_dim**-0.5} if rescaled else {}
    return Convention(config.replace(attention=attention, norm=norm), factors)


def load_maxtext(path: str | pathlib.Path, config: ModelConfig) -> "tuple[ModelConfig, Params]":
    """Config and parameters of a checkpoint that MaxText wrote for the model of `config`.

    Raises:
        CheckpointError: as `load`.
    """
    convention = maxtext_convention(config)
    _, params = load(path, config=convention.config)
    factors = {name: params[name] * factor for name, factor in convention.factors.items()}
    return convention.config, params | factors
