"""Which cases of a test the gate takes. There every tiny setup is proved; what compiles is shared out for its cost."""

from collections.abc import Iterable

import pytest

from harness.subjects.compact import SUBJECT

# Thirteen layers; two stacks and a mixture: what costs most of them waits for the night.
LONG = ["gemma3-scanned", "deepseek3-scanned"]
# Each with a kind of cache or of reach of its own; by night all others as well.
CACHES = [
    "llama-scanned", "gemma2-scanned", "deepseek2-scanned", "llama4-scanned", "qwen3-next-scanned", "gemma4-scanned",
]  # fmt: skip
SHORT = [label for label in SUBJECT.deep_setups() if label not in LONG]


def gated(taken: Iterable, beside: Iterable = ()) -> list:
    """Parameters for `parametrize`: the gate and `make test` take the first ones, the nightly run those beside them."""
    late = pytest.mark.scheduled_only
    return [*(_param(value, pytest.mark.gate) for value in taken), *(_param(value, late) for value in beside)]


def _param(value, *marks):
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=marks)
