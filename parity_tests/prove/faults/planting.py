"""Faults planted by editing source: a function's own, or one file of the twins, loaded beside the unharmed ones.

An edited function keeps its file and line numbers, so that an explanation can be held against the line of the edit.
"""

import ast
import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import itertools
import linecache
import pathlib
import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from unittest import mock

import models

ROOT = pathlib.Path(__file__).resolve().parents[3]
_COPIES = itertools.count()


@dataclasses.dataclass(frozen=True)
class Span:
    """The lines of one statement. `names` says whether a `file:line (function)` chain goes through it."""

    path: str
    first: int
    last: int

    def names(self, source: str) -> bool:
        """Whether one of the frames lies in the statement."""
        return any(f"{self.path}:{line} (" in source for line in range(self.first, self.last + 1))

    def __str__(self) -> str:
        return f"{self.path}:{self.first}" + (f"-{self.last}" if self.last > self.first else "")


def span(path: pathlib.Path, text: str, at: int) -> Span:
    """The innermost statement of a file's text that holds the character at this place; of a block its head alone."""
    line = text.count("\n", 0, at) + 1
    best = (line, line)
    size = None
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
            if line <= last and (size is None or last - node.lineno < size):
                best, size = (node.lineno, max(last, node.lineno)), last - node.lineno
    return Span(path.relative_to(ROOT).as_posix(), *best)


def edited(function: typing.Any, old: str, new: str) -> tuple[typing.Any, Span]:
    """The function with `old`, which stands in it exactly once, replaced by `new`; and the lines of the edit."""
    function = inspect.unwrap(function)
    path = pathlib.Path(inspect.getsourcefile(function) or "")
    lines, start = inspect.getsourcelines(function)
    source = textwrap.dedent("".join(lines))
    assert source.count(old) == 1, f"{function.__name__}: {old!r} stands there {source.count(old)} times"
    changed = source.replace(old, new)
    code = compile("\n" * (start - 1) + changed, str(path), "exec")
    scope = dict(function.__globals__)
    exec(code, scope)
    padded = "\n" * (start - 1) + changed
    return scope[function.__name__], span(path, padded, start - 1 + _place(source, changed, old, new))


def _place(source: str, changed: str, old: str, new: str) -> int:
    """Where the edit is: the first character in which the two texts differ, a deletion's where the text goes on."""
    del new
    at = source.index(old)
    ahead = next((k for k, (x, y) in enumerate(zip(source, changed, strict=False)) if x != y), at)
    return min(max(at, ahead), len(changed) - 1)


def marked(function: typing.Any, text: str) -> Span:
    """The statement of a function that holds this text, which stands there once."""
    path = pathlib.Path(inspect.getsourcefile(function) or "")
    lines, start = inspect.getsourcelines(function)
    source = textwrap.dedent("".join(lines))
    assert source.count(text) == 1, f"{function.__name__}: {text!r} stands there {source.count(text)} times"
    return span(path, "\n" * (start - 1) + source, start - 1 + source.index(text))


@contextlib.contextmanager
def edited_twin(twin: str, path: str, old: str, new: str) -> Iterator[Span]:
    """The subject's programs of this twin, or of `both`, come from a copy with one file of `models` edited."""
    text = (ROOT / path).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path}: {old!r} stands there {text.count(old)} times"
    prefix = f"planted{next(_COPIES)}"
    changed = text.replace(old, new)
    twins = BACKENDS if twin == "both" else (twin,)
    finder = _Finder(prefix, {path.split("/")[1], *twins} | _between(path), {path: changed})
    real = models.backend
    sys.meta_path.insert(0, finder)
    try:
        for name in BACKENDS:
            real(name)
        finder.share()
        planted = {name: importlib.import_module(f"{prefix}.{name}.backend").BACKEND for name in twins}
        with mock.patch.object(models, "backend", lambda name: planted.get(name) or real(name)):
            yield span(ROOT / path, changed, _place(text, changed, old, new))
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] == prefix]:
            del sys.modules[name]
        linecache.clearcache()


BACKENDS = ("linen", "nnx")


def _between(path: str) -> set[str]:
    """What imports the edited file and is imported by a twin: it has to be copied too."""
    return {"ops": {"ops", "training"}, "training": {"training"}}.get(path.split("/")[1], set())


class _Finder:
    """Finds `prefix.*`: some rooms of `models` afresh and edited, the others as they are."""

    def __init__(self, prefix: str, rooms: set[str], texts: dict[str, str]):
        self.prefix, self.rooms, self.texts = prefix, rooms, texts

    def share(self) -> None:
        """Lend the rooms that are not copied."""
        for name, module in list(sys.modules.items()):
            parts = name.split(".")
            if parts[0] == "models" and len(parts) > 1 and parts[1] not in self.rooms:
                sys.modules[".".join([self.prefix, *parts[1:]])] = module
        package = types.ModuleType(self.prefix)
        package.__path__ = [str(ROOT / "models")]
        sys.modules[self.prefix] = package
        for name, module in list(sys.modules.items()):
            if name.startswith(self.prefix + ".") and name.count(".") == 1:
                setattr(package, name.split(".")[1], module)

    def find_spec(self, name: str, path: typing.Any = None, target: typing.Any = None) -> typing.Any:
        """The import system's question."""
        del path, target
        parts = name.split(".")
        if parts[0] != self.prefix or len(parts) < 2:
            return None
        file = ROOT.joinpath("models", *parts[1:])
        is_package = file.is_dir()
        file = file / "__init__.py" if is_package else file.with_suffix(".py")
        text = self.texts.get(file.relative_to(ROOT).as_posix()) or file.read_text(encoding="utf-8")
        return importlib.util.spec_from_loader(name, _Loader(str(file), text), origin=str(file), is_package=is_package)


class _Loader:
    def __init__(self, file: str, text: str):
        self.file, self.text = file, text

    def create_module(self, spec: typing.Any) -> None:
        """A module as usual."""
        del spec

    def exec_module(self, module: typing.Any) -> None:
        """Runs the text under the name of its real file."""
        module.__file__ = self.file
        exec(compile(self.text, self.file, "exec"), module.__dict__)
