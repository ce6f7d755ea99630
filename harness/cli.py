"""The command `paraflax`: thin. It composes pytest and the rooms of the harness; every error is an exit code.

Commands of other packages come in by the entry point group `paraflax.commands`; they are loaded when they are used.
"""

import importlib.metadata
import inspect
import json
import os
import pathlib
import platform
import sys
import time
import traceback
import typing
from collections.abc import Iterable

import typer
from rich.console import Console

from . import extensions
from .gate import Gate, run_gate, settle_platform, shown
from .goldens.commands import app as goldens_app
from .report.exits import Exit, exit_code
from .report.record import Record, from_verdict
from .verdict import STRENGTHS

EXIT_CODES = (
    "Exit codes: 0 parity, 1 divergence, 2 usage or configuration, 3 undecided (or nothing was compared), "
    "4 our own crash."
)
# A ValueError of these is a fault in our code, not a sentence that was written for a user.
LIBRARIES = frozenset({"jax", "jaxlib", "numpy", "flax", "optax", "orbax", "etils", "hypothesis", "rich", "typer"})
# typer keeps the base of its usage errors to itself; what is used of it here is what the derived class has.
USAGE_ERROR = typing.cast(type[typer.BadParameter], typer.BadParameter.__mro__[1])

app = typer.Typer(
    name="paraflax",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog=EXIT_CODES,
    help="Prove or measure that two implementations of a model do the same thing.\n\n"
    "`paraflax gate` compares everything and is what a pull request needs; the other commands look at one thing.",
)
app.add_typer(goldens_app, name="goldens")

SubjectOption = typing.Annotated[
    str | None,
    typer.Option("--subject", metavar="NAME", help="An installed subject's name, or module:object. Default: compact."),
]
AllowOption = typing.Annotated[
    str, typer.Option(metavar="CLASS", help="Weakest rewrites that count: exact, modulo signed zero, reassociating.")
]
NamesOption = typing.Annotated[
    str | None, typer.Option(metavar="NAMES", help="Names of leaves: module:function, or JSON {path: name}.")
]


def _print_version(asked: bool) -> None:
    if asked:
        names = ("jax", "flax", "optax", "orbax-checkpoint")
        versions = ", ".join(f"{name} {_version(name)}" for name in names)
        typer.echo(f"paraflax {_version('paraflax')} (python {platform.python_version()}, {versions})")
        raise typer.Exit


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@app.callback()
def _common(
    version: typing.Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the versions and stop.")
    ] = False,
) -> None:
    del version


@app.command(epilog=EXIT_CODES)
def gate(
    budget: typing.Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Wall clock that random cases aim at: 90s, 10m, 2h. Default: 10m, at night 5h."
        ),
    ] = None,
    profile: typing.Annotated[
        str, typer.Option(help="pr (derandomised), dev, or nightly (fresh seed, printed).")
    ] = "pr",
    only: typing.Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Run only tests whose id contains this text or matches this glob."),
    ] = None,
    workers: typing.Annotated[
        str, typer.Option("-n", metavar="N", help="Worker processes: a number or auto.")
    ] = "auto",
    seed: typing.Annotated[
        int | None, typer.Option(help="Seed of the random cases. Default: 0, at night a fresh one.")
    ] = None,
    report: typing.Annotated[
        pathlib.Path | None,
        typer.Option(metavar="DIR", help="Directory of the report. Default: a new one in .paraflax/runs."),
    ] = None,
    memo: typing.Annotated[
        bool, typer.Option("--memo/--no-memo", help="Replay what passed before over the same sources and versions.")
    ] = True,
    subject: typing.Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Run the general suite over this subject: a name or module:object."),
    ] = None,
    allow: AllowOption = "exact",
) -> None:
    """Compare everything, print the table and the certificate, and answer with the exit code.

    Runs the tests marked `gate` of the project in this directory with pytest on all cores; with `--subject`, the
    general suite over that subject instead. The report holds `records.jsonl` (everything), `summary.md`,
    `certificate.json`, `junit.xml` and pytest's own output.

    Examples:

    - `paraflax gate`
    - `paraflax gate --only gemma2 -n 2`
    - `paraflax gate --profile nightly --budget 5h --report parity-report`
    - `paraflax gate --subject my_package.parity:SUBJECT`
    """
    if profile not in ("pr", "dev", "nightly"):
        raise UsageError(f"--profile {profile}: must be pr, dev or nightly.")
    if workers != "auto" and not workers.isdigit():
        raise UsageError(f"-n {workers}: must be a number of processes, or auto.")
    _allowed(allow)
    options = Gate(profile, read_time(budget), only, workers, seed, report, memo, subject, allow)
    raise typer.Exit(run_gate(options, Console()))


@app.command(epilog=EXIT_CODES)
def check(
    config: typing.Annotated[
        str, typer.Argument(metavar="CONFIG", help="A preset, a JSON file, or the token of a case.")
    ],
    step: typing.Annotated[
        list[str] | None, typer.Option(help="Step to compare; may be given more than once. Default: every step.")
    ] = None,
    mesh: typing.Annotated[
        str | None, typer.Option(help="Name of a mesh that the subject knows. Default: no mesh.")
    ] = None,
    allow: AllowOption = "exact",
    subject: SubjectOption = None,
) -> None:
    """Compare the backends on one config: prove each step, and measure what is not proved.

    The JSON file holds a config of the subject, or a whole case (`{"config": ..., "step": ...}`).

    Examples:

    - `paraflax check llama-tiny`
    - `paraflax check my_model.json --step train_step --step generate`
    """
    _allowed(allow)
    found = _subject(subject)
    raise typer.Exit(_compare(found, _cases(found, config, step or [], mesh), allow=allow))


@app.command(epilog=EXIT_CODES)
def repro(
    token: typing.Annotated[
        str, typer.Argument(metavar="TOKEN", help="The word that a report printed after `rerun:`.")
    ],
    allow: AllowOption = "exact",
    subject: SubjectOption = None,
) -> None:
    """Repeat one case of a report: print its literal, compare it again, and explain the verdict.

    Example:

    - `paraflax repro eNpVjkEKgzAQRe...`
    """
    from .subjects.case import read_token

    _allowed(allow)
    found = _subject(subject or read_token(token).get("subject"))
    case = found.case_from_token(token)
    typer.echo(f"case: {case.literal}")
    raise typer.Exit(_compare(found, [case], allow=allow, always_explain=True))


@app.command(epilog=EXIT_CODES)
def prove(
    a: typing.Annotated[str, typer.Argument(metavar="A", help="module:attribute, or path/to/file.py:attribute.")],
    b: typing.Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    args: typing.Annotated[
        str | None,
        typer.Option(metavar="ARGS", help="Arguments of a function: arrays, JSON, or module:attribute of a tuple."),
    ] = None,
    args_b: typing.Annotated[
        str | None, typer.Option(metavar="ARGS", help="Arguments of B, where they are not those of A.")
    ] = None,
    rename_a: NamesOption = None,
    rename_b: NamesOption = None,
    allow: AllowOption = "exact",
    unroll: typing.Annotated[
        int, typer.Option(metavar="N", min=0, help="Take scans of at most N rounds for copies of their body.")
    ] = 0,
    as_json: typing.Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Decide from the traces alone whether two programs denote the same function. Nothing is compiled or run.

    A and B are each a Program, a function that takes nothing and returns a Program, or any function of arrays. A
    function's arguments come from `--args`, from its annotations (`Float[Array, "4 8"]`), from defaults that are
    arrays, or from the Program on the other side. Leaves are paired by their paths (`0/w`, the argument's position
    first; `output/y`); a rename is module:function from a path to a name, or a JSON object.

    Examples:

    - `paraflax prove my_package.steps:old my_package.steps:new`
    - `paraflax prove old.py:mlp new.py:Mlp.apply --args "float32[4,8] float32[8,2]"`
    - `paraflax prove old.py:f new.py:f --args '[{"w": "f32[8,4]"}, "i32[3]"]' --rename-b '{"0/kernel": "0/w"}'`
    - `paraflax prove old.py:f new.py:f --args my_inputs.py:make --allow reassociating`
    """
    _allowed(allow)
    _platform()
    from . import importing

    first = importing.Words(a, "a", args, rename_a)
    second = importing.Words(b, "b", args if args_b is None else args_b, rename_b)
    answer = importing.prove(first, second, allow=allow, unroll=unroll)
    verdict = answer.verdict
    for note in answer.notes:
        typer.echo(note, err=as_json)
    typer.echo(json.dumps(verdict.to_json(), indent=2) if as_json else verdict.explain())
    raise typer.Exit(exit_code([from_verdict(verdict, None, "program", named=f"{a} {b}")]))


def _allowed(allow: str) -> None:
    if allow not in STRENGTHS:
        raise UsageError(f"--allow {allow}: must be one of {', '.join(STRENGTHS)}.")


class UsageError(ValueError):
    """A wrong word on the command line."""


def read_time(text: str | None) -> float | None:
    """Seconds of `90s`, `10m`, `2h` or a plain number of seconds.

    Raises:
        UsageError: when it is none of these, or not above zero.
    """
    if text is None:
        return None
    number, unit = (text[:-1], text[-1]) if text[-1:] in tuple("smh") else (text, "s")
    try:
        seconds = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"--budget {text}: must be a time above zero, such as 90s, 10m or 2h.")
    return seconds


def main(arguments: list[str] | None = None) -> int:
    """The console script: every end of a command as an exit code, errors as one sentence on stderr."""
    extensions.add_to(app)
    command = typer.main.get_command(app)
    try:
        answer = command.main(args=arguments, prog_name="paraflax", standalone_mode=False)
        return int(answer) if isinstance(answer, int) else 0
    except typer.Abort:
        return _say("stopped.", Exit.USAGE)
    except USAGE_ERROR as error:
        said = error.format_message().strip().rstrip(".")  # empty where no argument was given and the help was shown
        return _say(f"{said}; see `paraflax --help`.", Exit.USAGE) if said else int(Exit.USAGE)
    except KeyboardInterrupt:
        return _say("interrupted; what was recorded so far is in the report directory.", 130)
    except Exception as error:
        if is_for_the_user(error):
            return _say(" ".join(str(error).split()).rstrip(".") + ".", Exit.USAGE)
        return _say(_crashed(error), Exit.CRASH)


def is_for_the_user(error: BaseException) -> bool:
    """Whether an exception is a sentence about wrong input: a ValueError class of its own, or a missing file."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return bool(error.filename)
    module = type(error).__module__.partition(".")[0]
    return isinstance(error, ValueError) and module not in sys.stdlib_module_names and module not in LIBRARIES


def _say(sentence: str, code: int) -> int:
    print(f"paraflax: {sentence}", file=sys.stderr)
    return int(code)


def _crashed(error: BaseException) -> str:
    """Writes the traceback to a file and says where."""
    text = "".join(traceback.format_exception(error))
    path = (
        pathlib.Path.cwd() / ".paraflax" / "crashes" / time.strftime(f"%Y%m%d-%H%M%S-{os.getpid()}.txt", time.gmtime())
    )
    headline = f"crashed: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError:
        return f"{headline}\n{text}"
    return f"{headline}; the traceback is in {shown(path)}."


def _platform() -> None:
    """Settles the platform before jax starts, and finds modules of the directory we are in after all installed ones."""
    settle_platform()
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _subject(name: str | None) -> typing.Any:
    _platform()
    from .subjects import find_subject

    return find_subject(name)


def _cases(subject: typing.Any, text: str, steps: list[str], mesh: str | None) -> list[typing.Any]:
    """The cases that a preset, file or token names."""
    from .subjects.case import CaseError, read_token

    path = pathlib.Path(text)
    if path.suffix == ".json" and path.is_file():
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"config {text}: is not JSON ({error}); write the file anew.") from None
        if isinstance(data, dict) and "step" in data:
            return [subject.case_from_json(data)]
    elif len(text) > 60 or text.startswith("eN"):
        try:
            read_token(text)
        except CaseError:
            pass
        else:
            return [subject.case_from_token(text)]
    config = subject.read_config(text)
    return [subject.case(config, step, mesh=mesh) for step in steps or subject.steps]


def _compare(subject: typing.Any, cases: Iterable[typing.Any], *, allow: str, always_explain: bool = False) -> Exit:
    """Checks the cases, prints a line for each observable, explains what is no parity, and gives the exit code."""
    records: list[Record] = []
    weaker = {} if allow == "exact" else {"allow": allow}  # a subject that knows no weaker proof is asked for none
    if weaker and "allow" not in inspect.signature(subject.check).parameters:
        raise UsageError(f"--allow {allow}: subject {subject.name} compares exactly only; leave the option out.")
    for case in cases:
        start = time.perf_counter()
        for observable, verdict, judged in subject.check(case, **weaker):
            record = from_verdict(verdict, judged, observable, seconds=time.perf_counter() - start)
            records.append(record)
            strength = f" ({record.strength})" if record.strength else ""
            ratio = "" if record.ratio is None else f", ratio {record.ratio:.3g}"
            size = f"{record.num_leaves} leaves, {record.num_elements:,} elements{ratio}, {record.seconds:.1f} s"
            typer.echo(f"{judged.step:14} {observable:12} {record.kind}{strength}: {size}")
            if always_explain or not record.passed:
                typer.echo(verdict.explain())
            if not record.passed and not always_explain:
                typer.echo(f"rerun: paraflax repro {judged.token}")
            start = time.perf_counter()
    if not records:
        typer.echo("nothing was compared")
    return exit_code(records)


if __name__ == "__main__":
    sys.exit(main())
