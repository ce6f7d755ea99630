"""Faults planted in a recorded model's config, for the tests of what the witness hears. Not a test."""

import dataclasses

from models.config import Activation, Layer, LayerNorm, RmsNorm, Rope, Score, Unrotated

from .cases import LENGTHS


def attention(config, **changes):
    return config.replace(attention=dataclasses.replace(config.attention, **changes))


def layers(config, **changes):
    """Every layer with a window changed."""
    return _some(config, lambda layer: layer.window, changes)


def _some(config, chosen, changes):
    cycle = (dataclasses.replace(layer, **changes) if chosen(layer) else layer for layer in config.cycle)
    return config.replace(cycle=tuple(cycle))


def _chunked(config, **changes):
    """Every layer with a chunk changed."""
    return _some(config, lambda layer: layer.chunk, changes)


def _global(config, **changes):
    """Every layer with positions of its own and no window changed."""
    return _some(config, lambda layer: layer.rope and not layer.window, changes)


def scaling(config, **changes):
    scaling = dataclasses.replace(config.positions.scaling, **changes)
    return config.replace(positions=dataclasses.replace(config.positions, scaling=scaling))


def moe(config, **changes):
    return config.replace(mlp=dataclasses.replace(config.mlp, **changes))


def router(config, **changes):
    return moe(config, router=dataclasses.replace(config.mlp.router, **changes))


def halved(config):
    return config.replace(positions=dataclasses.replace(config.positions, interleaved=False))


def unscaled(config):
    return config.replace(positions=dataclasses.replace(config.positions, scaling=None))


def epsilon(config, epsilon):
    return config.replace(norm=dataclasses.replace(config.norm, epsilon=epsilon))


FAULTS = {
    "llama, epsilon of another family": ("llama", lambda config: config.replace(norm=RmsNorm(1e-6))),
    "llama, rope base one percent off": ("llama", lambda config: config.replace(positions=Rope(505_000.0))),
    "llama, no query scale": ("llama", lambda config: attention(config, query_scale=1.0)),
    "llama, the first key out of sight of the last query": (
        "llama",
        lambda config: config.replace(cycle=(Layer(window=max(LENGTHS) - 1),)),
    ),
    "llama3.1, positions not scaled": ("llama3.1", unscaled),
    "llama3.1, one percent more of the wavelengths kept": (
        "llama3.1",
        lambda config: scaling(config, high_frequency_factor=4.04),
    ),
    "mistral, no window": ("mistral", lambda config: layers(config, window=None)),
    "mistral, window one too wide": ("mistral", lambda config: layers(config, window=25)),
    "qwen2, every layer slides": (
        "qwen2",
        lambda config: config.replace(cycle=tuple(dataclasses.replace(layer, window=40) for layer in config.cycle)),
    ),
    "qwen3, no norm on query and key": ("qwen3", lambda config: attention(config, qk_norm=None)),
    "olmo3, sliding layers scaled too": ("olmo3", lambda config: layers(config, rope=None)),
    "olmo3, no layer scaled": ("olmo3", unscaled),
    "olmo3, no attention factor": ("olmo3", lambda config: scaling(config, attention_factor=1.0)),
    "olmo3, dimensions not truncated": ("olmo3", lambda config: scaling(config, truncate=False)),
    "gemma, scale not centred on zero": ("gemma", lambda config: config.replace(norm=RmsNorm(1e-6))),
    "gemma, embedding not scaled": ("gemma", lambda config: config.replace(scale_embedding=False)),
    "gemma2, window one too wide": ("gemma2", lambda config: layers(config, window=25)),
    "gemma2, window one too narrow": ("gemma2", lambda config: layers(config, window=23)),
    "gemma2, no soft cap on attention": ("gemma2", lambda config: attention(config, soft_cap=None)),
    "gemma2, no soft cap on logits": ("gemma2", lambda config: config.replace(final_soft_cap=None)),
    "gemma2, query scale from the head dim": ("gemma2", lambda config: attention(config, query_scale=None)),
    "gemma2, epsilon ten times as large": ("gemma2", lambda config: epsilon(config, 1e-4)),
    "gemma3, one base for all layers": ("gemma3", lambda config: layers(config, rope=None)),
    "gemma3, global layers not scaled": ("gemma3", unscaled),
    "gemma3, the remainder starts anew with a global layer": (
        "gemma3",
        lambda config: config.replace(
            cycle=(
                dataclasses.replace(config.cycle[5], name="layers_0"),
                *config.cycle[1:5],
                dataclasses.replace(config.cycle[0], name="layers_5"),
            )
        ),
    ),
    "gpt2, epsilon of another family": ("gpt2", lambda config: config.replace(norm=LayerNorm(1e-6))),
    "gpt2, scale centred on zero": ("gpt2", lambda config: config.replace(norm=LayerNorm(1e-5, True))),
    "mixtral, weights do not sum to one": ("mixtral", lambda config: router(config, normalized=False)),
    "mixtral, a third expert chosen": ("mixtral", lambda config: router(config, num_chosen=3)),
    "mixtral, a full expert drops tokens": ("mixtral", lambda config: moe(config, capacity_factor=1.0)),
    "qwen3_moe, weights do not sum to one": ("qwen3_moe", lambda config: router(config, normalized=False)),
    "gpt_oss, gate not clamped": ("gpt_oss", lambda config: moe(config, clamp=None)),
    "gpt_oss, clamp one percent off": ("gpt_oss", lambda config: moe(config, clamp=1.515)),
    "gpt_oss, nothing added to the other half": ("gpt_oss", lambda config: moe(config, linear_offset=0.0)),
    "gpt_oss, activation of another family": ("gpt_oss", lambda config: moe(config, activation=Activation.SILU)),
    "gpt_oss, softmax over all experts": ("gpt_oss", lambda config: router(config, score=Score.SOFTMAX)),
    "gpt_oss, dimensions truncated": ("gpt_oss", lambda config: scaling(config, truncate=True)),
    "deepseek_v2, any group chosen from": ("deepseek_v2", lambda config: router(config, num_chosen_groups=4)),
    "deepseek_v2, weights not scaled": ("deepseek_v2", lambda config: router(config, scale=1.0)),
    "deepseek_v2, halves turn together": ("deepseek_v2", halved),
    "deepseek_v2, logits not stretched": ("deepseek_v2", lambda config: attention(config, query_scale=None)),
    "deepseek_v3, scores from a softmax": ("deepseek_v3", lambda config: router(config, score=Score.SOFTMAX)),
    "deepseek_v3, weights do not sum to one": ("deepseek_v3", lambda config: router(config, normalized=False)),
    "deepseek_v3, a group is its best expert": ("deepseek_v3", lambda config: router(config, group_top=1)),
    "llama4, chunk one too wide": ("llama4", lambda config: _chunked(config, chunk=25)),
    "llama4, every layer turns": ("llama4", lambda config: _global(config, rope=None)),
    "llama4, late queries not sharpened": ("llama4", lambda config: _global(config, rope=Unrotated())),
    "llama4, weights on what experts say": ("llama4", lambda config: moe(config, scale_inputs=False)),
    "llama4, no norm on query and key": ("llama4", lambda config: attention(config, qk_norm=None)),
    "qwen3_next, half of the head turns": (
        "qwen3_next",
        lambda config: config.replace(positions=dataclasses.replace(config.positions, fraction=0.5)),
    ),
    "qwen3_next, weights do not sum to one": ("qwen3_next", lambda config: router(config, normalized=False)),
    "gemma4, window one too wide": ("gemma4", lambda config: layers(config, window=25)),
    "gemma4, values not normed": ("gemma4", lambda config: attention(config, value_norm=False)),
    "gemma4, all of a wide head turns": ("gemma4", lambda config: _global(config, rope=Rope(1_000_000.0))),
    "gemma4, frequencies of the part that turns": (
        "gemma4",
        lambda config: _global(config, rope=Rope(1_000_000.0, fraction=0.25)),
    ),
    "deepseek_v3, rotated parts not stretched apart": (
        "deepseek_v3",
        lambda config: scaling(config, attention_factor=1.0),
    ),
}

SMALL_FAULTS = {
    "llama": 1.001e-5,
    "llama3.1": 1.001e-5,
    "mistral": 1.1e-6,
    "qwen2": 1.1e-6,
    "qwen3": 1.1e-6,
    "olmo3": 1.1e-6,
    "gemma": 1.1e-6,
    "gemma2": 1.1e-5,
    "gemma3": 1.1e-6,
    "gpt2": 1.001e-5,
    "mixtral": 1.1e-6,
    "qwen3_moe": 1.1e-6,
    "gpt_oss": 1.1e-6,
    "deepseek_v2": 1.1e-6,
    "deepseek_v3": 1.1e-6,
    "llama4": 1.001e-5,
    "qwen3_next": 1.001e-4,
    "gemma4": 1.1e-6,
}
"""By model: the least change of epsilon that a float32 run can hardly show, if at all."""
