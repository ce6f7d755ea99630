"""Configuration of models and of training: typed data, families and presets. No maths."""

from .codec import dumps, from_json, to_json
from .errors import ConfigError
from .families import gemma2, gpt3, llama, preset, presets
from .schema import (
    Activation,
    Attention,
    BlockNorms,
    DType,
    Layer,
    LayerNorm,
    LearnedPositions,
    Mlp,
    ModelConfig,
    Projection,
    Remat,
    RmsNorm,
    Rope,
)
from .training import AdamW, TrainConfig

__all__ = [
    "Activation",
    "AdamW",
    "Attention",
    "BlockNorms",
    "ConfigError",
    "DType",
    "Layer",
    "LayerNorm",
    "LearnedPositions",
    "Mlp",
    "ModelConfig",
    "Projection",
    "Remat",
    "RmsNorm",
    "Rope",
    "TrainConfig",
    "dumps",
    "from_json",
    "gemma2",
    "gpt3",
    "llama",
    "preset",
    "presets",
    "to_json",
]
