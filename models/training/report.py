"""What a training run tells while it runs: a progress bar, one JSON line a step, TensorBoard if asked."""

import contextlib
import json
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence

import rich.console
import rich.progress

Row = dict[str, float | int]

STEP = "step"
LOSS = "nats_per_byte"
TOKENS = "tokens"


class Report:
    """Writes each row of numbers to `metrics.jsonl` and shows the last one of each call on the console."""

    def __init__(self, console: rich.console.Console, directory: pathlib.Path, *, tensorboard: bool = False) -> None:
        self.console = console
        self._metrics = directory / "metrics.jsonl"
        self._events = directory / "tensorboard" if tensorboard else None
        self._total = 0
        self._last = time.monotonic()
        self._progress: rich.progress.Progress | None = None

    @contextlib.contextmanager
    def steps(self, first: int, total: int) -> Iterator[None]:
        """The span in which rows come. Lines of steps after `first`, left by a run that was killed, are dropped."""
        _drop_after(self._metrics, first)
        self._total, self._last = total, time.monotonic()
        if not self.console.is_terminal:
            yield
            return
        with rich.progress.Progress(
            rich.progress.TextColumn("[bold]{task.fields[state]}"), rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(), rich.progress.TextColumn("{task.fields[rate]}"),
            rich.progress.TextColumn("ETA"), rich.progress.TimeRemainingColumn(), console=self.console,
        ) as progress:
            self._progress = progress
            self._task = progress.add_task("", total=total, completed=first, state="compiling", rate="")
            yield

    def rows(self, rows: Sequence[Row]) -> None:
        """Records one row a step, in order."""
        if not rows:
            return
        with self._metrics.open("a", encoding="ascii") as file:
            file.writelines(json.dumps(row, sort_keys=True) + "\n" for row in rows)
        if self._events is not None:
            _to_tensorboard(self._events, rows)
        self._show(rows)

    def say(self, text: str) -> None:
        """One line on the console."""
        self.console.print(text, highlight=False)

    def _show(self, rows: Sequence[Row]) -> None:
        now = time.monotonic()
        seconds, self._last = max(now - self._last, 1e-9), now
        step, loss = rows[-1][STEP], rows[-1][LOSS]
        rate = sum(row[TOKENS] for row in rows) / seconds
        if self._progress is not None:
            state = f"{loss:.3f} nats/byte"
            self._progress.update(self._task, completed=step, state=state, rate=f"{rate:,.0f} tokens/s")
            return
        eta = (self._total - step) * seconds / len(rows)
        self.say(f"step {step}/{self._total}  {loss:.3f} nats/byte  {rate:,.0f} tokens/s  ETA {eta:.0f} s")


@contextlib.contextmanager
def watch_interrupts() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets, so that no step is cut in half; the second one interrupts."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(signum: int, frame: object) -> None:
        del frame
        if event.is_set():
            raise KeyboardInterrupt(signum)
        event.set()

    before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _drop_after(metrics: pathlib.Path, step: int) -> None:
    if not metrics.exists():
        return
    lines = metrics.read_text(encoding="ascii").splitlines()
    kept = [line for line in lines if _is_whole(line) and json.loads(line)[STEP] <= step]
    replacement = metrics.with_suffix(".tmp")
    replacement.write_text("".join(line + "\n" for line in kept), encoding="ascii")
    os.replace(replacement, metrics)


def _is_whole(line: str) -> bool:
    """Whether a line was written to its end: only the last one of a killed run may not be."""
    return line.startswith("{") and line.endswith("}")


def _to_tensorboard(directory: pathlib.Path, rows: Sequence[Row]) -> None:
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(directory)) as writer:
        for row in rows:
            for name in row.keys() - {STEP}:
                writer.add_scalar(name, row[name], int(row[STEP]))
