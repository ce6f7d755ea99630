"""The golden of a case: what is recorded of both twins' programs, so that a change of both alike is noticed too."""

import dataclasses
import functools
import importlib.metadata
import typing

import jax
import numpy as np

from ... import settings
from ...goldens import Golden, number, terms
from ...measure import truth
from ...program import Program
from ...prove import changes, fingerprint, read, recorded
from ...verdict import Finding
from ..case import Case
from . import shardings
from .setup import MESHES

NUMBERS = ("forward", "loss_and_grads", "generate")  # steps whose float64 truths are recorded
RECORDED_MESHES = ("fsdp-256", "fsdp-tensor-256")
LIBRARIES = ("jax", "flax", "optax")


def golden(subject: typing.Any, case: Case) -> Golden:
    """The facts of a case as the code has them now."""
    programs = {backend: subject.program(backend, case) for backend in subject.backends}
    sections = {
        "environment": _environment(),
        "case": {"family": case.config.family, "literal": case.literal, "step": case.step, "mesh": str(case.mesh)},
        "leaves": {f"{leaf.name} of {name}": _shape(leaf) for name, leaf in _leaves(programs[subject.backends[0]])},
        "specs": _specs(subject.backends[0], case),
        **_fingerprints(programs),
    }
    if case.step in NUMBERS and case.mesh is None and case.label in subject.tiny_setups():
        sections["numbers"] = _numbers(programs[subject.backends[0]])
    return Golden(case.id, sections, functools.partial(_explain, subject, case))


def _environment() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {**versions, **settings.environment()}


def _leaves(program: Program) -> list[tuple[str, typing.Any]]:
    sides = (("inputs", program.inputs), ("outputs", program.outputs))
    return [(side, leaf) for side, leaves in sides for leaf in leaves if leaf.one_sided is None]


def _shape(leaf: typing.Any) -> str:
    return f"{leaf.compared_dtype}[{','.join(map(str, leaf.shape))}]"


def _specs(backend: str, case: Case) -> dict[str, str]:
    """Logical axes and specs of every state leaf; only the train step has a state."""
    if case.step != "train_step":
        return {}
    axes = shardings.axes(backend, case.config)
    meshes = RECORDED_MESHES if case.mesh is None else (case.mesh,)
    entries = {f"axes of {leaf}": ", ".join(map(str, names)) or "none" for leaf, names in axes.items()}
    for mesh in meshes:
        assert mesh in MESHES
        entries |= {f"{mesh} of {leaf}": str(spec) for leaf, spec in shardings.specs(axes, mesh).items()}
    return entries


def _fingerprints(programs: dict[str, Program]) -> dict[str, dict[str, str]]:
    """The prints of each program, and the terms that explain a change of one; twins of one print have one record."""
    first, *others = programs
    made, record = recorded(programs[first])
    prints, records = {first: made}, {first: record}
    for name in others:
        prints[name] = fingerprint(programs[name])
    if len({value.value for value in prints.values()}) == 1:
        records = {terms.BOTH: record}
    else:
        records |= {name: recorded(programs[name])[1] for name in others}
    kinds = ("value", "execution")
    entries = {f"{kind} of {name}": getattr(value, kind) for name, value in prints.items() for kind in kinds}
    return {"fingerprints": entries, **terms.sections(records)}


def _explain(subject: typing.Any, case: Case, stored: Golden) -> tuple[Finding, ...]:
    """Which operations, at which lines, make the programs of a case other than the recorded ones."""
    found: dict[str, tuple[Finding, ...]] = {}
    for backend in subject.backends:
        text = terms.coded(stored, backend)
        if text:
            _, now = recorded(subject.program(backend, case))
            found[backend] = changes(read(text), now, ("golden", backend))
    alike = len(found) == len(subject.backends) and all(found.values())
    first = next((findings for findings in found.values() if findings), ())
    note = "both twins changed" if alike and len(found) > 1 else ""
    return tuple(
        dataclasses.replace(finding, detail="; ".join(filter(None, (finding.detail, note)))) for finding in first
    )


def _numbers(program: Program) -> dict[str, str]:
    """Of each float output: its norm, and three of its elements against that norm's root mean square."""
    values = truth(program, program.draw(jax.random.key(0)))
    entries = {}
    for leaf, value in zip(program.outputs, values, strict=True):
        if not np.issubdtype(value.dtype, np.floating):
            continue
        flat = np.asarray(value, np.float64).ravel()
        norm = float(np.linalg.norm(flat))
        scale = norm / max(1, flat.size) ** 0.5
        entries[f"norm of {leaf.name}"] = number(norm)
        for index in sorted({0, flat.size // 2, flat.size - 1}):
            entries[f"element {index} of {leaf.name}"] = number(float(flat[index]), scale=scale)
    return entries
