"""A run's certificate: what was really compared, and what was not. It holds numbers, never an opinion."""

import collections
import dataclasses
import itertools
import typing
from collections.abc import Iterable, Mapping

from ..verdict import Kind
from .record import CONTROL, Record
from .stream import Run

VALUES = ("logits", "loss", "grads", "state", "eval", "decode")  # observables of executed or proved programs


@dataclasses.dataclass(frozen=True)
class ObservableCount:
    """What one observable's comparisons add up to."""

    comparisons: int
    leaves: int
    elements: int
    kinds: Mapping[str, int]
    finite: float | None
    worst_ratio: float | None


@dataclasses.dataclass(frozen=True)
class RunCertificate:
    """The record of a whole run.

    `trespasses` lists files that contributed to a backend's trace although they belong to the other one, and
    `sides_checked` says whether that was asked; `audited_share` is the part of the proved comparisons that were
    executed as well; `knob_pairs` counts distinct pairs of knob values.
    """

    verdicts: Mapping[str, int]
    observables: Mapping[str, ObservableCount]
    proved_cases: Mapping[str, tuple[int, int]]
    strengths: Mapping[str, int]
    sources: Mapping[str, tuple[str, ...]]
    trespasses: tuple[str, ...]
    sides_checked: bool
    fingerprints: int
    configs: int
    knob_pairs: int
    one_sided: Mapping[str, str]
    conversions: Mapping[str, str]
    rules: tuple[str, ...]
    goldens: Mapping[str, tuple[str, ...]]
    skipped: Mapping[str, int]
    tests: Mapping[str, int]
    controls: int
    controls_failed: tuple[str, ...]
    audited: int
    audited_share: float
    reused: int
    session: Mapping[str, typing.Any]

    def to_json(self) -> dict[str, typing.Any]:
        """Plain dicts, lists, strings and numbers."""
        return dataclasses.asdict(self)


def certify(run: Run) -> RunCertificate:
    """Adds a run's records up.

    Which files a backend's trace may not contain, and which goldens are missing, unused or damaged, stands in the run's
    session, where `Recorder.account` has put it.
    """
    real = [record for record in run.records if record.observable != CONTROL]
    controls = [record for record in run.records if record.observable == CONTROL]
    proved = [record for record in real if record.kind is Kind.PROVED]
    audited = sum(record.audited for record in proved)
    sources, missing = _sources(real), run.session.get("goldens", {})
    used = sorted(
        {record.case for record in real if record.observable == "goldens" and record.kind is not Kind.UNDECIDED}
    )
    return RunCertificate(
        verdicts=_kinds(real),
        observables={name: _count(group) for name, group in _by_observable(real).items()},
        proved_cases=_proved_cases(real),
        strengths=dict(collections.Counter(record.strength or "unqualified" for record in proved)),
        sources=sources,
        sides_checked=bool(run.session.get("forbidden")),
        trespasses=trespasses(sources, run.session.get("forbidden", {})),
        fingerprints=len({record.fingerprint for record in real if record.fingerprint}),
        configs=len({record.case for record in real}),
        knob_pairs=_knob_pairs(real),
        one_sided=_joined(record.one_sided for record in real),
        conversions=_joined(record.conversions for record in real),
        rules=tuple(sorted({rule for record in real for rule in record.rules})),
        goldens={"used": tuple(used), **{name: tuple(items) for name, items in missing.items()}},
        skipped=dict(collections.Counter(o.reason for o in run.outcomes if o.outcome == "skipped")),
        tests={**collections.Counter(outcome.outcome for outcome in run.outcomes), "deselected": run.deselected},
        controls=sum(record.passed for record in controls),
        controls_failed=tuple(record.case for record in controls if not record.passed),
        audited=audited,
        audited_share=audited / len(proved) if proved else 0.0,
        reused=sum(record.reused for record in run.records),
        session={key: value for key, value in run.session.items() if key not in ("forbidden", "goldens", "accounted")},
    )


def trespasses(sources: Mapping[str, Iterable[str]], forbidden: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """`backend: file` for every file on the wrong side."""
    return tuple(
        f"{backend}: {file}"
        for backend, fragments in sorted(forbidden.items())
        for file in sources.get(backend, ())
        if any(fragment in file for fragment in fragments)
    )


def _by_observable(records: Iterable[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.observable, []).append(record)
    return dict(sorted(groups.items()))


def _kinds(records: Iterable[Record]) -> dict[str, int]:
    counted = collections.Counter(str(record.kind) for record in records)
    return {str(kind): counted[str(kind)] for kind in Kind if counted[str(kind)]}


def _count(records: list[Record]) -> ObservableCount:
    compared = [record for record in records if record.compared]
    weights = [(record.finite, record.num_elements or 1) for record in compared if record.finite is not None]
    total = sum(weight for _, weight in weights)
    return ObservableCount(
        comparisons=len(compared),
        leaves=sum(record.num_leaves for record in compared),
        elements=sum(record.num_elements for record in compared),
        kinds=_kinds(records),
        finite=sum(share * weight for share, weight in weights) / total if total else None,
        worst_ratio=max((record.ratio for record in compared if record.ratio is not None), default=None),
    )


def _proved_cases(records: Iterable[Record]) -> dict[str, tuple[int, int]]:
    """A case may have several records (proved, then run as well); one proof makes it a proved case."""
    steps: dict[str, dict[str, bool]] = {}
    for record in records:
        if record.step and record.observable in VALUES:
            cases = steps.setdefault(record.step, {})
            cases[record.case] = cases.get(record.case, False) or record.kind is Kind.PROVED
    return {step: (sum(cases.values()), len(cases)) for step, cases in sorted(steps.items())}


def _sources(records: Iterable[Record]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for record in records:
        for backend, files in record.sources.items():
            found.setdefault(backend, set()).update(files)
    return {backend: tuple(sorted(files)) for backend, files in sorted(found.items())}


def _joined(maps: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return dict(sorted({key: value for one in maps for key, value in one.items()}.items()))


def _knob_pairs(records: Iterable[Record]) -> int:
    pairs = set()
    for record in records:
        pairs.update(itertools.combinations(sorted(record.knobs.items()), 2))
    return len(pairs)
