"""The JSONL stream of a run: one file for each process, merged by the controller. Lines say what they are by `type`.

`session` (versions, platform, seed, profile), `collection` (what a worker collected and left out), `record` (one
comparison), `test` (one test's outcome). Nothing is written before the first line that a run really owes.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
import typing
from collections.abc import Iterable

from .record import Record, RecordError

MERGED = "records.jsonl"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a test ended: `passed`, `failed`, `error` or `skipped`; `crash` when an exception, no assertion, ended it."""

    nodeid: str
    outcome: str
    reason: str = ""
    seconds: float = 0.0
    crash: bool = False
    reused: bool = False

    @property
    def failed(self) -> bool:
        """Whether the test counts against the run."""
        return self.outcome in ("failed", "error")


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that one run's files hold."""

    records: tuple[Record, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    session: typing.Mapping[str, typing.Any] = dataclasses.field(default_factory=dict)
    collected: int = 0
    deselected: int = 0
    reused_tests: int = 0


class Stream:
    """Appends lines to one process's file, each at once, so that a crash loses at most the line being written."""

    def __init__(self, directory: pathlib.Path, worker: str, *, eager: bool) -> None:
        self.path = directory / f"{worker}.jsonl"
        self._pending: list[str] = []
        self._active = eager

    def write(self, type_: str, **data: typing.Any) -> None:
        """Adds one line; a line that is not a record waits until there is a record or the run asked for a report."""
        self._pending.append(json.dumps({"type": type_, **data}, sort_keys=True))
        if self._active or type_ == "record":
            self.activate()

    def activate(self) -> None:
        """Writes what has waited, and from now on at once."""
        self._active = True
        if self._pending:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(line + "\n" for line in self._pending))
            self._pending.clear()


def prune(directory: pathlib.Path, *, keep: int) -> None:
    """Removes all but the newest runs; their names begin with the time."""
    for old in sorted(directory.iterdir())[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def read_run(directory: pathlib.Path) -> Run:
    """The run in a directory: the merged file, or what the workers have written so far.

    Raises:
        RecordError: when a complete line is damaged. A last line still being written is left out.
    """
    merged = directory / MERGED
    files = [merged] if merged.is_file() else sorted(directory.glob("*.jsonl"))
    return _fold(line for file in files for line in _lines(file))


def merge(directory: pathlib.Path) -> Run:
    """Joins the workers' files into one, by temporary file and rename, and takes the parts away."""
    parts = sorted(file for file in directory.glob("*.jsonl") if file.name != MERGED)
    lines = [line for file in parts for line in _lines(file)]
    write_atomically(directory / MERGED, "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    for file in parts:
        file.unlink()
    return _fold(lines)


def write_atomically(path: pathlib.Path, text: str | bytes) -> None:
    """Writes beside the target and renames, so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode("utf-8") if isinstance(text, str) else text
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _lines(file: pathlib.Path) -> Iterable[dict[str, typing.Any]]:
    raw = file.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(raw[:-1], 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise RecordError(f"{file.name}:{number} is not JSON ({error}); run the gate again.") from None


def _fold(lines: Iterable[dict[str, typing.Any]]) -> Run:
    records, outcomes, session, collections = [], [], {}, []
    for line in lines:
        data = {key: value for key, value in line.items() if key != "type"}
        match line.get("type"):
            case "record":
                records.append(Record.from_json(data))
            case "test":
                outcomes.append(Outcome(**data))
            case "session":
                session.update(data)
            case "collection":
                collections.append(data)
            case other:
                raise RecordError(f"a line of type {other!r} is no part of a report; run the gate again.")

    def largest(key: str) -> int:
        return max((collection[key] for collection in collections), default=0)

    return Run(tuple(records), tuple(outcomes), session, largest("collected"), largest("deselected"), largest("reused"))
