"""Prove or measure that two JAX programs do the same thing.

The public names below are loaded on first use, so importing `harness` (or its pytest plugin) does not import jax.
"""

import importlib
import sys
import types
import typing

if typing.TYPE_CHECKING:
    from .check import check
    from .measure import measure
    from .program import Converted, Leaf, OneSided, Program, ProgramError, Stacked
    from .prove import Fingerprint, fingerprint, prove
    from .subjects import Case, Subject
    from .verdict import Certificate, Finding, Kind, LeafResult, Verdict

__all__ = [
    "Program", "ProgramError", "Leaf", "OneSided", "Converted", "Stacked",
    "prove", "fingerprint", "Fingerprint", "measure", "check",
    "Verdict", "Kind", "LeafResult", "Finding", "Certificate",
    "Case", "Subject",
]  # fmt: skip

_ROOMS = {
    "program": ("Program", "ProgramError", "Leaf", "OneSided", "Converted", "Stacked"),
    "prove": ("prove", "fingerprint", "Fingerprint"),
    "measure": ("measure",),
    "check": ("check",),
    "verdict": ("Verdict", "Kind", "LeafResult", "Finding", "Certificate"),
    "subjects": ("Case", "Subject"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


class _Harness(types.ModuleType):
    """Keeps `harness.prove`, `harness.measure` and `harness.check` the functions, also once the rooms are imported."""

    def __setattr__(self, name: str, value: typing.Any) -> None:
        if not (name in _ROOM_OF and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Harness


def __getattr__(name: str) -> typing.Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'harness' has no attribute '{name}'")
    value = getattr(importlib.import_module(f".{_ROOM_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
