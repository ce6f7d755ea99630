"""From words to Programs: `module:attribute` or `file.py:attribute` of a Program, of a maker of one, or of a function.

What a user's module does wrong becomes one sentence here, also where it ends the process.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import json
import pathlib
import sys
import types
import typing
from collections.abc import Callable, Iterator

import jax

from . import arguments
from .program import Naming, Path, Program
from .verdict import Verdict

OUTPUT = "output"


class TargetError(ValueError):
    """A program, its arguments or its names, that the words do not lead to."""


@dataclasses.dataclass(frozen=True)
class Words:
    """What a command says about one side. `name` is the side's letter, for the options that a message names."""

    target: str
    name: str
    args: str | None = None
    rename: str | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """The verdict, and a line for each side whose arguments nobody gave."""

    verdict: Verdict
    notes: tuple[str, ...] = ()


def prove(a: Words, b: Words, *, allow: str = "exact", unroll: int = 0) -> Answer:
    """The verdict about what two sides' words mean. `allow` and `unroll` are those of the prover.

    Raises:
        TargetError: the words lead to no program.
        ArgumentsError: the arguments are not understood.
        ProgramError: a program cannot be traced or named.
    """
    from .prove import prove as decide

    sides = sides_of(a, b)
    for side, words in zip(sides, (a, b), strict=True):
        with _contained("program", words.target, "cannot be traced"):
            side.program.trace()
        side.check_names()
    notes = tuple(side.note for side in sides if side.note)
    return Answer(decide(*(side.program for side in sides), allow=allow, unroll=unroll), notes)


@dataclasses.dataclass(frozen=True)
class Side:
    """A side's Program, where its arguments are from if nobody gave them, and the names of its leaves."""

    program: Program
    note: str = ""
    names: "Names | None" = None

    def check_names(self) -> None:
        """Refuses a name for a leaf which is not there."""
        if self.names is not None:
            inputs = ["/".join(leaf.path) for leaf in self.program.inputs]
            self.names.check(inputs + ["/".join((OUTPUT, *leaf.path)) for leaf in self.program.outputs])


def sides_of(a: Words, b: Words) -> tuple[Side, Side]:
    """Both sides. One without arguments of its own takes those of the other side's Program."""
    found = [load(words.target, "program") for words in (a, b)]
    made = [_ready(thing, words) for thing, words in zip(found, (a, b), strict=True)]
    if found[0] is found[1] and made[0] is not None:
        made[1] = made[0]  # the same maker on both sides: the prover refuses one function held against itself
    _refuse_unused(made, a, b)
    names = [_name(thing, words) for thing, words in zip(found, (a, b), strict=True)]
    if names[0] == names[1]:
        names = [a.target, b.target]
    first, second = (_side(made[k], found[k], (a, b)[k], names[k], like=made[1 - k]) for k in (0, 1))
    return first, second


def _side(made: Program | None, found: typing.Any, words: Words, name: str, *, like: Program | None) -> Side:
    if made is not None:
        return Side(made)
    args, note = _arguments(found, words, like)
    _fits(found, args, words)
    naming = Names(words.rename, f"--rename-{words.name}")
    program = Program(found, args, name_input=naming.of_input, name_output=naming.of_output, name=name)
    return Side(program, note, naming)


def load(target: str, what: str) -> typing.Any:
    """The object at `module:attribute`; the attribute may be dotted and the module the path of a Python file.

    Raises:
        TargetError: there is no such module, file or attribute, or importing it failed.
    """
    module_name, colon, attributes = target.rpartition(":")
    if not (colon and module_name and attributes):
        raise TargetError(f"{what} {target}: is no module:attribute; write for example my_package.steps:old.")
    with _contained(what, target, "cannot be loaded", "name an importable module:attribute"):
        found = _from_file(module_name) if module_name.endswith(".py") else importlib.import_module(module_name)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    return found


def _from_file(text: str) -> types.ModuleType:
    """The module of a file: by its dotted name where it lies in a package, so that relative imports work."""
    path = pathlib.Path(text).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {text}")
    root, names = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        names.insert(0, root.name)
        root = root.parent
    if str(root) not in sys.path:
        sys.path.append(str(root))
    if len(names) > 1:
        module = importlib.import_module(".".join(names))
        if pathlib.Path(module.__file__ or "").resolve() != path:
            raise ImportError(f"{'.'.join(names)} is another file, {module.__file__}")
        return module
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[name])
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _ready(found: typing.Any, words: Words) -> Program | None:
    """The Program that a thing is or makes; None for a function that still needs arguments."""
    if not callable(found) and not isinstance(found, Program):
        raise TargetError(
            f"program {words.target}: is of type {type(found).__name__}; name a Program or a function of arrays."
        )
    made = found if isinstance(found, Program) else _made(found, words)
    if made is not None and words.rename:
        raise TargetError(
            f"--rename-{words.name}: {words.target} is a Program and names its leaves itself; leave it out."
        )
    return made


def _made(found: Callable[..., typing.Any], words: Words) -> Program | None:
    try:
        signature = inspect.signature(found)
        signature.bind()
    except (TypeError, ValueError):
        return None
    if signature.parameters and words.args is not None:
        return None
    with _contained("program", words.target, "cannot be called without arguments"):
        made = found()
    if isinstance(made, Program):
        return made
    if not signature.parameters:
        raise TargetError(
            f"program {words.target}: takes no arguments and returns no Program but {type(made).__name__}; return one."
        )
    return None


def _refuse_unused(made: list[Program | None], a: Words, b: Words) -> None:
    own = b.args if b.args != a.args else None
    if made[1] is not None and own is not None:
        raise TargetError(f"--args-b {own}: {b.target} is a Program and has its arguments; leave the option out.")
    if made[0] is not None and made[1] is not None and a.args is not None:
        raise TargetError(f"--args {a.args}: both sides are Programs and have their arguments; leave the option out.")


def _arguments(found: typing.Any, words: Words, like: Program | None) -> tuple[tuple[typing.Any, ...], str]:
    """A function's arguments, and where they are from if nobody gave them."""
    given = _given(words)
    if given is not None:
        return given, ""
    inferred = arguments.infer(found)
    if inferred is None and like is None:
        raise TargetError(
            f"program {words.target}: is a function of arrays and no arguments are given; add {arguments.EXAMPLE}."
        )
    args = _abstract(like.args) if inferred is None and like is not None else inferred or ()
    source = "its annotations and defaults" if inferred is not None else "the other side"
    return args, f"arguments of {words.target}, from {source}: {arguments.in_words(args)}"


def _given(words: Words) -> tuple[typing.Any, ...] | None:
    """The arguments that a side's text means."""
    text = words.args
    if text is None:
        return None
    if ":" not in text or any(mark in text for mark in '[]{}"'):
        return arguments.read(text)
    found = load(text, "--args")
    if callable(found):
        with _contained("--args", text, "cannot be called without arguments"):
            found = found()
    if not isinstance(found, list | tuple):
        raise TargetError(
            f"--args {text}: is of type {type(found).__name__}; make it a tuple of arguments, (x,) for one argument."
        )
    return tuple(found)


def _abstract(args: tuple[typing.Any, ...]) -> tuple[typing.Any, ...]:
    def shape(leaf: typing.Any) -> typing.Any:
        return leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

    return jax.tree.map(shape, args)


def _fits(found: Callable[..., typing.Any], args: tuple[typing.Any, ...], words: Words) -> None:
    """Refuses a number of arguments that the function does not take."""
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args)
    except TypeError as error:
        option = "--args-b" if words.name == "b" else "--args"
        raise TargetError(
            f"program {words.target}: cannot be called with {len(args)} positional argument(s) ({error});"
            f" give {option} what {signature} takes, or name a function that takes no other."
        ) from None


class Names:
    """Names of leaves: a loaded function's, a JSON object's, or the paths themselves.

    An input's path starts with its argument's position, an output's with the word `output`.
    """

    def __init__(self, text: str | None, option: str):
        self.text, self.option = text, option
        self.function: Naming | None = None
        self.table: dict[str, str] = {}
        if text is not None and text.lstrip().startswith("{"):
            self.table = self._read(text)
        elif text is not None:
            self.function = load(text, option)
            if not callable(self.function):
                kind = type(self.function).__name__
                raise TargetError(f"{option} {text}: is of type {kind}; name a function from a path to a name.")

    def _read(self, text: str) -> dict[str, str]:
        example = 'write for example {"0/kernel": "0/w"}'
        try:
            table = json.loads(text)
        except ValueError as error:
            raise TargetError(f"{self.option} {text}: is not JSON ({error}); {example}.") from None
        wrong = [name for name in table.values() if not isinstance(name, str)]
        if wrong:
            raise TargetError(f"{self.option} {text}: the name {json.dumps(wrong[0])} is no string; {example}.")
        return table

    def of_input(self, path: Path) -> typing.Any:
        """The name of an input leaf."""
        joined = "/".join(path)
        if self.function is None:
            return self.table.get(joined, joined)
        with _contained(self.option, str(self.text), f"fails for the leaf {joined}"):
            return self.function(path)

    def of_output(self, path: Path) -> typing.Any:
        """The name of an output leaf; a lone array is called `output`."""
        name = self.of_input((OUTPUT, *path))
        return name.removeprefix(f"{OUTPUT}/") if isinstance(name, str) else name

    def check(self, leaves: list[str]) -> None:
        """Refuses a name for a leaf that is not among these."""
        for path in sorted(set(self.table) - set(leaves)):
            more = f" and {len(leaves) - 8} more" if len(leaves) > 8 else ""
            raise TargetError(f"{self.option}: there is no leaf {path}; there are {', '.join(leaves[:8])}{more}.")


def _name(found: typing.Any, words: Words) -> str:
    return found.name if isinstance(found, Program) else words.target.rpartition(":")[2]


@contextlib.contextmanager
def _contained(what: str, target: str, failed: str = "failed", fix: str = "see to it that it runs") -> Iterator[None]:
    """Runs a user's code: what it prints goes to stderr, what it raises becomes one sentence, also an exit."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:
        module = type(error).__module__.partition(".")[0]
        if isinstance(error, ValueError) and module == __name__.partition(".")[0]:
            raise
        said = (str(error).strip() or "no message").splitlines()[0].rstrip(".")
        kind = "" if isinstance(error, ImportError | AttributeError | OSError) else f"{type(error).__name__}: "
        raise TargetError(f"{what} {target}: {failed} ({kind}{said}); {fix}.") from error
