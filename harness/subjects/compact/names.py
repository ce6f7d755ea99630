"""Canonical names of the leaves of the twins' programs, from the checkpoint layout tables (bijective, tested there)."""

from models.checkpoints.layouts import Layout, to_canonical

from ...program import Converted, OneSided

NAMED = str | OneSided | Converted

AUX = "rng state of NNX; Linen derives its keys from the step"


def state_name(layout: Layout, path: tuple[str, ...]) -> NAMED:
    """A train-state leaf: its canonical name; the step read as int32; rng state one-sided."""
    name = to_canonical(layout, path)
    if name == "step":
        return Converted("step", "int32")
    if name.startswith("aux/"):
        return OneSided(AUX)
    return name
