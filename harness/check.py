"""`check`: prove what can be proved from traces, execute the rest. The one call most users need."""

import dataclasses

from .program import Program, ProgramError
from .verdict import Kind, LeafResult, Verdict, weakest


def check(a: Program, b: Program, *, allow: str = "exact", seed: int = 0, unroll: int = 0) -> Verdict:
    """Whether two programs agree: proved where their traces are one function, executed and judged where they are not.

    A difference of structure (a leaf, shape or dtype) is `diverged` and is never executed. Leaves that were proved stay
    proved; the verdict's kind is that of its weakest leaf. The prover's findings say where the traces part. `allow` and
    `unroll` are those of `prove`.

    Raises:
        ProgramError: a program cannot be traced or named.
    """
    from .measure import measure
    from .prove import prove

    proof = prove(a, b, allow=allow, unroll=unroll)
    if proof.kind is not Kind.UNDECIDED or a.fn is b.fn:  # a program agrees with itself whatever it is
        return proof
    try:
        measured = measure(a, b, seed=seed)
    except ProgramError as error:
        return dataclasses.replace(proof, reason=f"{proof.reason}; not executed: {error}")
    if not proof.leaves:  # the trace has an effect that no proof models
        return dataclasses.replace(measured, findings=(*measured.findings, *proof.findings))
    return _joined(proof, measured)


def _joined(proof: Verdict, measured: Verdict) -> Verdict:
    proved = {leaf.name for leaf in proof.leaves if leaf.kind is Kind.PROVED}
    found = {leaf.name: leaf for leaf in measured.leaves}
    leaves = tuple(
        found.get(leaf.name, LeafResult(leaf.name, Kind.UNDECIDED, detail="was not executed"))
        if leaf.name not in proved or (leaf.name in found and not found[leaf.name].kind.agrees)
        else leaf
        for leaf in proof.leaves
    )
    return dataclasses.replace(
        measured,
        kind=weakest([measured.kind, *(leaf.kind for leaf in leaves)])
        if not measured
        else weakest(x.kind for x in leaves),
        leaves=leaves,
        findings=(*measured.findings, *proof.findings),
        certificate=proof.certificate,
        fingerprints=proof.fingerprints,
    )
