"""Hugging Face's dense classes: their `config.json` attributes and tensors, as data; the words are `hf_words.py`."""

from ..config import Activation, LayerNorm, preset
from .hf_gemma4 import GEMMA4
from .hf_hybrids import LLAMA4, QWEN3_NEXT
from .hf_layers import FULL, SLIDING, Json, Layers, all_alike, every
from .hf_mixtures import DEEPSEEK_V2, DEEPSEEK_V3, GPT_OSS, MIXTRAL, QWEN3_MOE
from .hf_words import (
    ACTIVATIONS,
    BIAS,
    CAUSAL,
    COMMON_FIXED,
    GEMMA_ACTIVATION,
    HEAD,
    HEAD_NORMS,
    IGNORED,
    NO_BIAS,
    PRE_NORM_NAMES,
    REQUIRED,
    ROTARY_FIXED,
    SANDWICH_NAMES,
    SELF_ATTENTION,
    Architecture,
    Attribute,
    Tensor,
    only,
    rotary,
    rotary_tensors,
    size_of,
)  # fmt: skip

_QUERY_SCALAR = Attribute(
    "query_pre_attn_scalar", "attention.query_scale", 256,
    read=lambda scalar: scalar**-0.5, write=lambda scale: round(scale**-2),
)
_WIDTH_NORMS = (
    Tensor("self_attention{s}/query_norm/scale", f"{SELF_ATTENTION}.q_norm.weight", "(N H) -> (N H)"),
    Tensor("self_attention{s}/key_norm/scale", f"{SELF_ATTENTION}.k_norm.weight", "(K H) -> (K H)"),
)
PRE_NORMS = rotary_tensors(*PRE_NORM_NAMES)
_SANDWICH_NORMS = rotary_tensors(*SANDWICH_NAMES)

LLAMA = Architecture(
    model_type="llama",
    class_name="LlamaForCausalLM",
    template=preset("llama-tiny"),
    attributes=(*rotary(), *BIAS, Attribute("mlp_bias", "mlp.bias", False)),
    fixed=ROTARY_FIXED,
    ignored=IGNORED | {"pretraining_tp"},
    tensors=PRE_NORMS,
    layers=Layers(),
)

MISTRAL = Architecture(
    model_type="mistral",
    class_name="MistralForCausalLM",
    template=preset("mistral-tiny"),
    attributes=rotary(kv_heads=8),
    fixed={**ROTARY_FIXED, **NO_BIAS},
    ignored=IGNORED,
    tensors=PRE_NORMS,
    layers=Layers(types=all_alike, window=4096),
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
    attributes=rotary(kv_heads=32),
    # `use_mrope` is read by the vision model alone; the class has biases whatever `attention_bias` says.
    fixed={**ROTARY_FIXED, "attention_bias": only(True), "use_mrope": only(None, False)},
    ignored=IGNORED,
    tensors=PRE_NORMS,
    layers=_QWEN_LAYERS,
)

QWEN3 = Architecture(
    model_type="qwen3",
    class_name="Qwen3ForCausalLM",
    template=preset("qwen3-tiny"),
    attributes=(*rotary(kv_heads=32, head_dim=128), *BIAS),
    fixed=ROTARY_FIXED,
    ignored=IGNORED,
    tensors=(*PRE_NORMS, *HEAD_NORMS),
    layers=_QWEN_LAYERS,
)

OLMO3 = Architecture(
    model_type="olmo3",
    class_name="Olmo3ForCausalLM",
    template=preset("olmo3-tiny"),
    attributes=(*rotary(epsilon=1e-5), *BIAS),
    fixed=ROTARY_FIXED,
    ignored=IGNORED,
    tensors=(
        *rotary_tensors(
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
        *rotary(
            kv_heads=16, head_dim=256, tied=True,
            activation=Attribute(
                "hidden_act", "mlp.activation", "gelu_pytorch_tanh", words={**ACTIVATIONS, "gelu": Activation.GELU}
            ),
        ),
        *BIAS,
    ),
    fixed={**ROTARY_FIXED, **CAUSAL, "hidden_activation": only(None, "gelu_pytorch_tanh")},
    ignored=IGNORED,
    tensors=rotary_tensors(
        ("pre_self_attention_norm", "input_layernorm"), ("pre_ffw_norm", "post_attention_layernorm")
    ),
    layers=Layers(),
)

GEMMA2 = Architecture(
    model_type="gemma2",
    class_name="Gemma2ForCausalLM",
    template=preset("gemma2-tiny"),
    attributes=(
        *rotary(kv_heads=4, head_dim=256, tied=True, activation=GEMMA_ACTIVATION),
        *BIAS,
        _QUERY_SCALAR,
        Attribute("attn_logit_softcapping", "attention.soft_cap", 50.0, null=True),
        Attribute("final_logit_softcapping", "final_soft_cap", 30.0, null=True),
    ),
    # `hidden_act` is not read by the class; published files carry it beside `hidden_activation`.
    fixed={**ROTARY_FIXED, **CAUSAL, "hidden_act": only(None, "gelu_new", "gelu_pytorch_tanh")},
    ignored=IGNORED,
    tensors=_SANDWICH_NORMS,
    layers=Layers(types=every(2), window=4096, listed=True, suffixes={SLIDING: "_local", FULL: "_global"}),
)

GEMMA3 = Architecture(
    model_type="gemma3_text",
    class_name="Gemma3ForCausalLM",
    template=preset("gemma3-tiny"),
    attributes=(
        *rotary(kv_heads=4, head_dim=256, tied=True, activation=GEMMA_ACTIVATION),
        *BIAS,
        _QUERY_SCALAR,
        Attribute("final_logit_softcapping", "final_soft_cap", None, null=True),
    ),
    # The class keeps `attn_logit_softcapping` and caps nothing with it.
    fixed={**ROTARY_FIXED, **CAUSAL, "attn_logit_softcapping": only(None)},
    ignored=IGNORED | {"_sliding_window_pattern"},
    tensors=(*_SANDWICH_NORMS, *HEAD_NORMS),
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
        Attribute(None, "attention.head_dim", lambda keys: size_of(keys, "n_embd") // size_of(keys, "n_head")),
        Attribute("n_inner", "mlp.hidden_dim", lambda keys: 4 * size_of(keys, "n_embd")),
        Attribute("n_positions", "positions.length", REQUIRED),
        Attribute("activation_function", "mlp.activation", "gelu_new", words=ACTIVATIONS),
        Attribute("layer_norm_epsilon", "norm.epsilon", 1e-5),
        Attribute("tie_word_embeddings", "tied_head", True),
    ),
    fixed={
        **COMMON_FIXED,
        "scale_attn_weights": only(True),
        "scale_attn_by_inverse_layer_idx": only(False),
        "add_cross_attention": only(False),
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
        HEAD,
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

_ALL = (
    LLAMA, MISTRAL, QWEN2, QWEN3, OLMO3, GEMMA, GEMMA2, GEMMA3, GPT2,
    MIXTRAL, QWEN3_MOE, GPT_OSS, DEEPSEEK_V2, DEEPSEEK_V3, LLAMA4, QWEN3_NEXT, GEMMA4,
)  # fmt: skip
ARCHITECTURES = {**{architecture.model_type: architecture for architecture in _ALL}, "kimi_k2": DEEPSEEK_V3}
"""By Hugging Face's `model_type`."""
FAMILIES = {
    family: tuple(architecture for architecture in _ALL if architecture.template.family == family)
    for family in (architecture.template.family for architecture in _ALL)
}
"""By our family word: the architectures that a model of that family may be written as, one of which `writes` it."""
