"""Which models are recorded. Plain data, no torch; the live run's random ones are in `random_cases.py`.

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

NO_SPECIAL_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
"""Defaults can lie outside of a small vocabulary, and the padding's row gets no gradient there."""


def rotary(model_type: str, **changes: typing.Any) -> Attributes:
    """What most classes read, changed."""
    return {
        "model_type": model_type, "vocab_size": 64, "hidden_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64,
        "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "max_position_embeddings": 512, **NO_SPECIAL_TOKENS, **changes,
    }


_LATENT_ROPE = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}


def latent(model_type: str, **changes: typing.Any) -> Attributes:
    """One of DeepSeek's, with a value that is not as wide as a key."""
    return {
        "model_type": model_type, "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 48, "moe_intermediate_size": 10,
        "num_experts_per_tok": 3, "kv_lora_rank": 16, "q_lora_rank": 20, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8,
        "v_head_dim": 10, "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "max_position_embeddings": 512,
        "tie_word_embeddings": False, **NO_SPECIAL_TOKENS, **changes,
    }


def _without(attributes: Attributes, *keys: str) -> Attributes:
    return {key: value for key, value in attributes.items() if key not in keys}


RECORDED: dict[str, Attributes] = {
    "llama": rotary(
        "llama", intermediate_size=80, hidden_act="silu", rms_norm_eps=1e-5, rope_theta=500_000.0,
        tie_word_embeddings=False,
    ),
    "llama3.1": rotary(
        "llama", hidden_act="silu", rms_norm_eps=1e-5, rope_theta=500_000.0, tie_word_embeddings=False,
        attention_bias=True, mlp_bias=True,
        rope_scaling={
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "mistral": rotary("mistral", sliding_window=24, tie_word_embeddings=False),
    "qwen2": rotary(
        "qwen2", rope_theta=1_000_000.0, use_sliding_window=True, sliding_window=40, max_window_layers=1,
        tie_word_embeddings=False,
    ),
    "qwen3": rotary("qwen3", rope_theta=1_000_000.0, tie_word_embeddings=True, attention_bias=False),
    "olmo3": _without(
        rotary(
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
    "gemma": rotary("gemma", num_key_value_heads=1, hidden_act="gelu_pytorch_tanh", tie_word_embeddings=True),
    "gemma2": rotary(
        "gemma2", num_hidden_layers=4, rms_norm_eps=1e-5, hidden_activation="gelu_pytorch_tanh",
        tie_word_embeddings=True, query_pre_attn_scalar=24, sliding_window=24, attn_logit_softcapping=6.0,
        final_logit_softcapping=12.0,
    ),
    "gemma3": rotary(
        "gemma3_text", vocab_size=56, hidden_size=32, num_hidden_layers=8, head_dim=12, intermediate_size=40,
        hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=True, query_pre_attn_scalar=24, sliding_window=24,
        rope_theta=1_000_000.0, rope_local_base_freq=10_000.0, rope_scaling={"rope_type": "linear", "factor": 4.0},
    ),
    "gpt2": {
        "model_type": "gpt2", "vocab_size": 64, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_inner": 64,
        "n_positions": 512, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True,
        **NO_SPECIAL_TOKENS,
    },
    "mixtral": rotary(
        "mixtral", hidden_size=40, head_dim=12, intermediate_size=20, sliding_window=24, num_local_experts=5,
        num_experts_per_tok=2, tie_word_embeddings=False,
    ),
    "qwen3_moe": rotary(
        "qwen3_moe", hidden_size=40, head_dim=12, moe_intermediate_size=14, num_experts=8, num_experts_per_tok=3,
        norm_topk_prob=True, tie_word_embeddings=True,
    ),
    "gpt_oss": rotary(
        "gpt_oss", hidden_size=32, num_hidden_layers=5, head_dim=12, intermediate_size=16, sliding_window=24,
        num_local_experts=4, num_experts_per_tok=2, swiglu_limit=1.5, rope_theta=150_000.0, tie_word_embeddings=False,
        rope_scaling={
            "rope_type": "yarn", "factor": 8.0, "truncate": False, "original_max_position_embeddings": 64,
        },
    ),
    "deepseek_v2": latent(
        "deepseek_v2", q_lora_rank=None, num_hidden_layers=4, first_k_dense_replace=1, n_routed_experts=8, n_group=4,
        topk_group=2, topk_method="group_limited_greedy", n_shared_experts=2, routed_scaling_factor=1.5,
        rope_scaling={**_LATENT_ROPE, "mscale": 0.707, "mscale_all_dim": 0.707},
    ),
    "deepseek_v3": latent(
        "deepseek_v3", num_hidden_layers=5, first_k_dense_replace=2, n_routed_experts=9, n_group=3, topk_group=2,
        n_shared_experts=1, routed_scaling_factor=2.5, norm_topk_prob=True, rope_interleave=True,
        rope_scaling={**_LATENT_ROPE, "mscale": 1.0, "mscale_all_dim": 0.8},
    ),
    # Two whole cycles of dense layers and mixtures in turn, chunked and not, and one layer of a third.
    "llama4": _without(
        rotary(
            "llama4_text", vocab_size=48, hidden_size=32, num_hidden_layers=9, head_dim=12, intermediate_size=12,
            intermediate_size_mlp=24, num_local_experts=4, num_experts_per_tok=1, interleave_moe_layer_step=2,
            attention_chunk_size=24, floor_scale=64, attn_scale=0.3, use_qk_norm=True, tie_word_embeddings=False,
            rms_norm_eps=1e-5,
            rope_parameters={
                "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0,
                "original_max_position_embeddings": 64, "rope_theta": 10_000.0,
            },
        ),
        "rope_theta",
    ),
    # A document's first token reads but `q k` of its own value, and the norm that follows divides by that. A smaller
    # epsilon lets one token hold all the error of both runs, and the ratio of two single errors says little.
    "qwen3_next": rotary(
        "qwen3_next", hidden_size=32, num_hidden_layers=5, moe_intermediate_size=10, num_experts=6,
        num_experts_per_tok=3, shared_expert_intermediate_size=14, linear_num_key_heads=2, linear_num_value_heads=4,
        linear_key_head_dim=6, linear_value_head_dim=10, rms_norm_eps=1e-4, tie_word_embeddings=False,
        attention_bias=False,
    ),
    "gemma4": _without(
        rotary(
            "gemma4_text", vocab_size=56, hidden_size=24, num_hidden_layers=12, head_dim=8, global_head_dim=16,
            intermediate_size=20, num_global_key_value_heads=1, attention_k_eq_v=True, enable_moe_block=True,
            num_experts=4, top_k_experts=2, moe_intermediate_size=8, hidden_size_per_layer_input=0, sliding_window=24,
            final_logit_softcapping=12.0, tie_word_embeddings=True,
        ),
        "rope_theta",
    ),
}
"""By name: the `config.json` of each recorded model."""
