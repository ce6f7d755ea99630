"""The attack: mutants of a target are proved against it, and what is proved is executed op by op.

A mutant is named by target, seed and number, which make it again:
`python -m parity_tests.prove.attack llama-scanned/train_step 0 17` prints the change, the verdict and what differs.
`python -m parity_tests.prove.attack DIRECTORY` adds up what a run has recorded in the directory of its report.
"""

import collections
import dataclasses
import functools
import json
import pathlib
import random
import sys
from typing import Any

import numpy as np

from harness import Kind, Program, prove, settings

from . import parameters, targets
from .eager import Endless, same_bits
from .mutation import Change, change_constant, mutate, parameter_change
from .sites import Place, Site, places

Pair = tuple[str, str]  # primitive and parameter
PAIR_ATTEMPTS, PAIR_MUTANTS = 150, 8  # tries at most to change a parameter, and to have it noticed
CONSTANTS = 0.02  # share of mutants that change a captured array, where there is one
OBSERVABLE = "attack"
OUTCOMES = ("no change", "no program", "judged", "proved", "executed", "unsound", "lost", "crashed")


@dataclasses.dataclass
class Tally:
    """Counts by kind of change and outcome, and what went wrong, each with the words that make it again."""

    counts: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    verdicts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    mutated: collections.Counter[Pair] = dataclasses.field(default_factory=collections.Counter)
    noticed: set[Pair] = dataclasses.field(default_factory=set)
    unsound: list[str] = dataclasses.field(default_factory=list)
    lost: list[str] = dataclasses.field(default_factory=list)
    crashed: list[str] = dataclasses.field(default_factory=list)

    def total(self, outcome: str) -> int:
        """How many mutants of any kind came to an outcome."""
        return sum(count for (_, found), count in self.counts.items() if found == outcome)

    def add(self, kind: str, *outcomes: str) -> None:
        """One mutant of a kind and all that became of it."""
        for outcome in outcomes:
            self.counts[(kind, outcome)] += 1

    def to_json(self) -> str:
        """One line: verdicts, and for each kind of change its outcomes."""
        kinds = {kind: {o: self.counts[(kind, o)] for o in OUTCOMES if self.counts[(kind, o)]} for kind in self.kinds()}
        return json.dumps({"verdicts": dict(self.verdicts), "kinds": kinds}, sort_keys=True)

    def kinds(self) -> list[str]:
        """The kinds of change that were tried, the most frequent first."""
        sums = collections.Counter()
        for (kind, outcome), count in self.counts.items():
            sums[kind] += count * (outcome == "judged")
        return [kind for kind, _ in sums.most_common()]

    def table(self) -> str:
        """Counts by kind, one a line, and their sums."""
        lines = ["  ".join(["kind".ljust(44), *(outcome.rjust(10) for outcome in OUTCOMES)])]
        for kind in self.kinds():
            lines.append("  ".join([kind.ljust(44), *(str(self.counts[(kind, o)]).rjust(10) for o in OUTCOMES)]))
        lines.append("  ".join(["all".ljust(44), *(str(self.total(outcome)).rjust(10) for outcome in OUTCOMES)]))
        return "\n".join([*lines, f"verdicts: {dict(self.verdicts)}"])


class Attack:
    """Mutants of one target, by name: a number, or `primitive:parameter:number` for one that changes a parameter."""

    def __init__(self, name: str, seed: int = 0):
        self.target = targets.target(name)
        self.seed = seed
        self._jaxprs = [program.trace().jaxpr for program in self.target.programs]
        self.places: list[list[Place]] = [list(places(jaxpr)) for jaxpr in self._jaxprs]

    @functools.cached_property
    def pairs(self) -> dict[Pair, list[tuple[int, Place]]]:
        """Every primitive and parameter in the target's traces, with the sides and places that have it."""
        found = collections.defaultdict(list)
        for side, options in enumerate(self.places):
            for place in options:
                equation = Site(self._jaxprs[side], place).equation
                for name in equation.params if equation is not None else ():
                    found[(equation.primitive.name, name)].append((side, place))
        return dict(found)

    def mutant(self, name: str) -> tuple[Program, Program, Change] | None:
        """The program that a mutant is held against, the mutant, and the change; None where no change was found."""
        rng = random.Random(f"{self.target.name} {self.seed} {name}")
        with settings.tracing():
            if ":" in name:
                primitive, parameter, _ = name.split(":")
                side, place = rng.choice(self.pairs[(primitive, parameter)])
                change = parameter_change(self._jaxprs[side], place, rng, parameter)
            else:
                side = rng.randrange(len(self.places))
                closed = self._jaxprs[side]
                change = change_constant(closed, rng) if rng.random() < CONSTANTS else None
                change = change or mutate(closed, rng.choice(self.places[side]), rng)
        own, against = self.target.programs[side], rng.choice(self.target.programs)
        return None if change is None else (against, mutated(own, change.program), change)

    def run(self, judged: int, tally: Tally | None = None) -> Tally:
        """Attacks at random until the tally counts as many mutants as judged."""
        tally = Tally() if tally is None else tally
        for number in range(3 * judged):
            if tally.total("judged") >= judged:
                break
            self.one(str(number), tally)
        return tally

    def one(self, name: str, tally: Tally, *, execute: bool = True) -> None:
        """Judges one mutant."""
        found = self.mutant(name)
        if found is None:
            tally.add("none applies", "no change")
            return
        target = self.target if execute else None
        judge(target, *found, tally, f"{self.target.name} {self.seed} {name}")

    def each_pair(self, tally: Tally, pairs=None, *, execute: bool = True) -> None:
        """Mutants for each primitive and parameter (or for those given), until one is not proved or may not be."""
        for pair in sorted(self.pairs if pairs is None else pairs):
            for attempt in range(PAIR_ATTEMPTS):
                judged, proved = tally.total("judged"), tally.total("proved")
                self.one(f"{pair[0]}:{pair[1]}:{attempt}", tally, execute=execute)
                if tally.total("judged") == judged:
                    continue
                tally.mutated[pair] += 1
                if tally.total("proved") == proved:
                    tally.noticed.add(pair)
                excused = pair in parameters.NEUTRAL or pair in parameters.HARMLESS
                if excused or pair in tally.noticed or tally.mutated[pair] >= PAIR_MUTANTS:
                    break


def mutated(program: Program, closed) -> Program:
    """A program with another jaxpr of the same inputs and outputs."""
    made = Program(lambda *args: args, program.args, name="mutant")
    vars(made).update(inputs=program.inputs, _traced=dataclasses.replace(program.trace(), jaxpr=closed))
    return made


def judge(target, against: Program, mutant: Program, change: Change, tally: Tally, label: str) -> None:
    """Proves, and executes what is proved on the target's inputs, if there is one."""
    words = f"[{label}] {change.words}"
    try:
        verdict = prove(against, mutant)
    except Exception as error:  # a prover that breaks is reported with the mutant that broke it
        tally.crashed.append(f"{words}: {type(error).__name__}: {error}")
        tally.add(change.kind, "judged", "crashed")
        return
    tally.verdicts[f"{verdict.kind} {verdict.strength}".strip()] += 1
    if verdict.kind is not Kind.PROVED:
        lost = change.neutral
        tally.add(change.kind, "judged", *(["lost"] if lost else []))
        if lost:
            tally.lost.append(f"{words}: must stay proved, but\n{verdict.explain()}")
        return
    if change.finding and not any(finding.kind == "execution" for finding in verdict.findings):
        tally.lost.append(f"{words}: proved, but without an execution finding")
        tally.add(change.kind, "lost")
    if target is None:
        tally.add(change.kind, "judged", "proved")
        return
    try:
        difference = disagreement(target, against, mutant, draws="key derivation" in verdict.strength)
    except Endless:
        tally.add(change.kind, "judged", "proved")
        return
    except Exception as error:  # jax refuses to execute what is no program, each primitive in its own way
        tally.add(change.kind, "no program")
        tally.verdicts[f"proved, no program: {type(error).__name__}"] += 1
        return
    tally.add(change.kind, "judged", "proved", "executed", *(["unsound"] if difference else []))
    if difference:
        tally.unsound.append(f"{words}: proved ({verdict.strength}), but {difference}")


def disagreement(target, a: Program, b: Program, *, draws: bool) -> str:
    """Where two programs give different bits op by op on any of the inputs; empty where they agree."""
    for number in range(targets.NUM_INPUTS):
        left, right = (target.outputs(program, number, draws=draws) for program in (a, b))
        for name, value in left.items():
            if not same_bits(value, right[name]):
                return f"{name} differs on inputs {number}{_lines(value, right[name])}"
    return ""


def _lines(left, right) -> str:
    left, right = np.asarray(left), np.asarray(right)
    if left.shape != right.shape or left.dtype != right.dtype:
        return f": {left.dtype}{list(left.shape)} against {right.dtype}{list(right.shape)}"
    at = [k for k, (x, y) in enumerate(zip(left.reshape(-1), right.reshape(-1), strict=True)) if not same_bits(x, y)]
    first = np.unravel_index(at[0], left.shape) if left.shape else ()
    where = [int(k) for k in first]
    return f" at {where}: {left[tuple(where)]!r} against {right[tuple(where)]!r} ({len(at)} elements)"


def merged(tallies) -> Tally:
    """The sum of several tallies."""
    return functools.reduce(_sum, tallies, Tally())


def _sum(a: Tally, b: Tally) -> Tally:
    pairs = {"mutated": a.mutated + b.mutated, "noticed": a.noticed | b.noticed}
    wrong = {"unsound": a.unsound + b.unsound, "lost": a.lost + b.lost, "crashed": a.crashed + b.crashed}
    return Tally(a.counts + b.counts, a.verdicts + b.verdicts, **pairs, **wrong)


def from_json(line: str) -> Tally:
    """A tally as `to_json` wrote it, without what went wrong."""
    data: dict[str, Any] = json.loads(line)
    counts = {(kind, o): count for kind, outcomes in data["kinds"].items() for o, count in outcomes.items()}
    return Tally(collections.Counter(counts), collections.Counter(data["verdicts"]))


def _replay(name: str, seed: str, number: str) -> None:
    found = Attack(name, int(seed)).mutant(number)
    if found is None:
        print("no change")
        return
    against, mutant, change = found
    verdict = prove(against, mutant)
    print(change.words, verdict.explain(), sep="\n")
    draws = "key derivation" in verdict.strength
    print("execution:", disagreement(targets.target(name), against, mutant, draws=draws) or "agrees")


def _total(directory: str) -> None:
    """The sum of what the tests of a run recorded, from the records in the report's directory."""
    lines = [json.loads(line) for file in pathlib.Path(directory).glob("*.jsonl") for line in file.open()]
    found = {line["case"]: line["detail"] for line in lines if line.get("observable") == OBSERVABLE}
    print(f"{len(found)} targets", merged(map(from_json, found.values())).table(), sep="\n")


if __name__ == "__main__":
    _replay(*sys.argv[1:]) if len(sys.argv) == 4 else _total(*sys.argv[1:])
