"""The goldens on disk: read, write whole or not at all, and say which are missing, unused, stale or damaged.

`MANIFEST` holds the content hash of every file. A write goes: manifest with the old and the new hash, file by rename,
manifest with the new hash; whatever moment it is interrupted at, every file on disk is one that the manifest knows.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator

from ..report.stream import write_atomically
from ..verdict import Kind, Verdict
from .compare import compare, verdict_of
from .golden import FIX, Golden, GoldenError, parse

MANIFEST = "MANIFEST"
PENDING = ".new"


@dataclasses.dataclass(frozen=True)
class Status:
    """The state of a directory of goldens, by file name; `stale` ones were recorded under other library versions."""

    present: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether every expected golden is there and sound, and nothing else is."""
        return not (self.missing or self.unused or self.damaged)

    def explain(self) -> str:
        """One sentence for each thing that is wrong, with what mends it."""
        fixes = {
            "missing": FIX,
            "damaged": FIX,
            "unused": "no case has it: remove it with `paraflax goldens prune`",
            "pending": "look at it with `paraflax goldens review`, then accept or reject it",
            "stale": "recorded under other library versions: renew it with `paraflax goldens regen`",
        }
        return "\n".join(
            f"golden {name}: is {state}; {fix}." for state, fix in fixes.items() for name in getattr(self, state)
        )


def read(path: pathlib.Path) -> Golden:
    """The golden in a file; its directory's directory holds the manifest.

    Raises:
        GoldenError: when it is missing, truncated, edited by hand or not in the manifest.
    """
    root, name = path.parent.parent, f"{path.parent.name}/{path.name}"
    return parse(read_blob(root, name).decode("utf-8", errors="replace"), name)


def read_blob(root: pathlib.Path, name: str) -> bytes:
    """The bytes of a golden file (text or npz), checked against the manifest.

    Raises:
        GoldenError: when it is missing, or its content hash is not the recorded one.
    """
    try:
        content = (root / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise GoldenError(name, "is missing") from None
    known = read_manifest(root).get(name, ())
    if _digest(content) not in known:
        rule = (
            "is truncated or was edited: its content hash is not the one in MANIFEST" if known else "is not in MANIFEST"
        )
        raise GoldenError(name, rule)
    return content


def check(root: pathlib.Path, current: Golden) -> Verdict:
    """The verdict of a golden computed now against the stored one; a missing or damaged one is `diverged`."""
    try:
        stored = read(root / current.filename)
    except GoldenError as error:
        return Verdict(Kind.DIVERGED, reason=str(error), programs=("golden", "code"))
    if stored.case_id != current.case_id:
        rule = f"holds the case {stored.case_id}, not its own"
        return Verdict(Kind.DIVERGED, reason=str(GoldenError(current.filename, rule)), programs=("golden", "code"))
    return verdict_of(compare(stored, current), stored, current)


def write(root: pathlib.Path, golden: Golden) -> pathlib.Path:
    """Stores a golden over the old one, whole or not at all.

    Raises:
        GoldenError: under CI, where nothing is ever written.
    """
    return write_blob(root, golden.filename, golden.text().encode())


def write_blob(root: pathlib.Path, name: str, content: bytes) -> pathlib.Path:
    """Stores a golden file (text or npz) and its content hash. Raises as `write`."""
    refuse_under_ci(name)
    with _locked(root):
        manifest = read_manifest(root)
        _write_manifest(root, {**manifest, name: (*manifest.get(name, ()), _digest(content))})
        write_atomically(root / name, content)
        _write_manifest(root, {**manifest, name: (_digest(content),)})
    with contextlib.suppress(FileNotFoundError):
        (root / (name + PENDING)).unlink()
    return root / name


def remove(root: pathlib.Path, name: str) -> None:
    """Takes a golden and its line in the manifest away. Raises as `write`."""
    refuse_under_ci(name)
    with _locked(root):
        with contextlib.suppress(FileNotFoundError):
            (root / name).unlink()
        _write_manifest(root, {key: value for key, value in read_manifest(root).items() if key != name})


def propose(root: pathlib.Path, golden: Golden) -> pathlib.Path:
    """Puts a changed golden beside the stored one, to be reviewed, accepted or rejected. Raises as `write`."""
    refuse_under_ci(golden.filename)
    path = root / (golden.filename + PENDING)
    write_atomically(path, golden.text())
    return path


def proposals(root: pathlib.Path) -> list[Golden]:
    """Every pending golden, by file name.

    Raises:
        GoldenError: when one is damaged.
    """
    paths = sorted(root.glob(f"*/*.txt{PENDING}"))
    return [parse(path.read_text(encoding="utf-8"), f"{path.parent.name}/{path.name}") for path in paths]


def reject(root: pathlib.Path, golden: Golden) -> None:
    """Drops a pending golden; the stored one stays."""
    refuse_under_ci(golden.filename)
    (root / (golden.filename + PENDING)).unlink(missing_ok=True)


def status(root: pathlib.Path, expected: Iterable[str], *, current: Iterable[Golden] = ()) -> Status:
    """Holds the directory against the file names that it ought to have (`Golden.filename`, names of npz files).

    `current` are goldens as the code computes them now; those recorded under another environment are `stale`.
    """
    wanted = set(expected)
    names = (
        {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} if root.is_dir() else set()
    )
    pending = {name for name in names if name.endswith(PENDING)}
    present = {name for name in names - pending if not pathlib.PurePosixPath(name).name.startswith((".", MANIFEST))}
    listed = set(read_manifest(root))
    damaged = {name for name in present & wanted if not _sound(root, name)}
    return Status(
        present=tuple(sorted(present)),
        missing=tuple(sorted(wanted - present)),
        unused=tuple(sorted((present | listed) - wanted)),
        stale=tuple(sorted(golden.filename for golden in current if _stale(root, golden))),
        damaged=tuple(sorted(damaged)),
        pending=tuple(sorted(pending)),
    )


def refuse_under_ci(name: str) -> None:
    """Raises GoldenError when the environment variable CI is set: a run on a server never writes a golden."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        raise GoldenError(
            name, "may not be written while the environment variable CI is set", "run the command on your own machine"
        )


def read_manifest(root: pathlib.Path) -> dict[str, tuple[str, ...]]:
    """Content hashes by file name; two for a file whose write was interrupted.

    Raises:
        GoldenError: when a line is damaged.
    """
    hashes: dict[str, tuple[str, ...]] = {}
    path = root / MANIFEST
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name:
            raise GoldenError(
                MANIFEST, f"line {line[:40]!r} is no content hash", "restore the file from version control"
            )
        hashes[name] = (*hashes.get(name, ()), digest)
    return hashes


def _write_manifest(root: pathlib.Path, hashes: dict[str, tuple[str, ...]]) -> None:
    lines = [f"{digest}  {name}\n" for name in sorted(hashes) for digest in sorted(set(hashes[name]))]
    write_atomically(root / MANIFEST, "".join(lines))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sound(root: pathlib.Path, name: str) -> bool:
    try:
        if name.endswith(".txt"):
            read(root / name)
        else:
            read_blob(root, name)
    except GoldenError:
        return False
    return True


def _stale(root: pathlib.Path, current: Golden) -> bool:
    try:
        stored = read(root / current.filename)
    except GoldenError:
        return False
    return stored.sections.get("environment") != current.sections.get("environment")


@contextlib.contextmanager
def _locked(root: pathlib.Path) -> Iterator[None]:
    """One writer at a time, also among pytest's workers."""
    root.mkdir(parents=True, exist_ok=True)
    handle = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
