"""What the harness answers: a verdict, its leaves, its findings and the record of what was really compared.

Plain data, no jax: a verdict can be printed, stored and read back anywhere.
"""

import dataclasses
import enum
import typing
from collections.abc import Mapping


class Kind(enum.StrEnum):
    """How two programs relate, strongest first."""

    PROVED = "proved"
    BITWISE = "bitwise"
    CLOSE = "close"
    DIVERGED = "diverged"
    UNDECIDED = "undecided"

    @property
    def agrees(self) -> bool:
        """Whether this kind counts as parity."""
        return self in (Kind.PROVED, Kind.BITWISE, Kind.CLOSE)


_WORST_FIRST = (Kind.DIVERGED, Kind.UNDECIDED, Kind.CLOSE, Kind.BITWISE, Kind.PROVED)


def weakest(kinds: typing.Iterable[Kind]) -> Kind:
    """The kind of a whole from the kinds of its parts; nothing compared is `undecided`."""
    present = set(kinds)
    return next((kind for kind in _WORST_FIRST if kind in present), Kind.UNDECIDED)


@dataclasses.dataclass(frozen=True)
class LeafResult:
    """One output leaf. `ratio` is the noise ratio where the leaf was executed; `detail` says why it differs."""

    name: str
    kind: Kind
    ratio: float | None = None
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One cause. Both sides' operations and source lines, the stage path, and every leaf that it spoils.

    `kind` is `value` (the functions differ), `structure` (a leaf, shape or dtype differs), `execution` (equal values,
    other placement, recomputation or loop unrolling: reported, no failure) or `unmodelled` (not understood).
    """

    title: str
    operations: tuple[str, str] = ("", "")
    sources: tuple[str, str] = ("", "")
    scope: str = ""
    leaves: tuple[str, ...] = ()
    detail: str = ""
    kind: str = "value"

    def text(self, names: tuple[str, str] = ("a", "b")) -> str:
        """Several lines for a console."""
        lines = [self.title + (f"  (in {self.scope})" if self.scope else "")]
        for name, operation, source in zip(names, self.operations, self.sources, strict=True):
            if operation or source:
                lines.append(f"    {name}: {operation}" + (f"\n        at {source}" if source else ""))
        if self.detail:
            lines.append(f"    {self.detail}")
        if self.leaves:
            more = f" and {len(self.leaves) - 4} more" if len(self.leaves) > 4 else ""
            lines.append(f"    spoils {len(self.leaves)} output(s): {', '.join(self.leaves[:4])}{more}")
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What stood behind a verdict: files traced, leaves and elements compared, rules used, leaves left out and why.

    `stacked` maps a row that was compared as a leaf of its own to the array it is a row of, `constants` an output that
    depends on no input to the reason why it may.
    """

    sources: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    num_leaves: int = 0
    num_elements: int = 0
    rules: tuple[str, ...] = ()
    one_sided: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unmatched_used: tuple[str, ...] = ()
    unmatched_ignored: tuple[str, ...] = ()
    draws: int = 0
    conversions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stacked: Mapping[str, str] = dataclasses.field(default_factory=dict)
    constants: Mapping[str, str] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


STRENGTHS = ("exact", "modulo signed zero", "reassociating")  # strongest first


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The answer about two programs. Truthy exactly when it is proved, bitwise or close.

    `strength` qualifies a proof: `exact`, `modulo signed zero` or `reassociating` (the weakest rewrite used), with
    `, modulo key derivation` when random draws were paired by stage. `fingerprints` maps program name to digests.
    """

    kind: Kind
    strength: str = ""
    leaves: tuple[LeafResult, ...] = ()
    findings: tuple[Finding, ...] = ()
    certificate: Certificate = dataclasses.field(default_factory=Certificate)
    fingerprints: Mapping[str, typing.Any] = dataclasses.field(default_factory=dict)
    reason: str = ""
    programs: tuple[str, str] = ("a", "b")

    def __bool__(self) -> bool:
        return self.kind.agrees

    def leaf(self, name: str) -> LeafResult:
        """The result of one output leaf.

        Raises:
            KeyError: no compared leaf has that name.
        """
        for result in self.leaves:
            if result.name == name:
                return result
        raise KeyError(f"no compared output leaf is named '{name}'")

    def explain(self) -> str:
        """The verdict in words: headline, causes, then leaves that are not equal."""
        headline = str(self.kind) + (f" ({self.strength})" if self.strength else "")
        lines = [f"{headline}: {' against '.join(self.programs)}, {len(self.leaves)} output leaves"]
        if self.reason:
            lines.append(self.reason)
        lines += [finding.text(self.programs) for finding in self.findings]
        bad = [leaf for leaf in self.leaves if not leaf.kind.agrees]
        for leaf in bad[:20]:
            ratio = "" if leaf.ratio is None else f", ratio {leaf.ratio:.3g}"
            lines.append(f"  {leaf.name}: {leaf.kind}{ratio}" + (f" ({leaf.detail})" if leaf.detail else ""))
        if len(bad) > 20:
            lines.append(f"  and {len(bad) - 20} more leaves")
        lines += [f"  {leaf} compared on one side only: {why}" for leaf, why in self.certificate.one_sided.items()]
        return "\n".join(lines)

    def to_json(self) -> dict[str, typing.Any]:
        """Plain dicts, lists, strings and numbers."""
        return _plain(dataclasses.asdict(self))


def _plain(value: typing.Any) -> typing.Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, enum.Enum) else value
