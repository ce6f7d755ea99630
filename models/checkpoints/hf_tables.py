"""What Hugging Face calls things: for each architecture its `config.json` attributes and its tensors, as data.

A tensor's line says our canonical name, their name, and how theirs is arranged into ours: `(N H) D -> D N H` reads a
matrix whose rows are heads times head dim into three axes. Nothing here computes; `huggingface.py` follows the tables.

Letters: `V` vocabulary, `D` model, `P` positions, `N` query heads, `K` key heads, `H` head dim, `F` hidden, `C` the
three of a fused query, key and value. `{i}` is the layer's number, `{s}` the suffix of its place in the cycle.
Which layers slide and how they turn is `hf_layers.py`.
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping

from ..config import Activation, ConfigError, LayerNorm, ModelConfig, preset
from .hf_layers import FULL, SLIDING, Json, Layers, every


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor, or one per layer when its names hold `{i}`; there if `given` says so of the model."""

    canonical: str
    theirs: str
    arrange: str
    given: Callable[[ModelConfig], bool] = lambda config: True


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

    `fixed` are the keys that could change the result and that we know only with these values. `layers` is None where
    positions are learned and every layer sees everything.
    """

    model_type: str
    class_name: str
    template: ModelConfig
    attributes: tuple[Attribute, ...]
    fixed: Mapping[str, Callable[[Json], tuple[typing.Any, ...]]]
    ignored: frozenset[str]
    tensors: tuple[Tensor, ...]
    layers: Layers | None = None


REQUIRED = object()
KV_HEADS = "num_key_value_heads"

IGNORED = frozenset({
    "_attn_implementation_autoset", "_name_or_path", "architectures", "attention_dropout", "bos_token_id",
    "cache_implementation", "chunk_size_feed_forward", "dtype", "eos_token_id", "id2label", "initializer_range",
    "label2id", "max_position_embeddings", "model_type", "output_attentions", "output_hidden_states", "pad_token_id",
    "problem_type", "return_dict", "torch_dtype", "transformers_version", "use_cache",
})
"""Keys that no logit depends on (`dtype` is read apart). Dropout is a setting of a training run, not of the weights."""


def _only(*values: object) -> Callable[[Json], tuple[typing.Any, ...]]:
    return lambda _: values


def _size(keys: Json, key: str) -> int:
    """A whole number that another key's default follows from."""
    if not isinstance(keys.get(key), int) or keys[key] < 1:
        raise ConfigError(key, keys.get(key), "must be a positive whole number", "set it")
    return keys[key]


def _heads(default: int | None) -> Callable[[Json], int]:
    """Key heads: null is as many as query heads; an absent key is that too, or the number the class has."""
    return lambda keys: default if default and KV_HEADS not in keys else _size(keys, "num_attention_heads")


def _width_over_heads(keys: Json) -> int:
    return _size(keys, "hidden_size") // _size(keys, "num_attention_heads")


_ACTIVATIONS = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "gelu_pytorch_tanh": Activation.GELU,
    "gelu_new": Activation.GELU,
    "gelu_fast": Activation.GELU,
}
"""The three of GELU are one formula, the tanh approximation. Their plain `gelu` is another function and not here."""

_COMMON_FIXED = {"is_encoder_decoder": _only(False)}
_ROTARY_FIXED = {**_COMMON_FIXED, "partial_rotary_factor": _only(None, 1.0)}
_CAUSAL = {"use_bidirectional_attention": _only(None, False)}
_NO_BIAS = {"attention_bias": _only(False)}
_BIAS = (
    Attribute("attention_bias", "attention.qkv_bias", False),
    Attribute(None, "attention.out_bias", lambda keys: bool(keys.get("attention_bias", False))),
)
"""One word for all four projections."""


def _rotary(
    *,
    kv_heads: int | None = None,
    head_dim: int | Callable[[Json], int] = _width_over_heads,
    epsilon: float = 1e-6,
    activation: Attribute | None = None,
    tied: bool = False,
) -> tuple[Attribute, ...]:
    """What all rotary classes read, with what an absent key means to this one."""
    return (
        Attribute("vocab_size", "vocab_size", REQUIRED),
        Attribute("hidden_size", "embed_dim", REQUIRED),
        Attribute("num_hidden_layers", "num_layers", REQUIRED),
        Attribute("num_attention_heads", "attention.num_heads", REQUIRED),
        Attribute(KV_HEADS, "attention.num_kv_heads", _heads(kv_heads)),
        Attribute("intermediate_size", "mlp.hidden_dim", REQUIRED),
        Attribute("rms_norm_eps", "norm.epsilon", epsilon),
        Attribute("head_dim", "attention.head_dim", head_dim),
        activation or Attribute("hidden_act", "mlp.activation", "silu", words=_ACTIVATIONS),
        Attribute("tie_word_embeddings", "tied_head", tied),
    )


_GEMMA_ACTIVATION = Attribute("hidden_activation", "mlp.activation", "gelu_pytorch_tanh", words=_ACTIVATIONS)
_QUERY_SCALAR = Attribute(
    "query_pre_attn_scalar", "attention.query_scale", 256,
    read=lambda scalar: scalar**-0.5, write=lambda scale: round(scale**-2),
)
_LAYER = "model.layers.{i}"


def _qkv_bias(config: ModelConfig) -> bool:
    return config.attention.qkv_bias


def _rotary_tensors(*norms: tuple[str, str]) -> tuple[Tensor, ...]:
    """What all rotary classes hold, and this one's norms around a layer's parts: our name, theirs."""
    attention, mlp = f"{_LAYER}.self_attn", f"{_LAYER}.mlp"
    return (
        Tensor("token_embedder/embedding", "model.embed_tokens.weight", "V D -> V D"),
        Tensor("decoder/decoder_norm/scale", "model.norm.weight", "D -> D"),
        _HEAD,
        Tensor("self_attention{s}/query/kernel", f"{attention}.q_proj.weight", "(N H) D -> D N H"),
        Tensor("self_attention{s}/key/kernel", f"{attention}.k_proj.weight", "(K H) D -> D K H"),
        Tensor("self_attention{s}/value/kernel", f"{attention}.v_proj.weight", "(K H) D -> D K H"),
        Tensor("self_attention{s}/out/kernel", f"{attention}.o_proj.weight", "D (N H) -> N H D"),
        Tensor("self_attention{s}/query/bias", f"{attention}.q_proj.bias", "(N H) -> N H", _qkv_bias),
        Tensor("self_attention{s}/key/bias", f"{attention}.k_proj.bias", "(K H) -> K H", _qkv_bias),
        Tensor("self_attention{s}/value/bias", f"{attention}.v_proj.bias", "(K H) -> K H", _qkv_bias),
        Tensor("self_attention{s}/out/bias", f"{attention}.o_proj.bias", "D -> D", lambda c: c.attention.out_bias),
        Tensor("mlp{s}/wi_0/kernel", f"{mlp}.gate_proj.weight", "F D -> D F"),
        Tensor("mlp{s}/wi_1/kernel", f"{mlp}.up_proj.weight", "F D -> D F"),
        Tensor("mlp{s}/wo/kernel", f"{mlp}.down_proj.weight", "D F -> F D"),
        Tensor("mlp{s}/wi_0/bias", f"{mlp}.gate_proj.bias", "F -> F", lambda config: config.mlp.bias),
        Tensor("mlp{s}/wi_1/bias", f"{mlp}.up_proj.bias", "F -> F", lambda config: config.mlp.bias),
        Tensor("mlp{s}/wo/bias", f"{mlp}.down_proj.bias", "D -> D", lambda config: config.mlp.bias),
        *(Tensor(f"{ours}{{s}}/scale", f"{_LAYER}.{theirs}.weight", "D -> D") for ours, theirs in norms),
    )


_HEAD = Tensor(
    "decoder/logits_dense/kernel", "lm_head.weight", "V D -> D V", lambda config: not config.tied_head
)
_HEAD_NORMS = (
    Tensor("self_attention{s}/query_norm/scale", f"{_LAYER}.self_attn.q_norm.weight", "H -> H"),
    Tensor("self_attention{s}/key_norm/scale", f"{_LAYER}.self_attn.k_norm.weight", "H -> H"),
)
_WIDTH_NORMS = (
    Tensor("self_attention{s}/query_norm/scale", f"{_LAYER}.self_attn.q_norm.weight", "(N H) -> (N H)"),
    Tensor("self_attention{s}/key_norm/scale", f"{_LAYER}.self_attn.k_norm.weight", "(K H) -> (K H)"),
)
_PRE_NORMS = _rotary_tensors(
    ("pre_self_attention_layer_norm", "input_layernorm"),
    ("post_self_attention_layer_norm", "post_attention_layernorm"),
)
_SANDWICH_NORMS = _rotary_tensors(
    ("pre_self_attention_norm", "input_layernorm"),
    ("post_self_attention_norm", "post_attention_layernorm"),
    ("pre_ffw_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
)

LLAMA = Architecture(
    model_type="llama",
    class_name="LlamaForCausalLM",
    template=preset("llama-tiny"),
    attributes=(*_rotary(), *_BIAS, Attribute("mlp_bias", "mlp.bias", False)),
    fixed=_ROTARY_FIXED,
    ignored=IGNORED | {"pretraining_tp"},
    tensors=_PRE_NORMS,
    layers=Layers(),
)

MISTRAL = Architecture(
    model_type="mistral",
    class_name="MistralForCausalLM",
    template=preset("mistral-tiny"),
    attributes=_rotary(kv_heads=8),
    fixed={**_ROTARY_FIXED, **_NO_BIAS},
    ignored=IGNORED,
    tensors=_PRE_NORMS,
    layers=Layers(
        types=lambda keys, window: (FULL if window is None else SLIDING,) * keys["num_hidden_layers"], window=4096
    ),
)


def _from_layer_on(keys: Json, window: int | None) -> tuple[str, ...]:
    """Qwen: full layers up to `max_window_layers`, sliding ones from there on."""
    first = keys.get("max_window_layers", 28)
    return tuple(FULL if window is None or i < first else SLIDING for i in range(keys["num_hidden_layers"]))


_QWEN_LAYERS = Layers(
    types=_from_layer_on, window=4096, switch=True, listed=True, keys=frozenset({"max_window_layers"})
)

QWEN2 = Architecture(
    model_type="qwen2",
    class_name="Qwen2ForCausalLM",
    template=preset("qwen2-tiny"),
    attributes=_rotary(kv_heads=32),
    # `use_mrope` is read by the vision model alone; the class has biases whatever `attention_bias` says.
    fixed={**_ROTARY_FIXED, "attention_bias": _only(True), "use_mrope": _only(None, False)},
    ignored=IGNORED,
    tensors=_PRE_NORMS,
    layers=_QWEN_LAYERS,
)

QWEN3 = Architecture(
    model_type="qwen3",
    class_name="Qwen3ForCausalLM",
    template=preset("qwen3-tiny"),
    attributes=(*_rotary(kv_heads=32, head_dim=128), *_BIAS),
    fixed=_ROTARY_FIXED,
    ignored=IGNORED,
    tensors=(*_PRE_NORMS, *_HEAD_NORMS),
    layers=_QWEN_LAYERS,
)

OLMO3 = Architecture(
    model_type="olmo3",
    class_name="Olmo3ForCausalLM",
    template=preset("olmo3-tiny"),
    attributes=(*_rotary(epsilon=1e-5), *_BIAS),
    fixed=_ROTARY_FIXED,
    ignored=IGNORED,
    tensors=(
        *_rotary_tensors(
            ("post_self_attention_layer_norm", "post_attention_layernorm"),
            ("post_mlp_layer_norm", "post_feedforward_layernorm"),
        ),
        *_WIDTH_NORMS,
    ),
    # The class takes the sliding layers' base from `rope_parameters` alone: `rope_theta` is the full ones'.
    layers=Layers(types=every(4), window=4096, listed=True, thetas={FULL: 500_000.0, SLIDING: 500_000.0}),
)

GEMMA = Architecture(
    model_type="gemma",
    class_name="GemmaForCausalLM",
    template=preset("gemma-tiny"),
    attributes=(
        # The class reads the first files' plain `gelu` as the tanh approximation that they mean.
        *_rotary(
            kv_heads=16, head_dim=256, tied=True,
            activation=Attribute(
                "hidden_act", "mlp.activation", "gelu_pytorch_tanh", words={**_ACTIVATIONS, "gelu": Activation.GELU}
            ),
        ),
        *_BIAS,
    ),
    fixed={**_ROTARY_FIXED, **_CAUSAL, "hidden_activation": _only(None, "gelu_pytorch_tanh")},
    ignored=IGNORED,
    tensors=_rotary_tensors(
        ("pre_self_attention_norm", "input_layernorm"), ("pre_ffw_norm", "post_attention_layernorm")
    ),
    layers=Layers(),
)

GEMMA2 = Architecture(
    model_type="gemma2",
    class_name="Gemma2ForCausalLM",
    template=preset("gemma2-tiny"),
    attributes=(
        *_rotary(kv_heads=4, head_dim=256, tied=True, activation=_GEMMA_ACTIVATION),
        *_BIAS,
        _QUERY_SCALAR,
        Attribute("attn_logit_softcapping", "attention.soft_cap", 50.0, null=True),
        Attribute("final_logit_softcapping", "final_soft_cap", 30.0, null=True),
    ),
    # `hidden_act` is not read by the class; published files carry it beside `hidden_activation`.
    fixed={**_ROTARY_FIXED, **_CAUSAL, "hidden_act": _only(None, "gelu_new", "gelu_pytorch_tanh")},
    ignored=IGNORED,
    tensors=_SANDWICH_NORMS,
    layers=Layers(types=every(2), window=4096, listed=True, suffixes={SLIDING: "_local", FULL: "_global"}),
)

GEMMA3 = Architecture(
    model_type="gemma3_text",
    class_name="Gemma3ForCausalLM",
    template=preset("gemma3-tiny"),
    attributes=(
        *_rotary(kv_heads=4, head_dim=256, tied=True, activation=_GEMMA_ACTIVATION),
        *_BIAS,
        _QUERY_SCALAR,
        Attribute("final_logit_softcapping", "final_soft_cap", None, null=True),
    ),
    # The class keeps `attn_logit_softcapping` and caps nothing with it.
    fixed={**_ROTARY_FIXED, **_CAUSAL, "attn_logit_softcapping": _only(None)},
    ignored=IGNORED | {"_sliding_window_pattern"},
    tensors=(*_SANDWICH_NORMS, *_HEAD_NORMS),
    layers=Layers(
        types=lambda keys, window: every(keys.get("sliding_window_pattern", 6))(keys, window), window=4096, listed=True,
        thetas={FULL: 1_000_000.0, SLIDING: 10_000.0}, local_theta="rope_local_base_freq",
        keys=frozenset({"sliding_window_pattern"}),
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
        Attribute(None, "attention.head_dim", lambda keys: _size(keys, "n_embd") // _size(keys, "n_head")),
        Attribute("n_inner", "mlp.hidden_dim", lambda keys: 4 * _size(keys, "n_embd")),
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
        _HEAD,
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

ARCHITECTURES = {
    architecture.model_type: architecture
    for architecture in (LLAMA, MISTRAL, QWEN2, QWEN3, OLMO3, GEMMA, GEMMA2, GEMMA3, GPT2)
}
"""By Hugging Face's `model_type`."""
FAMILIES = {architecture.template.family: architecture for architecture in ARCHITECTURES.values()}
"""By our family word: the architecture a model of that family is written as."""
