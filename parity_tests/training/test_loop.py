"""Runs: the same losses in both twins from one checkpoint, and the same bits after a stop as without one."""

import json
import signal

import jax
import numpy as np
import pytest
import rich.console

import models
from models.checkpoints import CheckpointError, read_tree, save, saved_steps
from models.config import AdamW, TrainConfig
from models.training.data import VOCAB_SIZE, read_corpus
from models.training.loop import Plan, Run, Text, run
from models.training.report import Report

TWINS = ("linen", "nnx")
MODEL = models.preset("llama-tiny").replace(vocab_size=VOCAB_SIZE, num_layers=1)
TRAIN = TrainConfig(optimizer=AdamW(peak_learning_rate=1e-2, warmup_steps=2, decay_steps=6), seed=3)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Forty little sources."""
    directory = tmp_path_factory.mktemp("text")
    for index in range(40):
        lines = [f"def function_{index}_{line}(x):\n    return x + {line * index}\n\n" for line in range(3 + index % 4)]
        (directory / f"{index}.py").write_text("".join(lines))
    return Text(read_corpus([directory]), batch_size=2, length=16)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A checkpoint of random parameters at step 0, which costs no compiled init."""
    directory = tmp_path_factory.mktemp("start")
    backend = models.backend("linen")
    rng = np.random.default_rng(0)
    specs = backend.param_specs(MODEL)
    params = {name: jax.numpy.array(0.1 * rng.standard_normal(spec.shape), spec.dtype) for name, spec in specs.items()}
    save(directory, backend.create_state(MODEL, TRAIN, params), backend=backend, config=MODEL, train=TRAIN)
    return directory


def _report(directory):
    return Report(rich.console.Console(quiet=True), directory)


def _run(directory, text, twin, steps, *, model=MODEL, train=TRAIN, start=None, **options):
    plan = Plan(steps, log_every=2, held_out_batches=2, **options)
    return run(Run(models.backend(twin), model, train, text, directory, start), plan, _report(directory))


def _metrics(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("twin", TWINS)
def test_a_resumed_run_has_the_bits_of_a_straight_one(twin, text, start, tmp_path):
    model = MODEL.replace(dropout_rate=0.1)
    straight = _run(tmp_path / "straight", text, twin, 6, model=model, start=start)
    _run(tmp_path / "resumed", text, twin, 3, model=model, start=start)
    resumed = _run(tmp_path / "resumed", text, twin, 6, model=model)
    expected, found = read_tree(tmp_path / "straight"), read_tree(tmp_path / "resumed")
    assert found.keys() == expected.keys()
    assert all(found[place].tobytes() == array.tobytes() for place, array in expected.items())
    assert resumed.losses == straight.losses[3:]
    assert resumed.held_out == straight.held_out
    assert saved_steps(tmp_path / "resumed") == [0, 3, 6]
    lines = _metrics(tmp_path / "resumed")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines == _metrics(tmp_path / "straight")


def test_from_one_checkpoint_both_twins_have_the_same_losses(text, start, tmp_path):
    first = _run(tmp_path / "nnx", text, "nnx", 5, start=start)
    second = _run(tmp_path / "linen", text, "linen", 5, start=tmp_path / "nnx" / "0")
    assert len(first.losses) == len(second.losses) == 5
    # five updates apart in rounding only: some units in the last place of a float32 loss
    np.testing.assert_allclose(second.losses, first.losses, rtol=64 * 2.0**-24, atol=0)
    np.testing.assert_allclose(second.held_out, first.held_out, rtol=64 * 2.0**-24, atol=0)
    assert first.losses[-1] < first.losses[0]


class _Interrupting(Report):
    """Sends the signal that Ctrl-C sends, after the first report."""

    def rows(self, rows):
        super().rows(rows)
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_saves_and_stops(text, start, tmp_path):
    report = _Interrupting(rich.console.Console(quiet=True), tmp_path)
    this = Run(models.backend("linen"), MODEL, TRAIN, text, tmp_path, start)
    result = run(this, Plan(6, log_every=2, held_out_batches=1), report)
    assert result.step == 2
    assert saved_steps(tmp_path) == [0, 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_time_limit_and_a_period_save(text, start, tmp_path):
    assert _run(tmp_path / "a", text, "linen", 6, start=start, time_limit=0.0).step == 0
    _run(tmp_path / "b", text, "linen", 5, start=start, save_every=3)
    assert saved_steps(tmp_path / "b") == [0, 3, 5]


def test_a_directory_of_another_run_is_refused(text, start, tmp_path):
    _run(tmp_path, text, "linen", 1, start=start)
    other = TrainConfig(optimizer=AdamW(peak_learning_rate=1e-3, warmup_steps=2, decay_steps=6), seed=3)
    with pytest.raises(CheckpointError, match="other training settings"):
        _run(tmp_path, text, "linen", 2, train=other)
    with pytest.raises(CheckpointError, match="other text"):
        _run(tmp_path, Text(text.corpus, 4, 16), "linen", 2)
    with pytest.raises(CheckpointError, match="num_layers"):
        _run(tmp_path, text, "linen", 2, model=MODEL.replace(num_layers=2))
    with pytest.raises(CheckpointError, match="holds a run already"):
        _run(tmp_path, text, "linen", 2, start=start)
    assert saved_steps(tmp_path) == [0, 1]


def test_lines_of_steps_after_the_checkpoint_are_dropped(text, start, tmp_path):
    _run(tmp_path, text, "linen", 2, start=start)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "loss": 1.0}\n{"step": 4, "lo')
    _run(tmp_path, text, "linen", 4)
    assert [line["step"] for line in _metrics(tmp_path)] == [1, 2, 3, 4]


def test_tensorboard_gets_every_number(tmp_path):
    report = Report(rich.console.Console(quiet=True), tmp_path, tensorboard=True)
    with report.steps(0, 1):
        report.rows([{"step": 1, "nats_per_byte": 5.0, "tokens": 32, "loss": 5.0}])
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_a_terminal_shows_progress_and_a_pipe_gets_lines(tmp_path):
    for terminal in (True, False):
        console = rich.console.Console(force_terminal=terminal, record=True, width=100, quiet=False, file=_Nowhere())
        report = Report(console, tmp_path)
        with report.steps(0, 20):
            report.rows([{"step": 10, "nats_per_byte": 2.5, "tokens": 4096}])
        shown = console.export_text()
        assert "2.500 nats/byte" in shown
        assert "10/20" in shown


class _Nowhere:
    """A console's file that keeps nothing."""

    def write(self, text):
        return len(text)

    def flush(self):
        return None
