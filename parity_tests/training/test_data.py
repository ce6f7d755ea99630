"""Packed text: every token where it belongs, every split and order the same each time, and a stream that goes on."""

import itertools
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.training.batch import FIELDS
from models.training.data import BOS, EOS, PAD, Batches, DataError, Rows, held_out_batches, num_bytes, read_corpus

SIZES = st.lists(st.integers(1, 40), min_size=2, max_size=8)


def write(directory, sizes, *, suffix=".py"):
    """Files of these sizes, each of its own content."""
    rng = np.random.default_rng(0)
    directory.mkdir(parents=True, exist_ok=True)
    for index, size in enumerate(sizes):
        (directory / f"{index}{suffix}").write_bytes(bytes(rng.integers(0, 256, size, dtype=np.uint8)))
    return directory


def corpus_of(directory, sizes):
    return read_corpus([write(directory, sizes)])


def stream(documents):
    """All tokens of a split in one line, and which document each is of: the plain meaning of the packing."""
    tokens, owners = [], []
    for index, document in enumerate(documents):
        piece = [BOS, *document.path.read_bytes(), EOS]
        tokens += piece
        owners += [index] * len(piece)
    return np.array(tokens), np.array(owners)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    counter = itertools.count()
    root = tmp_path_factory.mktemp("text")
    return lambda: root / str(next(counter))


@settings(max_examples=40)
@given(sizes=SIZES, length=st.integers(2, 30))
def test_rows_in_order_are_the_text_in_order(scratch, sizes, length):
    documents = corpus_of(scratch(), sizes).train
    tokens, _ = stream(documents)
    rows = list(Rows(documents, length))
    inputs = np.concatenate([row["inputs"] for row in rows])
    targets = np.concatenate([row["targets"] for row in rows])
    np.testing.assert_array_equal(inputs[: len(tokens) - 1], tokens[:-1])
    np.testing.assert_array_equal(targets[: len(tokens) - 1], tokens[1:])
    assert set(targets[len(tokens) - 1 :]) <= {PAD}
    assert len(inputs) - len(tokens) < length


@settings(max_examples=40)
@given(sizes=SIZES, length=st.integers(2, 30))
def test_each_token_but_a_first_is_a_target_once(scratch, sizes, length):
    documents = corpus_of(scratch(), sizes).train
    tokens, owners = stream(documents)
    rows = list(Rows(documents, length))
    counted = np.concatenate([row["target_segment_ids"] != 0 for row in rows])
    np.testing.assert_array_equal(counted[: len(tokens) - 1], owners[1:] == owners[:-1])
    assert not counted[len(tokens) - 1 :].any()
    targets = np.concatenate([row["targets"] for row in rows])[counted]
    assert BOS not in targets
    assert int(np.sum(targets < BOS)) == sum(document.size for document in documents)


@settings(max_examples=40)
@given(sizes=SIZES, length=st.integers(2, 30))
def test_segments_are_documents_and_positions_count_in_them(scratch, sizes, length):
    documents = corpus_of(scratch(), sizes).train
    _, owners = stream(documents)
    for index, row in enumerate(Rows(documents, length)):
        here = owners[index * length :][:length]
        expected = np.zeros(length, int)
        expected[: len(here)] = here - here[0] + 1
        np.testing.assert_array_equal(row["segment_ids"], expected)
        for segment in np.unique(expected[expected > 0]):
            positions = row["positions"][expected == segment]
            np.testing.assert_array_equal(positions, np.arange(len(positions)))
        # only what follows the last document is padding
        assert np.all((row["inputs"] == PAD) == (expected == 0))
        assert {row[name].dtype for name in FIELDS} == {np.dtype(np.int32)}


@settings(max_examples=40)
@given(sizes=SIZES)
def test_the_split_depends_on_content_alone(scratch, sizes):
    first = corpus_of(scratch(), sizes)
    moved = scratch()
    for place, document in enumerate((*first.held_out, *first.train)):
        target = moved / str(place % 2) / f"other{place}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(document.path, target)
    again = read_corpus([moved])
    assert again.fingerprint == first.fingerprint
    assert again.train
    assert again.held_out
    assert not {d.sha256 for d in again.train} & {d.sha256 for d in again.held_out}


def test_the_same_content_counts_once(tmp_path):
    write(tmp_path, [10, 20, 30])
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert read_corpus([tmp_path]).num_bytes == 60


def test_no_more_bytes_are_read_than_allowed(tmp_path):
    assert read_corpus([write(tmp_path, [30] * 20)], max_bytes=200).num_bytes == 180


def test_other_files_are_left_alone_unless_named(tmp_path):
    write(tmp_path, [10, 20])
    named = write(tmp_path / "more", [5], suffix=".bin") / "0.bin"
    assert read_corpus([tmp_path]).num_bytes == 30
    assert read_corpus([tmp_path, named]).num_bytes == 35


def _equal(batches, others):
    return all(
        np.array_equal(getattr(batch, name), getattr(other, name))
        for batch, other in zip(batches, others, strict=True) for name in FIELDS
    )


@pytest.mark.parametrize("before", [0, 1, 5, 23])
def test_a_stream_goes_on_where_it_stood(before, tmp_path):
    rows = Rows(corpus_of(tmp_path, [50, 60, 70, 80]).train, 8)
    whole = Batches(rows, batch_size=3, seed=4)
    for _ in range(before):
        next(whole)
    state = whole.state()
    rest = [next(whole) for _ in range(20)]  # over the end of a pass
    again = Batches(rows, batch_size=3, seed=4)
    again.restore(state)
    assert _equal([next(again) for _ in range(20)], rest)


def test_a_pass_shows_every_row_once_and_each_pass_in_its_own_order(tmp_path):
    rows = Rows(corpus_of(tmp_path, [50, 61, 70, 80]).train, 8)
    batches = Batches(rows, batch_size=1, seed=0)
    passes = [[tuple(next(batches).inputs[0]) for _ in range(len(rows))] for _ in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(tuple(row["inputs"]) for row in rows)
    assert passes[0] != passes[1]


def test_the_seed_orders_the_rows(tmp_path):
    rows = Rows(corpus_of(tmp_path, [50, 60, 70, 80]).train, 8)
    first, same, other = (Batches(rows, batch_size=4, seed=seed) for seed in (0, 0, 1))
    drawn = next(first)
    assert _equal([drawn], [next(same)])
    assert not _equal([drawn], [next(other)])


def test_held_out_batches_are_filled_up_with_padding(tmp_path):
    rows = Rows(corpus_of(tmp_path, [30] * 9).train, 8)
    batches = held_out_batches(rows, batch_size=5, max_batches=100)
    assert {batch.inputs.shape for batch in batches} == {(5, 8)}
    assert sum(num_bytes(batch) for batch in batches) == sum(document.size for document in rows.documents)
    few = held_out_batches(rows, batch_size=5, max_batches=2)
    assert len(few) == 2


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt: is not there"):
        read_corpus([tmp_path / "gone.txt"])


@pytest.mark.parametrize("sizes", [[], [10], [0, 10]])
def test_fewer_than_two_files_are_refused(sizes, tmp_path):
    with pytest.raises(DataError, match="name at least two"):
        read_corpus([write(tmp_path, sizes)])


def test_too_little_text_for_a_batch_is_refused(tmp_path):
    rows = Rows(corpus_of(tmp_path, [10, 10]).train, 8)
    with pytest.raises(DataError, match="fewer than a batch of 16"):
        Batches(rows, batch_size=16, seed=0)


def test_a_file_that_shrank_is_named(tmp_path):
    documents = corpus_of(tmp_path, [30, 30]).train
    documents[0].path.write_bytes(b"short")
    with pytest.raises(DataError, match="became shorter"):
        Rows(documents, 64)[0]
