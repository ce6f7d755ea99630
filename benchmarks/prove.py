"""What a proof costs: against bare tracing, against compiling and running, by depth, in memory, at published sizes.

    python -m benchmarks.prove              # about half an hour on two cores; tables on stdout, figures in a file
    python -m benchmarks.prove --quick      # a minute: few pairs, once each
    python -m benchmarks.prove --markdown --into README.md   # the README's tables from the figures of the last run

It judges nothing: a machine's figures are no test. What was not proved is marked in its row.
"""

import argparse
import collections
import dataclasses
import json
import math
import os
import pathlib
import sys
import time
import typing
from collections.abc import Callable, Sequence

from harness.gate import settle_platform

from . import machine
from .completeness import STEPS

START, END = "<!-- figures of benchmarks.prove -->", "<!-- end of the figures -->"
FIGURES = pathlib.Path(".paraflax", "benchmarks", "prove.json")
PARTS = ("tiny", "deep", "published", "cold", "memory", "rate")


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured. `warm` rounds come before the repeats and are not counted."""

    warm: int = 1
    repeats: int = 5
    deep_repeats: int = 3
    cold_repeats: int = 3
    depths: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128)
    scanned: tuple[int, ...] = (2, 10, 100, 1000)
    a_group: int | None = None  # pairs of each group at most
    executed: tuple[str, ...] = STEPS
    memory: tuple[str, ...] = (
        "llama-scanned train_step", "gemma2-unscanned train_step", "unrolled train_step 32", "unrolled train_step 128",
        "plain gradients 128", "scanned train_step 1000", "llama3.1-405b train_step",
    )  # fmt: skip
    configs: int = 60


QUICK = Size(warm=0, repeats=1, deep_repeats=1, cold_repeats=1, depths=(1, 2), scanned=(2, 8), a_group=1,
             executed=("forward",), memory=("llama-scanned forward",), configs=2)  # fmt: skip

Rows = list[dict[str, typing.Any]]
Progress = Callable[[str], None]


def measure(size: Size, parts: Sequence[str] = PARTS, progress: Progress = lambda text: None) -> dict[str, typing.Any]:
    """The figures of the parts that are asked for, with the machine that they were taken on."""
    start = time.perf_counter()
    figures: dict[str, typing.Any] = {"machine": machine.describe(), "load": os.getloadavg()[0]}
    for part in parts:
        progress(part)
        figures[part] = MEASURES[part](size)
    return figures | {"seconds": time.perf_counter() - start}


def _timed(cases: Sequence[typing.Any], repeats: int, size: Size) -> Rows:
    from . import timing

    taken = timing.samples({case.name: case.make for case in cases}, repeats, size.warm)
    rows = []
    for case in cases:
        middle = timing.middle(taken[case.name])
        rows.append({"group": case.group, "name": case.name, "layers": case.layers, "kind": middle.kind,
                     "trace": middle.trace, "proof": middle.proof, "ratio": middle.ratio})  # fmt: skip
    return rows


def _few(found: Sequence[typing.Any], size: Size) -> list[typing.Any]:
    """The first pairs of each group, as many as are asked for."""
    taken: collections.Counter[str] = collections.Counter()
    few = []
    for case in found:
        taken[case.group] += 1
        if size.a_group is None or taken[case.group] <= size.a_group:
            few.append(case)
    return few


def _tiny(size: Size) -> Rows:
    from . import cases

    return _timed(_few(cases.tiny(), size), size.repeats, size)


def _deep(size: Size) -> Rows:
    from . import cases

    return _timed(cases.deep(size.depths, size.scanned), size.deep_repeats, size)


def _published(size: Size) -> Rows:
    from . import cases

    return _timed(_few(cases.published(), size), size.deep_repeats, size)


def _cold(size: Size) -> Rows:
    from . import cases, timing

    rows = []
    with timing.no_persistent_cache():
        for case in _few(cases.executed(size.executed), size):
            middle = timing.middle_cold([timing.cold(case.make) for _ in range(size.cold_repeats)])
            rows.append({"group": case.group, "name": case.name, **dataclasses.asdict(middle),
                         "times": middle.times_cheaper, "wall_times": middle.times_faster})  # fmt: skip
    return rows


def _memory(size: Size) -> Rows:
    from . import memory

    return [{"name": name, **memory.in_a_process(name)} for name in size.memory]


def _rate(size: Size) -> dict[str, float]:
    """Random pairs a minute on two processes, their start included."""
    from . import completeness

    start = time.perf_counter()
    pairs = completeness.run(size.configs, seed=0, workers=2)
    seconds = time.perf_counter() - start
    proving, tracing = (sum(getattr(pair, name) for pair in pairs) for name in ("prove_seconds", "trace_seconds"))
    return {"pairs": len(pairs), "proved": sum(pair.proved for pair in pairs), "seconds": seconds,
            "a_minute": 60 * len(pairs) / seconds, "ratio": 1 + proving / tracing}  # fmt: skip


MEASURES: dict[str, Callable[[Size], typing.Any]] = {
    "tiny": _tiny, "deep": _deep, "published": _published, "cold": _cold, "memory": _memory, "rate": _rate,
}  # fmt: skip


def growth(rows: Rows) -> dict[str, float]:
    """For each group that varies the depth: the exponent of the proof's seconds over the layers, by least squares."""
    exponents = {}
    for group in dict.fromkeys(row["group"] for row in rows):
        points = [(math.log(row["layers"]), math.log(row["proof"])) for row in rows if row["group"] == group]
        mean_x, mean_y = (sum(point[k] for point in points) / len(points) for k in (0, 1))
        spread = sum((x - mean_x) ** 2 for x, _ in points)
        exponents[group] = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    return exponents


def markdown(figures: dict[str, typing.Any]) -> str:
    """The tables of what was measured."""
    from . import tables

    return tables.section(figures, growth)


def replaced(page: str, text: str) -> str:
    """The page with the text between its marks."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise SystemExit(f"the file has no place for figures; put {START} and {END} where they belong.")
    return f"{before}{START}\n\n{text}\n\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prove", description="What a proof costs.")
    parser.add_argument("--quick", action="store_true", help="few pairs, once each")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="measure these parts; keep the others")
    parser.add_argument("--json", type=pathlib.Path, default=FIGURES, metavar="FILE", help=f"default: {FIGURES}")
    parser.add_argument("--markdown", action="store_true", help="measure nothing; print the tables of the file")
    parser.add_argument("--into", type=pathlib.Path, metavar="FILE", help="put the tables between the marks of a file")
    options = parser.parse_args(arguments)
    if options.markdown and not options.json.is_file():
        parser.error(f"--markdown: there is no file {options.json}; run without it first.")
    figures = json.loads(options.json.read_text(encoding="utf-8")) if options.json.is_file() else {}
    if not options.markdown:
        settle_platform()
        size = QUICK if options.quick else Size()
        figures |= measure(size, options.only, lambda text: print(f"measuring: {text}", file=sys.stderr))
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    text = markdown(figures)
    if options.into is None:
        print(text)
    else:
        options.into.write_text(replaced(options.into.read_text(encoding="utf-8"), text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
