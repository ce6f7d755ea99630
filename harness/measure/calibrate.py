"""Calibrates the noise ratio on honest and faulty pairs: `python -m harness.measure.calibrate` writes the evidence.

`K` is the next power of two at or above twice the largest ratio of an honest pair; the bound of the truths is the next
power of ten at or above twice their largest gap. Refuses to write when a fault would pass.
"""

import json
import math
import pathlib
import platform
import sys
import typing
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from ..program import Program
from . import ratio
from .execute import noises
from .inputs import draw_inputs, variants
from .pairing import pair
from .runners import Runners, compiled, stepwise
from .specimens import FAULTS, HONEST, program, spell
from .truth import TruthRunner

SEEDS = (0, 1, 2)
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Row(typing.NamedTuple):
    """One pair on one seed: the worst ratio, and the worst conditioned gap of the truths."""

    name: str
    ratio: float
    gap: float
    leaf: str


def honest_rows() -> Iterator[Row]:
    """The same program executed in three ways, and every honest spelling against the reference, in both dtypes."""
    for label, dtype in DTYPES.items():
        reference = program(spell({}, dtype=dtype))
        run, true = compiled(reference), TruthRunner(reference)
        ways = {"op by op": stepwise(reference), "unoptimised": compiled(reference, xla_backend_optimization_level=0)}
        for way, runner in ways.items():
            yield from rows(f"{label}: compiled against {way}", reference, reference, Runners(run, runner, true, true))
        for name, changes in _honest(dtype).items():
            other = program(spell(changes, dtype=dtype))
            runners = Runners(run, compiled(other), true, TruthRunner(other))
            yield from rows(f"{label}: {name}", reference, other, runners)


def _honest(dtype: typing.Any) -> dict[str, dict[str, typing.Any]]:
    """The honest spellings; a literal rounded to bfloat16 makes another function, so it is not among them."""
    if dtype == jnp.float32:
        return HONEST
    kept = {name: {key: value for key, value in how.items() if key != "literal"} for name, how in HONEST.items()}
    return {name: how for name, how in kept.items() if how}


def fault_rows() -> Iterator[Row]:
    """Every fault against the reference in float32; the smaller of the seeds is what counts."""
    reference = program()
    run, true = compiled(reference), TruthRunner(reference)
    for name, changes in FAULTS.items():
        other = program(spell(changes))
        yield from rows(f"float32: {name}", reference, other, Runners(run, compiled(other), true, TruthRunner(other)))


def rows(name: str, a: Program, b: Program, runners: Runners) -> Iterator[Row]:
    """The worst leaf of a pair, for each seed."""
    pairing = pair(a, b)
    for seed in SEEDS:
        inputs = list(variants(a, b, draw_inputs(a, b, seed), seed))
        by_leaf = noises(a, b, pairing.outputs, inputs, runners)
        worst = max(by_leaf, key=lambda leaf: by_leaf[leaf].ratio)
        gaps = [noise.conditioned_gap for noise in by_leaf.values()]
        yield Row(name, by_leaf[worst].ratio, max(gaps), worst)


def evidence() -> dict[str, typing.Any]:
    """Everything that goes into `calibration.json`."""
    honest = {row.name: _figures(row) for row in _by_name(honest_rows(), _largest)}
    faults = {row.name: _figures(row) for row in _by_name(fault_rows(), _least)}
    largest, gap = (max(figures[key] for figures in honest.values()) for key in ("ratio", "gap"))
    return {
        "K": 2.0 ** math.ceil(math.log2(2 * largest)),
        "literal_bound": 10.0 ** math.ceil(math.log10(2 * gap)),
        "honest": honest,
        "faults": faults,
        "environment": {"jax": jax.__version__, "machine": platform.machine(), "platform": jax.default_backend()},
    }


def _by_name(found: Iterator[Row], choose: Callable[[list[Row]], Row]) -> list[Row]:
    by_name: dict[str, list[Row]] = {}
    for row in found:
        print(f"{row.name}: ratio {row.ratio:.3g} at {row.leaf}, gap {row.gap:.3g}", flush=True)
        by_name.setdefault(row.name, []).append(row)
    return [choose(group) for group in by_name.values()]


def _largest(group: list[Row]) -> Row:
    """What an honest pair may cost: the largest ratio and the largest gap of any seed."""
    return max(group, key=lambda row: row.ratio)._replace(gap=max(row.gap for row in group))


def _least(group: list[Row]) -> Row:
    """The seed on which a fault shows least: by its gap in float32 roundings, or by its ratio."""
    return min(group, key=lambda row: max(row.ratio, row.gap * 2.0**24))


def _figures(row: Row) -> dict[str, typing.Any]:
    return {"ratio": float(f"{row.ratio:.3g}"), "gap": float(f"{row.gap:.3g}"), "leaf": row.leaf}


def main() -> int:
    """Measures, prints, writes. Returns 1, and writes nothing, when a fault would pass."""
    found = evidence()
    missed = [
        name for name, figures in found["faults"].items()
        if figures["ratio"] <= found["K"] and figures["gap"] <= found["literal_bound"]
    ]  # fmt: skip
    if missed:
        print(f"not written: K = {found['K']:g} and bound {found['literal_bound']:g} would pass: {', '.join(missed)}")
        return 1
    path = pathlib.Path(ratio.__file__).with_name("calibration.json")
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"K = {found['K']:g}, literal bound {found['literal_bound']:g}: written to {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
