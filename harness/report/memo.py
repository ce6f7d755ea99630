"""What passed before and cannot have changed: a second gate over the same sources replays it instead of running it.

The key is a digest of every source file below the root, of editable installs, of all installed versions, of the
platform's settings and of profile, seed and budget. Failures and negative controls are never kept; a stable sample
runs again.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import sys
import typing
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping

from .record import CONTROL, Record, RecordError
from .stream import Run, write_atomically

SAMPLE_PERCENT = 3
SUFFIXES = {".py", ".toml", ".lock", ".txt", ".json", ".jsonl", ".tsv", ".csv", ".cfg", ".ini", ".npz", ".yml", ".yaml"}
LEFT_OUT = {"__pycache__", "dist", "build", "runs", "node_modules"}
VARIABLES = ("JAX_", "XLA_", "LIBTPU_", "TPU_", "CUDA_VISIBLE", "PARAFLAX_")
STORED_ELSEWHERE = ("JAX_COMPILATION_CACHE_DIR",)


@dataclasses.dataclass(frozen=True)
class Memo:
    """The passes of earlier runs with one digest: records by test."""

    directory: pathlib.Path
    digest: str
    passes: Mapping[str, tuple[Record, ...]] = dataclasses.field(default_factory=dict)

    @property
    def path(self) -> pathlib.Path:
        """The file of this digest."""
        return self.directory / self.digest / "passes.json"

    def reusable(self, nodeid: str) -> bool:
        """Whether that test passed before and is not in the sample that always runs."""
        return nodeid in self.passes and not sampled(f"{self.digest} {nodeid}")

    def replay(self, nodeids: Iterable[str]) -> Iterator[Record]:
        """The records of these tests, marked as reused."""
        for nodeid in nodeids:
            yield from (dataclasses.replace(record, reused=True) for record in self.passes[nodeid])


def sampled(key: str) -> bool:
    """A stable sample of all keys."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 100 < SAMPLE_PERCENT


def load(directory: pathlib.Path, digest: str) -> Memo:
    """The memo of a digest; empty when there is none or it cannot be read."""
    memo = Memo(directory, digest)
    try:
        stored = json.loads(memo.path.read_text(encoding="utf-8"))
        passes = {nodeid: tuple(map(Record.from_json, records)) for nodeid, records in stored.items()}
    except (OSError, ValueError, AttributeError, RecordError):
        return memo
    return dataclasses.replace(memo, passes=passes)


def save(memo: Memo, run: Run) -> None:
    """Adds a run's passes. A failure of a test that had passed before takes the whole memo of this digest away."""
    if any(outcome.failed and outcome.nodeid in memo.passes for outcome in run.outcomes):
        shutil.rmtree(memo.path.parent, ignore_errors=True)
        return
    passes = dict(memo.passes)
    passes.update(_passes(run))
    stored = {nodeid: [record.to_json() for record in records] for nodeid, records in sorted(passes.items())}
    write_atomically(memo.path, json.dumps(stored, sort_keys=True))


def _passes(run: Run) -> dict[str, tuple[Record, ...]]:
    records: dict[str, list[Record]] = {}
    for record in run.records:
        records.setdefault(record.nodeid, []).append(dataclasses.replace(record, reused=False))
    ends: dict[str, set[str]] = {}
    for outcome in run.outcomes:
        ends.setdefault(outcome.nodeid, set()).add(outcome.outcome)
    return {
        nodeid: tuple(records.get(nodeid, ()))
        for nodeid, outcomes in ends.items()
        if outcomes == {"passed"}
        and nodeid not in run.session.get("accounted", ())
        and all(_keepable(record) for record in records.get(nodeid, ()))
    }


def _keepable(record: Record) -> bool:
    return record.passed and record.observable != CONTROL


def digest_of(root: pathlib.Path, settings: Mapping[str, typing.Any], *, report: pathlib.Path | None = None) -> str:
    """The digest of everything that can change a result: sources, versions, platform and the run's settings.

    `report` is the run's own directory; what it writes there is no source.
    """
    state = hashlib.sha256()
    for directory in (root, *_editable_roots()):
        for path in sorted(_sources(directory, report)):
            state.update(f"{path.relative_to(directory).as_posix()}\0".encode())
            state.update(hashlib.sha256(path.read_bytes()).digest())
    variables = {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}
    facts = {
        "settings": dict(settings),
        "versions": sorted({f"{dist.name} {dist.version}" for dist in importlib.metadata.distributions()}),
        "platform": [platform.platform(), platform.machine(), sys.version],
        "variables": {name: value for name, value in variables.items() if name not in STORED_ELSEWHERE},
    }
    state.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return state.hexdigest()[:32]


def _sources(directory: pathlib.Path, report: pathlib.Path | None) -> Iterator[pathlib.Path]:
    for folder, subfolders, files in os.walk(directory):
        if report is not None and pathlib.Path(folder) == report:
            subfolders.clear()
            continue
        subfolders[:] = [name for name in subfolders if not name.startswith(".") and name not in LEFT_OUT]
        for name in files:
            path = pathlib.Path(folder, name)
            if (path.suffix in SUFFIXES or name == "MANIFEST") and path.is_file():
                yield path


def _editable_roots() -> list[pathlib.Path]:
    """Source trees that are installed in place, by what their installer noted."""
    found = set()
    for dist in importlib.metadata.distributions():
        note = dist.read_text("direct_url.json")
        data = json.loads(note) if note else {}
        if data.get("dir_info", {}).get("editable"):
            path = pathlib.Path(urllib.parse.unquote(urllib.parse.urlparse(data["url"]).path))
            found.update([path] if path.is_dir() else [])
    return sorted(found)
