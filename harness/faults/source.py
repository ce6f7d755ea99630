"""Faults in files: a scratch copy of a source tree with one line edited, for end-to-end runs of the commands."""

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from .planted import FaultError

LEFT_OUT = (".git", ".venv", ".paraflax", ".hypothesis", "__pycache__", ".*_cache", "*.egg-info", "dist", "runs")


@contextlib.contextmanager
def planted_source(root: pathlib.Path, path: str, old: str, new: str) -> Iterator[pathlib.Path]:
    """Copies the tree below `root` and replaces `old` by `new` in one file of the copy, whose root it yields.

    `old` has to stand there exactly once, so that the fault is the one that was meant. The copy is removed at the
    end; the original is never touched.

    Raises:
        FaultError: when the file is not there, or `old` is not in it exactly once.
    """
    source = pathlib.Path(root) / path
    if not source.is_file():
        raise FaultError(f"fault in {path}: there is no such file below the root; name an existing one.")
    text = source.read_text(encoding="utf-8")
    if text.count(old) != 1 or old == new:
        raise FaultError(
            f"fault in {path}: {old[:60]!r} stands there {text.count(old)} times; name a text that is unique."
        )
    with tempfile.TemporaryDirectory(prefix="paraflax-fault-") as scratch:
        copy = pathlib.Path(scratch) / "tree"
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        (copy / path).write_text(text.replace(old, new), encoding="utf-8")
        yield copy
