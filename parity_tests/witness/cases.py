"""Which models are witnessed: the recorded ones, and random ones for the live run. Plain data, no torch.

Each recorded model is small but has what its family's faults would otherwise hide behind: fewer key heads than query
heads, a head dim that is not width over heads, a window shorter than the text, caps that bite, its own query scale.
"""

import dataclasses
import typing

import numpy as np

Attributes = dict[str, typing.Any]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Right-padded tokens `[b, t]`; row `i` has `lengths[i]` of them."""

    tokens: np.ndarray
    lengths: tuple[int, ...]

    @property
    def valid(self) -> np.ndarray:
        """True where a token is, not padding."""
        return np.arange(self.tokens.shape[1])[None] < np.asarray(self.lengths)[:, None]


def draw_batch(vocab_size: int, lengths: tuple[int, ...], *, seed: int) -> Batch:
    """Tokens drawn evenly from the vocabulary, padding included: what it holds must not matter."""
    rng = np.random.default_rng(seed)
    return Batch(rng.integers(0, vocab_size, size=(len(lengths), max(lengths)), dtype=np.int32), lengths)


LENGTHS = (500, 61, 137)

_NO_SPECIAL_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
"""Defaults can lie outside of a small vocabulary, and the padding's row gets no gradient there."""


def _rotary(model_type: str, **changes: typing.Any) -> Attributes:
    return {
        "model_type": model_type, "vocab_size": 64, "hidden_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64,
        "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "max_position_embeddings": 512, **_NO_SPECIAL_TOKENS, **changes,
    }


_LATENT_ROPE = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}


def _latent(model_type: str, **changes: typing.Any) -> Attributes:
    """One of DeepSeek's, with a value that is not as wide as a key."""
    return {
        "model_type": model_type, "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 48, "moe_intermediate_size": 10,
        "num_experts_per_tok": 3, "kv_lora_rank": 16, "q_lora_rank": 20, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8,
        "v_head_dim": 10, "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "max_position_embeddings": 512,
        "tie_word_embeddings": False, **_NO_SPECIAL_TOKENS, **changes,
    }


def _without(attributes: Attributes, *keys: str) -> Attributes:
    return {key: value for key, value in attributes.items() if key not in keys}


RECORDED: dict[str, Attributes] = {
    "llama": _rotary(
        "llama", intermediate_size=80, hidden_act="silu", rms_norm_eps=1e-5, rope_theta=500_000.0,
        tie_word_embeddings=False,
    ),
    "llama3.1": _rotary(
        "llama", hidden_act="silu", rms_norm_eps=1e-5, rope_theta=500_000.0, tie_word_embeddings=False,
        attention_bias=True, mlp_bias=True,
        rope_scaling={
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "mistral": _rotary("mistral", sliding_window=24, tie_word_embeddings=False),
    "qwen2": _rotary(
        "qwen2", rope_theta=1_000_000.0, use_sliding_window=True, sliding_window=40, max_window_layers=1,
        tie_word_embeddings=False,
    ),
    "qwen3": _rotary("qwen3", rope_theta=1_000_000.0, tie_word_embeddings=True, attention_bias=False),
    "olmo3": _without(
        _rotary(
            "olmo3", hidden_size=40, num_hidden_layers=5, intermediate_size=56, sliding_window=24,
            tie_word_embeddings=False,
            rope_parameters={
                "full_attention": {
                    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "rope_theta": 10_000.0,
                },
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            },
        ),
        "rope_theta",
    ),
    "gemma": _rotary("gemma", num_key_value_heads=1, hidden_act="gelu_pytorch_tanh", tie_word_embeddings=True),
    "gemma2": _rotary(
        "gemma2", num_hidden_layers=4, rms_norm_eps=1e-5, hidden_activation="gelu_pytorch_tanh",
        tie_word_embeddings=True, query_pre_attn_scalar=24, sliding_window=24, attn_logit_softcapping=6.0,
        final_logit_softcapping=12.0,
    ),
    "gemma3": _rotary(
        "gemma3_text", vocab_size=56, hidden_size=32, num_hidden_layers=8, head_dim=12, intermediate_size=40,
        hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=True, query_pre_attn_scalar=24, sliding_window=24,
        rope_theta=1_000_000.0, rope_local_base_freq=10_000.0, rope_scaling={"rope_type": "linear", "factor": 4.0},
    ),
    "gpt2": {
        "model_type": "gpt2", "vocab_size": 64, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_inner": 64,
        "n_positions": 512, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True,
        **_NO_SPECIAL_TOKENS,
    },
    "mixtral": _rotary(
        "mixtral", hidden_size=40, head_dim=12, intermediate_size=20, sliding_window=24, num_local_experts=5,
        num_experts_per_tok=2, tie_word_embeddings=False,
    ),
    "qwen3_moe": _rotary(
        "qwen3_moe", hidden_size=40, head_dim=12, moe_intermediate_size=14, num_experts=8, num_experts_per_tok=3,
        norm_topk_prob=True, tie_word_embeddings=True,
    ),
    "gpt_oss": _rotary(
        "gpt_oss", hidden_size=32, num_hidden_layers=5, head_dim=12, intermediate_size=16, sliding_window=24,
        num_local_experts=4, num_experts_per_tok=2, swiglu_limit=1.5, rope_theta=150_000.0, tie_word_embeddings=False,
        rope_scaling={
            "rope_type": "yarn", "factor": 8.0, "truncate": False, "original_max_position_embeddings": 64,
        },
    ),
    "deepseek_v2": _latent(
        "deepseek_v2", q_lora_rank=None, num_hidden_layers=4, first_k_dense_replace=1, n_routed_experts=8, n_group=4,
        topk_group=2, topk_method="group_limited_greedy", n_shared_experts=2, routed_scaling_factor=1.5,
        rope_scaling={**_LATENT_ROPE, "mscale": 0.707, "mscale_all_dim": 0.707},
    ),
    "deepseek_v3": _latent(
        "deepseek_v3", num_hidden_layers=5, first_k_dense_replace=2, n_routed_experts=9, n_group=3, topk_group=2,
        n_shared_experts=1, routed_scaling_factor=2.5, norm_topk_prob=True, rope_interleave=True,
        rope_scaling={**_LATENT_ROPE, "mscale": 1.0, "mscale_all_dim": 0.8},
    ),
}
"""By name: the `config.json` of each recorded model."""
MODEL_TYPES = (
    "llama", "mistral", "qwen2", "qwen3", "olmo3", "gemma", "gemma2", "gemma3_text", "gpt2", "mixtral", "qwen3_moe",
    "gpt_oss", "deepseek_v2", "deepseek_v3",
)
"""What the live run draws models of."""


Pick = typing.Callable[..., typing.Any]


def random_attributes(model_type: str, seed: int) -> Attributes:
    """The `config.json` of a random small model of that type: sizes, traits and constants all drawn."""
    rng = np.random.default_rng([seed, MODEL_TYPES.index(model_type)])

    def pick(*values: typing.Any) -> typing.Any:
        return values[rng.integers(len(values))]

    heads, width = pick((2, 1), (4, 2), (4, 4), (6, 3)), pick(24, 36, 48)
    hidden, vocab, layers = pick(32, 56, 96), pick(37, 64, 83), pick(1, 2, 3)
    if model_type == "gpt2":
        return {
            "model_type": "gpt2", "vocab_size": vocab, "n_embd": width, "n_layer": layers, "n_head": heads[0],
            "n_inner": pick(None, hidden), "n_positions": pick(128, 200), "layer_norm_epsilon": pick(1e-6, 1e-5, 1e-3),
            "activation_function": pick("gelu_new", "gelu_pytorch_tanh"), "tie_word_embeddings": pick(True, False),
            **_NO_SPECIAL_TOKENS,
        }
    if model_type in _LATENT_TRAITS:
        return _random_latent(model_type, pick, vocab_size=vocab, hidden_size=width, num_attention_heads=heads[0])
    rotary = _rotary(
        model_type, vocab_size=vocab, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads[0],
        num_key_value_heads=heads[1], head_dim=pick(6, 8, 12, 20), intermediate_size=hidden,
        rms_norm_eps=pick(1e-6, 1e-5, 1e-3), rope_theta=pick(100.0, 10_000.0, 500_000.0),
        tie_word_embeddings=pick(True, False), max_position_embeddings=128,
    )
    return {**rotary, **_TRAITS[model_type](pick)}


def _scaling(pick: Pick) -> Attributes | None:
    """A scaling of the positions, or none."""
    original = {"original_max_position_embeddings": pick(16, 40)}
    factor = {"factor": pick(1.0, 2.0, 6.5)}
    return pick(
        None,
        {"rope_type": "linear", **factor},
        {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": pick(2.0, 4.0), **factor, **original},
        {"rope_type": "yarn", **factor, **original},
        {
            "rope_type": "yarn", "truncate": False, "beta_fast": 8.0, "beta_slow": pick(0.5, 2.0),
            "attention_factor": pick(0.8, 1.3), **factor, **original,
        },
        {"rope_type": "yarn", "mscale": 1.0, "mscale_all_dim": pick(0.5, 0.8), **factor, **original},
    )


def _llama(pick: Pick) -> Attributes:
    return {
        "hidden_act": pick("silu", "gelu_pytorch_tanh"), "attention_bias": pick(True, False),
        "mlp_bias": pick(True, False), "rope_scaling": _scaling(pick),
    }


def _mistral(pick: Pick) -> Attributes:
    return {"sliding_window": pick(None, 1, 2, 7, 31, 200), "rope_scaling": _scaling(pick)}


def _qwen(pick: Pick) -> Attributes:
    layers = pick(1, 2, 3, 4)
    windows = pick(
        {"use_sliding_window": False},
        {"max_window_layers": pick(0, 1, 2, 9)},
        {"layer_types": [pick("sliding_attention", "full_attention") for _ in range(layers)]},
    )
    return {
        "num_hidden_layers": layers, "use_sliding_window": True, "sliding_window": pick(2, 7, 31), **windows,
        "rope_scaling": _scaling(pick),
    }


def _qwen3(pick: Pick) -> Attributes:
    return {**_qwen(pick), "attention_bias": pick(True, False)}


def _per_type(pick: Pick) -> Attributes:
    """Positions of each type of layer, some without a word of their own."""
    full = {**(_scaling(pick) or {"rope_type": "default"}), "rope_theta": pick(100.0, 1e4, 1e6)}
    full.pop("truncate", None)  # the class does not read it here
    sliding = {"rope_type": "default", "rope_theta": pick(100.0, 1e4)}
    return pick({"full_attention": full, "sliding_attention": sliding}, {"full_attention": full})


def _olmo3(pick: Pick) -> Attributes:
    layers = pick(1, 3, 4, 5, 8, 9)
    types = [pick("sliding_attention", "full_attention") for _ in range(layers)]
    return {
        "num_hidden_layers": layers, "sliding_window": pick(2, 7, 31), "layer_types": pick(None, types),
        "attention_bias": pick(True, False), "rope_parameters": _per_type(pick),
    }


def _gemma(pick: Pick) -> Attributes:
    return {
        "hidden_act": pick("gelu", "gelu_pytorch_tanh"), "attention_bias": pick(True, False),
        "rope_scaling": _scaling(pick),
    }


def _gemma2(pick: Pick) -> Attributes:
    return {
        "num_hidden_layers": pick(1, 2, 3, 4), "query_pre_attn_scalar": pick(4, 16, 50),
        "sliding_window": pick(1, 2, 7, 31, 200), "attn_logit_softcapping": pick(None, 3.0, 20.0),
        "final_logit_softcapping": pick(None, 5.0, 30.0),
    }


def _gemma3(pick: Pick) -> Attributes:
    older = {"rope_scaling": pick(None, {"rope_type": "linear", "factor": 3.0}), "rope_local_base_freq": 50.0}
    return {
        "num_hidden_layers": pick(1, 2, 5, 6, 7, 13), "query_pre_attn_scalar": pick(4, 16, 50),
        "sliding_window": pick(1, 2, 7, 31, 200), "final_logit_softcapping": pick(None, 5.0, 30.0),
        **pick(older, {"rope_parameters": _per_type(pick)}), **pick({}, {"sliding_window_pattern": pick(1, 2, 3)}),
    }


def _mixtral(pick: Pick) -> Attributes:
    experts, chosen = pick((1, 1), (4, 2), (5, 3), (8, 2))
    return {
        **_mistral(pick), "hidden_act": pick("silu", "gelu_pytorch_tanh"), "num_local_experts": experts,
        "num_experts_per_tok": chosen,
    }


def _qwen3_moe(pick: Pick) -> Attributes:
    experts, chosen = pick((4, 4), (4, 2), (5, 3), (8, 2))
    return {
        "num_experts": experts, "num_experts_per_tok": chosen, "moe_intermediate_size": pick(8, 20),
        "norm_topk_prob": pick(True, False), "attention_bias": pick(True, False), "rope_scaling": _scaling(pick),
        "use_sliding_window": pick(True, False), "sliding_window": pick(2, 7, 31), "max_window_layers": 1,
    }


def _gpt_oss(pick: Pick) -> Attributes:
    layers = pick(1, 2, 3, 5)
    types = [pick("sliding_attention", "full_attention") for _ in range(layers)]
    experts, chosen = pick((4, 4), (4, 2), (5, 3), (8, 2))
    return {
        "num_hidden_layers": layers, "layer_types": pick(None, types), "sliding_window": pick(2, 7, 31),
        "num_local_experts": experts, "num_experts_per_tok": chosen, "swiglu_limit": pick(0.7, 2.0, 7.0),
        "attention_bias": pick(True, False), "rope_scaling": _scaling(pick),
    }


def _random_latent(model_type: str, pick: Pick, **sizes: int) -> Attributes:
    layers = pick(1, 2, 3, 4)
    experts, groups, kept, chosen = pick((4, 2, 1, 2), (6, 3, 2, 3), (8, 2, 2, 5), (9, 3, 2, 2), (5, 1, 1, 2))
    yarn = {"rope_type": "yarn", "factor": pick(2.0, 6.5), "original_max_position_embeddings": pick(16, 40)}
    both = {"mscale": 1.0, "mscale_all_dim": pick(0.5, 1.0)}
    scaling = pick(None, yarn, {**yarn, **both}, {**yarn, "mscale_all_dim": 0.7})
    return _latent(
        model_type, num_hidden_layers=layers, num_key_value_heads=sizes["num_attention_heads"], n_group=groups,
        topk_group=kept, num_experts_per_tok=chosen, n_routed_experts=experts, q_lora_rank=pick(None, 12),
        kv_lora_rank=pick(8, 20), qk_nope_head_dim=pick(6, 10), qk_rope_head_dim=pick(4, 8), v_head_dim=pick(6, 14),
        first_k_dense_replace=pick(0, layers - 1), moe_intermediate_size=pick(8, 20), intermediate_size=pick(32, 56),
        n_shared_experts=pick(1, 2), routed_scaling_factor=pick(1.0, 2.5), rope_scaling=scaling,
        rope_theta=pick(100.0, 10_000.0, 500_000.0), tie_word_embeddings=pick(True, False),
        max_position_embeddings=128, **_LATENT_TRAITS[model_type](pick), **sizes,
    )


_LATENT_TRAITS: dict[str, typing.Callable[[Pick], Attributes]] = {
    "deepseek_v2": lambda pick: {"topk_method": pick("greedy", "group_limited_greedy")},
    "deepseek_v3": lambda pick: {"norm_topk_prob": pick(True, False), "rope_interleave": pick(True, False)},
}

_TRAITS: dict[str, typing.Callable[[Pick], Attributes]] = {
    "llama": _llama, "mistral": _mistral, "qwen2": _qwen, "qwen3": _qwen3, "olmo3": _olmo3, "gemma": _gemma,
    "gemma2": _gemma2, "gemma3_text": _gemma3, "mixtral": _mixtral, "qwen3_moe": _qwen3_moe, "gpt_oss": _gpt_oss,
}
"""What a model of each type has besides the sizes."""


def random_batch(vocab_size: int, seed: int) -> Batch:
    """Three ragged rows of up to 110 tokens, one of them short."""
    rng = np.random.default_rng([seed, 17])
    lengths = tuple(int(length) for length in rng.integers((90, 3, 40), (111, 30, 100)))
    return draw_batch(vocab_size, lengths, seed=seed)
