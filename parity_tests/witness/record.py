"""`python -m parity_tests.witness.record [NAME ...]`: asks Hugging Face again and rewrites `goldens/witness`.

All models or the named ones. Needs torch. Under `CI` nothing is written.
"""

import sys

import numpy as np

from harness.goldens import GoldenError
from harness.goldens.store import refuse_under_ci

from . import cases, hugging_face
from .recordings import ROOT, Recording, save

WEIGHT_SEED, TOKEN_SEED = 20, 21
ENOUGH = 8
"""Of how many numbers a gradient's error is the largest. It is the unit of a ratio, and the largest of few may by luck
be next to nothing: that of two normal ones is under an eighth of their spread once in a hundred times, that of eight
once in a hundred million. What a tensor lacks of these is heard of models that are nudged.
"""


def recorded(attributes: cases.Attributes, batch: cases.Batch, *, seed: int) -> tuple[Recording, hugging_face.Run]:
    """What Hugging Face says about this model and batch, as a recording, and the runs it comes from."""
    run = hugging_face.run(attributes, batch, seed=seed)
    error = float(np.abs(run.float32 - run.truth).max())
    errors = {name: float(np.abs(run.gradients32[name] - truth).max()) for name, truth in run.gradients.items()}
    small = {name: truth.size for name, truth in run.gradients.items() if truth.size < ENOUGH}
    if small:
        times = -(-ENOUGH // min(small.values())) - 1
        of_logits, more = hugging_face.nudged_errors(attributes, batch, seed=seed, times=times)
        error = max(error, of_logits)  # which one undecided token may hold
        errors |= {name: max(errors[name], more[name]) for name in small}
    gradients = {name: truth.astype(np.float32) for name, truth in run.gradients.items()}
    return Recording(attributes, batch, run.tensors, run.truth, error, gradients, errors), run


def main(names: list[str]) -> int:
    """Records these models of `cases.RECORDED`, or all; the exit code."""
    try:
        refuse_under_ci("of the witness")
    except GoldenError as error:
        print(error)
        return 2
    unknown = sorted(set(names) - set(cases.RECORDED))
    if unknown:
        print(f"{unknown[0]}: is no recorded model; known: {', '.join(cases.RECORDED)}.")
        return 2
    for name in names or cases.RECORDED:
        attributes = cases.RECORDED[name]
        batch = cases.draw_batch(attributes["vocab_size"], cases.LENGTHS, seed=TOKEN_SEED)
        recording, run = recorded(attributes, batch, seed=WEIGHT_SEED)
        notes = {
            **hugging_face.versions(),
            "float32_error": f"{recording.float32_error:.3e}",
            "error_of_a_plain_cast_to_float64": f"{np.abs(run.plain64 - run.truth).max():.3e}",
            "gradient_error": f"{max(recording.gradient_errors.values()):.3e}",
            "largest_gradient": f"{max(np.abs(value).max() for value in run.gradients.values()):.3e}",
            "largest_logit": f"{np.abs(run.truth).max():.3f}",
        }
        save(name, recording, notes)
        size = (ROOT / f"witness/{name}.npz").stat().st_size
        print(f"{name}: {run.truth.shape[0]} positions, {size} bytes, float32 error {recording.float32_error:.2e}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
