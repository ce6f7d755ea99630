"""Sub-commands of other packages, by the entry point group `paraflax.commands`: named at once, loaded when used.

An entry point gives a `typer.Typer`, or a function whose signature typer understands.
"""

import ast
import importlib.metadata
import importlib.util
import pathlib
import typing

import typer

GROUP = "paraflax.commands"
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


class ExtensionError(ValueError):
    """A sub-command that cannot be loaded."""


def add_to(app: typer.Typer) -> None:
    """Adds a stand-in for every entry point; it passes its arguments on to the real command."""
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.name for group in app.registered_groups if group.name}
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        if entry.name not in known:
            known.add(entry.name)
            app.command(entry.name, context_settings=dict(PASSED_ON), help=purpose(entry))(_stand_in(entry))


def _stand_in(entry: importlib.metadata.EntryPoint) -> typing.Callable[[typer.Context], None]:
    def run(ctx: typer.Context) -> None:
        command = _load(entry)
        answer = command.main(args=ctx.args, prog_name=f"paraflax {entry.name}", standalone_mode=False)
        raise typer.Exit(answer if isinstance(answer, int) else 0)

    return run


def _load(entry: importlib.metadata.EntryPoint) -> typing.Any:
    """The real command.

    Raises:
        ExtensionError: when its module or function is not there.
    """
    try:
        loaded = entry.load()
    except (ImportError, AttributeError) as error:
        raise ExtensionError(f"command {entry.name}: {entry.value} cannot be loaded ({error}); reinstall it.") from None
    if isinstance(loaded, typer.Typer):
        return typer.main.get_command(loaded)
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    single.command(entry.name)(loaded)
    return typer.main.get_command(single)


def purpose(entry: importlib.metadata.EntryPoint) -> str:
    """The first line of the function's docstring, read from its source without importing it."""
    fallback = f"From {entry.module}."
    package, *rest = entry.module.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return fallback
    path = pathlib.Path(next(iter(spec.submodule_search_locations)), *rest).with_suffix(".py")
    if not path.is_file():
        return fallback
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == entry.attr:
            return (ast.get_docstring(node) or fallback).splitlines()[0]
    return fallback
