"""The config of this subject: a model and its training settings, and the meshes that a case may name."""

import dataclasses
import json
import pathlib

import jax

from models.config import ConfigError, ModelConfig, TrainConfig, from_json, preset, presets, to_json

# Axis sizes by name. The 256-chip meshes are abstract; `cpu-8` is what the simulated devices can carry.
MESHES: dict[str, dict[str, int]] = {
    "fsdp-256": {"data": 1, "fsdp": 256},
    "fsdp-tensor-256": {"fsdp": 64, "tensor": 4},
    "data-fsdp-tensor-256": {"data": 4, "fsdp": 16, "tensor": 4},
    "cpu-8": {"data": 2, "fsdp": 2, "tensor": 2},
}


@dataclasses.dataclass(frozen=True)
class Setup:
    """A model and how it is trained."""

    model: ModelConfig
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)

    @property
    def family(self) -> str:
        """The model's family, for names and tables only."""
        return self.model.family


def dumps(setup: Setup) -> str:
    """One line of sorted JSON."""
    return json.dumps(to_json(setup, defaults=False), sort_keys=True, separators=(",", ":"))


def read(text: str) -> Setup:
    """A setup from a preset's name, or from a JSON file that holds a setup or a bare model config.

    Raises:
        ConfigError: when it is neither, or the file's content is no valid config.
    """
    if text in presets():
        return Setup(preset(text))
    path = pathlib.Path(text)
    if not path.is_file():
        if path.suffix == ".json":
            raise ConfigError("config", text, "is not a file", "name a JSON file or a preset")
        return Setup(preset(text))
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError("config", text, f"is not JSON ({error})", "write the file anew") from None
    if isinstance(data, dict) and "model" in data:
        return from_json(Setup, data)
    return Setup(from_json(ModelConfig, data))


def abstract_mesh(name: str) -> jax.sharding.AbstractMesh:
    """The mesh of that name, without devices.

    Raises:
        ConfigError: when no mesh has that name.
    """
    if name not in MESHES:
        raise ConfigError("mesh", name, f"must be one of {', '.join(MESHES)}", "name a known mesh")
    sizes = MESHES[name]
    return jax.sharding.AbstractMesh(tuple(sizes.values()), tuple(sizes))


def device_mesh(name: str) -> jax.sharding.Mesh:
    """The mesh of that name over real or simulated devices.

    Raises:
        ConfigError: when there are too few devices.
    """
    sizes = MESHES[name]
    needed, found = abstract_mesh(name).size, jax.device_count()
    if found < needed:
        raise ConfigError(
            "mesh",
            name,
            f"needs {needed} devices and {found} are there",
            f"set XLA_FLAGS=--xla_force_host_platform_device_count={needed} before jax starts, or use a smaller mesh",
        )
    kinds = (jax.sharding.AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=kinds, devices=jax.devices()[:needed])
