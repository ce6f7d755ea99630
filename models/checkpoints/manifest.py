"""`config.json` beside the arrays: what was saved, by what, and the hash of every leaf and every file.

With it a checkpoint explains itself and any damage is found and named before Orbax sees a byte. A checkpoint that
MaxText wrote has none; it is read by structure alone.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Mapping

import numpy as np

from ..config import ConfigError, ModelConfig, TrainConfig, from_json, to_json
from .errors import RESTORE_FILES, CheckpointError
from .layouts import Layout

FILE = "config.json"
FORMAT = 1
OTHER_VERSION = "read it with the version that wrote it"
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint")
FREE_FIELDS = ("dropout_rate", "dtype", "remat")
"""Fields of a model that may change between save and restore: they touch no stored array."""


@dataclasses.dataclass(frozen=True)
class LeafRecord:
    """One stored leaf. `prng` names the generator whose key data this is, else None."""

    shape: tuple[int, ...]
    dtype: str
    sha256: str
    prng: str | None = None


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What `config.json` says. `leaves` by stored path joined with `/`; `files` below the step directory.

    `extras`: plain JSON of the caller's, such as where its data stands.
    """

    layout: Layout
    backend: str
    step: int
    model: ModelConfig
    train: TrainConfig | None
    leaves: Mapping[str, LeafRecord]
    files: Mapping[str, tuple[int, str]]
    extras: Mapping[str, object] = dataclasses.field(default_factory=dict)


def digest(array: np.ndarray) -> str:
    """SHA-256 of the array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


def file_table(directory: pathlib.Path) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of every file below a directory but the manifest."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path != directory / FILE)
    return {path.relative_to(directory).as_posix(): _fingerprint(path) for path in files}


def write(directory: pathlib.Path, manifest: Manifest) -> None:
    """Writes the manifest with its own digest."""
    body = {
        "format": FORMAT,
        "layout": manifest.layout.value,
        "backend": manifest.backend,
        "step": manifest.step,
        "model": to_json(manifest.model),
        "train": None if manifest.train is None else to_json(manifest.train),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "leaves": {name: dataclasses.asdict(leaf) for name, leaf in sorted(manifest.leaves.items())},
        "files": {name: list(entry) for name, entry in sorted(manifest.files.items())},
        "extras": dict(manifest.extras),
    }
    text = json.dumps({**body, "digest": _digest(body)}, indent=1, sort_keys=True)
    (directory / FILE).write_text(text + "\n", encoding="ascii")


def read(directory: pathlib.Path) -> Manifest | None:
    """The manifest of a step directory, or None where there is none.

    Raises:
        CheckpointError: if it is damaged or of another format.
    """
    path = directory / FILE
    if not path.exists():
        return None
    try:
        body = json.loads(path.read_bytes())
        recorded = body.pop("digest")
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(path, "is truncated or not JSON", RESTORE_FILES) from error
    if recorded != _digest(body):
        raise CheckpointError(path, "does not match its own digest", RESTORE_FILES)
    if body["format"] != FORMAT:
        raise CheckpointError(path, f"has format {body['format']}, not {FORMAT}", OTHER_VERSION)
    try:
        model = from_json(ModelConfig, body["model"])
        train = None if body["train"] is None else from_json(TrainConfig, body["train"])
    except ConfigError as error:
        raise CheckpointError(path, f"holds an unknown config ({error})", OTHER_VERSION) from error
    return Manifest(
        layout=Layout(body["layout"]),
        backend=body["backend"],
        step=body["step"],
        model=model,
        train=train,
        leaves={
            name: LeafRecord(tuple(leaf["shape"]), leaf["dtype"], leaf["sha256"], leaf["prng"])
            for name, leaf in body["leaves"].items()
        },
        files={name: (size, sha256) for name, (size, sha256) in body["files"].items()},
        extras=body["extras"],
    )


def verify_files(directory: pathlib.Path, manifest: Manifest) -> None:
    """Finds the first file that is missing, truncated or changed.

    Raises:
        CheckpointError: naming the file.
    """
    for name, (size, sha256) in manifest.files.items():
        path = directory / name
        if not path.is_file():
            raise CheckpointError(path, "is missing", RESTORE_FILES)
        if path.stat().st_size != size:
            found = path.stat().st_size
            raise CheckpointError(path, f"has {found} bytes where {size} were written", RESTORE_FILES)
        if _fingerprint(path)[1] != sha256:
            raise CheckpointError(path, "has other bytes than were written", RESTORE_FILES)


def verify_model(path: pathlib.Path, stored: ModelConfig, asked: ModelConfig) -> None:
    """Refuses a checkpoint of another model.

    Raises:
        CheckpointError: naming the first field that differs.
    """
    difference = _difference(to_json(stored), to_json(asked), "")
    if difference is not None:
        field, found, wanted = difference
        raise CheckpointError(
            path, f"holds a model with {field} = {found!r} where {wanted!r} is asked for",
            "restore it under the config it was saved with",
        )


def _difference(stored: object, asked: object, where: str) -> tuple[str, object, object] | None:
    if isinstance(stored, dict) and isinstance(asked, dict):
        for key in sorted(stored.keys() | asked.keys()):
            field = f"{where}.{key}" if where else key
            if field not in FREE_FIELDS:
                found = _difference(stored.get(key), asked.get(key), field)
                if found is not None:
                    return found
        return None
    return None if stored == asked else (where, stored, asked)


def _digest(body: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode("ascii")).hexdigest()


def _fingerprint(path: pathlib.Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
