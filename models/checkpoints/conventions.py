"""What the names and numbers in a MaxText checkpoint mean in our words: the same tree under other conventions.

Facts, each read in MaxText's sources (2026):

* Separate query kernels are stored divided by `sqrt(head_dim)`: `layers/attentions.py` (`init_query_w`) folds the
  factor into the initializer, `checkpoint_conversion` folds it into imported weights, and the forward pass multiplies
  by nothing unless `query_pre_attn_scalar` is set, which llama, mistral, gemma and gemma2 never do. So `query_scale` is
  1 there, as for mixtral. Models with a norm or a bias on the query (gemma3, qwen2, qwen3, olmo3, gpt_oss) do set it:
  their kernels are plain. So are llama4's (`models/llama4.py` says that it scales as it runs rather than in the
  conversion) and gemma4's, whose scale is 1. Latent attention multiplies its query as it runs
  (`layers/attention_mla.py`): plain, too.
* gpt3's fused projection is stored plain: `models/gpt3.py` divides the query by `sqrt(head_dim)` as it runs.
* RMSNorm multiplies by the stored scale (`layers/normalizations.py`, `scale_offset = 0`), so the scales of gemma 1 to
  3, those of query and key included, are stored with their one added. gpt3's LayerNorm adds the one itself
  (`Gpt3LayerNorm`: `scale + 1`), and so does qwen3-next's norm (`Qwen3NextRMSNorm`: `scale_offset = 1`). gemma4's
  scales are the factors themselves, there and here.
* The token table of every gemma is stored multiplied by `sqrt(embed_dim)` and read without a factor; the tied head
  divides its logits by `sqrt(embed_dim)` (`normalize_embedding_logits`, true by default). Ours multiplies as it reads
  and never divides, so this table is rescaled on the way: no config alone could say it, since both ends read the one
  table.
* gpt3, qwen2, qwen3 and olmo3 set `normalize_embedding_logits` to false and scale nothing.
* The tied head rounds its table to bfloat16 in every dtype (`attend_on_embedding`). That is arithmetic, not a stored
  number: the logits of a tied float32 model differ from MaxText's by that rounding.
* Unscanned, layers that are modules of their own in a block (gemma3, olmo3, gpt_oss) are numbered through: `layers_7`
  and no blocks (`layers/decoders.py`). gemma2's pairs are blocks there as here.
* The model whose query and key are normed over all heads (`model_name.startswith("olmo3")` in `layers/attentions.py`)
  calls its attention `attention` (`models/olmo3.py`); the one with sinks calls it `GptOssAttention`
  (`models/gpt_oss.py`), all others `self_attention`.
* A mixture of experts has a name in each model: `MoeBlock_0` (mixtral), `moe_block` (qwen3, which norms query and key),
  `GptOssMlp` (gpt_oss), and `DeepSeekMoeBlock_0` around `MoeBlock_0` and `shared_experts` (deepseek), as
  `Llama4MoEBlock_0` (llama4).
* qwen3-next has words of its own for nearly every part of a layer (`Qwen3NextDecoderLayer`), `layer_0` for a layer of a
  scanned block, and folds head and width of the output projection into one axis.
* gemma4's mixture is `mlp` (`Gemma4MoE`). Scanned, a block is `scanned_blocks`, and scans its local layers once more: a
  leaf of `local_layers` holds all of them. One of ours is a slice of that leaf, and is called so (`local_layers[2]`).
* A gate has one bias, `gate/bias`, whatever it is for (`GateLogit` in `layers/moe.py`): added to the logits in gpt_oss,
  to the choice alone in deepseek.
* The weights of mixtral's and qwen3's experts are the softmax of the chosen logits. That is the softmax of all, divided
  by the chosen ones' sum, so nothing is stored otherwise.
"""

import dataclasses
import functools
import pathlib
import typing
from collections.abc import Callable, Mapping

from ..config import LatentAttention, ModelConfig, Moe, Projection, QkNorm, Unrotated
from .store import load

if typing.TYPE_CHECKING:
    from ..protocol import Params

TOKEN_TABLE = "token_embedder/embedding"
_QWEN3_NEXT = [
    ("pre_self_attention_layer_norm", "input_layernorm"),
    ("post_self_attention_layer_norm", "post_attention_layernorm"),
    *((f"self_attention/{part}", f"attention/attention/{part}")
      for part in ("query", "key", "value", "out", "query_norm", "key_norm")),
    ("self_attention/norm", "attention/norm/rms_norm"),
    ("self_attention", "attention"),
    ("moe/shared_experts", "mlp/shared_expert"),
    ("moe/shared_gate", "mlp/shared_expert_gate"),
    ("moe", "mlp/routed_experts"),
]  # fmt: skip
_GEMMA4 = [
    *((f"moe/{norm}", f"mlp/{norm}") for norm in (
        "post_feedforward_layernorm_1", "pre_feedforward_layernorm_2", "post_feedforward_layernorm_2")),
    ("moe/shared_experts", "mlp/moe_block/shared_experts"),
    ("moe/gate/expert_scale", "mlp/moe_block/MoeBlock_0/per_expert_scale"),
    ("moe/gate/scale", "mlp/pre_forward_scale_2"),
    ("moe", "mlp/moe_block/MoeBlock_0"),
    ("layer_scale", "layer_scalar"),
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Convention:
    """The config under which MaxText's stored weights mean the same model, once `factors` have multiplied them.

    `rename` turns our name of a parameter into the one it is stored under.
    """

    config: ModelConfig
    factors: Mapping[str, float]
    rename: Callable[[str], str]


def maxtext_convention(config: ModelConfig) -> Convention:
    """How to read weights that MaxText stored for the model of `config`."""
    attention, norm = config.attention, config.norm
    if isinstance(attention, LatentAttention):
        norm = dataclasses.replace(norm, zero_centered=False)
    elif attention.projection is not Projection.FUSED:
        if not attention.out_gate:
            norm = dataclasses.replace(norm, zero_centered=False)
        if attention.qk_norm is None and not attention.qkv_bias and not _skips_positions(config):
            attention = dataclasses.replace(attention, query_scale=1.0)
    rescaled = config.scale_embedding and config.tied_head
    factors = {TOKEN_TABLE: config.embed_dim**-0.5} if rescaled else {}
    changed = config.replace(attention=attention, norm=norm)
    return Convention(changed, factors, functools.partial(maxtext_name, config))


def _skips_positions(config: ModelConfig) -> bool:
    """Whether it is llama4: one of its sizes has neither a norm nor a bias on the query."""
    return any(isinstance(config.positions_of(layer), Unrotated) for layer in config.cycle)


def maxtext_name(config: ModelConfig, name: str) -> str:
    """What MaxText calls one of our parameters. No two parameters of a config have the same name there."""
    words = name.split("/")
    number = _numbers(config).get(tuple(words[1:3]))
    if number is not None:
        words[1:3] = [f"layers_{number}"]
    stored = "/".join([*words, ""])
    for ours, theirs in _modules(config):
        stored = stored.replace(f"/{ours}/", f"/{theirs}/")
    return stored[:-1]


def _modules(config: ModelConfig) -> list[tuple[str, str]]:
    """Our path and MaxText's of what one model calls otherwise than all the others there; inner ones first."""
    attention, number_of_layers = config.attention, len(config.cycle)
    if isinstance(attention, LatentAttention):
        shared = ("moe/shared_experts", "DeepSeekMoeBlock_0/shared_experts")
        return [shared, ("moe", "DeepSeekMoeBlock_0/MoeBlock_0"), ("gate/choice_bias", "gate/bias")]
    if attention.sinks:
        return [("self_attention", "GptOssAttention"), ("moe", "GptOssMlp")]
    if attention.qk_norm is QkNorm.WIDTH:
        return [("self_attention", "attention")]
    if attention.out_gate:
        return _QWEN3_NEXT + [(f"layers/layers_{at}", f"layers/layer_{at}") for at in range(number_of_layers)]
    if attention.value_norm:
        wide = (f"layers/layers_{number_of_layers - 1}", "scanned_blocks/global_layer")
        local = [(f"layers/layers_{at}", f"scanned_blocks/local_layers[{at}]") for at in range(number_of_layers - 1)]
        return [*_GEMMA4, wide, *local]
    if isinstance(config.mlp, Moe) and config.mlp.scale_inputs:
        return [("moe/shared_experts", "Llama4MoEBlock_0/shared_experts"), ("moe", "Llama4MoEBlock_0/MoeBlock_0")]
    return [("moe", "MoeBlock_0" if attention.qk_norm is None else "moe_block")]


def _numbers(config: ModelConfig) -> dict[tuple[str, ...], int]:
    """The number of each unscanned layer by its block's name and its own, where every layer has a name."""
    if config.scan_layers or any(layer.name is None for layer in config.cycle):
        return {}
    layers = [(block, str(layer.name)) for stack in config.stacks for block in stack.names for layer in stack.cycle]
    return {layer: number for number, layer in enumerate(layers)}


def load_maxtext(path: str | pathlib.Path, config: ModelConfig) -> "tuple[ModelConfig, Params]":
    """Config and parameters of a checkpoint that MaxText wrote for the model of `config`.

    Raises:
        CheckpointError: as `load`.
    """
    convention = maxtext_convention(config)
    _, params = load(path, config=convention.config, rename=convention.rename)
    factors = {name: params[name] * factor for name, factor in convention.factors.items()}
    return convention.config, params | factors
