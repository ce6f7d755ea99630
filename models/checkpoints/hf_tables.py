"""What Hugging Face calls things: for each architecture its `config.json` attributes and its tensors, as data.

A tensor's line says our canonical name, their name, and how theirs is arranged into ours: `(N H) D -> D N H` reads a
matrix whose rows are heads times head dim into three axes. Nothing here computes; `huggingface.py` follows the tables.

Letters: `V` vocabulary, `D` model, `P` positions, `N` query heads, `K` key heads, `H` head dim, `F` hidden, `C` the
three of a fused query, key and value. `{i}` is the layer's number, `{s}` the suffix of its place in the cycle.
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping

from ..config import Activation, LayerNorm, ModelConfig, preset

Json = Mapping[str, typing.Any]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor, or one per layer when its names hold `{i}`."""

    canonical: str
    theirs: str
    arrange: str


@dataclasses.dataclass(frozen=True)
class Attribute:
    """One key of `config.json` and the field of `ModelConfig` it sets.

    `default` is what an absent key means there: a value, a function of the other keys (null means the same), or
    `REQUIRED`. A field without a key follows from the others. `null` says whether null is a value of its own; `words`
    are the values they spell otherwise, the first spelling of each being the one we write.
    """

    key: str | None
    field: str
    default: typing.Any
    null: bool = False
    words: Mapping[str, typing.Any] | None = None
    read: Callable[[typing.Any], typing.Any] = lambda value: value
    write: Callable[[typing.Any], typing.Any] = lambda value: value


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One `model_type`: `template` has every field that no attribute sets.

    `fixed` are the keys that could change the result and that we know only with these values.
    """

    model_type: str
    class_name: str
    template: ModelConfig
    attributes: tuple[Attribute, ...]
    fixed: Mapping[str, Callable[[Json], tuple[typing.Any, ...]]]
    ignored: frozenset[str]
    tensors: tuple[Tensor, ...]


REQUIRED = object()

IGNORED = frozenset({
    "_attn_implementation_autoset", "_name_or_path", "architectures", "attention_dropout", "bos_token_id",
    "cache_implementation", "chunk_size_feed_forward", "dtype", "eos_token_id", "id2label", "initializer_range",
    "label2id", "max_position_embeddings", "model_type", "output_attentions", "output_hidden_states", "pad_token_id",
    "problem_type", "return_dict", "torch_dtype", "transformers_version", "use_cache",
})
"""Keys that no logit depends on (`dtype` is read apart). Dropout is a setting of a training run, not of the weights."""


def _only(*values: object) -> Callable[[Json], tuple[typing.Any, ...]]:
    return lambda _: values


_ACTIVATIONS = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "gelu_pytorch_tanh": Activation.GELU,
    "gelu_new": Activation.GELU,
    "gelu_fast": Activation.GELU,
}
"""The three of GELU are one formula, the tanh approximation. Their plain `gelu` is another function and not here."""

_COMMON_FIXED = {"is_encoder_decoder": _only(False)}
_ROTARY_FIXED = {**_COMMON_FIXED, "attention_bias": _only(False), "partial_rotary_factor": _only(None, 1.0)}

_ROTARY_ATTRIBUTES = (
    Attribute("vocab_size", "vocab_size", REQUIRED),
    Attribute("hidden_size", "embed_dim", REQUIRED),
    Attribute("num_hidden_layers", "num_layers", REQUIRED),
    Attribute("num_attention_heads", "attention.num_heads", REQUIRED),
    Attribute("num_key_value_heads", "attention.num_kv_heads", lambda keys: keys["num_attention_heads"]),
    Attribute("intermediate_size", "mlp.hidden_dim", REQUIRED),
    Attribute("rms_norm_eps", "norm.epsilon", 1e-6),
    Attribute("rope_theta", "positions.max_timescale", 10_000.0),
)

_ROTARY_TENSORS = (
    Tensor("token_embedder/embedding", "model.embed_tokens.weight", "V D -> V D"),
    Tensor("decoder/decoder_norm/scale", "model.norm.weight", "D -> D"),
    Tensor("decoder/logits_dense/kernel", "lm_head.weight", "V D -> D V"),
    Tensor("self_attention{s}/query/kernel", "model.layers.{i}.self_attn.q_proj.weight", "(N H) D -> D N H"),
    Tensor("self_attention{s}/key/kernel", "model.layers.{i}.self_attn.k_proj.weight", "(K H) D -> D K H"),
    Tensor("self_attention{s}/value/kernel", "model.layers.{i}.self_attn.v_proj.weight", "(K H) D -> D K H"),
    Tensor("self_attention{s}/out/kernel", "model.layers.{i}.self_attn.o_proj.weight", "D (N H) -> N H D"),
    Tensor("mlp{s}/wi_0/kernel", "model.layers.{i}.mlp.gate_proj.weight", "F D -> D F"),
    Tensor("mlp{s}/wi_1/kernel", "model.layers.{i}.mlp.up_proj.weight", "F D -> D F"),
    Tensor("mlp{s}/wo/kernel", "model.layers.{i}.mlp.down_proj.weight", "D F -> F D"),
)

LLAMA = Architecture(
    model_type="llama",
    class_name="LlamaForCausalLM",
    template=preset("llama-tiny"),
    attributes=(
        *_ROTARY_ATTRIBUTES,
        Attribute("head_dim", "attention.head_dim", lambda keys: keys["hidden_size"] // keys["num_attention_heads"]),
        Attribute("hidden_act", "mlp.activation", "silu", words=_ACTIVATIONS),
        Attribute("tie_word_embeddings", "tied_head", False),
    ),
    fixed={**_ROTARY_FIXED, "mlp_bias": _only(False)},
    ignored=IGNORED | {"pretraining_tp"},
    tensors=(
        *_ROTARY_TENSORS,
        Tensor("pre_self_attention_layer_norm{s}/scale", "model.layers.{i}.input_layernorm.weight", "D -> D"),
        Tensor("post_self_attention_layer_norm{s}/scale", "model.layers.{i}.post_attention_layernorm.weight", "D -> D"),
    ),
)


def _alternating(keys: Json) -> tuple[typing.Any, ...]:
    pair = ["sliding_attention", "full_attention"]
    return (None, [pair[layer % 2] for layer in range(keys["num_hidden_layers"])])


GEMMA2 = Architecture(
    model_type="gemma2",
    class_name="Gemma2ForCausalLM",
    template=preset("gemma2-tiny"),
    attributes=(
        *_ROTARY_ATTRIBUTES,
        Attribute("head_dim", "attention.head_dim", 256),
        Attribute("hidden_activation", "mlp.activation", "gelu_pytorch_tanh", words=_ACTIVATIONS),
        Attribute("tie_word_embeddings", "tied_head", True),
        Attribute(
            "query_pre_attn_scalar", "attention.query_scale", 256,
            read=lambda scalar: scalar**-0.5, write=lambda scale: round(scale**-2),
        ),
        Attribute("sliding_window", "cycle.0.window", 4096),
        Attribute("attn_logit_softcapping", "attention.soft_cap", 50.0, null=True),
        Attribute("final_logit_softcapping", "final_soft_cap", 30.0, null=True),
    ),
    fixed={
        **_ROTARY_FIXED,
        "layer_types": _alternating,
        "use_bidirectional_attention": _only(None, False),
        # Not read by the class; published files carry it beside `hidden_activation`.
        "hidden_act": _only(None, "gelu_new", "gelu_pytorch_tanh"),
    },
    ignored=IGNORED,
    tensors=(
        *_ROTARY_TENSORS,
        Tensor("pre_self_attention_norm{s}/scale", "model.layers.{i}.input_layernorm.weight", "D -> D"),
        Tensor("post_self_attention_norm{s}/scale", "model.layers.{i}.post_attention_layernorm.weight", "D -> D"),
        Tensor("pre_ffw_norm{s}/scale", "model.layers.{i}.pre_feedforward_layernorm.weight", "D -> D"),
        Tensor("post_ffw_norm{s}/scale", "model.layers.{i}.post_feedforward_layernorm.weight", "D -> D"),
    ),
)

GPT2 = Architecture(
    model_type="gpt2",
    class_name="GPT2LMHeadModel",
    # Their scales are stored around one, so no arithmetic touches a weight.
    template=preset("gpt3-tiny").replace(norm=LayerNorm(epsilon=1e-5, zero_centered=False)),
    attributes=(
        Attribute("vocab_size", "vocab_size", REQUIRED),
        Attribute("n_embd", "embed_dim", REQUIRED),
        Attribute("n_layer", "num_layers", REQUIRED),
        Attribute("n_head", "attention.num_heads", REQUIRED),
        Attribute(None, "attention.num_kv_heads", lambda keys: keys["n_head"]),
        Attribute(None, "attention.head_dim", lambda keys: keys["n_embd"] // keys["n_head"]),
        Attribute("n_inner", "mlp.hidden_dim", lambda keys: 4 * keys["n_embd"]),
        Attribute("n_positions", "positions.length", REQUIRED),
        Attribute("activation_function", "mlp.activation", "gelu_new", words=_ACTIVATIONS),
        Attribute("layer_norm_epsilon", "norm.epsilon", 1e-5),
        Attribute("tie_word_embeddings", "tied_head", True),
    ),
    fixed={
        **_COMMON_FIXED,
        "scale_attn_weights": _only(True),
        "scale_attn_by_inverse_layer_idx": _only(False),
        "add_cross_attention": _only(False),
    },
    # `reorder_and_upcast_attn` changes roundings only. `n_ctx` and `summary_*` belong to other heads.
    ignored=(IGNORED - {"max_position_embeddings"}) | {
        "attn_pdrop", "embd_pdrop", "n_ctx", "reorder_and_upcast_attn", "resid_pdrop", "summary_activation",
        "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj", "task_specific_params",
    },
    tensors=(
        Tensor("token_embedder/embedding", "transformer.wte.weight", "V D -> V D"),
        Tensor("decoder/position_embedder/embedding", "transformer.wpe.weight", "P D -> P D"),
        Tensor("decoder/decoder_norm/scale", "transformer.ln_f.weight", "D -> D"),
        Tensor("decoder/decoder_norm/bias", "transformer.ln_f.bias", "D -> D"),
        Tensor("decoder/logits_dense/kernel", "lm_head.weight", "V D -> D V"),
        Tensor("pre_self_attention_norm{s}/scale", "transformer.h.{i}.ln_1.weight", "D -> D"),
        Tensor("pre_self_attention_norm{s}/bias", "transformer.h.{i}.ln_1.bias", "D -> D"),
        Tensor("self_attention{s}/qkv_proj/kernel", "transformer.h.{i}.attn.c_attn.weight", "D (C N H) -> D C N H"),
        Tensor("self_attention{s}/qkv_proj/bias", "transformer.h.{i}.attn.c_attn.bias", "(C N H) -> C N H"),
        Tensor("self_attention{s}/out/kernel", "transformer.h.{i}.attn.c_proj.weight", "(N H) D -> N H D"),
        Tensor("self_attention{s}/out/bias", "transformer.h.{i}.attn.c_proj.bias", "D -> D"),
        Tensor("mlp{s}/mlp_layer_norm/scale", "transformer.h.{i}.ln_2.weight", "D -> D"),
        Tensor("mlp{s}/mlp_layer_norm/bias", "transformer.h.{i}.ln_2.bias", "D -> D"),
        Tensor("mlp{s}/wi/kernel", "transformer.h.{i}.mlp.c_fc.weight", "D F -> D F"),
        Tensor("mlp{s}/wi/bias", "transformer.h.{i}.mlp.c_fc.bias", "F -> F"),
        Tensor("mlp{s}/wo/kernel", "transformer.h.{i}.mlp.c_proj.weight", "F D -> F D"),
        Tensor("mlp{s}/wo/bias", "transformer.h.{i}.mlp.c_proj.bias", "D -> D"),
    ),
)

ARCHITECTURES = {"llama": LLAMA, "gemma2": GEMMA2, "gpt2": GPT2}
"""By Hugging Face's `model_type`."""
FAMILIES = {architecture.template.family: architecture for architecture in ARCHITECTURES.values()}
"""By our family word: the architecture a model of that family is written as."""
