"""Canonical names of the leaves of the twins' programs, from the checkpoint layout tables (bijective, tested there)."""

from collections.abc import Callable

from models.checkpoints.layouts import Layout, to_canonical

from ...program import Converted, OneSided, Stacked

NAMED = str | OneSided | Converted
Naming = Callable[[tuple[str, ...]], NAMED | Stacked]

AUX = "rng state of NNX; Linen derives its keys from the step"


def state_name(layout: Layout, path: tuple[str, ...]) -> NAMED:
    """A train-state leaf: its canonical name; the step read as int32; rng state one-sided."""
    name = to_canonical(layout, path)
    if name == "step":
        return Converted("step", "int32")
    if name.startswith("aux/"):
        return OneSided(AUX)
    return name


SCANNED, LAYER_AXIS = "decoder/layers/", 1


def layers_apart(naming: Naming, num_cycles: int) -> Naming:
    """The names of a scanned model's leaves as those of the same model without a scan: each layer by itself."""

    def name(path: tuple[str, ...]) -> NAMED | Stacked:
        answer = naming(path)
        if isinstance(answer, str) and SCANNED in answer:
            rows = tuple(answer.replace(SCANNED, f"decoder/layers_{k}/") for k in range(num_cycles))
            return Stacked(rows, LAYER_AXIS)
        return answer

    return name
