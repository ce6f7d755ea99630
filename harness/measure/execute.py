"""Execution of two programs on the same inputs, and what their outputs say about each other.

Both are compiled from their traces, the very jaxprs that the prover saw. Equal bits on every input is `bitwise`, and
no truth is needed; else each leaf is judged by the noise ratio (`ratio`). Where the two sides derive their random keys
differently, the draws of `a` are replayed into `b`, op by op.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from ..program import Leaf, Program
from ..verdict import Finding, Kind, LeafResult, Verdict, weakest
from . import ratio
from .inputs import Inputs, draw_inputs, variants
from .interpreter import Unsupported
from .pairing import Pair, Pairing, pair
from .roundoff import output_roundoffs
from .runners import KEY_DERIVATION, Runners, compiled, draw_differently, replaying
from .stepwise import DrawMismatch, Jitter
from .truth import TruthRunner

JITTERS = 4
"""Runs that sample what rounding can do, where the ratio alone would fail."""


def measure(a: Program, b: Program, *, seed: int = 0) -> Verdict:
    """Runs both programs on the same adversarial inputs.

    Args:
        a: one program; it draws the inputs.
        b: the other; gets them by name.
        seed: of the draw.

    Returns:
        `bitwise`, `close`, `diverged`, or `undecided` with the reason when nothing could be compared.

    Raises:
        ProgramError: a program cannot be traced or has no concrete inputs.
    """
    pairing = pair(a, b)
    if not pairing.runnable:
        return _without_run(a, b, pairing)
    try:
        drawn = draw_inputs(a, b, seed)
        if not draw_differently(a, b, drawn):
            return measure_runs(a, b, Runners(compiled(a), compiled(b)), pairing, drawn, seed=seed)
        verdict = measure_runs(a, b, replaying(a, b), pairing, drawn, seed=seed)
        return dataclasses.replace(verdict, strength=KEY_DERIVATION)
    except Unsupported as error:
        return dataclasses.replace(_without_run(a, b, pairing), kind=Kind.UNDECIDED, reason=str(error))
    except DrawMismatch as error:
        finding = Finding(str(error), leaves=tuple(pair_.name for pair_ in pairing.outputs))
        findings = (*pairing.findings, finding)
        return dataclasses.replace(_without_run(a, b, pairing), kind=Kind.DIVERGED, findings=findings)


def measure_runs(
    a: Program, b: Program, runners: Runners, pairing: Pairing, drawn: Inputs, *, seed: int = 0
) -> Verdict:
    """`measure` with a given way to execute, around given inputs.

    Raises:
        Unsupported: a program has no float64 truth and one is needed.
        DrawMismatch: draws are replayed and do not pair.
    """
    inputs = list(variants(a, b, drawn, seed))
    results, found = _judge(a, b, pairing.outputs, inputs, runners)
    leaves = (*pairing.broken, *results)
    kind = weakest(leaf.kind for leaf in leaves)
    findings = (*pairing.findings, *_findings(results, found))
    return Verdict(
        kind, leaves=leaves, findings=findings, certificate=pairing.certificate,
        reason=_reason(results, kind), programs=(a.name, b.name),
    )  # fmt: skip


def _without_run(a: Program, b: Program, pairing: Pairing) -> Verdict:
    """Inputs that differ in structure, or no output in common: nothing was executed."""
    kind = Kind.DIVERGED if pairing.findings else Kind.UNDECIDED
    reason = "not executed: the structure differs" if pairing.findings else "no output leaf to compare"
    return Verdict(
        kind, leaves=pairing.broken, findings=pairing.findings, certificate=pairing.certificate,
        reason=reason, programs=(a.name, b.name),
    )  # fmt: skip


def _judge(
    a: Program, b: Program, pairs: Sequence[Pair], inputs: Sequence[Inputs], runners: Runners
) -> tuple[list[LeafResult], dict[str, ratio.Noise]]:
    """Every compared leaf: by bits over all inputs first, by noise where the bits differ."""
    settled: dict[str, LeafResult] = {}
    differing: set[str] = set()
    for one in inputs:
        outs_a, outs_b = runners.a(one.a), runners.b(one.b)
        for pair_ in pairs:
            left, right = _both(pair_, outs_a, outs_b)
            if pair_.name not in settled and one.group == "as drawn" and not _any_finite(left):
                settled[pair_.name] = LeafResult(pair_.name, Kind.UNDECIDED, None, "no finite element to compare")
            if not same_bits(left, right):
                differing.add(pair_.name)
                if not _is_floating(left):
                    settled.setdefault(pair_.name, _unequal(pair_, left, right, one.group))
    measured = [pair_ for pair_ in pairs if pair_.name in differing and pair_.name not in settled]
    found = noises(a, b, measured, inputs, runners) if measured else {}
    results = []
    for pair_ in pairs:
        noise = found.get(pair_.name)
        if pair_.name in settled:
            results.append(settled[pair_.name])
        elif noise is None:
            results.append(LeafResult(pair_.name, Kind.BITWISE, 0.0))
        else:
            kind = Kind.CLOSE if noise.agrees else Kind.DIVERGED
            results.append(LeafResult(pair_.name, kind, noise.ratio, noise.describe()))
    return results, found


def noises(
    a: Program, b: Program, pairs: Sequence[Pair], inputs: Sequence[Inputs], runners: Runners
) -> dict[str, ratio.Noise]:
    """The worst noise of each leaf over the groups of inputs."""
    truth_a, truth_b = runners.truth_a or TruthRunner(a), runners.truth_b or TruthRunner(b)
    roundoffs = _finer_roundoffs(a, b, pairs)
    groups: dict[str, dict[str, list[ratio.Noise]]] = {}
    for one in inputs:
        runs = runners.a(one.a), runners.b(one.b), truth_a(one.a), truth_b(one.b)
        for pair_ in pairs:
            indices = (pair_.index_a, pair_.index_b) * 2
            sample = ratio.Sample(*(_wide(run[index]) for run, index in zip(runs, indices, strict=True)))
            noise = ratio.compare_one(sample, roundoffs[pair_.name])
            groups.setdefault(one.group, {}).setdefault(pair_.name, []).append(noise)
    worst: dict[str, ratio.Noise] = {}
    for group, by_name in groups.items():
        first = next(one for one in inputs if one.group == group)
        merged = {name: ratio.merge(parts) for name, parts in by_name.items()}
        failing = [pair_ for pair_ in pairs if merged[pair_.name].fails_by_ratio]
        floors = _floors(a, b, failing, first, runners, roundoffs) if failing else {}
        for name, noise in merged.items():
            noise = dataclasses.replace(noise, floor=floors.get(name, 0.0))
            if name not in worst or (noise.severity > worst[name].severity):
                worst[name] = noise
    return worst


def _finer_roundoffs(a: Program, b: Program, pairs: Sequence[Pair]) -> dict[str, float]:
    ours, theirs = output_roundoffs(a), output_roundoffs(b)
    return {pair_.name: min(ours[pair_.index_a], theirs[pair_.index_b]) for pair_ in pairs}


def _floors(
    a: Program, b: Program, pairs: Sequence[Pair], one: Inputs, runners: Runners, roundoffs: dict[str, float]
) -> dict[str, float]:
    """What one rounding in every operation does to each leaf, on either side, in the finer side's precision."""
    runners.a(one.a)
    floors = dict.fromkeys((pair_.name for pair_ in pairs), 0.0)
    for roundoff in {roundoffs[pair_.name] for pair_ in pairs}:
        for program, flat, side in ((a, one.a, "index_a"), (b, one.b, "index_b")):
            true = runners.jittered(program, flat, Jitter(0.0, 0))
            for seed in range(JITTERS):
                moved = runners.jittered(program, flat, Jitter(roundoff, seed))
                for pair_ in pairs:
                    if roundoffs[pair_.name] == roundoff:
                        spread = np.abs(_wide(moved[getattr(pair_, side)]) - _wide(true[getattr(pair_, side)]))
                        floors[pair_.name] = max(floors[pair_.name], float(np.nan_to_num(spread).max(initial=0.0)))
    return floors


def _both(pair_: Pair, outs_a: list[np.ndarray], outs_b: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return _converted(outs_a[pair_.index_a], pair_.a), _converted(outs_b[pair_.index_b], pair_.b)


def _converted(value: np.ndarray, leaf: Leaf) -> np.ndarray:
    return value if leaf.converted is None else value.astype(leaf.converted)


def _wide(value: np.ndarray) -> np.ndarray:
    return value.astype(np.complex128 if np.iscomplexobj(value) else np.float64)


def _is_floating(value: np.ndarray) -> bool:
    return jax.numpy.issubdtype(value.dtype, jax.numpy.inexact)


def _any_finite(value: np.ndarray) -> bool:
    return not _is_floating(value) or value.size == 0 or bool(np.isfinite(_wide(value)).any())


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    """Equal bit patterns, all NaNs one class."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.tobytes() == right.tobytes():
        return True
    if not _is_floating(left):
        return False
    wide_left, wide_right = _wide(left), _wide(right)
    nans = np.isnan(wide_left)
    if not np.array_equal(nans, np.isnan(wide_right)):
        return False
    return wide_left[~nans].tobytes() == wide_right[~nans].tobytes()


def _unequal(pair_: Pair, left: np.ndarray, right: np.ndarray, group: str) -> LeafResult:
    index = tuple(int(i) for i in np.argwhere(left != right)[0])
    count = int((left != right).sum())
    detail = f"{count} of {left.size} integers differ; at {list(index)} a={left[index]} b={right[index]} ({group})"
    return LeafResult(pair_.name, Kind.DIVERGED, None, detail)


def _findings(results: Sequence[LeafResult], found: dict[str, ratio.Noise]) -> list[Finding]:
    """One finding for all diverged leaves, told by the worst of them."""
    bad = [leaf for leaf in results if leaf.kind == Kind.DIVERGED]
    if not bad:
        return []
    worst = max(bad, key=lambda leaf: float("inf") if leaf.name not in found else found[leaf.name].severity)
    noise = found.get(worst.name)
    where = f" ({noise.confined})" if noise is not None and noise.confined else ""
    return [
        Finding(
            title=f"{len(bad)} output(s) differ by more than rounding, the worst is {worst.name}{where}",
            leaves=tuple(leaf.name for leaf in sorted(bad, key=lambda leaf: leaf is not worst)),
            detail=worst.detail,
        )
    ]


def _reason(results: Sequence[LeafResult], kind: Kind) -> str:
    if kind is Kind.UNDECIDED:
        undecided = [leaf for leaf in results if leaf.kind is Kind.UNDECIDED]
        return f"{undecided[0].name}: {undecided[0].detail}" if undecided else "no output leaf to compare"
    if kind is Kind.CLOSE:
        worst = max((leaf for leaf in results if leaf.ratio is not None), key=lambda leaf: leaf.ratio or 0.0)
        return f"largest noise ratio {worst.ratio:.3g} of {ratio.K:g}, at {worst.name}"
    return ""
