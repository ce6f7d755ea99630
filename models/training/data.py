"""Byte-level text as packed batches: which files, which split, which tokens in which row.

A document is a file: BOS, its bytes, EOS. All documents of a split lie end to end; row `i` of length `T` holds tokens
`i T` to `i T + T`, sharing its last token with the next row, so that each token but a document's first is a target
exactly once. A row is a function of its number, so the order is, too: Grain shuffles row numbers from a seed and its
state is all that a run needs to go on with the same bits.
"""

import dataclasses
import functools
import hashlib
import pathlib
import sysconfig
import typing
from collections.abc import Iterator, Sequence

import grain
import jax.numpy as jnp
import numpy as np

from .batch import FIELDS, Batch

BOS, EOS, PAD = 256, 257, 258
NUM_TOKENS = 259
VOCAB_SIZE = 264
"""Bytes and three specials, padded to a multiple of 8."""

SUFFIXES = frozenset({".py", ".txt", ".md", ".rst"})
MAX_BYTES = 32 * 2**20
HELD_OUT_PARTS = 20
"""One document in so many is held out."""


class DataError(ValueError):
    """Text that cannot be trained on: what, which rule, how to fix it."""

    def __init__(self, where: object, rule: str, fix: str) -> None:
        super().__init__(f"{where}: {rule}; {fix}.")


@dataclasses.dataclass(frozen=True)
class Document:
    """A text file, its size in bytes and the SHA-256 of its content, which settles its place and its split."""

    path: pathlib.Path
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The documents to train on and the ones held out, each in the order of their hashes."""

    train: tuple[Document, ...]
    held_out: tuple[Document, ...]

    @property
    def num_bytes(self) -> int:
        return sum(document.size for document in (*self.train, *self.held_out))

    @property
    def fingerprint(self) -> str:
        """A hash of every document's content and split; the names of files and directories do not matter."""
        text = "\n".join(["train", *(d.sha256 for d in self.train), "held out", *(d.sha256 for d in self.held_out)])
        return hashlib.sha256(text.encode("ascii")).hexdigest()


def default_text() -> tuple[pathlib.Path, ...]:
    """Text that is always there: the Python sources of this environment."""
    paths = sysconfig.get_paths()
    return tuple(dict.fromkeys(pathlib.Path(paths[name]) for name in ("stdlib", "purelib")))


def read_corpus(paths: Sequence[pathlib.Path] = (), *, max_bytes: int = MAX_BYTES) -> Corpus:
    """The text files named, or those below the directories named, up to `max_bytes` in an order of chance.

    A directory gives its `.py`, `.txt`, `.md` and `.rst` files. Files with the same content count once.

    Raises:
        DataError: if a path is not there, or fewer than two different files are left.
    """
    chosen: dict[str, Document] = {}
    total = 0
    for path in _by_chance(paths or default_text()):
        size = path.stat().st_size
        if size == 0 or total + size > max_bytes:
            continue
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha256 not in chosen:
            chosen[sha256] = Document(path, size, sha256)
            total += size
    if len(chosen) < 2:
        where = ", ".join(map(str, paths)) or "the default text"
        raise DataError(where, f"gives {len(chosen)} text files", "name at least two, one of them will be held out")
    documents = [chosen[sha256] for sha256 in sorted(chosen)]
    held_out = [d for d in documents if int(d.sha256[-8:], 16) % HELD_OUT_PARTS == 0]
    if not held_out or len(held_out) == len(documents):
        held_out = documents[:1]
    kept = set(held_out)
    return Corpus(tuple(d for d in documents if d not in kept), tuple(held_out))


def _by_chance(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Every file meant, ordered by the hash of its name below the path given: no directory comes first."""
    named: list[tuple[str, pathlib.Path]] = []
    for path in paths:
        if not path.exists():
            raise DataError(path, "is not there", "name text files or directories that hold some")
        files = [path] if path.is_file() else _text_files(path)
        named.extend((hashlib.sha256(_name(path, file).encode()).hexdigest(), file) for file in files)
    return [file for _, file in sorted(named)]


def _text_files(directory: pathlib.Path) -> list[pathlib.Path]:
    return [file for file in directory.rglob("*") if file.suffix in SUFFIXES and file.is_file()]


def _name(path: pathlib.Path, file: pathlib.Path) -> str:
    return file.name if file == path else file.relative_to(path).as_posix()


@dataclasses.dataclass(frozen=True)
class Rows:
    """The packed rows of a split: row `i` as a function of `i`. Read from the files as they are needed."""

    documents: tuple[Document, ...]
    length: int

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """Where each document ends in the line of all tokens."""
        return np.cumsum([document.size + 2 for document in self.documents])

    def __len__(self) -> int:
        return -(-(int(self._ends[-1]) - 1) // self.length)

    def __getitem__(self, index: typing.SupportsIndex) -> dict[str, np.ndarray]:
        """The fields of a `Batch`, int32 `[t]` each. What lies past the last document is padding."""
        if not 0 <= index.__index__() < len(self):
            raise IndexError(index)
        start = index.__index__() * self.length
        tokens, segments, positions = [], [], []
        document = int(np.searchsorted(self._ends, start, side="right"))
        at = start
        while at < start + self.length + 1 and document < len(self.documents):
            begin = int(self._ends[document]) - self.documents[document].size - 2
            stop = min(start + self.length + 1, int(self._ends[document]))
            tokens.append(_tokens(self.documents[document], at - begin, stop - begin))
            segments.append(np.full(stop - at, len(tokens)))
            positions.append(np.arange(stop - at))
            at, document = stop, document + 1
        size = self.length + 1
        return _shift(_pad(tokens, size, PAD), _pad(segments, size, 0), _pad(positions, size, 0))


def _tokens(document: Document, start: int, stop: int) -> np.ndarray:
    """Tokens `start` to `stop` of BOS, bytes, EOS."""
    first, last = max(start - 1, 0), min(stop - 1, document.size)
    data = np.fromfile(document.path, dtype=np.uint8, offset=first, count=max(last - first, 0))
    if len(data) != max(last - first, 0):
        raise DataError(document.path, "became shorter while it was read", "train on files that do not change")
    ends = ([BOS] if start == 0 else [], [EOS] if stop == document.size + 2 else [])
    return np.concatenate([ends[0], data, ends[1]]).astype(np.int32)


def _pad(parts: list[np.ndarray], length: int, fill: int) -> np.ndarray:
    joined = np.concatenate(parts)
    return np.pad(joined, (0, length - len(joined)), constant_values=fill).astype(np.int32)


def _shift(tokens: np.ndarray, segments: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
    """A row of `t + 1` tokens as inputs and targets; a target in another document than its input does not count."""
    same = segments[1:] == segments[:-1]
    return {
        "inputs": tokens[:-1],
        "targets": tokens[1:],
        "positions": positions[:-1],
        "segment_ids": segments[:-1],
        "target_segment_ids": np.where(same, segments[1:], 0).astype(np.int32),
    }


class Batches:
    """An endless, shuffled, resumable stream of batches; each pass over the rows has an order of its own."""

    def __init__(self, rows: Rows, *, batch_size: int, seed: int) -> None:
        """Raises `DataError` if there are fewer rows than a batch takes."""
        if len(rows) < batch_size:
            rule = f"make {len(rows)} rows of {rows.length}, fewer than a batch of {batch_size}"
            raise DataError("the training documents", rule, "name more text, or a smaller batch or length")
        shuffled = grain.MapDataset.source(rows).seed(seed).shuffle().repeat().batch(batch_size, drop_remainder=True)
        self._iterator = iter(shuffled.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return _batch(next(self._iterator))

    def state(self) -> dict[str, int]:
        """Where the stream stands, as plain JSON."""
        return self._iterator.get_state()

    def restore(self, state: typing.Any) -> None:
        """Goes on from a state: the next batch is the one that would have come."""
        self._iterator.set_state(state)


def held_out_batches(rows: Rows, *, batch_size: int, max_batches: int) -> list[Batch]:
    """Rows spread evenly over a split, always the same; the last batch is filled up with rows of padding."""
    count = min(len(rows), batch_size * max_batches)
    chosen = [rows[index * len(rows) // count] for index in range(count)]
    blank = {name: np.zeros(rows.length, np.int32) for name in FIELDS}
    blank |= {"inputs": np.full(rows.length, PAD, np.int32), "targets": np.full(rows.length, PAD, np.int32)}
    chosen.extend([blank] * (-count % batch_size))
    groups = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    return [_batch({name: np.stack([row[name] for row in group]) for name in FIELDS}) for group in groups]


def _batch(fields: dict[str, np.ndarray]) -> Batch:
    return Batch(**{name: jnp.asarray(array) for name, array in fields.items()})


def num_bytes(batch: Batch) -> int:
    """How many bytes of text the batch's targets predict: the unit of nats a byte."""
    return int(np.sum((np.asarray(batch.targets) < BOS) & (np.asarray(batch.target_segment_ids) != 0)))
