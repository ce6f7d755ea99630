"""The published sizes, and a tiny sibling of each family with the same structure. Data only.

A line of sizes is: vocabulary, model width, layers, query heads, key heads, head dim, hidden width.
"""

import dataclasses
import difflib
import functools
from collections.abc import Callable

from .errors import ConfigError
from .families import (
    LLAMA3_SCALING,
    deepseek,
    gemma,
    gemma2,
    gemma3,
    gemma4,
    gpt3,
    gpt_oss,
    llama,
    llama4,
    mistral,
    mixtral,
    olmo3,
    qwen2,
    qwen3,
    qwen3_moe,
    qwen3_next,
    stretched,
)
from .schema import GatedDelta, LatentAttention, ModelConfig, Router
from .words import Llama3Scaling, QkNorm, Rope, Score, Unrotated, YarnScaling

_LLAMA3 = Rope(max_timescale=500_000.0)
_LLAMA31 = Rope(max_timescale=500_000.0, scaling=LLAMA3_SCALING)
_OLMO3 = YarnScaling(factor=8.0, original_length=8192)
_TINY = YarnScaling(factor=4.0, original_length=16)
_SIZES = ("vocab_size", "embed_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim", "hidden_dim")


def _sized(family: Callable[..., ModelConfig], *sizes: int, **options) -> ModelConfig:
    named = dict(zip(_SIZES, sizes, strict=True))
    heads = named.pop("num_heads"), named.pop("num_kv_heads")
    return family(heads=heads, **named, **options)


def _gpt3(vocab_size, embed_dim, num_layers, num_heads, head_dim, hidden_dim, position_length) -> ModelConfig:
    return gpt3(
        vocab_size=vocab_size, embed_dim=embed_dim, num_layers=num_layers, num_heads=num_heads, head_dim=head_dim,
        hidden_dim=hidden_dim, position_length=position_length,
    )  # fmt: skip


@functools.cache
def _presets() -> dict[str, ModelConfig]:
    return {
        **_llama_presets(), **_gpt3_presets(), **_gemma_presets(), **_mistral_presets(), **_qwen_presets(),
        **_olmo_presets(), **_mixture_presets(), **_gpt_oss_presets(), **_deepseek_presets(), **_llama4_presets(),
        **_qwen3_next_presets(), **_gemma4_presets(),
    }  # fmt: skip


def _llama_presets() -> dict[str, ModelConfig]:
    return {
        "llama-tiny": _sized(llama, 97, 32, 3, 4, 2, 8, 48),
        "llama2-7b": _sized(llama, 32_000, 4096, 32, 32, 32, 128, 11_008),
        "llama2-13b": _sized(llama, 32_000, 5120, 40, 40, 40, 128, 13_824),
        "llama2-70b": _sized(llama, 32_000, 8192, 80, 64, 8, 128, 28_672),
        "llama3-8b": _sized(llama, 128_256, 4096, 32, 32, 8, 128, 14_336, rope=_LLAMA3),
        "llama3-70b": _sized(llama, 128_256, 8192, 80, 64, 8, 128, 28_672, rope=_LLAMA3),
        "llama3-405b": _sized(llama, 128_256, 16_384, 126, 128, 8, 128, 53_248, rope=_LLAMA3),
        "llama3.1-8b": _sized(llama, 128_256, 4096, 32, 32, 8, 128, 14_336, rope=_LLAMA31),
        "llama3.1-70b": _sized(llama, 128_256, 8192, 80, 64, 8, 128, 28_672, rope=_LLAMA31),
        "llama3.1-405b": _sized(llama, 128_256, 16_384, 126, 128, 8, 128, 53_248, rope=_LLAMA31),
        "llama3.3-70b": _sized(llama, 128_256, 8192, 80, 64, 8, 128, 28_672, rope=_LLAMA31),
    }


def _gpt3_presets() -> dict[str, ModelConfig]:
    return {
        "gpt3-tiny": _gpt3(89, 32, 3, 4, 8, 64, 64),
        "gpt3-52k": _gpt3(1024, 16, 1, 2, 8, 64, 2048),
        "gpt3-6b": _gpt3(32_768, 3072, 48, 12, 256, 12_288, 16_384),
        "gpt3-22b": _gpt3(32_768, 6144, 48, 24, 256, 24_576, 16_384),
        "gpt3-175b": _gpt3(50_304, 12_288, 96, 96, 128, 49_152, 16_384),
    }


def _gemma_presets() -> dict[str, ModelConfig]:
    return {
        "gemma-tiny": _sized(gemma, 101, 32, 3, 4, 1, 12, 48),
        "gemma-2b": _sized(gemma, 256_128, 2048, 18, 8, 1, 256, 16_384),
        "gemma-7b": _sized(gemma, 256_128, 3072, 28, 16, 16, 256, 24_576),
        "gemma2-tiny": _sized(gemma2, 101, 32, 4, 4, 2, 12, 48, window=5),
        "gemma2-2b": _sized(gemma2, 256_128, 2304, 26, 8, 4, 256, 9216),
        "gemma2-9b": _sized(gemma2, 256_128, 3584, 42, 16, 8, 256, 14_336),
        "gemma2-27b": _sized(gemma2, 256_128, 4608, 46, 32, 16, 128, 36_864, query_scale=144**-0.5),
        "gemma3-tiny": _sized(gemma3, 103, 32, 13, 4, 2, 8, 40, window=5, factor=2.0),
        "gemma3-4b": _sized(gemma3, 262_144, 2560, 34, 8, 4, 256, 10_240),
        "gemma3-12b": _sized(gemma3, 262_144, 3840, 48, 16, 8, 256, 15_360),
        "gemma3-27b": _sized(gemma3, 262_144, 5376, 62, 32, 16, 128, 21_504, query_scale=168**-0.5),
    }


def _mistral_presets() -> dict[str, ModelConfig]:
    return {
        "mistral-tiny": _sized(mistral, 97, 32, 3, 4, 2, 8, 48, window=5),
        "mistral-7b": _sized(mistral, 32_000, 4096, 32, 32, 8, 128, 14_336),
    }


def _qwen_presets() -> dict[str, ModelConfig]:
    return {
        "qwen2-tiny": _sized(qwen2, 97, 32, 3, 4, 2, 8, 48),
        "qwen2.5-1.5b": _sized(qwen2, 151_936, 1536, 28, 12, 2, 128, 8960, tied_head=True),
        "qwen2.5-7b": _sized(qwen2, 152_064, 3584, 28, 28, 4, 128, 18_944),
        "qwen2.5-14b": _sized(qwen2, 152_064, 5120, 48, 40, 8, 128, 13_824),
        "qwen3-tiny": _sized(qwen3, 97, 32, 3, 4, 2, 12, 48, tied_head=True),
        "qwen3-0.6b": _sized(qwen3, 151_936, 1024, 28, 16, 8, 128, 3072, tied_head=True),
        "qwen3-1.7b": _sized(qwen3, 151_936, 2048, 28, 16, 8, 128, 6144, tied_head=True),
        "qwen3-4b": _sized(qwen3, 151_936, 2560, 36, 32, 8, 128, 9728, tied_head=True),
        "qwen3-4b-thinking-2507": _sized(
            qwen3, 151_936, 2560, 36, 32, 8, 128, 9728, tied_head=True, max_timescale=5_000_000.0
        ),
        "qwen3-8b": _sized(qwen3, 151_936, 4096, 36, 32, 8, 128, 12_288),
        "qwen3-14b": _sized(qwen3, 151_936, 5120, 40, 40, 8, 128, 17_408),
        "qwen3-32b": _sized(qwen3, 151_936, 5120, 64, 64, 8, 128, 25_600),
    }


def _olmo_presets() -> dict[str, ModelConfig]:
    return {
        "olmo3-tiny": _sized(olmo3, 97, 32, 9, 4, 2, 8, 40, window=5, scaling=_TINY),
        "olmo3-7b": _sized(olmo3, 100_278, 4096, 32, 32, 32, 128, 11_008, scaling=_OLMO3),
        "olmo3-7b-pt": _sized(olmo3, 100_278, 4096, 32, 32, 32, 128, 11_008),
        "olmo3-32b": _sized(olmo3, 100_278, 5120, 64, 40, 8, 128, 27_648, scaling=_OLMO3),
    }


def _mixture_presets() -> dict[str, ModelConfig]:
    base = functools.partial(_sized, qwen3_moe)
    return {
        "mixtral-tiny": _sized(mixtral, 97, 32, 3, 4, 2, 8, 40, experts=(5, 2), window=5),
        "mixtral-8x7b": _sized(mixtral, 32_000, 4096, 32, 32, 8, 128, 14_336, experts=(8, 2)),
        "mixtral-8x22b": _sized(mixtral, 32_768, 6144, 56, 48, 8, 128, 16_384, experts=(8, 2)),
        "qwen3-moe-tiny": base(97, 32, 3, 4, 2, 12, 24, experts=(6, 3)),
        "qwen3-30b-a3b": base(151_936, 2048, 48, 32, 4, 128, 768, experts=(128, 8), max_timescale=10_000_000.0),
        "qwen3-30b-a3b-base": base(151_936, 2048, 48, 32, 4, 128, 768, experts=(128, 8)),
        "qwen3-235b-a22b": base(151_936, 4096, 94, 64, 4, 128, 1536, experts=(128, 8), max_timescale=5_000_000.0),
        "qwen3-480b-a35b": base(151_936, 6144, 62, 96, 8, 128, 2560, experts=(160, 8), max_timescale=10_000_000.0),
    }


def _gpt_oss_presets() -> dict[str, ModelConfig]:
    scaling = YarnScaling(factor=32.0, original_length=4096, truncate=False)
    tiny = YarnScaling(factor=4.0, original_length=16, truncate=False)
    return {
        "gpt-oss-tiny": _sized(gpt_oss, 97, 32, 5, 4, 2, 8, 40, experts=(5, 2), scaling=tiny, window=5),
        "gpt-oss-20b": _sized(gpt_oss, 201_088, 2880, 24, 64, 8, 64, 2880, experts=(32, 4), scaling=scaling),
        "gpt-oss-120b": _sized(gpt_oss, 201_088, 2880, 36, 64, 8, 64, 2880, experts=(128, 4), scaling=scaling),
    }


def _yarn(factor: float, *, max_timescale: float = 10_000.0, length: int = 4096, beta_fast: float = 32.0) -> Rope:
    """DeepSeek's positions: neighbours turn together, and the factor on the logits is in the query's scale."""
    scaling = YarnScaling(factor=factor, original_length=length, beta_fast=beta_fast, attention_factor=1.0)
    return Rope(max_timescale=max_timescale, interleaved=True, scaling=scaling)


def _deepseek_presets() -> dict[str, ModelConfig]:
    v2 = functools.partial(deepseek, vocab_size=102_400, num_shared_experts=2, rope=_yarn(40.0))
    v3 = functools.partial(deepseek, embed_dim=7168, widths=(18_432, 2048), num_shared_experts=1)
    sigmoid = functools.partial(Router, num_chosen=8, score=Score.SIGMOID, normalized=True, choice_bias=True)
    v2_groups = Router(160, 6, scale=16.0, num_groups=8, num_chosen_groups=3)
    v3_groups = sigmoid(256, scale=2.5, num_groups=8, num_chosen_groups=4, group_top=2)
    return {
        **_tiny_deepseeks(),
        "deepseek2-16b": v2(
            embed_dim=2048, layers=(27, 1), widths=(10_944, 1408), router=Router(64, 6),
            attention=stretched(LatentAttention(16, 512, 128, 64, 128), 40.0, 0.707),
        ),
        "deepseek2-236b": v2(
            embed_dim=5120, layers=(60, 1), widths=(12_288, 1536), router=v2_groups,
            attention=stretched(LatentAttention(128, 512, 128, 64, 128, 1536), 40.0, 0.707),
        ),
        "deepseek3-671b": v3(
            vocab_size=129_280, layers=(61, 3), rope=_yarn(40.0), router=v3_groups,
            attention=stretched(LatentAttention(128, 512, 128, 64, 128, 1536), 40.0),
        ),
        "kimi-k2-1t": v3(
            vocab_size=163_840, layers=(61, 1), rope=_yarn(32.0, max_timescale=50_000.0, beta_fast=1.0),
            attention=stretched(LatentAttention(64, 512, 128, 64, 128, 1536), 32.0), router=sigmoid(384, scale=2.827),
        ),
    }  # fmt: skip


def _tiny_deepseeks() -> dict[str, ModelConfig]:
    tiny = functools.partial(deepseek, vocab_size=97, embed_dim=32, widths=(40, 24), rope=_yarn(4.0, length=16))
    grouped = Router(
        6, 2, score=Score.SIGMOID, normalized=True, scale=2.5, choice_bias=True, num_groups=3, num_chosen_groups=2,
        group_top=2,
    )  # fmt: skip
    return {
        "deepseek2-tiny": tiny(
            layers=(3, 1), num_shared_experts=2, router=Router(5, 2, scale=1.5),
            attention=stretched(LatentAttention(4, 16, 8, 6, 10), 4.0, 0.707),
        ),
        "deepseek3-tiny": tiny(
            layers=(5, 3), num_shared_experts=1, router=grouped,
            attention=stretched(LatentAttention(4, 16, 8, 6, 10, 12), 4.0),
        ),
    }  # fmt: skip


def _llama4_presets() -> dict[str, ModelConfig]:
    scout = Llama3Scaling(factor=16.0, low_frequency_factor=1.0, high_frequency_factor=1.0, original_length=8192)
    rope = Rope(max_timescale=500_000.0, interleaved=True)
    base = functools.partial(_sized, llama4)
    published = {"chunk": 8192, "nope": Unrotated(temperature=0.1, length=8192)}
    tiny = Llama3Scaling(factor=4.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_length=16)
    return {
        "llama4-tiny": base(
            97, 32, 9, 4, 2, 8, 24, experts=5, interleave=2, dense_dim=40, qk_norm=QkNorm.L2, chunk=4,
            nope=Unrotated(temperature=0.1, length=4), rope=Rope(max_timescale=1e4, interleaved=True, scaling=tiny),
        ),
        "llama4-17b-16e": base(
            202_048, 5120, 48, 40, 8, 128, 8192, experts=16, interleave=1, dense_dim=16_384, qk_norm=QkNorm.L2,
            rope=dataclasses.replace(rope, scaling=scout), **published,
        ),
        "llama4-17b-128e": base(
            202_048, 5120, 48, 40, 8, 128, 8192, experts=128, interleave=2, dense_dim=16_384, qk_norm=None,
            rope=rope, **published,
        ),
    }  # fmt: skip


def _qwen3_next_presets() -> dict[str, ModelConfig]:
    base = functools.partial(_sized, qwen3_next)
    return {
        "qwen3-next-tiny": base(
            97, 32, 9, 4, 2, 16, 24, experts=(6, 3), delta=GatedDelta(2, 4, 6, 10, chunk=4),
        ),
        "qwen3-next-80b-a3b": base(
            151_936, 2048, 48, 16, 2, 256, 512, experts=(512, 10), max_timescale=10_000_000.0,
            delta=GatedDelta(16, 32, 128, 128),
        ),
    }  # fmt: skip


def _gemma4_presets() -> dict[str, ModelConfig]:
    base = functools.partial(_sized, gemma4)
    return {
        "gemma4-tiny": base(
            103, 32, 13, 4, 2, 8, 40, window=5, global_heads=(1, 16), experts=(5, 2), expert_dim=24,
        ),
        "gemma4-26b": base(
            262_144, 2816, 30, 16, 8, 256, 2112, global_heads=(2, 512), experts=(128, 8), expert_dim=704,
        ),
        "gemma4-31b": base(262_144, 5376, 60, 32, 16, 256, 21_504, global_heads=(4, 512), experts=None),
    }  # fmt: skip


_SAME_SIZES = {  # base and post-trained weights of one architecture
    "qwen3-1.7b-base": "qwen3-1.7b", "qwen3-4b-base": "qwen3-4b", "qwen3-8b-base": "qwen3-8b",
    "qwen3-14b-base": "qwen3-14b",
}  # fmt: skip


def presets() -> dict[str, ModelConfig]:
    """Every preset by name: the published sizes and one tiny sibling of each family."""
    known = _presets()
    return {**known, **{name: known[same] for name, same in _SAME_SIZES.items()}}


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
