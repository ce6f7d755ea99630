"""A compact decoder-only model framework, written twice: in Flax Linen and in Flax NNX.

Both twins implement `models.protocol.Backend`. Nothing here knows what compares them.
"""

import importlib
import typing

from .config import ConfigError, ModelConfig, TrainConfig, preset, presets

if typing.TYPE_CHECKING:
    from .protocol import Backend

__all__ = ["ConfigError", "ModelConfig", "TrainConfig", "backend", "preset", "presets"]

BACKENDS = ("linen", "nnx")


def backend(name: str) -> "Backend":
    """The twin of that name.

    Raises:
        ConfigError: for any other name.
    """
    if name not in BACKENDS:
        raise ConfigError("backend", name, f"must be one of {', '.join(BACKENDS)}", "name one of the two twins")
    return importlib.import_module(f".{name}.backend", __name__).BACKEND
