"""The README's section on what a proof costs, from figures. Words and numbers only; nothing is measured here."""

import statistics
import typing
from collections.abc import Callable

from . import machine

WORDS = {
    "forward": "forward", "loss_and_grads": "loss and gradients", "train_step": "train step", "prefill": "prefill",
    "generate": "generate", "remat": "gradients, train step with remat", "dropout": "the same with dropout",
}  # fmt: skip
Rows = list[dict[str, typing.Any]]


def section(figures: dict[str, typing.Any], growth: Callable[[Rows], dict[str, float]]) -> str:
    """All the tables that the figures allow, in order."""
    load = f"load average {figures['load']:.1f} when it was last measured"
    parts: list[str] = [f"Medians of processor time on {machine.sentence(figures['machine'])}; {load}."]
    if "tiny" in figures:
        parts += ["Tiny presets, scanned and unscanned; both sides' bare traces, and what the prover adds:"]
        parts += [_groups(figures["tiny"])]
    if "deep" in figures:
        parts += ["By depth; the last column is the exponent of the proof's time over the layers, 1 being linear:"]
        parts += [_deep(figures["deep"], growth(figures["deep"]))]
    if "published" in figures:
        parts += ["Published sizes on a mesh of 256 chips, from traces alone:", _published(figures["published"])]
    if "cold" in figures:
        parts += [
            "Against lowering, compiling and running both sides, from empty caches (`faster`: by wall clock):",
            _cold(figures["cold"]),
        ]
    if "memory" in figures:
        parts += ["Peak memory above the bare process:", _memory(figures["memory"])]
    if "rate" in figures:
        rate = figures["rate"]
        parts += [
            f"Random configs: {rate['a_minute']:.0f} pairs a minute on two processes, their start included"
            f" ({rate['proved']} of {rate['pairs']} proved; verdict over trace {rate['ratio']:.2f})."
        ]
    return "\n\n".join(parts)


def _seconds(value: float) -> str:
    return f"{1000 * value:.1f} ms" if value < 0.1 else f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def _kind(rows: Rows) -> str:
    other = sorted({row["kind"] for row in rows} - {"proved"})
    return f" (not all proved: {', '.join(other)})" if other else ""


def _groups(rows: Rows) -> str:
    lines = []
    for group in dict.fromkeys(row["group"] for row in rows):
        own = [row for row in rows if row["group"] == group]
        middle = {name: statistics.median(row[name] for row in own) for name in ("trace", "proof", "ratio")}
        worst = max(row["ratio"] for row in own)
        lines.append([WORDS.get(str(group), str(group)) + _kind(own), str(len(own)), _seconds(middle["trace"]),
                      _seconds(middle["proof"]), f"{middle['ratio']:.2f}", f"{worst:.2f}"])  # fmt: skip
    return machine.markdown(["step", "pairs", "traces", "proof", "verdict / traces", "worst"], lines)


def _deep(rows: Rows, exponents: dict[str, float]) -> str:
    lines = []
    for group in dict.fromkeys(row["group"] for row in rows):
        own = [row for row in rows if row["group"] == group]
        ends = [f"{_seconds(row['trace'])} + {_seconds(row['proof'])}" for row in (own[0], own[-1])]
        ratios = [row["ratio"] for row in own]
        lines.append([group + _kind(own), f"{own[0]['layers']} to {own[-1]['layers']}", *ends,
                      f"{statistics.median(ratios):.2f}", f"{max(ratios):.2f}", f"{exponents[group]:.2f}"])  # fmt: skip
    header = ["model", "layers", "traces + proof, first", "last", "verdict / traces", "worst", "growth of the proof"]
    return machine.markdown(header, lines)


def _published(rows: Rows) -> str:
    names = dict.fromkeys(row["name"].rpartition(" ")[0] for row in rows)
    steps = dict.fromkeys(row["name"].rpartition(" ")[2] for row in rows)
    cells = {row["name"]: f"{_seconds(row['trace'])} + {_seconds(row['proof'])}" + _kind([row]) for row in rows}
    lines = [[name, *(cells.get(f"{name} {step}", "") for step in steps)] for name in names]
    return machine.markdown(["model", *(f"{WORDS[step]}: traces + proof" for step in steps)], lines)


def _cold(rows: Rows) -> str:
    lines = []
    for group in dict.fromkeys(row["group"] for row in rows):
        own = [row for row in rows if row["group"] == group]
        middle = {name: statistics.median(row[name] for row in own) for name in ("verdict", "lower", "compile", "run")}
        times, wall = [row["times"] for row in own], [row["wall_times"] for row in own]
        ratios = (statistics.median(times), min(times), statistics.median(wall))
        seconds = [*map(_seconds, middle.values())]
        lines.append([WORDS[group] + _kind(own), str(len(own)), *seconds, *(f"{ratio:.0f}" for ratio in ratios)])
    totals = {name: sum(row[name] for row in rows) for name in ("verdict", "lower", "compile", "run")}
    times = (totals["lower"] + totals["compile"] + totals["run"]) / totals["verdict"]
    wall = sum(row["wall_executed"] for row in rows) / sum(row["wall_verdict"] for row in rows)
    lines.append(["all together", str(len(rows)), *map(_seconds, totals.values()), f"{times:.0f}", "", f"{wall:.0f}"])
    header = ["step", "pairs", "verdict", "lower", "compile", "run", "times cheaper", "least", "times faster"]
    return machine.markdown(header, lines)


def _memory(rows: Rows) -> str:
    lines = []
    for row in rows:
        traced, added = row["traced"] - row["before"], row["proved"] - row["traced"]
        lines.append([row["name"], f"{traced:.0f} MiB", f"{added:.0f} MiB"])
    return machine.markdown(["pair", "traces", "proof adds"], lines)
