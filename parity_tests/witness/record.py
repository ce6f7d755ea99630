"""`python -m parity_tests.witness.record`: asks Hugging Face again and rewrites `goldens/witness`. Needs torch.

Under `CI` nothing is written.
"""

import sys

import numpy as np

from harness.goldens import GoldenError
from harness.goldens.store import refuse_under_ci

from . import cases, hugging_face
from .recordings import ROOT, Recording, save

WEIGHT_SEED, TOKEN_SEED = 20, 21


def recorded(attributes: cases.Attributes, batch: cases.Batch, *, seed: int) -> tuple[Recording, hugging_face.Run]:
    """What Hugging Face says about this model and batch, as a recording, and the runs it comes from."""
    run = hugging_face.run(attributes, batch, seed=seed)
    error = float(np.abs(run.float32 - run.truth).max())
    return Recording(attributes, batch, run.tensors, run.truth, error), run


def main() -> int:
    """Records every model of `cases.RECORDED`; the exit code."""
    try:
        refuse_under_ci("of the witness")
    except GoldenError as error:
        print(error)
        return 2
    for name, attributes in cases.RECORDED.items():
        batch = cases.draw_batch(attributes["vocab_size"], cases.LENGTHS, seed=TOKEN_SEED)
        recording, run = recorded(attributes, batch, seed=WEIGHT_SEED)
        notes = {
            **hugging_face.versions(),
            "float32_error": f"{recording.float32_error:.3e}",
            "error_of_a_plain_cast_to_float64": f"{np.abs(run.plain64 - run.truth).max():.3e}",
            "largest_logit": f"{np.abs(run.truth).max():.3f}",
        }
        save(name, recording, notes)
        size = (ROOT / f"witness/{name}.npz").stat().st_size
        print(f"{name}: {run.truth.shape[0]} positions, {size} bytes, float32 error {recording.float32_error:.2e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
