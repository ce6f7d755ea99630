"""One comparison as one line of JSON. Everything that a run prints is a view of these records; no jax here."""

import dataclasses
import json
import re
import typing
from collections.abc import Mapping

from ..verdict import Kind

CONTROL = "control"
NOTHING = "the verdict compared no leaf, which is no parity"


class RecordError(ValueError):
    """A line of a report that is no record."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What one observable of one case came to.

    `layers` is `scanned`, `unscanned` or empty; `seconds` is wall clock; `finite` the share of compared elements that
    were finite and not zero, where values were executed; `cause` groups failures that have one root; `detail` is the
    explanation of a failure; `token` repeats the case; `reused` marks a pass replayed from an unchanged earlier run.
    In a `control` record a fault was planted, so `diverged` is the answer that it must have.
    """

    case: str
    observable: str
    kind: Kind
    family: str = ""
    layers: str = ""
    step: str = ""
    strength: str = ""
    num_leaves: int = 0
    num_elements: int = 0
    ratio: float | None = None
    finite: float | None = None
    seconds: float = 0.0
    fingerprint: str = ""
    one_sided: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sources: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    rules: tuple[str, ...] = ()
    conversions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    knobs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cause: str = ""
    detail: str = ""
    token: str = ""
    audited: bool = False
    reused: bool = False
    nodeid: str = ""

    @property
    def passed(self) -> bool:
        """Whether the record counts for parity; a control passes by diverging, and comparing nothing never passes."""
        if self.observable == CONTROL:
            return self.kind is Kind.DIVERGED
        return self.kind.agrees and self.num_leaves > 0

    @property
    def compared(self) -> bool:
        """Whether something of the two sides was really compared."""
        return self.observable != CONTROL and self.kind is not Kind.UNDECIDED and self.num_leaves > 0

    def to_json(self) -> dict[str, typing.Any]:
        """Plain dicts, lists, strings and numbers; fields at their default are left out."""
        plain = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.default is not dataclasses.MISSING and value == field.default:
                continue
            if isinstance(value, Mapping):
                value = {str(key): list(item) if isinstance(item, tuple) else item for key, item in value.items()}
                if not value:
                    continue
            plain[field.name] = list(value) if isinstance(value, tuple) else value
        return {**plain, "kind": str(self.kind)}

    @classmethod
    def from_json(cls, data: Mapping[str, typing.Any]) -> "Record":
        """The inverse of `to_json`.

        Raises:
            RecordError: when a field is unknown or missing.
        """
        values = dict(data)
        try:
            values["kind"] = Kind(values["kind"])
            values["rules"] = tuple(values.get("rules", ()))
            values["sources"] = {name: tuple(files) for name, files in values.get("sources", {}).items()}
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(
                f"record {json.dumps(dict(data))[:80]}: is damaged ({error}); run the gate again."
            ) from None


def from_verdict(
    verdict: typing.Any, case: typing.Any, observable: str, *, named: str | None = None, **extra: typing.Any
) -> Record:
    """The record of a Verdict about a Case (or about what `named` says); `extra` sets more fields.

    A verdict that compared no leaf is recorded as undecided, whatever it says.
    """
    verdict = _as_verdict(verdict)
    certificate = verdict.certificate
    num_leaves = certificate.num_leaves or len(verdict.leaves)
    ratios = [leaf.ratio for leaf in verdict.leaves if leaf.ratio is not None]
    return Record(
        case=named or getattr(case, "id", None) or str(case),
        observable=observable,
        kind=Kind.UNDECIDED if verdict and not num_leaves else verdict.kind,
        family=extra.pop("family", None) or getattr(getattr(case, "config", None), "family", ""),
        layers=extra.pop("layers", None) or layers_of(case),
        step=getattr(case, "step", ""),
        strength=verdict.strength,
        num_leaves=num_leaves,
        num_elements=certificate.num_elements,
        ratio=max(ratios, default=None),
        fingerprint=_fingerprint(verdict.fingerprints),
        one_sided=dict(certificate.one_sided),
        sources={name: tuple(files) for name, files in certificate.sources.items()},
        rules=tuple(certificate.rules),
        conversions=dict(certificate.conversions),
        cause=_cause(verdict),
        detail="" if verdict and num_leaves else verdict.explain(),
        token=getattr(case, "token", ""),
        **extra,
    )


def _as_verdict(answer: typing.Any) -> typing.Any:
    """A Verdict, also of an Observation."""
    return answer.as_verdict() if hasattr(answer, "as_verdict") else answer


def layers_of(case: typing.Any) -> str:
    """`scanned` or `unscanned` where the case's config has a knob `scan_layers`."""
    found = re.search(r'"scan_layers":\s*(true|false)', getattr(case, "config_json", "") or "")
    return {"true": "scanned", "false": "unscanned"}[found.group(1)] if found else ""


def _fingerprint(fingerprints: Mapping[str, typing.Any]) -> str:
    """The value fingerprint of the first program that has one."""
    for value in fingerprints.values():
        if isinstance(value, Mapping):
            value = value.get("value", "")
        text = str(getattr(value, "value", value))
        if text:
            return text
    return ""


def _cause(verdict: typing.Any) -> str:
    """One line that failures of one root share: operations and source lines, not the case. Empty for a pass."""
    if verdict:
        return "" if verdict.certificate.num_leaves or verdict.leaves else NOTHING
    causes = [finding for finding in verdict.findings if finding.kind != "execution"]
    causes.sort(key=lambda finding: not any(finding.sources))  # what has a source line says more than what has none
    if causes:
        places = " against ".join(source.partition(" < ")[0] for source in causes[0].sources if source)
        return f"{causes[0].title}" + (f" at {places}" if places else "")
    if verdict.reason:
        return verdict.reason.splitlines()[0]
    bad = [leaf.name for leaf in verdict.leaves if not leaf.kind.agrees]
    return f"leaf {bad[0]}" if bad else f"{verdict.kind} without a finding"
