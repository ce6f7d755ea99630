"""The pairs that are timed, by group and name: tiny presets and variants, deep models, plain JAX, published sizes."""

import dataclasses
import functools
import typing

from harness.subjects.compact import SUBJECT
from harness.subjects.compact.setup import Setup
from harness.subjects.compact.subject import TRAIN
from models.config import Remat, preset, presets

from . import plain
from .completeness import STEPS
from .timing import Make

MESH = "fsdp-tensor-256"
DEPTHS = (2, 4, 8, 16, 32, 64, 128)
SCANNED_DEPTHS = (2, 10, 100, 1000)
TRAINED = ("loss_and_grads", "train_step")


@dataclasses.dataclass(frozen=True)
class Timed:
    """A pair that can be made anew at will. `layers` is set where a group varies the depth."""

    group: str
    name: str
    make: Make
    layers: int | None = None


def _twins(setup: Setup, step: str, mesh: str | None = None) -> Make:
    case = SUBJECT.case(setup, step, mesh=mesh)
    return typing.cast(Make, functools.partial(SUBJECT.programs, case))


def _changed(setup: Setup, **changes: typing.Any) -> Setup:
    return dataclasses.replace(setup, model=setup.model.replace(**changes))


def tiny() -> list[Timed]:
    """Every step of each family's tiny preset, scanned and unscanned; gradients with remat and with dropout."""
    found = []
    for label, setup in SUBJECT.tiny_setups().items():
        found += [Timed(step, f"{label} {step}", _twins(setup, step)) for step in STEPS]
        variants = {"remat": {"remat": Remat.FULL}, "dropout": {"dropout_rate": 0.1}}
        for word, changes in variants.items():
            other = _changed(setup, **changes)
            found += [Timed(word, f"{label} {word} {step}", _twins(other, step)) for step in TRAINED]
    return found


def deep(depths: tuple[int, ...] = DEPTHS, scanned: tuple[int, ...] = SCANNED_DEPTHS) -> list[Timed]:
    """Unrolled models and plain stacks of growing depth, and scanned ones whose depth should cost nothing."""
    setups = SUBJECT.tiny_setups()
    found = []
    for step in ("forward", "train_step"):
        for layers in depths:
            setup = _changed(setups["llama-unscanned"], num_layers=layers)
            found.append(Timed(f"unrolled {step}", f"unrolled {step} {layers}", _twins(setup, step), layers))
        for layers in scanned:
            setup = _changed(setups["llama-scanned"], num_layers=layers)
            found.append(Timed(f"scanned {step}", f"scanned {step} {layers}", _twins(setup, step), layers))
    for word, gradients in (("forward", False), ("gradients", True)):
        for layers in depths:
            make = functools.partial(plain.programs, layers, gradients=gradients)
            found.append(Timed(f"plain {word}", f"plain {word} {layers}", make, layers))
    return found


def published() -> list[Timed]:
    """Forward and train step of every preset that is not tiny, on a mesh of 256 chips."""
    names = [name for name in presets() if not name.endswith("-tiny")]
    return [
        Timed(f"published {step}", f"{name} {step}", _twins(Setup(preset(name), TRAIN), step, MESH))
        for name in names
        for step in ("forward", "train_step")
    ]


def executed(steps: tuple[str, ...] = STEPS) -> list[Timed]:
    """The pairs that are also compiled and run: these steps of every tiny preset."""
    return [case for case in tiny() if case.group in steps]


def find(name: str) -> Timed:
    """The pair of that name."""
    return next(case for case in [*tiny(), *deep(), *published()] if case.name == name)
