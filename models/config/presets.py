"""The published sizes, and a tiny sibling of each family with the same structure. Data only.

A line of sizes is: vocabulary, model width, layers, query heads, key heads, head dim, hidden width.
"""

import difflib
import functools
from collections.abc import Callable

from .errors import ConfigError
from .families import LLAMA3_SCALING, gemma, gemma2, gemma3, gpt3, llama, mistral, olmo3, qwen2, qwen3
from .schema import ModelConfig, Rope, YarnScaling

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
        **_olmo_presets(),
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
