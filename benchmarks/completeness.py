"""Completeness: the share of honest pairs that the prover proves, over random configs of the built-in subject.

    python -m benchmarks.completeness --configs 1000 --workers 2

An honest pair is one config's step as both twins write it. Every pair that is not proved is listed with its first
finding and a token for `paraflax repro`. The exit code is 1 when fewer than 99% of any step's pairs are proved.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import itertools
import json
import multiprocessing
import pathlib
import random
import sys
import time
import typing
from collections.abc import Iterable, Sequence

from harness.gate import settle_platform

from . import machine

STEPS = ("forward", "loss_and_grads", "train_step", "prefill", "generate")
DESCRIPTION = "The share of honest pairs that the prover proves, over random configs of the built-in subject."
GOAL = 0.99
CHUNK = 10  # configs that a worker takes at once
KEPT_TRACES = 50  # configs after which jax's caches are dropped; they would grow without bound


@dataclasses.dataclass(frozen=True)
class Pair:
    """One honest pair and what the prover said. Seconds of both traces together and of the proof alone."""

    index: int
    family: str
    scanned: bool
    dropout: bool
    step: str
    kind: str
    strength: str
    trace_seconds: float
    prove_seconds: float
    reason: str = ""
    token: str = ""

    @property
    def proved(self) -> bool:
        """Whether it counts."""
        return self.kind == "proved"


def setup(seed: int, index: int) -> typing.Any:
    """The config of that number: families and scanning in turn, every knob drawn evenly."""
    from harness.subjects.compact import space

    rng = random.Random(f"{seed}-{index}")
    strata = list(itertools.product(space.FAMILIES, (True, False)))
    family, scan_layers = strata[index % len(strata)]
    return space.build(family, scan_layers, {name: rng.choice(values) for name, values in space.KNOBS.items()})


def examine(case: typing.Any, programs: Sequence[typing.Any], index: int) -> Pair:
    """Traces and proves the two programs of a case."""
    from harness import prove

    a, b = programs
    start = time.perf_counter()
    a.trace()
    b.trace()
    traced = time.perf_counter()
    verdict = prove(a, b)
    ended = time.perf_counter()
    model = case.config.model
    pair = Pair(index, model.family, model.scan_layers, bool(model.dropout_rate), case.step, str(verdict.kind),
                verdict.strength, traced - start, ended - traced)  # fmt: skip
    return pair if pair.proved else dataclasses.replace(pair, reason=_first_finding(verdict), token=case.token)


def _first_finding(verdict: typing.Any) -> str:
    causes = [finding for finding in verdict.findings if finding.kind != "execution"]
    text = causes[0].text(verdict.programs) if causes else verdict.reason or verdict.explain()
    return text if len(causes) < 2 else f"{text}\n    ({len(causes)} findings in all)"


def sweep(seed: int, indices: Iterable[int], steps: Sequence[str] = STEPS) -> list[Pair]:
    """Every step of the configs of these numbers, in this process."""
    import jax

    from harness.subjects.compact import SUBJECT

    pairs = []
    for index in indices:
        config = setup(seed, index)
        for step in steps:
            case = SUBJECT.case(config, step, label=f"random-{index}")
            pairs.append(examine(case, SUBJECT.programs(case), index))
        if index % KEPT_TRACES == KEPT_TRACES - 1:
            jax.clear_caches()
    return pairs


def run(configs: int, seed: int, workers: int, progress: typing.TextIO | None = None) -> list[Pair]:
    """The sweep over `configs` configs on worker processes, in the order of their numbers."""
    chunks = [range(start, min(start + CHUNK, configs)) for start in range(0, configs, CHUNK)]
    # Spawned, because jax's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pairs: list[Pair] = []
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=settle_platform) as pool:
        futures = [pool.submit(sweep, seed, chunk) for chunk in chunks]
        for done, future in enumerate(concurrent.futures.as_completed(futures), start=1):
            found = future.result()
            pairs += found
            if progress is not None:
                unproved = sum(not pair.proved for pair in pairs)
                told = [f"{done}/{len(chunks)} chunks, {len(pairs)} pairs, {unproved} not proved", listing(found)]
                print("\n".join(filter(None, told)), file=progress, flush=True)
    return sorted(pairs, key=lambda pair: (pair.index, STEPS.index(pair.step)))


def shares(pairs: Iterable[Pair]) -> dict[str, float]:
    """The share of proved pairs of each step."""
    by_step = collections.defaultdict(list)
    for pair in pairs:
        by_step[pair.step].append(pair.proved)
    return {step: sum(marks) / len(marks) for step, marks in by_step.items()}


def complete(pairs: Sequence[Pair]) -> bool:
    """Whether every step that was examined reaches the goal; nothing examined does not."""
    return bool(pairs) and min(shares(pairs).values()) >= GOAL


def table(pairs: Sequence[Pair]) -> str:
    """Proved pairs of all, by family and layout, in Markdown; the last columns are all and those with dropout."""
    steps = [step for step in STEPS if any(pair.step == step for pair in pairs)]
    rows = sorted({(pair.family, pair.scanned) for pair in pairs}, key=lambda row: (row[0], not row[1]))
    lines = []
    for family, scanned in rows:
        own = [pair for pair in pairs if (pair.family, pair.scanned) == (family, scanned)]
        cells = [[pair for pair in own if pair.step == step] for step in steps]
        lines.append([f"{family}, {'scanned' if scanned else 'unscanned'}", *map(_counts, [*cells, own])])
    cells = [[pair for pair in pairs if pair.step == step] for step in steps]
    lines.append(["all", *map(_counts, [*cells, pairs])])
    dropped = [[pair for pair in cell if pair.dropout] for cell in [*cells, pairs]]
    lines.append(["of these with dropout", *map(_counts, dropped)])
    return machine.markdown(["family", *steps, "all"], lines)


def _counts(pairs: Sequence[Pair]) -> str:
    proved = sum(pair.proved for pair in pairs)
    share = f" ({100 * proved / len(pairs):.2f}%)" if pairs and proved < len(pairs) else ""
    return f"{proved}/{len(pairs)}{share}"


def listing(pairs: Iterable[Pair]) -> str:
    """Every pair that was not proved, with its first finding and how to repeat it."""
    return "\n".join(
        f"config {pair.index}, {pair.family}, {pair.step}: {pair.kind}\n{pair.reason}\nparaflax repro {pair.token}"
        for pair in pairs
        if not pair.proved
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.completeness", description=DESCRIPTION)
    parser.add_argument("--configs", type=int, default=1000, help="random configs, each under five steps")
    parser.add_argument("--seed", type=int, default=0, help="seed of the configs")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write every pair to this file")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    pairs = run(options.configs, options.seed, options.workers, progress=sys.stderr)
    seconds = time.perf_counter() - start
    if options.json:
        data = {"machine": machine.describe(), "seed": options.seed, "workers": options.workers, "seconds": seconds}
        options.json.write_text(json.dumps(data | {"pairs": [dataclasses.asdict(pair) for pair in pairs]}, indent=1))
    strengths = collections.Counter(pair.strength for pair in pairs if pair.proved)
    print(table(pairs))
    print(", ".join(f"{count} {strength}" for strength, count in strengths.most_common()))
    print(
        f"{len(pairs)} pairs in {seconds:.0f} s on {options.workers} workers: {60 * len(pairs) / seconds:.0f} a minute"
    )
    print(listing(pairs))
    return 0 if complete(pairs) else 1


if __name__ == "__main__":
    sys.exit(main())
