"""What a token gets depends on its own document alone, not on what else lies in its row: other documents or padding."""

import jax
import numpy as np
import pytest

import models
from harness.subjects.compact import SUBJECT
from parity_tests.float64 import Float64, assert_same

SETUPS = SUBJECT.tiny_setups()
# One counts its chunks from a document's start, the other's state goes through the row. Elsewhere a mask by order is
# all that keeps documents apart.
COUNTING = ("llama4-scanned", "qwen3-next-scanned")
OTHERS = [label for label in SUBJECT.deep_setups() | SUBJECT.light_setups() if label not in COUNTING]
LATER = pytest.mark.scheduled_only
LENGTH = 14
SIZES = (6, 8, 14)


def _rows(rng, documents, layout):
    """Tokens, positions and segments of rows with these documents from these places on; the rest is padding."""
    tokens = rng.integers(0, 60, (len(layout), LENGTH)).astype(np.int32)  # padding has some token too
    positions, segments = np.zeros_like(tokens), np.zeros_like(tokens)
    for row, starts in enumerate(layout):
        for number, (document, start) in enumerate(starts.items(), start=1):
            span = slice(start, start + SIZES[document])
            tokens[row, span], positions[row, span] = documents[document], np.arange(SIZES[document])
            segments[row, span] = number
    return tokens, positions, segments


@pytest.mark.parametrize("backend_name", SUBJECT.backends)
@pytest.mark.parametrize("label", [*COUNTING, *(pytest.param(label, marks=LATER) for label in OTHERS)])
def test_a_document_gives_the_same_alone_packed_and_beside_padding(label, backend_name):
    program = SUBJECT.program(backend_name, SUBJECT.case(SETUPS[label], "forward", label=label))
    params, _ = program.draw(jax.random.key(0))
    backend, config, rng = models.backend(backend_name), SETUPS[label].model, np.random.default_rng(3)
    documents = [rng.integers(0, config.vocab_size, size) for size in SIZES]
    apart, layout = [{0: 0}, {1: 0}, {2: 0}], [{0: 0, 1: 6}, {1: 0, 0: 8}, {1: 5}]  # the last one after padding
    apart, packed = (_rows(rng, documents, rows) for rows in (apart, layout))
    run = Float64(lambda p, t, q, s: backend.apply(config, p, t, positions=q, segment_ids=s), params, *apart)
    wanted, found = run(params, *apart), run(params, *packed)
    for row, starts in enumerate(layout):
        for document, start in starts.items():
            assert_same(found[row, start : start + SIZES[document]], wanted[document, : SIZES[document]])
