"""The Subject protocol, and how a subject is found: by `module:object` or by entry point."""

import importlib
import importlib.metadata
import sys
import typing
from collections.abc import Iterable, Iterator

from .case import Case

if typing.TYPE_CHECKING:
    from ..program import Program

GROUP = "paraflax.subjects"


class SubjectError(ValueError):
    """A subject that cannot be found or loaded."""


class NamedVerdict(typing.NamedTuple):
    """What one observable of a case came to."""

    observable: str
    verdict: typing.Any
    case: Case


class Subject(typing.Protocol):
    """Two backends of one model framework, and the space of their configs."""

    name: str
    backends: tuple[str, ...]
    steps: tuple[str, ...]
    forbidden_sources: dict[str, tuple[str, ...]]
    golden_files: tuple[str, ...]  # recorded files beside the cases' own, relative to the goldens' directory

    def case(self, config: typing.Any, step: str, *, mesh: str | None = None, label: str | None = None) -> Case:
        """The case of a config under a step."""
        ...

    def case_from_json(self, data: dict[str, typing.Any]) -> Case:
        """The inverse of a case's plain description."""
        ...

    def case_from_token(self, token: str) -> Case:
        """The case behind a token."""
        ...

    def read_config(self, text: str) -> typing.Any:
        """A config from a preset's name or a JSON file."""
        ...

    def program(self, backend: str, case: Case) -> "Program":
        """One backend's program of a case."""
        ...

    def preset_cases(self) -> Iterable[Case]:
        """The cases that every run compares."""
        ...

    def check(self, case: Case) -> Iterator[NamedVerdict]:
        """Everything that is compared about one case. May take `allow`, the weakest rewrites that count."""
        ...

    def golden_cases(self) -> Iterable[Case]:
        """The cases that have a golden."""
        ...

    def golden(self, case: Case) -> typing.Any:
        """The golden of a case as the code computes it now."""
        ...


def find_subject(name: str | None = None) -> Subject:
    """The subject called `module:object`, or that entry point's, or the default one.

    Raises:
        SubjectError: when there is none of that name.
    """
    if name is not None and ":" in name:
        return _load(name)
    entries = {entry.name: entry.value for entry in importlib.metadata.entry_points(group=GROUP)}
    entries.setdefault("compact", "harness.subjects.compact:SUBJECT")
    wanted = name or "compact"
    if wanted not in entries:
        raise SubjectError(
            f"subject {wanted!r}: is not installed; known: {', '.join(sorted(entries))}, or use module:object."
        )
    return _load(entries[wanted])


def _load(path: str) -> Subject:
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        why = _shadowed(error) or f"cannot be loaded ({error}); name an importable module:object"
        raise SubjectError(f"subject {path!r}: {why}.") from None


def _shadowed(error: Exception) -> str:
    """What to say when a plain file stands where the subject expects a package of that name."""
    top = (getattr(error, "name", None) or "").partition(".")[0]
    module = sys.modules.get(top)
    if module is None or hasattr(module, "__path__"):
        return ""
    return f"needs the package {top!r}, which the file {module.__file__} shadows; rename or move that file"
