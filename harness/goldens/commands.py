"""`paraflax goldens`: what is recorded, what the code gives now, and the steps from one to the other."""

import fnmatch
import pathlib
import textwrap
import typing
from collections.abc import Iterator

import typer

from ..report.exits import Exit
from .compare import compare
from .golden import Golden, GoldenError, expected_files, filename_of
from .store import (
    check,
    proposals,
    propose,
    read,
    refuse_under_ci,
    remove,
    write,
)
from .store import (
    reject as drop,
)
from .store import (
    status as status_of,
)
from .terms import changed, sides_of

SHOWN = 12
CAUSES = 3
EPILOG = "Exit codes: 0 all there and current, 1 one differs, 2 usage, or one is missing or damaged, 3 undecided."

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    epilog=EPILOG,
    help="Recorded facts about cases: status, renewal, review.\n\n"
    "`regen` writes what is missing or damaged and puts what has changed beside the old file; `review` shows the "
    "difference, `accept` and `reject` decide. While the environment variable CI is set nothing is written.",
)

PatternArgument = typing.Annotated[
    str | None,
    typer.Argument(metavar="[PATTERN]", help="Only goldens whose name contains this text or matches this glob."),
]
DirectoryOption = typing.Annotated[
    pathlib.Path, typer.Option("--goldens", metavar="DIR", help="Directory of the goldens.")
]
SubjectOption = typing.Annotated[
    str | None, typer.Option("--subject", metavar="NAME", help="An installed subject's name, or module:object.")
]
ROOT = pathlib.Path("goldens")


@app.command("status", epilog=EPILOG)
def show_status(
    pattern: PatternArgument = None, subject: SubjectOption = None, goldens: DirectoryOption = ROOT
) -> None:
    """Say which goldens are missing, damaged, unused, pending, changed, or recorded under other library versions.

    The files are looked at first; then the code is traced for every case, which takes as long as the goldens' tests.
    """
    found = _subject(subject)
    files = status_of(goldens, expected_files(found))
    if not files.clean:
        typer.echo(files.explain(), err=True)
        raise typer.Exit(Exit.USAGE)
    cases = [case for case in found.golden_cases() if _matches(pattern, filename_of(case))]
    current = [found.golden(case) for case in cases]
    state = status_of(goldens, expected_files(found), current=current)
    typer.echo(state.explain() or f"{len(state.present)} goldens, none missing, unused, damaged or pending")
    verdicts = {golden.filename: check(goldens, golden) for golden in current if golden.filename not in state.missing}
    for name, verdict in verdicts.items():
        if not verdict and name not in state.damaged:
            typer.echo(f"golden {name}: {verdict.kind}; {verdict.reason}")
            for finding in verdict.findings[:CAUSES]:
                typer.echo(finding.text(verdict.programs))
    bad = any(verdict.kind.name == "DIVERGED" for verdict in verdicts.values())
    undecided = any(verdict.kind.name == "UNDECIDED" for verdict in verdicts.values())
    raise typer.Exit(Exit.DIVERGENCE if bad else Exit.UNDECIDED if undecided else Exit.PARITY)


@app.command(epilog=EPILOG)
def regen(
    pattern: PatternArgument = None,
    accept_all: typing.Annotated[
        bool, typer.Option("--accept", help="Write what has changed as well, without a review.")
    ] = False,
    subject: SubjectOption = None,
    goldens: DirectoryOption = ROOT,
) -> None:
    """Compute goldens anew: write the missing and damaged ones, and put changed ones beside the old for `review`."""
    refuse_under_ci("regen")
    found = _subject(subject)
    counts = {"written": 0, "proposed": 0, "unchanged": 0}
    for case in found.golden_cases():
        if _matches(pattern, filename_of(case)):
            what = _renew(goldens, found.golden(case), accept_all=accept_all)
            counts[what] += 1
            if what != "unchanged":
                typer.echo(f"{what}: {filename_of(case)}")
    typer.echo(", ".join(f"{count} {what}" for what, count in counts.items()))
    if counts["proposed"]:
        typer.echo("look at the proposed ones with `paraflax goldens review`, then `accept` or `reject` them")


def _renew(root: pathlib.Path, golden: Golden, *, accept_all: bool) -> str:
    try:
        stored = read(root / golden.filename)
    except GoldenError:
        write(root, golden)
        return "written"
    if stored.text() == golden.text():
        drop(root, golden)
        return "unchanged"
    (write if accept_all else propose)(root, golden)
    return "written" if accept_all else "proposed"


@app.command(epilog=EPILOG)
def review(pattern: PatternArgument = None, goldens: DirectoryOption = ROOT) -> None:
    """Show in meaning what each pending golden would change."""
    pending = list(_pending(goldens, pattern))
    for golden in pending:
        typer.echo(f"{golden.filename}")
        stored = read(goldens / golden.filename)
        differences = compare(stored, golden)
        for finding in changed(stored, golden, sides_of(golden))[:CAUSES]:
            typer.echo(textwrap.indent(finding.text(("recorded", "now")), "  "))
        for difference in differences[:SHOWN]:
            typer.echo(f"  {difference.text}")
        if len(differences) > SHOWN:
            typer.echo(f"  and {len(differences) - SHOWN} more")
        if not differences:
            typer.echo("  the environment or digests only")
    typer.echo(f"{len(pending)} pending" + ("; run `paraflax goldens accept` or `reject`" if pending else ""))


@app.command(epilog=EPILOG)
def accept(pattern: PatternArgument = None, goldens: DirectoryOption = ROOT) -> None:
    """Put pending goldens in place of the old ones."""
    for golden in _pending(goldens, pattern):
        write(goldens, golden)
        typer.echo(f"accepted: {golden.filename}")


@app.command(epilog=EPILOG)
def reject(pattern: PatternArgument = None, goldens: DirectoryOption = ROOT) -> None:
    """Drop pending goldens; the old ones stay."""
    for golden in _pending(goldens, pattern):
        drop(goldens, golden)
        typer.echo(f"rejected: {golden.filename}")


@app.command(epilog=EPILOG)
def prune(subject: SubjectOption = None, goldens: DirectoryOption = ROOT) -> None:
    """Remove text goldens that no case has; other files are left to whoever wrote them."""
    refuse_under_ci("prune")
    found = _subject(subject)
    for name in status_of(goldens, expected_files(found)).unused:
        if name.endswith(".txt"):
            remove(goldens, name)
            typer.echo(f"removed: {name}")


def _subject(name: str | None) -> typing.Any:
    from ..gate import settle_platform
    from ..subjects import find_subject

    settle_platform()
    return find_subject(name)


def _pending(root: pathlib.Path, pattern: str | None) -> Iterator[Golden]:
    return (golden for golden in proposals(root) if _matches(pattern, golden.filename))


def _matches(pattern: str | None, name: str) -> bool:
    return pattern is None or pattern in name or fnmatch.fnmatch(name, pattern)
