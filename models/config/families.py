"""Families as data: what llama, gpt3 and gemma2 mean, and the sizes that were published.

Each function takes sizes and returns a `ModelConfig`; nothing here computes. Sizes: Llama 2 and 3 (Touvron et al. 2023,
Dubey et al. 2024), GPT-3 (Brown et al. 2020; vocabulary and positions as in MaxText), Gemma 2 (Gemma Team 2024).
"""

import difflib

from .errors import ConfigError
from .schema import (
    Activation,
    Attention,
    BlockNorms,
    Layer,
    LayerNorm,
    LearnedPositions,
    Mlp,
    ModelConfig,
    Projection,
    RmsNorm,
    Rope,
)


def llama(
    *,
    vocab_size: int,
    embed_dim: int,
    num_layers: int,
    heads: tuple[int, int],
    head_dim: int,
    hidden_dim: int,
    max_timescale: float = 10_000.0,
) -> ModelConfig:
    """Llama 2 and 3: pre-norm RMSNorm, SwiGLU, rotary grouped-query attention. `heads`: query heads, key heads."""
    return ModelConfig(
        family="llama",
        vocab_size=vocab_size,
        embed_dim=embed_dim,
        num_layers=num_layers,
        attention=Attention(num_heads=heads[0], num_kv_heads=heads[1], head_dim=head_dim),
        mlp=Mlp(hidden_dim=hidden_dim, activation=Activation.SILU, gated=True),
        norm=RmsNorm(epsilon=1e-5),
        positions=Rope(max_timescale=max_timescale),
        block_norms=BlockNorms("pre_self_attention_layer_norm", None, "post_self_attention_layer_norm", None),
    )


def gpt3(
    *,
    vocab_size: int,
    embed_dim: int,
    num_layers: int,
    num_heads: int,
    head_dim: int,
    hidden_dim: int,
    position_length: int,
) -> ModelConfig:
    """GPT-3: LayerNorm and biases everywhere, learned positions, fused multi-head projection, tied head."""
    return ModelConfig(
        family="gpt3",
        vocab_size=vocab_size,
        embed_dim=embed_dim,
        num_layers=num_layers,
        attention=Attention(
            num_heads=num_heads, num_kv_heads=num_heads, head_dim=head_dim, projection=Projection.FUSED, bias=True
        ),
        mlp=Mlp(hidden_dim=hidden_dim, activation=Activation.GELU, gated=False, bias=True, input_norm="mlp_layer_norm"),
        norm=LayerNorm(epsilon=1e-5, zero_centered=True),
        positions=LearnedPositions(length=position_length),
        block_norms=BlockNorms("pre_self_attention_norm", None, None, None),
        tied_head=True,
    )


def gemma2(
    *,
    vocab_size: int,
    embed_dim: int,
    num_layers: int,
    heads: tuple[int, int],
    head_dim: int,
    hidden_dim: int,
    window: int = 4096,
    query_scale: float | None = None,
) -> ModelConfig:
    """Gemma 2: norms before and after each part, soft caps, pairs of a local and a global layer."""
    return ModelConfig(
        family="gemma2",
        vocab_size=vocab_size,
        embed_dim=embed_dim,
        num_layers=num_layers,
        attention=Attention(
            num_heads=heads[0], num_kv_heads=heads[1], head_dim=head_dim, query_scale=query_scale, soft_cap=50.0
        ),
        mlp=Mlp(hidden_dim=hidden_dim, activation=Activation.GELU, gated=True),
        norm=RmsNorm(epsilon=1e-6, zero_centered=True),
        positions=Rope(),
        block_norms=BlockNorms("pre_self_attention_norm", "post_self_attention_norm", "pre_ffw_norm", "post_ffw_norm"),
        cycle=(Layer(window=window, suffix="_local"), Layer(suffix="_global")),
        scale_embedding=True,
        tied_head=True,
        final_soft_cap=30.0,
    )


def presets() -> dict[str, ModelConfig]:
    """Every preset by name: the published sizes and one tiny sibling of each family."""
    return {
        "llama-tiny": llama(vocab_size=97, embed_dim=32, num_layers=3, heads=(4, 2), head_dim=8, hidden_dim=48),
        "llama2-7b": llama(
            vocab_size=32_000, embed_dim=4096, num_layers=32, heads=(32, 32), head_dim=128, hidden_dim=11_008
        ),
        "llama3.1-8b": llama(
            vocab_size=128_256,
            embed_dim=4096,
            num_layers=32,
            heads=(32, 8),
            head_dim=128,
            hidden_dim=14_336,
            max_timescale=500_000.0,
        ),
        "llama3.1-405b": llama(
            vocab_size=128_256,
            embed_dim=16_384,
            num_layers=126,
            heads=(128, 8),
            head_dim=128,
            hidden_dim=53_248,
            max_timescale=500_000.0,
        ),
        "gpt3-tiny": gpt3(
            vocab_size=89, embed_dim=32, num_layers=3, num_heads=4, head_dim=8, hidden_dim=64, position_length=64
        ),
        "gpt3-175b": gpt3(
            vocab_size=50_304,
            embed_dim=12_288,
            num_layers=96,
            num_heads=96,
            head_dim=128,
            hidden_dim=49_152,
            position_length=16_384,
        ),
        "gemma2-tiny": gemma2(
            vocab_size=101, embed_dim=32, num_layers=4, heads=(4, 2), head_dim=12, hidden_dim=48, window=5
        ),
        "gemma2-2b": gemma2(
            vocab_size=256_128, embed_dim=2304, num_layers=26, heads=(8, 4), head_dim=256, hidden_dim=9216
        ),
    }


def preset(name: str) -> ModelConfig:
    """The preset of that name.

    Raises:
        ConfigError: with the nearest names, when there is none.
    """
    known = presets()
    if name not in known:
        close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4) or sorted(known)
        raise ConfigError("preset", name, "does not exist", f"nearest: {', '.join(close)}")
    return known[name]
