"""One family's cells: each runs what stands behind the family and keeps the worst figure of it.

The oracle's figure is an error as a part of its bound, the witness's a noise ratio (see `witness.ratio`), that of
decoding a relative difference in float64.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator

import jax
import numpy as np

from harness import prove
from harness.observe.shardings import compare_constraints
from harness.subjects.compact import SUBJECT
from harness.subjects.compact.setup import Setup
from harness.verdict import Kind
from models import ops, preset, presets
from parity_tests.ops import checks, expert_checks, recurrent_checks
from parity_tests.ops.bounds import ratios
from parity_tests.rollout import rollout
from parity_tests.witness.cases import RECORDED
from parity_tests.witness.maxtext import TABLES, read_table, tree_of
from parity_tests.witness.ratio import LIMIT, logits_of, model_of, ratio
from parity_tests.witness.recordings import load

CALLS = 2
"""Calls of one op, of one shape, that are held to its oracle: a layer is like the next."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """What was found for one family, by one twin, of one kind."""

    name: str
    text: str
    holds: bool


def tiny(family: str) -> dict[str, Setup]:
    """The family's tiny presets, unscanned, by label."""
    setups = SUBJECT.tiny_setups().items()
    return {label: one for label, one in setups if one.model.family == family and not one.model.scan_layers}


def oracle(family: str, twin: str) -> Cell:
    """Every op that the twin calls in a forward pass and a prefill, on the values that it gets there."""
    calls: dict[tuple, list] = {}
    for setup in tiny(family).values():
        for step in ("forward", "prefill"):
            program = SUBJECT.program(twin, SUBJECT.case(setup, step))
            with _listening(calls):
                program.fn(*program.draw(jax.random.key(0)))
    names = sorted({name for name, _ in calls})
    with ratios() as found:
        for (name, _), heard in calls.items():
            for args, settings in heard:
                check(name, args, settings)
    return Cell(f"{twin} oracle", f"{max(found):.2f} of the bound, {len(names)} ops", max(found) <= 1.0)


def check(name: str, args: tuple, settings: dict) -> None:
    """One call of an op against its oracle, with what the op takes by default."""
    call = inspect.signature(getattr(ops, name)).bind(*args, **settings)
    call.apply_defaults()
    args = call.args
    if name == "gated_delta":  # its five operands are one argument of the check
        args = (args[:5], *args[5:])
    rooms = (checks, expert_checks, recurrent_checks)
    held = next(getattr(room, f"check_{name}") for room in rooms if hasattr(room, f"check_{name}"))
    # An array's name there has no axes.
    known = inspect.signature(held).parameters
    settings = {
        word.rpartition("_")[0] if word not in known and word[-1].isupper() else word: value
        for word, value in call.kwargs.items()
    }
    held(getattr(ops, name), *args, **settings)


@contextlib.contextmanager
def _listening(calls: dict[tuple, list]) -> Iterator[None]:
    """Keeps the operands of the first calls of every op, by op and shapes; a twin calls ops through their package."""
    originals = {name: getattr(ops, name) for name in ops.__all__ if callable(getattr(ops, name))}
    functions = {name: op for name, op in originals.items() if not isinstance(op, type)}

    def listen(name, op):
        def heard(*args, **settings):
            shapes = str([getattr(arg, "shape", arg) for arg in (*args, *settings.values())])
            kept = calls.setdefault((name, shapes), [])
            if len(kept) < CALLS:
                kept.append((args, settings))
            return op(*args, **settings)

        return heard

    try:
        for name, op in functions.items():
            setattr(ops, name, listen(name, op))
        yield
    finally:
        for name, op in functions.items():
            setattr(ops, name, op)


def witness(family: str, twin: str) -> Cell:
    """The recorded models of Hugging Face that are of this family."""
    found = {}
    for name in RECORDED:
        recording = load(name)
        config, params = model_of(recording)
        if config.family == family:
            found[name] = ratio(logits_of(twin, config, params, recording.batch), recording)
    worst = max(found.values(), default=np.inf)
    return Cell(f"{twin} witness", f"{worst:.2f} ({', '.join(found)})", worst <= LIMIT)


def maxtext(family: str, twin: str) -> Cell:
    """MaxText's parameter trees: paths, shapes, logical axes."""
    tables = [name for name in TABLES if preset(name).family == family]
    equal = [name for name in tables if tree_of(twin, name) == read_table(name)]
    leaves = sum(len(read_table(name)) for name in equal)
    return Cell(f"{twin} tree", f"{leaves} leaves ({', '.join(equal)})", bool(tables) and equal == tables)


def full_size(family: str) -> Cell:
    """Every published size of the family, forward and train step, on 256 chips: proved, and constrained alike."""
    names = [name for name, config in presets().items() if config.family == family and not name.endswith("-tiny")]
    pairs = [SUBJECT.programs(case) for case in SUBJECT.published_cases(names)]
    proved = sum(prove(*pair).kind is Kind.PROVED and bool(compare_constraints(*pair)) for pair in pairs)
    return Cell("full size", f"{proved} of {len(pairs)} proved", proved == len(pairs) > 0)


def decode(family: str, twin: str) -> Cell:
    """Prefill and single steps against the forward pass."""
    pairs = [pair for setup in tiny(family).values() for pair in rollout(setup, twin)]
    worst = max(float(np.abs(found - wanted).max() / np.abs(wanted).max()) for found, wanted in pairs)
    return Cell(f"{twin} decode", f"{worst:.0e}", worst <= 1e-7)
