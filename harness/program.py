"""A program: a pure function, its arguments and the canonical names of its leaves. Everything else operates on these.

Tracing happens once, under the harness's own settings, and keeps source information. Nothing is compiled or run here.
"""

import dataclasses
import functools
import math
import operator
import typing
from collections.abc import Callable, Sequence

import jax

from . import settings, stacking
from .stacking import Row, Stacked

Path = tuple[str, ...]
Naming = Callable[[Path], "str | OneSided | Converted | Stacked"]


class ProgramError(ValueError):
    """A program that cannot be compared as it was given. The message names the leaf or the cause, and the fix."""


@dataclasses.dataclass(frozen=True)
class OneSided:
    """Answer of a naming function: this leaf has no partner on the other side, and that is meant."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Converted:
    """Answer of a naming function: compare this leaf as `dtype`, a declared conversion that the certificate lists."""

    name: str
    dtype: typing.Any


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of the argument or result tree. `dtype` is the program's own, `converted` the declared one or None.

    `row` says of which stacked array the leaf is a row.
    """

    name: str
    path: Path
    shape: tuple[int, ...]
    dtype: typing.Any
    weak_type: bool = False
    one_sided: str | None = None
    converted: typing.Any = None
    row: str = ""

    @property
    def compared_dtype(self) -> typing.Any:
        """The dtype in which the two sides are compared."""
        return self.dtype if self.converted is None else self.converted

    @property
    def num_elements(self) -> int:
        """Elements of the array; 1 for a scalar."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Traced:
    """A closed jaxpr whose inputs and outputs line up, one to one and in order, with the named leaves."""

    jaxpr: typing.Any
    inputs: tuple[Leaf, ...]
    outputs: tuple[Leaf, ...]
    environment: dict[str, str]


def key_strings(path: Sequence[typing.Any]) -> Path:
    """The keys of a jax tree path as plain strings: `(DictKey('w'), SequenceKey(0))` is `("w", "0")`."""
    return tuple([str(_key(entry)) for entry in path])


# jax's own entries have one of the attributes; to ask for each in turn would cost more than the rest of a name.
_KEYS = {
    jax.tree_util.DictKey: operator.attrgetter("key"),
    jax.tree_util.FlattenedIndexKey: operator.attrgetter("key"),
    jax.tree_util.SequenceKey: operator.attrgetter("idx"),
    jax.tree_util.GetAttrKey: operator.attrgetter("name"),
}


def _key(entry: typing.Any) -> typing.Any:
    known = _KEYS.get(type(entry))
    if known is not None:
        return known(entry)
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return entry


def _join(path: Path) -> str:
    return "/".join(path) if path else "output"


class Program:
    """`fn(*args)` with named leaves.

    Args:
        fn: a pure function of arrays.
        args: tuple of pytrees of arrays or `jax.ShapeDtypeStruct`.
        name_input: path of an argument leaf, its argument's position first, to canonical name (or `OneSided`,
            `Converted`, `Stacked`); default joins with `/`. A stacked leaf becomes a tuple of its rows in `args`.
        name_output: the same for a leaf of the result; a lone array has the empty path and the default name `output`.
        constant: of an output's canonical name, why it is the same whatever the input (a gradient that is meant to be
            zero), or None. An output that depends on no input is refused without such a reason, and one that has a
            reason and depends on an input is refused as well.
        sample: `sample(key) -> args` draws valid concrete arguments; needed to execute when `args` are abstract.
        name: how reports call the program; default the function's own name.
    """

    def __init__(
        self,
        fn: Callable[..., typing.Any],
        args: Sequence[typing.Any],
        *,
        name_input: Naming | None = None,
        name_output: Naming | None = None,
        constant: Callable[[str], str | None] = lambda name: None,
        sample: Callable[[jax.Array], Sequence[typing.Any]] | None = None,
        name: str | None = None,
    ):
        if not callable(fn):
            raise ProgramError(f"fn must be a function of arrays, not {type(fn).__name__}: pass the function itself")
        if not isinstance(args, list | tuple):
            raise ProgramError(
                f"args must be a tuple of arguments, not {type(args).__name__}: write (x,) for one argument"
            )
        self.fn = fn
        self._call, self.args = fn, tuple(args)
        self._whole: dict[Path, Stacked] = {}  # the stacked arguments
        self.name = name or getattr(fn, "__name__", type(fn).__name__)
        self.sample, self.constant = sample, constant
        self._name_input = name_input or _join
        self._name_output = name_output or _join
        self._take_apart()

    def __repr__(self) -> str:
        return f"Program({self.name})"

    @functools.cached_property
    def inputs(self) -> tuple[Leaf, ...]:
        """The argument leaves in tree order."""
        flat, _ = jax.tree_util.tree_flatten_with_path(self.args)
        with settings.tracing():
            named = [(key_strings(path), self._aval(key_strings(path), leaf)) for path, leaf in flat]
        return self._leaves(named, self._name_input, "input")

    @property
    def outputs(self) -> tuple[Leaf, ...]:
        """The result leaves in tree order. Traces the program."""
        return self.trace().outputs

    @property
    def is_concrete(self) -> bool:
        """Whether the arguments hold values."""
        return not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(self.args))

    def draw(self, key: jax.Array) -> tuple[typing.Any, ...]:
        """Concrete arguments: drawn by `sample` if there is one, else the arguments given.

        Raises:
            ProgramError: the arguments are abstract and there is no `sample`.
        """
        if self.sample is not None:
            drawn = tuple(self.sample(key))
            if jax.tree.structure(drawn) == jax.tree.structure(self.args):
                return drawn
            return stacking.apart(drawn, self._whole, key_strings)
        if self.is_concrete:
            return self.args
        raise ProgramError(
            f"program '{self.name}' has abstract arguments: give it sample=..., a function from a key to arguments"
        )

    def _take_apart(self) -> None:
        """Make the rows of stacked arguments leaves of their own."""
        found = self._stacks(self.args, self._name_input)
        if not found:
            return
        fn, structure = self.fn, jax.tree.structure(self.args)
        self._call = lambda *args: fn(*stacking.together(args, structure, found, key_strings))
        self.args = stacking.apart(self.args, found, key_strings)
        self._name_input = stacking.naming(self._name_input, found)
        self._whole = found

    def _stacks(self, tree: typing.Any, naming: Naming) -> dict[Path, Stacked]:
        flat, _ = jax.tree_util.tree_flatten_with_path(tree)
        try:
            return stacking.stacks([(key_strings(path), leaf) for path, leaf in flat], naming)
        except ValueError as error:
            raise ProgramError(f"program '{self.name}': {error}") from error

    def trace(self) -> Traced:
        """The traced program, cached.

        Raises:
            ProgramError: the function cannot be traced, or its leaves cannot be named.
        """
        return self._traced

    @functools.cached_property
    def _traced(self) -> Traced:
        inputs = self.inputs
        with settings.tracing():
            try:
                closed, shapes = jax.make_jaxpr(self._call, return_shape=True)(*self.args)
                found = self._stacks(shapes, self._name_output)
                if found:
                    call = self._call
                    rows = functools.partial(stacking.apart, found=found, keys=key_strings)
                    closed, shapes = jax.make_jaxpr(lambda *args: rows(call(*args)), return_shape=True)(*self.args)
            except ProgramError:
                raise
            except Exception as error:
                cause = (str(error).strip() or "no message").splitlines()[0].rstrip(".:")
                raise ProgramError(
                    f"program '{self.name}' cannot be traced: {type(error).__name__}: {cause};"
                    " it must be a function of arrays that jax can trace"
                ) from error
        flat, _ = jax.tree_util.tree_flatten_with_path(shapes)
        named = [(key_strings(path), aval) for (path, _), aval in zip(flat, closed.out_avals, strict=True)]
        outputs = self._leaves(named, stacking.naming(self._name_output, found), "output")
        return Traced(closed, inputs, outputs, settings.environment())

    def _aval(self, path: Path, leaf: typing.Any) -> typing.Any:
        try:
            return leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
        except Exception as error:
            raise ProgramError(
                f"program '{self.name}': input leaf {_join(path)} is a {type(leaf).__name__}, not an array:"
                " close over it or make it an array"
            ) from error

    def _leaves(self, named: list[tuple[Path, typing.Any]], naming: Naming, what: str) -> tuple[Leaf, ...]:
        leaves = tuple(self._leaf(path, aval, naming, what) for path, aval in named)
        seen: dict[str, Path] = {}
        for leaf in leaves:
            if leaf.name in seen:
                raise ProgramError(
                    f"program '{self.name}': {what} leaves {_join(seen[leaf.name])} and {_join(leaf.path)} are both"
                    f" named '{leaf.name}': the naming function must be one to one"
                )
            seen[leaf.name] = leaf.path
        return leaves

    def _leaf(self, path: Path, aval: typing.Any, naming: Naming, what: str) -> Leaf:
        answer = naming(path)
        fields = {
            "path": path,
            "shape": tuple(aval.shape),
            "dtype": aval.dtype,
            "weak_type": bool(getattr(aval, "weak_type", False)),
        }
        if isinstance(answer, OneSided):
            return Leaf(f"{_join(path)} (one-sided)", one_sided=answer.reason, **fields)
        if isinstance(answer, Converted):
            return Leaf(answer.name, converted=jax.numpy.dtype(answer.dtype), **fields)
        if isinstance(answer, Row):
            return Leaf(answer.name, row=answer.words, **fields)
        if not isinstance(answer, str):
            raise ProgramError(
                f"program '{self.name}': the naming function answered {type(answer).__name__} for {what} leaf"
                f" {_join(path)}: it must return a str, OneSided(reason), Converted(name, dtype) or"
                " Stacked(names, axis)"
            )
        return Leaf(answer, **fields)
