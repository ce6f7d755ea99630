"""Canonical names of the leaves of the twins' programs, from the checkpoint layout tables (bijective, tested there)."""

import functools
from collections.abc import Callable, Mapping

from models.checkpoints.layouts import Layout, to_canonical

from ...program import Converted, OneSided, Stacked

NAMED = str | OneSided | Converted
Naming = Callable[[tuple[str, ...]], NAMED | Stacked]

AUX = "rng state of NNX; Linen derives its keys from the step"


@functools.lru_cache(maxsize=4096)  # a state's leaves are named as inputs and as outputs, of every config
def state_name(layout: Layout, path: tuple[str, ...]) -> NAMED:
    """A train-state leaf: its canonical name; the step read as int32; rng state one-sided."""
    name = to_canonical(layout, path)
    if name == "step":
        return Converted("step", "int32")
    if name.startswith("aux/"):
        return OneSided(AUX)
    return name


def constant(name: str) -> str | None:
    """Why an output is the same whatever the input: the gradient of what a router's choice alone reads is zero."""
    is_gradient = name.startswith("grads/") and name.endswith("/gate/choice_bias")
    return "a choice of experts has no gradient" if is_gradient else None


LAYER_AXIS = 1


def layers_apart(naming: Naming, lengths: Mapping[str, int]) -> Naming:
    """The names of a scanned model's leaves as those of the same model without a scan: each layer by itself.

    `lengths` holds the number of blocks of each scanned stack by its name.
    """

    def name(path: tuple[str, ...]) -> NAMED | Stacked:
        answer = naming(path)
        if not isinstance(answer, str):
            return answer
        for stack, length in lengths.items():
            scanned = f"decoder/{stack}/"
            if scanned in answer:
                rows = tuple(answer.replace(scanned, f"decoder/{stack}_{k}/") for k in range(length))
                return Stacked(rows, LAYER_AXIS)
        return answer

    return name
