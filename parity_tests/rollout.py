"""Decoding held against the forward pass: the logits of both, in float64, at every position that decoding reaches."""

from collections.abc import Iterator

import jax
import numpy as np

import models
from harness.subjects.compact import SUBJECT
from parity_tests.float64 import Float64

Pair = tuple[np.ndarray, np.ndarray]
SIZES, LENGTH, CHUNK = np.array([8, 6]), 14, 4


def rollout(setup, backend_name: str) -> Iterator[Pair]:
    """Pairs of what decoding found and what the forward pass of the whole text wants.

    A ragged prompt in two chunks, then single tokens; then each text again in the other's slot, from position 0 on.
    """
    config, backend = setup.model, models.backend(backend_name)
    params, _ = SUBJECT.program(backend_name, SUBJECT.case(setup, "forward")).draw(jax.random.key(1))
    tokens = np.random.default_rng(2).integers(0, config.vocab_size, (2, LENGTH)).astype(np.int32)
    wanted = Float64(lambda p, t: backend.apply(config, p, t), params, tokens)(params, tokens)
    cache, four, single = backend.init_cache(config, 2, 16), tokens[:, :CHUNK], tokens[:, :1]
    prefill = Float64(backend.prefill(config), params, cache, four, four, four)
    generate = Float64(backend.generate(config), params, cache, single, single)

    def ahead(texts, cache, start):
        """A chunk of each text from `start` on, as far as its prompt goes."""
        positions = np.broadcast_to(np.arange(start, start + CHUNK, dtype=np.int32), (2, CHUNK))
        live = positions < SIZES[texts, None]
        chunk = slice(start, start + CHUNK)
        logits, cache = prefill(params, cache, tokens[texts, chunk], positions, live.astype(np.int32))
        return cache, (logits[live], wanted[texts, chunk][live])

    def one(texts, cache, at):
        """Each text's token at its own place."""
        logits, cache = generate(params, cache, tokens[texts, at][:, None], at[:, None].astype(np.int32))
        return cache, (logits[:, 0], wanted[texts, at])

    texts = np.array([0, 1])
    for start in range(0, SIZES.max(), CHUNK):
        cache, pair = ahead(texts, cache, start)
        yield pair
    for offset in range(LENGTH - SIZES.max()):
        cache, pair = one(texts, cache, SIZES + offset)
        yield pair
    cache, pair = ahead(texts[::-1], cache, 0)
    yield pair
    yield one(texts[::-1], cache, np.full(2, CHUNK))[1]
