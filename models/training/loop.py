"""The training loop over a backend: steps, held-out loss, checkpoints, resumption. It knows no twin.

A run's directory holds a checkpoint of its first state, of its last, and of steps between. A run that is started
again in the same directory goes on from the last checkpoint with the same bits.
"""

import dataclasses
import pathlib
import threading
import time
import typing
from collections.abc import Callable

import jax

from ..checkpoints import CheckpointError, read_manifest, restore, save, saved_steps, step_of
from ..config import ModelConfig, TrainConfig, to_json
from .batch import Batch
from .data import Batches, Corpus, Rows, held_out_batches, num_bytes
from .report import LOSS, STEP, TOKENS, Report, Row, watch_interrupts

if typing.TYPE_CHECKING:
    from ..protocol import Backend, State


@dataclasses.dataclass(frozen=True)
class Text:
    """What is read and how it is cut: rows of `length` tokens, `batch_size` rows a step."""

    corpus: Corpus
    batch_size: int
    length: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """When what happens, in steps: the end, a report, a checkpoint. `time_limit`, in seconds, ends a run as well."""

    steps: int
    log_every: int = 10
    save_every: int | None = None
    held_out_batches: int = 16
    time_limit: float | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended. `losses`: of each step, in nats a target token. `held_out`: in nats a byte of text."""

    state: typing.Any
    step: int
    losses: tuple[float, ...]
    held_out: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run: what is trained, on what, from where, and into which directory.

    `start` is a checkpoint of either twin to begin with, None for fresh parameters from the run's seed.
    """

    backend: "Backend"
    config: ModelConfig
    train: TrainConfig
    text: Text
    directory: pathlib.Path
    start: pathlib.Path | None = None


def run(this: Run, plan: Plan, report: Report) -> Result:
    """Trains until the plan's last step, its time limit or an interrupt, and saves.

    Raises:
        CheckpointError: if the directory holds another run than this one, or a checkpoint is damaged.
    """
    began = time.monotonic()
    rows = Rows(this.text.corpus.train, this.text.length)
    batches = Batches(rows, batch_size=this.text.batch_size, seed=this.train.seed)
    state = _first_state(this, batches)
    _save(this, state, batches)
    train_step = jax.jit(this.backend.train_step(this.config, this.train), donate_argnums=0)
    losses: list[float] = []
    step = step_of(state)
    with report.steps(step, plan.steps), watch_interrupts() as stop:
        while step < plan.steps and not stop.is_set() and not _over(began, plan):
            state, done = _some_steps(train_step, state, batches, range(step, _next_stop(step, plan)), stop)
            report.rows(done)
            losses.extend(row["loss"] for row in done)
            step += len(done)
            if plan.save_every and step % plan.save_every == 0:
                _save(this, state, batches)
    _save(this, state, batches)
    held_out = held_out_loss(this, state, plan.held_out_batches)
    return Result(state, step, tuple(losses), held_out, time.monotonic() - began)


def held_out_loss(this: Run, state: "State", max_batches: int) -> float:
    """Mean loss on documents that no step has seen, in nats a byte of text. The end of a document is predicted, too."""
    rows = Rows(this.text.corpus.held_out, this.text.length)
    eval_step = jax.jit(this.backend.eval_step(this.config, this.train))
    batches = held_out_batches(rows, batch_size=this.text.batch_size, max_batches=max_batches)
    xent = sum(float(eval_step(state, batch)["xent_sum"]) for batch in batches)
    return xent / sum(num_bytes(batch) for batch in batches)


def _first_state(this: Run, batches: Batches) -> "State":
    """The state to begin with; `batches` is moved to its place."""
    if saved_steps(this.directory):
        if this.start is not None:
            fix = "leave the start out to go on with it, or name another directory"
            raise CheckpointError(this.directory, "holds a run already", fix)
        _refuse_other_run(this)
        source = this.directory
    elif this.start is not None:
        source = this.start
    else:
        params = this.backend.init(this.config, jax.random.key(this.train.seed))
        return this.backend.create_state(this.config, this.train, params)
    state = restore(source, backend=this.backend, config=this.config, train=this.train)
    found = read_manifest(source)
    if found is not None and found.extras.get("text") == _text_record(this):
        batches.restore(found.extras["batches"])
    return state


def _refuse_other_run(this: Run) -> None:
    """A directory is gone on with only by the run that made it."""
    found = read_manifest(this.directory)
    recorded = ({}, {}) if found is None else (found.train and to_json(found.train), found.extras.get("text"))
    for kind, was, now in zip(
        ("training settings", "text"), recorded, (to_json(this.train), _text_record(this)), strict=True
    ):
        if was != now:
            rule = f"holds a run with other {kind} ({was} where {now} is asked for)"
            raise CheckpointError(this.directory, rule, "pass the same, or name another directory")


def _text_record(this: Run) -> dict[str, object]:
    text = this.text
    return {
        "corpus": text.corpus.fingerprint, "batch_size": text.batch_size, "length": text.length, "seed": this.train.seed
    }


def _save(this: Run, state: "State", batches: Batches) -> None:
    """Saves the state and the place in the text, unless this step is there already."""
    if step_of(state) in saved_steps(this.directory):
        return
    extras = {"text": _text_record(this), "batches": batches.state()}
    save(this.directory, state, backend=this.backend, config=this.config, train=this.train, extras=extras)


def _next_stop(step: int, plan: Plan) -> int:
    """The next step at which something is reported or saved."""
    periods = [period for period in (plan.log_every, plan.save_every) if period]
    return min(plan.steps, *((step // period + 1) * period for period in periods))


def _over(began: float, plan: Plan) -> bool:
    return plan.time_limit is not None and time.monotonic() - began > plan.time_limit


def _some_steps(
    train_step: Callable[["State", Batch], tuple["State", dict[str, jax.Array]]],
    state: "State",
    batches: Batches,
    steps: range,
    stop: threading.Event,
) -> tuple["State", list[Row]]:
    """Takes these steps, fewer if stopped, and fetches their numbers once at the end: no step waits for the host."""
    taken = []
    for step in steps:
        if stop.is_set():
            break
        batch = next(batches)
        state, metrics = train_step(state, batch)
        taken.append((step + 1, batch.inputs.size, num_bytes(batch), metrics))
    return state, [_row(*entry) for entry in taken]


def _row(step: int, tokens: int, text_bytes: int, metrics: dict[str, jax.Array]) -> Row:
    numbers = {name: float(value) for name, value in metrics.items()}
    return {STEP: step, TOKENS: tokens, LOSS: numbers["xent_sum"] / text_bytes, **numbers}
