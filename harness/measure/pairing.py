"""Which leaves of two programs are compared with which, by name, and every reason why they cannot be.

A leaf without a partner, another shape or another dtype is a divergence in structure unless it was declared.
"""

import dataclasses
import typing

from jax.extend import core

from ..program import Leaf, Program
from ..verdict import Certificate, Finding, Kind, LeafResult


@dataclasses.dataclass(frozen=True)
class Pair:
    """One compared output: the leaf on each side and its position among that side's outputs."""

    name: str
    a: Leaf
    b: Leaf
    index_a: int
    index_b: int


@dataclasses.dataclass(frozen=True)
class Pairing:
    """The compared outputs, and what differs in structure."""

    outputs: tuple[Pair, ...]
    broken: tuple[LeafResult, ...]
    findings: tuple[Finding, ...]
    certificate: Certificate
    inputs_match: bool

    @property
    def runnable(self) -> bool:
        """Whether both sides can be fed the same inputs and have an output in common."""
        return self.inputs_match and bool(self.outputs)


def pair(a: Program, b: Program) -> Pairing:
    """Matches inputs and outputs of two programs by name. Traces both."""
    inputs = _differences(_needed_inputs(a, b), _needed_inputs(b, a), "input")
    outputs = _differences(a.outputs, b.outputs, "output")
    bad = {finding.leaves[0] for finding in outputs}
    theirs = {leaf.name: (number, leaf) for number, leaf in enumerate(b.outputs) if leaf.one_sided is None}
    pairs = [
        Pair(leaf.name, leaf, theirs[leaf.name][1], number, theirs[leaf.name][0])
        for number, leaf in enumerate(a.outputs)
        if leaf.one_sided is None and leaf.name in theirs and leaf.name not in bad
    ]
    broken = tuple(LeafResult(finding.leaves[0], Kind.DIVERGED, None, finding.title) for finding in outputs)
    return Pairing(tuple(pairs), broken, (*inputs, *outputs), _certificate(a, b, pairs), not inputs)


def _needed_inputs(program: Program, other: Program) -> tuple[Leaf, ...]:
    """The input leaves that need a partner: those that the other side has too, and those that the program reads.

    A jitted body counts as reading its arguments.
    """
    shared = {leaf.name for leaf in other.inputs}
    jaxpr = program.trace().jaxpr.jaxpr
    atoms = [atom for eqn in jaxpr.eqns for atom in eqn.invars] + list(jaxpr.outvars)
    read = {atom for atom in atoms if not isinstance(atom, core.Literal)}
    named = zip(jaxpr.invars, program.trace().inputs, strict=True)
    return tuple(leaf for var, leaf in named if var in read or leaf.name in shared)


def _differences(ours: tuple[Leaf, ...], theirs: tuple[Leaf, ...], what: str) -> list[Finding]:
    a = {leaf.name: leaf for leaf in ours if leaf.one_sided is None}
    b = {leaf.name: leaf for leaf in theirs if leaf.one_sided is None}
    findings = []
    for name in [*a, *(name for name in b if name not in a)]:
        title = _difference(a.get(name), b.get(name), f"{what} {name}")
        if title:
            sides = (_type(a.get(name)), _type(b.get(name)))
            findings.append(Finding(title, operations=sides, leaves=(name,), kind="structure"))
    return findings


def _difference(a: Leaf | None, b: Leaf | None, what: str) -> str:
    if a is None or b is None:
        return f"{what} exists only in {'b' if a is None else 'a'}"
    if a.shape != b.shape:
        return f"{what} has shape {list(a.shape)} in a and {list(b.shape)} in b"
    if a.compared_dtype != b.compared_dtype:
        return f"{what} is {a.compared_dtype} in a and {b.compared_dtype} in b"
    return ""


def _type(leaf: Leaf | None) -> str:
    return "" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"


def _certificate(a: Program, b: Program, pairs: list[Pair]) -> Certificate:
    one_sided: dict[str, str] = {}
    conversions: dict[str, str] = {}
    for program in (a, b):
        for leaf in (*program.inputs, *program.outputs):
            if leaf.one_sided is not None:
                one_sided[f"{program.name}: {leaf.name}"] = leaf.one_sided
            if leaf.converted is not None:
                conversions[f"{program.name}: {leaf.name}"] = f"{leaf.dtype} read as {leaf.converted}"
    return Certificate(
        num_leaves=len(pairs),
        num_elements=sum(pair.a.num_elements for pair in pairs),
        one_sided=one_sided,
        conversions=conversions,
        environment=dict[str, typing.Any](a.trace().environment),
    )
