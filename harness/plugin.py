"""The pytest plugin: options `--parity-*`, the fixture `parity`, device markers, and one JSONL report for all workers.

It is loaded in every pytest run of an environment that has paraflax, so it imports no jax and leaves no file behind
unless a test records something or a report was asked for.
"""

import collections
import dataclasses
import fnmatch
import importlib.metadata
import os
import pathlib
import platform
import secrets
import sys
import time
import typing

import pytest

from .report import memo as memos
from .report.devices import MARKERS, accelerator_name, asked_marks, lowering_platform_of, reason_to_skip
from .report.recorder import DEFAULT_BUDGET, Recorder
from .report.stream import Outcome, Run, Stream, merge, prune
from .report.views import write_views
from .verdict import STRENGTHS

PROFILES = ("pr", "nightly", "dev")
KEPT_RUNS = 10
MEMO = pathlib.Path(".paraflax", "memo")


@dataclasses.dataclass
class Session:
    """What the plugin keeps for one process of a run."""

    stream: Stream
    recorder: Recorder
    directory: pathlib.Path
    worker: str | None
    dry_run: bool
    memo: memos.Memo | None = None
    deselected: int = 0
    reused: list[str] = dataclasses.field(default_factory=list)
    run: Run | None = None


SESSION = pytest.StashKey[Session]()
SHARED = pytest.StashKey[dict[str, typing.Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, one prefix."""
    group = parser.getgroup("parity", "paraflax: parity of implementations")
    add = group.addoption
    add("--parity-report", metavar="DIR", help="directory of the report (default: a new one below .paraflax/runs)")
    profile = os.environ.get("PARAFLAX_PROFILE", "pr")
    add(
        "--parity-profile", choices=PROFILES, default=profile, help="how much is drawn: pr (derandomised), dev, nightly"
    )
    add("--parity-budget", type=float, default=DEFAULT_BUDGET, metavar="SECONDS",
        help=f"wall clock that random cases aim at, in seconds (default: {DEFAULT_BUDGET:g})")  # fmt: skip
    add(
        "--parity-update", action="store_true", help="rewrite the goldens that tests compare with, and fail those tests"
    )
    add("--parity-only", metavar="PATTERN", help="run only tests whose id contains the text or matches the glob")
    add("--parity-allow", choices=STRENGTHS, default=STRENGTHS[0], help="weakest rewrites by which a proof counts")
    add("--parity-seed", type=int, metavar="N", help="seed of random cases (default: 0, at night a fresh one, printed)")
    dry = "lower accelerator cases for their platform instead of running them (automatic where none is there)"
    add("--parity-dry-run", action="store_true", help=dry)
    add("--parity-memo", action="store_true", help="replay what passed before over the same sources and versions")
    add("--parity-subject", metavar="NAME", help="subject of the general suite: a name or module:object")
    add("--parity-goldens", metavar="DIR", default="goldens", help="directory of the goldens (default: goldens)")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Tells the root conftest's Hypothesis set-up which profile is meant."""
    os.environ["PARAFLAX_PROFILE"] = early_config.known_args_namespace.parity_profile


def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers and opens this process's part of the report."""
    for line in MARKERS.values():
        config.addinivalue_line("markers", line)
    option, shared = config.option, getattr(config, "workerinput", None)
    worker = None if shared is None else shared["workerid"]
    if shared is None:
        config.stash[SHARED] = _settle(config)
    else:
        vars(option).update(shared["parity"])
    directory = pathlib.Path(option.parity_report)
    stream = Stream(directory, worker or "main", eager=option.parity_eager)
    recorder = Recorder(
        stream, option.parity_profile, option.parity_seed, option.parity_budget, option.parity_started,
        config.rootpath / option.parity_goldens, option.parity_update, allow=option.parity_allow,
    )  # fmt: skip
    dry_run = option.parity_dry_run or bool(asked_marks(option.markexpr))
    config.stash[SESSION] = Session(stream, recorder, directory, worker, dry_run)
    if worker is None:
        stream.write("session", **_facts(config))


def _settle(config: pytest.Config) -> dict[str, typing.Any]:
    """Fixes the options that all processes of a run share, and returns them."""
    option = config.option
    if option.parity_budget <= 0:
        raise pytest.UsageError(f"--parity-budget {option.parity_budget:g}: must be above zero seconds")
    if option.parity_seed is None:
        option.parity_seed = 0 if option.parity_profile == "pr" else secrets.randbelow(2**31)
    option.parity_started = time.time()
    option.parity_eager = option.parity_report is not None
    if option.parity_report is None:
        name = time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + f"-{os.getpid()}"
        option.parity_report = str(config.rootpath / ".paraflax" / "runs" / name)
    else:
        option.parity_report = str(pathlib.Path(option.parity_report).absolute())
        for old in pathlib.Path(option.parity_report).glob("*.jsonl"):
            old.unlink()
    names = ("parity_seed", "parity_started", "parity_eager", "parity_report")
    return {name: getattr(option, name) for name in names}


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: typing.Any) -> None:
    """xdist: hands a worker what the controller has fixed."""
    node.workerinput["parity"] = node.config.stash[SHARED]


def _facts(config: pytest.Config) -> dict[str, typing.Any]:
    """Versions and settings, without importing what is asked for its version."""
    versions = {"python": platform.python_version()}
    for name in ("paraflax", "jax", "flax", "optax", "orbax-checkpoint", "pytest", "hypothesis"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    option = config.option
    settings = {"profile": option.parity_profile, "seed": option.parity_seed, "budget": option.parity_budget}
    return {**settings, "versions": versions, "machine": f"{platform.system()} {platform.machine()}"}


def pytest_report_header(config: pytest.Config) -> str:
    """One line: profile, seed, and whether accelerator cases run dry."""
    session = config.stash[SESSION]
    dry = ", dry run where no accelerator is there" if session.dry_run else ""
    return f"parity: profile {session.recorder.profile}, seed {session.recorder.seed}{dry}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what `--parity-only` does not name and what the memo can replay."""
    session = config.stash[SESSION]
    pattern = config.option.parity_only
    if pattern:
        chosen = [item for item in items if pattern in item.nodeid or fnmatch.fnmatch(item.nodeid, pattern)]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen
    if config.option.parity_memo:
        session.memo = memos.load(config.rootpath / MEMO, _digest(config, session))
        session.reused = [item.nodeid for item in items if session.memo.reusable(item.nodeid)]
        reused = set(session.reused)
        items[:] = [item for item in items if item.nodeid not in reused]


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Counts what no test run will see."""
    if items:
        items[0].config.stash[SESSION].deselected += len(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Notes what was collected; the first worker replays the memo for all."""
    own = session.config.stash[SESSION]
    if own.worker is None and session.config.pluginmanager.has_plugin("dsession"):
        return
    counts = {"collected": len(session.items), "deselected": own.deselected, "reused": len(own.reused)}
    own.stream.write("collection", **counts)
    if own.worker in (None, "gw0") and own.memo is not None:
        for record in own.memo.replay(own.reused):
            own.stream.write("record", **record.to_json())
        for nodeid in own.reused:
            own.stream.write("test", nodeid=nodeid, outcome="passed", reused=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a case whose accelerator is absent, the only skip there is; under a dry run it is lowered instead."""
    session = item.config.stash[SESSION]
    session.recorder.begin(item.nodeid)
    reason = reason_to_skip(item, dry_run=session.dry_run)
    if reason:
        pytest.skip(reason)


def pytest_runtest_call(item: pytest.Item) -> None:
    """Starts the clock of the test's first record after its fixtures."""
    item.config.stash[SESSION].recorder.begin(item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo) -> typing.Generator[None, pytest.TestReport, pytest.TestReport]:
    """Marks a report whose test was ended by an exception that is no assertion."""
    report = yield
    crash = report.failed and call.excinfo is not None and not _is_assertion(call.excinfo.value)
    vars(report)["parity_crash"] = crash
    return report


def _is_assertion(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_assertion, error.exceptions))
    return isinstance(error, AssertionError | pytest.fail.Exception)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(report: pytest.TestReport) -> None:
    """xdist: a worker that died is a crash, not a failed assertion."""
    vars(report)["parity_crash"] = True


class Controller:
    """Hooks of the one process that sees every test's end: pytest itself, or xdist's controller."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.session = config.stash[SESSION]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Writes the end of a test."""
        if report.when == "call" or not report.passed:
            crash = bool(getattr(report, "parity_crash", False))
            self._write(report, "error" if report.failed and report.when != "call" else report.outcome, crash)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be imported is a crash, never a silence."""
        if report.failed:
            self._write(report, "error", crash=True)

    def _write(self, report: typing.Any, outcome: str, crash: bool) -> None:
        skipped = isinstance(report.longrepr, tuple)
        reason = report.longrepr[2] if skipped else report.longreprtext if report.failed else ""
        made = Outcome(report.nodeid, outcome, reason.removeprefix("Skipped: ")[-4000:], crash=crash,
                       seconds=round(getattr(report, "duration", 0.0), 4))  # fmt: skip
        self.session.stream.write("test", **dataclasses.asdict(made))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Merges the processes' files, renews the views, and keeps what passed."""
        directory = self.session.directory
        if not (self.config.option.parity_eager or any(directory.glob("*.jsonl"))):
            return
        self.session.stream.activate()
        self.session.stream.write("session", seconds=round(time.time() - self.session.recorder.started, 1))
        self.session.run = run = merge(directory)
        write_views(directory, run)
        if self.config.option.parity_memo:
            _keep(self.config, self.session, run)
        if not self.config.option.parity_eager:
            prune(directory.parent, keep=KEPT_RUNS)

    def pytest_terminal_summary(self, terminalreporter: typing.Any) -> None:
        """Counts, and where the report lies."""
        run = self.session.run
        if run is None or not run.records:
            return
        kinds = collections.Counter(str(record.kind) for record in run.records if record.observable != "control")
        text = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        terminalreporter.write_line(f"parity: {text or 'nothing compared'}; report in {self.session.directory}")


def _digest(config: pytest.Config, session: Session) -> str:
    settings = {name: getattr(session.recorder, name) for name in ("profile", "seed", "budget", "allow")}
    return memos.digest_of(config.rootpath, settings, report=session.directory)


def _keep(config: pytest.Config, session: Session, run: Run) -> None:
    """Stores the passes, unless the sources have changed while the tests ran."""
    digest = _digest(config, session)
    if digest == run.session["digest"]:
        memos.save(memos.load(config.rootpath / MEMO, digest), run)


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Installs the controller's hooks, and notes the digest of the sources before any test runs."""
    own = session.config.stash[SESSION]
    if own.worker is not None:
        return
    session.config.pluginmanager.register(Controller(session.config), "parity-controller")
    if session.config.option.parity_memo:
        own.stream.write("session", digest=_digest(session.config, own))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Notes the platform, where a test has brought jax up."""
    own = session.config.stash[SESSION]
    jax = sys.modules.get("jax")
    if jax is not None and own.recorder.records:
        device = jax.devices()[0]
        own.stream.write("session", platform=device.platform, device=device.device_kind, devices=jax.device_count())


@pytest.fixture(scope="session")
def parity(pytestconfig: pytest.Config) -> Recorder:
    """Records verdicts and fails the test of one that is not parity: `parity.expect(verdict, case=, observable=)`."""
    return pytestconfig.stash[SESSION].recorder


@pytest.fixture
def accelerator(request: pytest.FixtureRequest) -> str:
    """`tpu` or `gpu` where the marked device is there, else `dry`: build and lower the case instead of running it."""
    return accelerator_name(request.node)


@pytest.fixture
def lowering_platform(request: pytest.FixtureRequest) -> str:
    """The platform to lower a marked case for in a dry run: `tpu` or `cuda`."""
    return lowering_platform_of(request.node)
