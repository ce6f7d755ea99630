"""Directories that appear whole or not at all, and finding the ones that did.

One writer at a time holds a lock file beside the steps. What a killed writer left is hidden (`.writing-...`), never
read, and removed by the next writer, who alone holds the lock.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from .errors import CheckpointError

LOCK = ".lock"
WRITING = ".writing-"


@contextlib.contextmanager
def new_directory(parent: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """A temporary directory that becomes `parent/name` when the block ends without error.

    Raises:
        CheckpointError: if `parent/name` exists, or another writer holds the lock, or the disk refuses.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _lock(parent):
            _refuse_existing(parent / name)
            for left in parent.glob(f"{WRITING}*"):
                shutil.rmtree(left)
            writing = pathlib.Path(tempfile.mkdtemp(prefix=f"{WRITING}{name}-", dir=parent)).resolve()
            try:
                yield writing
                writing.chmod(0o755)  # mkdtemp's is private
                _flush(writing)
                _publish(writing, parent / name)
            finally:
                shutil.rmtree(writing, ignore_errors=True)
    except OSError as error:
        fix = "give a writable directory with room"
        raise CheckpointError(parent / name, f"cannot be written ({error})", fix) from error


def find_step(path: pathlib.Path, items: str) -> pathlib.Path:
    """The step directory that a path means: itself, or the highest numbered one in it, or a bare Orbax tree.

    Raises:
        CheckpointError: if there is no checkpoint.
    """
    path = path.resolve()
    if not path.is_dir():
        rule = "is a file" if path.exists() else "is not there"
        raise CheckpointError(path, rule, "give the directory of a checkpoint")
    if (path / items).is_dir() or (path / "_METADATA").is_file():
        return path
    found = steps(path, items)
    if not found:
        raise CheckpointError(
            path, f"holds no checkpoint (no {items}/, no <step>/{items}/)", "give the directory of a run or of one step"
        )
    return path / str(found[-1])


def steps(path: pathlib.Path, items: str) -> list[int]:
    """The steps in a run directory, ascending."""
    return sorted(int(entry.name) for entry in path.iterdir() if entry.name.isdecimal() and (entry / items).is_dir())


def _refuse_existing(target: pathlib.Path) -> None:
    if target.exists():
        raise CheckpointError(target, "exists already", "choose another directory; a checkpoint is never overwritten")


@contextlib.contextmanager
def _lock(parent: pathlib.Path) -> Iterator[None]:
    with (parent / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            fix = "wait for it, or choose another directory"
            raise CheckpointError(parent, "is being written by another process", fix) from error
        yield


def _flush(directory: pathlib.Path) -> None:
    """Asks the disk to hold every file and every directory below before the rename does."""
    for root, _, files in os.walk(directory, topdown=False):
        for name in (*files, "."):
            descriptor = os.open(os.path.join(root, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _publish(writing: pathlib.Path, target: pathlib.Path) -> None:
    writing.rename(target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
