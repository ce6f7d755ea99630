"""The fixture `parity`: a test states what it expects of a verdict, which is recorded before the test may fail."""

import dataclasses
import pathlib
import time
import typing
from collections.abc import Iterable, Iterator, Mapping

import pytest

from ..verdict import STRENGTHS, Kind
from .record import CONTROL, NOTHING, Record, from_verdict
from .stream import Stream

DEFAULT_BUDGET = 600.0
NIGHTLY_SCALE = 30.0


@dataclasses.dataclass
class Recorder:
    """Writes records and turns what is not parity into a failed test.

    `profile` is `pr`, `dev` or `nightly`; `seed` is the run's; `budget` and `started` are in seconds; `goldens` is
    the directory of goldens and `update` says that they are to be rewritten (which fails the test all the same).
    `allow` is the weakest class of rewrites by which a proof counts.
    """

    stream: Stream
    profile: str = "pr"
    seed: int = 0
    budget: float = DEFAULT_BUDGET
    started: float = dataclasses.field(default_factory=time.time)
    goldens: pathlib.Path = pathlib.Path("goldens")
    update: bool = False
    nodeid: str = ""
    allow: str = STRENGTHS[0]
    records: list[Record] = dataclasses.field(default_factory=list)
    marked: float = dataclasses.field(default_factory=time.perf_counter)

    def record(self, record: Record) -> Record:
        """Writes a record as it is. It does not fail the test, but the gate's exit code heeds it."""
        kept = dataclasses.replace(counted(record, self.allow), nodeid=record.nodeid or self.nodeid)
        self.records.append(kept)
        self.stream.write("record", **kept.to_json())
        self.marked = time.perf_counter()
        return kept

    def expect(self, verdict: typing.Any, *, case: typing.Any, observable: str, **extra: typing.Any) -> Record:
        """Records a verdict about a case and fails the test with its explanation when it is not parity.

        `extra` sets fields of the record: `family`, `layers`, `audited`, `knobs`, `finite`, `seconds` (default: the
        time since the test began or the last record).
        """
        record = self._written(verdict, case, observable, extra)
        if not record.passed:
            pytest.fail(self.explain(record, case), pytrace=False)
        return record

    def expect_all(self, named: Iterable[typing.Any], **extra: typing.Any) -> list[Record]:
        """Records every `(observable, verdict, case)` and fails at the end with everything that is not parity."""
        pairs = [(self._written(item.verdict, item.case, item.observable, dict(extra)), item.case) for item in named]
        failed = [self.explain(record, case) for record, case in pairs if not record.passed]
        if failed:
            pytest.fail("\n\n".join(failed), pytrace=False)
        if not pairs:
            pytest.fail("nothing was compared: the subject gave no verdict for this case", pytrace=False)
        return [record for record, _ in pairs]

    def control(
        self,
        verdict: typing.Any,
        *,
        case: typing.Any,
        fault: str,
        localised: str | Iterable[str] = (),
        **extra: typing.Any,
    ) -> Record:
        """Records that a planted fault was noticed; fails when it was not, or not localised by these texts."""
        wanted = [localised] if isinstance(localised, str) else list(localised)
        text = verdict.explain()
        lost = [part for part in wanted if part not in text]
        kind = verdict.kind if not lost else Kind.UNDECIDED
        made = from_verdict(verdict, case, CONTROL, **extra)
        named = f"{made.case} with {fault}"
        record = self.record(dataclasses.replace(made, case=named, kind=kind, cause=fault, seconds=self._seconds()))
        if not record.passed:
            missed = f"the explanation does not name {', '.join(lost)}" if lost else "the check did not diverge"
            pytest.fail(f"negative control: {fault} was planted, and {missed}\n{text}", pytrace=False)
        return record

    def golden(self, current: typing.Any, *, case: typing.Any = None, **extra: typing.Any) -> Record:
        """Compares a golden computed now with the stored one; `--parity-update` rewrites it and fails the test."""
        from .. import goldens

        case = current.case_id if case is None else case
        if self.update:
            written = goldens.write(self.goldens, current)
            pytest.fail(
                f"golden {written.name} was rewritten by --parity-update; look at the difference and run again",
                pytrace=False,
            )
        verdict = goldens.check(self.goldens, current)
        return self.expect(verdict, case=case, observable="goldens", named=current.case_id, **extra)

    def account(self, subject: typing.Any) -> None:
        """Holds the goldens' directory against what the subject records, and fails when it is not complete.

        Notes for the certificate what is missing, unused or damaged, and which sources either side's trace may not
        contain.
        """
        from .. import goldens

        status = goldens.status(self.goldens, goldens.expected_files(subject))
        found = {name: getattr(status, name) for name in ("missing", "unused", "damaged", "pending")}
        forbidden = {name: list(parts) for name, parts in subject.forbidden_sources.items()}
        self.stream.write("session", goldens=found, forbidden=forbidden, accounted=[self.nodeid])
        self.stream.activate()
        if not status.clean:
            pytest.fail(status.explain(), pytrace=False)

    def scale(self, count: int) -> int:
        """How many examples a loop of `count` gets under this run's budget: as many in 10 minutes, more at night."""
        factor = (
            NIGHTLY_SCALE
            if self.profile == "nightly" and self.budget <= DEFAULT_BUDGET
            else self.budget / DEFAULT_BUDGET
        )
        return max(1, round(count * factor))

    def remaining(self) -> float:
        """Seconds of the budget that are left; never below zero."""
        return max(0.0, self.started + self.budget - time.time())

    def explain(self, record: Record, case: typing.Any = None) -> str:
        """What failed, the case's literal, the run's seed and the command that repeats it."""
        lines = [f"{record.case} {record.observable}: {record.kind}"]
        lines += [record.cause] if record.cause == NOTHING else []
        lines.append(record.detail)
        literal = getattr(case, "literal", "")
        lines += [f"case: {literal}"] if literal else []
        lines.append(f"seed: {self.seed}")
        lines += [f"rerun: paraflax repro {record.token}"] if record.token else []
        lines.append(f"or:    pytest {self.nodeid!r} --parity-seed {self.seed}" if self.nodeid else "")
        return "\n".join(line for line in lines if line)

    def begin(self, nodeid: str) -> None:
        """Notes which test speaks from now on."""
        self.nodeid, self.marked = nodeid, time.perf_counter()

    def _seconds(self) -> float:
        return round(time.perf_counter() - self.marked, 4)

    def _written(
        self, verdict: typing.Any, case: typing.Any, observable: str, extra: Mapping[str, typing.Any]
    ) -> Record:
        values = {"seconds": self._seconds(), **extra}
        values["knobs"] = {str(key): str(value) for key, value in dict(values.get("knobs") or {}).items()}
        return self.record(from_verdict(verdict, case, observable, **values))


def counted(record: Record, allow: str) -> Record:
    """The record itself, or as undecided where its proof needed weaker rewrites than `allow`."""
    needed = record.strength.partition(",")[0]
    if not record.passed or needed not in STRENGTHS[STRENGTHS.index(allow) + 1 :]:
        return record
    words = f"the proof is {needed}, and no rewrites weaker than {allow} count; see --allow"
    return dataclasses.replace(record, kind=Kind.UNDECIDED, cause=words, detail=words)


def failures(records: Iterable[Record]) -> Iterator[tuple[str, list[Record]]]:
    """Failed records by root cause, the most frequent cause first."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if not record.passed:
            groups.setdefault(record.cause or record.detail[:120] or str(record.kind), []).append(record)
    yield from sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
