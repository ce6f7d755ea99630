"""The words in which Hugging Face's classes are told as data, and what several of them have in common.

A tensor's line says our canonical name, their name, and how theirs is arranged into ours: `(N H) D -> D N H` reads a
matrix whose rows are heads times head dim into three axes. Nothing here computes; `huggingface.py` follows the tables.

Letters: `V` vocabulary, `D` model, `P` positions, `N` query heads, `K` key heads, `H` a head's query or key, `F` an
MLP's hidden width, `C` the three of a fused query, key and value, `J` a head's query and, where it has one, its
gate; `E` experts, `M` an expert's hidden width, `S` the shared ones', `G` the two halves of a fused input kernel; of
latent attention `R` the rank, `A` the rank and the rotated key, `Q` the query's rank, `U` a head's value, `B` a head's
unrotated key and its value; of the gated delta rule `L` value heads, `U` a head's value, `X` channels, `W` the
convolution's width, `Z` all that is projected wide and `Y` all that is projected narrow. `()` is an axis of one.
`{i}` is the layer's number, `{s}` the suffix of its place in the cycle, `{e}` the expert's number.
Which layers slide and how they turn is `hf_layers.py`.
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping

from ..config import Activation, Attention, ConfigError, GatedDelta, LatentAttention, Mlp, ModelConfig, Moe
from .hf_layers import Json, Layers


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor, or one per layer when its name holds `{i}`, or one per expert stacked on axis 0 when it holds `{e}`.

    There if `given` says so of the model; with `of`, in the layers of which a part is an `of`, if `given` says so of
    that part. `part`: theirs holds two of ours, and this one is that index of the arrangement's first axis.
    """

    canonical: str
    theirs: str
    arrange: str
    given: Callable[[typing.Any], bool] = lambda _: True
    of: type[Mlp | Moe | Attention | LatentAttention | GatedDelta] | None = None
    part: int | None = None


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
class Derived:
    """Fields and keys of which one follows from several: `read` gives fields by path, `write` gives `keys`."""

    keys: frozenset[str]
    read: Callable[[Json], Mapping[str, typing.Any]]
    write: Callable[[ModelConfig], Mapping[str, typing.Any]]


@dataclasses.dataclass(frozen=True)
class Varied:
    """Keys by which layers differ in more than `hf_layers.py` says: in attention, feed-forward part or positions.

    `read` is given the model that all other keys describe, and gives it its layers; `write` gives `keys`.
    """

    keys: frozenset[str]
    read: Callable[[ModelConfig, Json], ModelConfig]
    write: Callable[[ModelConfig], Mapping[str, typing.Any]]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One `model_type`: `template` has every field that no attribute sets.

    `fixed` are the keys that could change the result and that we know only with these values. `layers` is None where
    `varied` says all about the layers, or where positions are learned and every layer sees everything. `writes` chooses
    among the classes of one family. `unread` begins the names of tensors that published files hold and the class leaves
    out.
    """

    model_type: str
    class_name: str
    template: ModelConfig
    attributes: tuple[Attribute, ...]
    fixed: Mapping[str, Callable[[Json], tuple[typing.Any, ...]]]
    ignored: frozenset[str]
    tensors: tuple[Tensor, ...]
    layers: Layers | None = None
    derived: Derived | None = None
    varied: Varied | None = None
    writes: Callable[[ModelConfig], bool] = lambda config: True
    unread: str | None = None


REQUIRED = object()
KV_HEADS = "num_key_value_heads"

IGNORED = frozenset({
    "_attn_implementation_autoset", "_name_or_path", "architectures", "attention_dropout", "bos_token_id",
    "cache_implementation", "chunk_size_feed_forward", "dtype", "eos_token_id", "id2label", "initializer_range",
    "label2id", "max_position_embeddings", "model_type", "output_attentions", "output_hidden_states", "pad_token_id",
    "problem_type", "return_dict", "torch_dtype", "transformers_version", "use_cache",
})
"""Keys that no logit depends on (`dtype` is read apart). Dropout is a setting of a training run, not of the weights."""


def only(*values: object) -> Callable[[Json], tuple[typing.Any, ...]]:
    return lambda _: values


def size_of(keys: Json, key: str) -> int:
    """A whole number that another key's default follows from."""
    if not isinstance(keys.get(key), int) or keys[key] < 1:
        raise ConfigError(key, keys.get(key), "must be a positive whole number", "set it")
    return keys[key]


def flag(keys: Json, key: str, *, absent: bool) -> bool:
    """A key that is true or false."""
    if not isinstance(keys.get(key, absent), bool):
        raise ConfigError(key, keys[key], "must be true or false", "write which")
    return keys.get(key, absent)


def key_heads(default: int | None) -> Callable[[Json], int]:
    """Key heads: null is as many as query heads; an absent key is that too, or the number the class has."""
    return lambda keys: default if default and KV_HEADS not in keys else size_of(keys, "num_attention_heads")


def width_over_heads(keys: Json) -> int:
    return size_of(keys, "hidden_size") // size_of(keys, "num_attention_heads")


ACTIVATIONS = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "gelu_pytorch_tanh": Activation.GELU,
    "gelu_new": Activation.GELU,
    "gelu_fast": Activation.GELU,
    "quick_gelu": Activation.QUICK_GELU,
}
"""The three of GELU are one formula, the tanh approximation. Their plain `gelu` is another function and not here."""

COMMON_FIXED = {"is_encoder_decoder": only(False)}
ROTARY_FIXED = {**COMMON_FIXED, "partial_rotary_factor": only(None, 1.0)}
CAUSAL = {"use_bidirectional_attention": only(None, False)}
NO_BIAS = {"attention_bias": only(False)}
BIAS = (
    Attribute("attention_bias", "attention.qkv_bias", False),
    Attribute(None, "attention.out_bias", lambda keys: bool(keys.get("attention_bias", False))),
)
"""One word for all four projections."""


def rotary(
    *,
    kv_heads: int | None = None,
    head_dim: int | Callable[[Json], int] = width_over_heads,
    epsilon: float = 1e-6,
    activation: Attribute | None = None,
    hidden: Attribute | None = None,
    tied: bool = False,
) -> tuple[Attribute, ...]:
    """What all rotary classes read, with what an absent key means to this one."""
    return (
        Attribute("vocab_size", "vocab_size", REQUIRED),
        Attribute("hidden_size", "embed_dim", REQUIRED),
        Attribute("num_hidden_layers", "num_layers", REQUIRED),
        Attribute("num_attention_heads", "attention.num_heads", REQUIRED),
        Attribute(KV_HEADS, "attention.num_kv_heads", key_heads(kv_heads)),
        hidden or Attribute("intermediate_size", "mlp.hidden_dim", REQUIRED),
        Attribute("rms_norm_eps", "norm.epsilon", epsilon),
        Attribute("head_dim", "attention.head_dim", head_dim),
        activation or Attribute("hidden_act", "mlp.activation", "silu", words=ACTIVATIONS),
        Attribute("tie_word_embeddings", "tied_head", tied),
    )


LAYER = "model.layers.{i}"


def _biased(mlp: Mlp) -> bool:
    return mlp.bias


def norms(*names: tuple[str, str]) -> tuple[Tensor, ...]:
    """The norms around a layer's parts: our name, theirs."""
    return tuple(Tensor(f"{ours}{{s}}/scale", f"{LAYER}.{theirs}.weight", "D -> D") for ours, theirs in names)


def gated(ours: str, theirs: str, width: str = "F", of: type[Mlp | Moe] = Mlp) -> tuple[Tensor, ...]:
    """The three kernels of a gated MLP."""
    return (
        Tensor(f"{ours}/wi_0/kernel", f"{theirs}.gate_proj.weight", f"{width} D -> D {width}", of=of),
        Tensor(f"{ours}/wi_1/kernel", f"{theirs}.up_proj.weight", f"{width} D -> D {width}", of=of),
        Tensor(f"{ours}/wo/kernel", f"{theirs}.down_proj.weight", f"D {width} -> {width} D", of=of),
    )


def rotary_tensors(*names: tuple[str, str]) -> tuple[Tensor, ...]:
    """What all dense rotary classes hold, and this one's norms around a layer's parts: our name, theirs."""
    mlp = f"{LAYER}.mlp"
    return (
        *OUTER,
        *ATTENTION,
        *gated("mlp{s}", mlp),
        Tensor("mlp{s}/wi_0/bias", f"{mlp}.gate_proj.bias", "F -> F", _biased, Mlp),
        Tensor("mlp{s}/wi_1/bias", f"{mlp}.up_proj.bias", "F -> F", _biased, Mlp),
        Tensor("mlp{s}/wo/bias", f"{mlp}.down_proj.bias", "D -> D", _biased, Mlp),
        *norms(*names),
    )


SELF_ATTENTION = f"{LAYER}.self_attn"
HEAD = Tensor(
    "decoder/logits_dense/kernel", "lm_head.weight", "V D -> D V", lambda config: not config.tied_head
)
HEAD_NORMS = (
    Tensor("self_attention{s}/query_norm/scale", f"{SELF_ATTENTION}.q_norm.weight", "H -> H", of=Attention),
    Tensor("self_attention{s}/key_norm/scale", f"{SELF_ATTENTION}.k_norm.weight", "H -> H", of=Attention),
)


def _of_attention(
    name: str, theirs: str, arrange: str, given: Callable[[Attention], bool] = lambda _: True
) -> Tensor:
    return Tensor(f"self_attention{{s}}/{name}", f"{SELF_ATTENTION}.{theirs}", arrange, given, Attention)


def _qkv_bias(attention: Attention) -> bool:
    return attention.qkv_bias


def _own_value(attention: Attention) -> bool:
    return not attention.share_kv


ATTENTION = (
    _of_attention("query/kernel", "q_proj.weight", "(N J) D -> D N J"),
    _of_attention("key/kernel", "k_proj.weight", "(K H) D -> D K H"),
    _of_attention("value/kernel", "v_proj.weight", "(K H) D -> D K H", _own_value),
    _of_attention("out/kernel", "o_proj.weight", "D (N H) -> N H D"),
    _of_attention("query/bias", "q_proj.bias", "(N J) -> N J", _qkv_bias),
    _of_attention("key/bias", "k_proj.bias", "(K H) -> K H", _qkv_bias),
    _of_attention("value/bias", "v_proj.bias", "(K H) -> K H", lambda part: _qkv_bias(part) and _own_value(part)),
    _of_attention("out/bias", "o_proj.bias", "D -> D", lambda attention: attention.out_bias),
)
OUTER = (
    Tensor("token_embedder/embedding", "model.embed_tokens.weight", "V D -> V D"),
    Tensor("decoder/decoder_norm/scale", "model.norm.weight", "D -> D"),
    HEAD,
)
PRE_NORM_NAMES = (
    ("pre_self_attention_layer_norm", "input_layernorm"),
    ("post_self_attention_layer_norm", "post_attention_layernorm"),
)
SANDWICH_NAMES = (
    ("pre_self_attention_norm", "input_layernorm"),
    ("post_self_attention_norm", "post_attention_layernorm"),
    ("pre_ffw_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
)
GEMMA_ACTIVATION = Attribute("hidden_activation", "mlp.activation", "gelu_pytorch_tanh", words=ACTIVATIONS)
