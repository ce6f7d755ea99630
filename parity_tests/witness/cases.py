"""Which models are witnessed: three recorded ones, and random ones for the live run. Plain data, no torch.

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


LENGTHS = (300, 187, 263)

_NO_SPECIAL_TOKENS = {"bos_token_id": None, "eos_token_id": None}
"""GPT-2's defaults lie outside of a small vocabulary."""

RECORDED: dict[str, Attributes] = {
    "llama": {
        "model_type": "llama", "vocab_size": 64, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 80, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0, "max_position_embeddings": 512, "tie_word_embeddings": False,
    },
    "gemma2": {
        "model_type": "gemma2", "vocab_size": 64, "hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 80, "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "max_position_embeddings": 512, "tie_word_embeddings": True,
        "query_pre_attn_scalar": 24, "sliding_window": 24, "attn_logit_softcapping": 6.0,
        "final_logit_softcapping": 12.0,
    },
    "gpt2": {
        "model_type": "gpt2", "vocab_size": 64, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_inner": 80,
        "n_positions": 320, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True,
        **_NO_SPECIAL_TOKENS,
    },
}
"""By `model_type`: the `config.json` of each recorded model."""


def random_attributes(model_type: str, seed: int) -> Attributes:
    """The `config.json` of a random small model of that type: sizes, traits and constants all drawn."""
    rng = np.random.default_rng([seed, sorted(RECORDED).index(model_type)])

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
    rotary = {
        "model_type": model_type, "vocab_size": vocab, "hidden_size": width, "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1], "head_dim": pick(6, 8, 12, 20), "intermediate_size": hidden,
        "rms_norm_eps": pick(1e-6, 1e-5, 1e-3), "rope_theta": pick(100.0, 10_000.0, 500_000.0),
        "tie_word_embeddings": pick(True, False), "max_position_embeddings": 128,
    }
    if model_type == "llama":
        return {**rotary, "num_hidden_layers": layers, "hidden_act": pick("silu", "gelu_pytorch_tanh")}
    return {
        **rotary, "num_hidden_layers": 2 * pick(1, 2), "query_pre_attn_scalar": pick(4, 16, 50),
        "sliding_window": pick(1, 2, 7, 31, 200), "attn_logit_softcapping": pick(None, 3.0, 20.0),
        "final_logit_softcapping": pick(None, 5.0, 30.0),
    }


def random_batch(vocab_size: int, seed: int) -> Batch:
    """Three ragged rows of up to 110 tokens, one of them short."""
    rng = np.random.default_rng([seed, 17])
    lengths = tuple(int(length) for length in rng.integers((90, 3, 40), (111, 30, 100)))
    return draw_batch(vocab_size, lengths, seed=seed)
