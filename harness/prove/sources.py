"""Where an operation was written: source lines, stage path and the files of a trace. Resolved only when asked for.

Equations inside an inner jit or loop carry frames and scopes relative to it; those of the calling equations are joined.
"""

import dataclasses
import functools
import os
import re
import site
import sysconfig
import typing
from collections.abc import Iterable, Iterator

from jax.extend import source_info_util

from .terms import Node, Origin

FRAMES = 8  # how many of the project's frames a report shows

_HARNESS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_WRAPPERS = re.compile(r"^(rematted_computation|checkpoint|remat|while|body|cond|scan|closed_call|jit\(.*\)|[A-Z]\w*)$")


@functools.cache
def _library_roots() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    roots = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], *site.getsitepackages()}
    return tuple(os.path.abspath(root) + os.sep for root in roots)


@functools.cache
def is_project_file(name: str) -> bool:
    """Whether a file belongs to whoever is compared: no library, no harness, nothing without a file."""
    if name.startswith("<"):
        return False
    name = os.path.abspath(name)
    return not name.startswith((*_library_roots(), _HARNESS))


@functools.cache
def shown(name: str) -> str:
    """A path as reports print it: relative where the file lies under the current directory."""
    relative = os.path.relpath(name)
    return name if relative.startswith("..") else relative


@dataclasses.dataclass(frozen=True, eq=False)
class Recalled:
    """In place of an `Origin`, what is known of a term that was read from a record: its stage, and no line."""

    stage: tuple[str, ...]
    backward: bool
    order: int


def _chain(origin: Origin | Recalled | None) -> Iterator[Origin]:
    while isinstance(origin, Origin):
        yield origin
        origin = origin.caller


def source_line(node: Node) -> str:
    """`file:line (function)` of the project's innermost frame, then `< ` its callers, across inlined calls.

    A twin's own line is often the caller of the shared maths, so the innermost frame alone would name neither twin.
    """
    return " < ".join(lines(node.origin)[:FRAMES])


def lines(origin: Origin | Recalled | None) -> list[str]:
    """The project's frames around an equation, innermost first; else where the library has it."""
    fallback = ""
    found: list[str] = []
    for place in _chain(origin):
        traceback = place.equation.source_info.traceback
        for frame in traceback.frames if traceback is not None else ():
            line = f"{shown(frame.file_name)}:{frame.line_num} ({frame.function_name})"
            if is_project_file(frame.file_name) and line not in found:
                found.append(line)
        fallback = fallback or source_info_util.summarize(place.equation.source_info)
    return found or [fallback] * bool(fallback)


def loops_around(origin: Origin | Recalled | None) -> list[str]:
    """The loops that an equation lies in, innermost first: kind, length and line."""
    found = []
    for place in _chain(origin):
        params, name = place.equation.params, place.equation.primitive.name
        if place is not origin and name in ("scan", "while"):
            length = f" of length {params['length']}" if name == "scan" else ""
            found.append(f"{name}{length} at {(lines(place) or ['an unknown line'])[0]}")
    return found


def is_backward(origin: Origin | Recalled | None) -> bool:
    """Whether an operation belongs to a backward pass: jax transposed it out of a forward one."""
    if isinstance(origin, Recalled):
        return origin.backward
    return any(
        getattr(entry, "name", "") == "transpose" and type(entry).__name__ == "Transform"
        for place in _chain(origin)
        for entry in place.equation.source_info.name_stack.stack
    )


def scopes(origin: Origin | Recalled | None) -> tuple[str, ...]:
    """The named scopes around an operation, outermost first, without the words that transformations add."""
    if isinstance(origin, Recalled):
        return origin.stage
    words: list[str] = []
    for place in reversed(list(_chain(origin))):
        for entry in place.equation.source_info.name_stack.stack:
            if type(entry).__name__ == "Scope":
                words += [word.split(".")[0] for word in entry.name.split("/")]
    return tuple(word for word in words if word and not _WRAPPERS.match(word))


def files(equations: Iterable[typing.Any]) -> tuple[str, ...]:
    """The project files with a frame in any equation's traceback, sorted. Layers of one line have equal tracebacks."""
    tracebacks = {equation.source_info.traceback for equation in equations}
    found = frozenset().union(*map(_files, tracebacks - {None}))
    return tuple(sorted(map(shown, found)))


@functools.lru_cache(maxsize=8192)  # the same lines are traced again and again, by other configs and by both sides
def _files(traceback: typing.Any) -> frozenset[str]:
    """The project files with a frame in a traceback."""
    frames = traceback.raw_frames()[0]
    codes = dict(zip(map(id, frames), frames, strict=True))  # to hash a code object is slow
    return frozenset([code.co_filename for code in codes.values() if is_project_file(code.co_filename)])
