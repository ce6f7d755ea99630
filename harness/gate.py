"""The gate: composes one pytest run, shows its progress, and judges it by the records that it left. No jax here."""

import contextlib
import dataclasses
import importlib.metadata
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .report.certificate import certify
from .report.console import show
from .report.exits import MEANINGS, Exit, exit_code
from .report.recorder import DEFAULT_BUDGET
from .report.stream import Run, prune, read_run
from .report.tail import Tail
from .report.views import write_views

SUITE = "harness.report.suite"
PYTEST_USAGE, PYTEST_INTERNAL = 4, 3
EXPRESSIONS = {
    "pr": "gate and not witness and not scheduled_only",
    "dev": "gate and not witness and not scheduled_only",
    "nightly": "(gate or scheduled_only) and not witness",
}
BUDGETS = {"pr": DEFAULT_BUDGET, "dev": DEFAULT_BUDGET, "nightly": 5 * 3600.0}
PLAIN_SECONDS = 30.0
KEPT_RUNS = 10


class GateError(ValueError):
    """A gate that cannot be run as asked."""


@dataclasses.dataclass(frozen=True)
class Gate:
    """What to run. `budget` is in seconds, `workers` a number or `auto`; `subject` runs the general suite over it.

    `allow` is the weakest class of rewrites by which a proof counts.
    """

    profile: str = "pr"
    budget: float | None = None
    only: str | None = None
    workers: str = "auto"
    seed: int | None = None
    report: pathlib.Path | None = None
    memo: bool = True
    subject: str | None = None
    allow: str = "exact"


def run_gate(gate: Gate, console: Console) -> Exit:
    """Runs the gate and prints its table, failures and certificate.

    Raises:
        GateError: when pytest refuses to start, with its own reason, or there is nothing to run here.
    """
    directory = _report_directory(gate)
    log = directory / "pytest.log"
    before = time.monotonic()
    status = _run(command(gate, directory), log, directory, console)
    if status == PYTEST_USAGE:
        raise GateError(_refusal(log))
    run = read_run(directory)
    code = judge(run, status)
    certificate = write_views(directory, run, code=code)
    show(console, run, certificate)
    if code is Exit.CRASH:
        text = f"the run did not get to its end (pytest answered {status}); what it said is in {shown(log)}"
        console.print(text, style="red")
    for trespass in certificate.trespasses:
        console.print(f"a file of one side is in the other's trace: {trespass}", style="red")
    console.print(f"{MEANINGS[code]} ({time.monotonic() - before:.0f} s, report in {shown(directory)})", style="bold")
    return code


def command(gate: Gate, directory: pathlib.Path) -> list[str]:
    """The pytest command line."""
    words = [
        sys.executable,
        "-m",
        "pytest",
        *plugin_arguments(),
        "-q",
        "-n",
        gate.workers,
        "-m",
        EXPRESSIONS[gate.profile],
    ]
    words += ["--parity-report", str(directory), "--junitxml", str(directory / "junit.xml")]
    words += ["--parity-profile", gate.profile, "--parity-budget", str(gate.budget or BUDGETS[gate.profile])]
    words += ["--dist", "worksteal"] if gate.workers != "0" else []
    words += ["--parity-only", gate.only] if gate.only else []
    words += ["--parity-seed", str(gate.seed)] if gate.seed is not None else []
    words += ["--parity-allow", gate.allow]
    words += ["--parity-memo"] if gate.memo and gate.profile != "nightly" else []
    # Else pytest takes the report's directory for an argument and looks for its root there.
    words += ["--rootdir", os.getcwd()]
    if gate.subject:
        return [*words, "--parity-subject", gate.subject, "--pyargs", SUITE]
    if not any(pathlib.Path(name).is_file() for name in ("pyproject.toml", "pytest.ini", "setup.cfg", "tox.ini")):
        here = pathlib.Path.cwd().name
        raise GateError(
            f"{here}: has no pytest configuration; go to a project's root, or name --subject module:object."
        )
    return words


def judge(run: Run, status: int) -> Exit:
    """The exit code of a finished run; pytest's own answer counts where the records say nothing against it."""
    code = exit_code(run.records, run.outcomes)
    if code is not Exit.DIVERGENCE and status not in (0, 1, 5):
        return Exit.CRASH
    if code is Exit.PARITY:
        if certify(run).trespasses:
            return Exit.DIVERGENCE
        return Exit.PARITY if status in (0, 5) else Exit.CRASH
    return code


def settle_platform() -> None:
    """Before jax starts: eight simulated CPU devices unless `JAX_PLATFORMS` asks for others, and a compile cache."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    devices = "--xla_force_host_platform_device_count"
    if devices not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {devices}=8".strip()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.cwd() / ".paraflax" / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def shown(path: pathlib.Path) -> str:
    """A path as short as it can be said."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(pathlib.Path.cwd()))
    return str(path)


def plugin_arguments() -> list[str]:
    """Loads the plugin by name only where it is not installed, since pytest refuses to load one twice."""
    installed = any(entry.value == "harness.plugin" for entry in importlib.metadata.entry_points(group="pytest11"))
    return [] if installed else ["-p", "harness.plugin"]


def _report_directory(gate: Gate) -> pathlib.Path:
    runs = pathlib.Path.cwd() / ".paraflax" / "runs"
    name = time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + f"-gate-{os.getpid()}"
    directory = gate.report.absolute() if gate.report else runs / name
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        rule = f"cannot be made a directory ({error.strerror})"
        raise GateError(f"--report {gate.report}: {rule}; name another one.") from None
    if not gate.report:
        prune(runs, keep=KEPT_RUNS)
    return directory


def _run(words: list[str], log: pathlib.Path, directory: pathlib.Path, console: Console) -> int:
    """Runs pytest with its output in a file, and shows the progress meanwhile."""
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)
        tail = Tail(directory)
        try:
            with _progress(tail, console) as refresh:
                while process.poll() is None:
                    time.sleep(0.2)
                    tail.poll()
                    refresh()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    return process.returncode


@contextlib.contextmanager
def _progress(tail: Tail, console: Console) -> Iterator:
    """A bar on a terminal; elsewhere a line of counts every half minute."""
    if not console.is_terminal:
        last = [time.monotonic()]

        def line() -> None:
            if time.monotonic() - last[0] > PLAIN_SECONDS:
                last[0] = time.monotonic()
                console.print(tail.text, highlight=False)

        yield line
        return
    columns = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("collecting", total=None)
        yield lambda: progress.update(task, description=tail.text, total=tail.collected or None, completed=tail.done)


def _refusal(log: pathlib.Path) -> str:
    """Why pytest would not start: its own `ERROR:` lines in one sentence."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line.partition("ERROR:")[2].strip() for line in lines if line.startswith("ERROR:")]
    said += [line.partition("error:")[2].strip() for line in lines if " error: " in line]
    return "; ".join(part.rstrip(".") for part in said or lines[-1:]) + f"; pytest's output is in {shown(log)}."
