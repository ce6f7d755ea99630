"""Random small models for the live run, of every class that is read. Plain data, no torch.

Sizes, traits and constants are all drawn; the recorded models are in `cases.py`.
"""

import typing

import numpy as np

from .cases import NO_SPECIAL_TOKENS, Attributes, Batch, draw_batch, latent, rotary

MODEL_TYPES = (
    "llama", "mistral", "qwen2", "qwen3", "olmo3", "gemma", "gemma2", "gemma3_text", "gpt2", "mixtral", "qwen3_moe",
    "gpt_oss", "deepseek_v2", "deepseek_v3", "llama4_text", "qwen3_next", "gemma4_text",
)
"""What the live run draws models of."""


Pick = typing.Callable[..., typing.Any]
ABSENT = object()
"""A key that this type does not have."""


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
            **NO_SPECIAL_TOKENS,
        }
    if model_type in _LATENT_TRAITS:
        return _random_latent(model_type, pick, vocab_size=vocab, hidden_size=width, num_attention_heads=heads[0])
    common = rotary(
        model_type, vocab_size=vocab, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads[0],
        num_key_value_heads=heads[1], head_dim=pick(6, 8, 12, 20), intermediate_size=hidden,
        rms_norm_eps=pick(1e-6, 1e-5, 1e-3), rope_theta=pick(100.0, 10_000.0, 500_000.0),
        tie_word_embeddings=pick(True, False), max_position_embeddings=128,
    )
    given = {**common, **_TRAITS[model_type](pick)}
    return {key: value for key, value in given.items() if value is not ABSENT}


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
    return latent(
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


def _llama4(pick: Pick) -> Attributes:
    layers = pick(1, 2, 4, 5, 8, 9)
    experts, chosen = pick((1, 1), (4, 1), (5, 2))
    chunked = [pick("chunked_attention", "full_attention") for _ in range(layers)]
    step = {"interleave_moe_layer_step": pick(1, 2, 3)}
    narrow = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 1.0, "factor": 4.0}
    return {
        "num_hidden_layers": layers, "intermediate_size_mlp": pick(16, 40), "num_local_experts": experts,
        "num_experts_per_tok": chosen, "attention_chunk_size": pick(1, 7, 31, 200), "floor_scale": pick(4, 16, 8192),
        "attn_scale": pick(0.1, 0.5), "attn_temperature_tuning": pick(True, False), "use_qk_norm": pick(True, False),
        "attention_bias": pick(True, False), "layer_types": pick(None, None, chunked),
        "no_rope_layers": pick([], [], [pick(0, 1) for _ in range(layers)]),
        **pick(step, step, {"moe_layers": [layer for layer in range(layers) if pick(True, False)]}),
        "rope_scaling": pick(_scaling(pick), {**narrow, "original_max_position_embeddings": 40}),
    }


def _qwen3_next(pick: Pick) -> Attributes:
    layers = pick(1, 3, 4, 5)
    types = [pick("linear_attention", "full_attention") for _ in range(layers)]
    experts, chosen = pick((4, 4), (4, 2), (5, 3), (8, 2))
    keys, values = pick((1, 1), (2, 2), (2, 4), (1, 3))
    return {
        "num_hidden_layers": layers, "num_experts": experts, "num_experts_per_tok": chosen,
        "moe_intermediate_size": pick(8, 20), "shared_expert_intermediate_size": pick(8, 20),
        "norm_topk_prob": pick(True, False), "attention_bias": pick(True, False), "rope_scaling": _scaling(pick),
        "linear_num_key_heads": keys, "linear_num_value_heads": values, "linear_key_head_dim": pick(4, 6),
        "linear_value_head_dim": pick(4, 10), "linear_conv_kernel_dim": pick(2, 3, 4),
        "head_dim": pick(8, 16), "partial_rotary_factor": pick(0.25, 0.5, 1.0), **pick({}, {"layer_types": types}),
        "rms_norm_eps": pick(1e-4, 1e-3),  # the reason stands at the recorded model
    }


def _gemma4(pick: Pick) -> Attributes:
    layers = pick(1, 2, 5, 6, 7, 13)
    types = [*(pick("sliding_attention", "full_attention") for _ in range(layers - 1)), "full_attention"]
    experts, chosen = pick((4, 4), (4, 2), (5, 3))
    turning = {"rope_type": "proportional", "partial_rotary_factor": pick(0.25, 0.5), "rope_theta": pick(100.0, 1e6)}
    full = pick(turning, {**turning, "factor": 2.0}, {"rope_type": "linear", "factor": 3.0, "rope_theta": 1e4})
    sliding = {"rope_type": "default", "rope_theta": pick(100.0, 1e4)}
    return {
        "num_hidden_layers": layers, "sliding_window": pick(1, 2, 7, 31, 200), "global_head_dim": pick(8, 16, 24),
        "final_logit_softcapping": pick(None, 5.0, 30.0), "attention_bias": pick(True, False),
        "attention_k_eq_v": pick(True, False), "num_global_key_value_heads": pick(None, 1),
        "hidden_size_per_layer_input": 0, "enable_moe_block": pick(True, False), "num_experts": experts,
        "top_k_experts": chosen, "moe_intermediate_size": pick(8, 20), "rope_theta": ABSENT,
        "layer_types": pick(None, types),
        "rope_parameters": pick(None, {"full_attention": full, "sliding_attention": sliding}),
    }


_TRAITS: dict[str, typing.Callable[[Pick], Attributes]] = {
    "llama": _llama, "mistral": _mistral, "qwen2": _qwen, "qwen3": _qwen3, "olmo3": _olmo3, "gemma": _gemma,
    "gemma2": _gemma2, "gemma3_text": _gemma3, "mixtral": _mixtral, "qwen3_moe": _qwen3_moe, "gpt_oss": _gpt_oss,
    "llama4_text": _llama4, "qwen3_next": _qwen3_next, "gemma4_text": _gemma4,
}
"""What a model of each type has besides the sizes."""


def random_batch(vocab_size: int, seed: int) -> Batch:
    """Three ragged rows of up to 110 tokens, one of them short."""
    rng = np.random.default_rng([seed, 17])
    lengths = tuple(int(length) for length in rng.integers((90, 3, 40), (111, 30, 100)))
    return draw_batch(vocab_size, lengths, seed=seed)
