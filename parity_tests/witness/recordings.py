"""A recording: one npz with a Hugging Face model's weights, a batch, its true logits and gradients, and a text file.

Both lie in the store of goldens and its manifest, so a damaged file is named before a number is compared. The text is
for people and for `git diff`: versions, errors, the digest of every array. Needs no torch.
"""

import dataclasses
import hashlib
import io
import json
import pathlib
import zipfile

import numpy as np

from harness.goldens import GoldenError, read_blob, write_blob
from harness.goldens.golden import FIX

from .cases import RECORDED, Attributes, Batch

ROOT = pathlib.Path(__file__).resolve().parents[2] / "goldens"
FILES = tuple(f"witness/{name}.{ending}" for name in sorted(RECORDED) for ending in ("npz", "tsv"))
"""Every file of the witness in the store of goldens."""
RENEW = "renew it with `make witness` and read the new ratios"
_WEIGHT, _GRADIENT = "weights/", "gradients/"


@dataclasses.dataclass(frozen=True)
class Recording:
    """What one model of Hugging Face said.

    `truth` has the float64 logits `[valid positions, vocabulary]` of all rows one after the other, `float32_error` the
    largest distance of the float32 run of the same model from it. `gradients` has the loss's true gradient by every
    tensor, rounded once to float32 to keep the file small, `gradient_errors` the float32 run's distance for each.
    """

    attributes: Attributes
    batch: Batch
    tensors: dict[str, np.ndarray]
    truth: np.ndarray
    float32_error: float
    gradients: dict[str, np.ndarray]
    gradient_errors: dict[str, float]


def load(name: str, root: pathlib.Path = ROOT) -> Recording:
    """The recording of that name.

    Raises:
        ValueError: when it is missing or damaged, with the command that renews it.
    """
    try:
        data = read_blob(root, f"witness/{name}.npz")
    except GoldenError as error:
        raise ValueError(str(error).replace(FIX, RENEW)) from None
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        tensors, gradients = (
            {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}
            for prefix in (_WEIGHT, _GRADIENT)
        )
        lengths = tuple(int(length) for length in arrays["lengths"])
        return Recording(
            json.loads(str(arrays["config"])), Batch(arrays["tokens"], lengths), tensors, arrays["truth"],
            float(arrays["float32_error"]), gradients,
            dict(zip(sorted(gradients), map(float, arrays["gradient_errors"]), strict=True)),
        )


def save(name: str, recording: Recording, notes: dict[str, str], root: pathlib.Path = ROOT) -> None:
    """Writes npz and text, each whole or not at all.

    Raises:
        GoldenError: under CI.
    """
    arrays = {
        "config": np.asarray(json.dumps(recording.attributes, sort_keys=True)),
        "tokens": recording.batch.tokens,
        "lengths": np.asarray(recording.batch.lengths),
        "truth": recording.truth,
        "float32_error": np.asarray(recording.float32_error),
        "gradient_errors": np.asarray([recording.gradient_errors[key] for key in sorted(recording.gradients)]),
        **{f"{_WEIGHT}{key}": value for key, value in recording.tensors.items()},
        **{f"{_GRADIENT}{key}": value for key, value in recording.gradients.items()},
    }
    lines = [f"{key}\t{value}" for key, value in sorted(notes.items())]
    lines += [_line(key, value) for key, value in sorted(arrays.items()) if value.ndim]
    write_blob(root, f"witness/{name}.npz", _packed(arrays))
    write_blob(root, f"witness/{name}.tsv", ("\n".join(lines) + "\n").encode())


def _packed(arrays: dict[str, np.ndarray]) -> bytes:
    """An npz, deflated: the numbers hardly shrink, but hundreds of headers do. Equal arrays give equal bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for key in sorted(arrays):
            array = io.BytesIO()
            np.lib.format.write_array(array, arrays[key], allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{key}.npy"), array.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return packed.getvalue()


def _line(key: str, value: np.ndarray) -> str:
    return f"{key}\t{value.dtype.name}\t{list(value.shape)}\t{_digest(np.ascontiguousarray(value).tobytes())[:16]}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
