"""A planted fault: data that says what to break, and a context manager that breaks it and always mends it.

It knows no framework. Faults of a subject are declared beside that subject.
"""

import contextlib
import dataclasses
import enum
import functools
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator


class FaultError(ValueError):
    """A fault that cannot be planted, or that was planted and never reached."""


class FaultKind(enum.StrEnum):
    """Who can notice a fault."""

    DIFFERS = "differs"  # one backend only: a parity check must see it
    COMMON = "common"  # the same in both: only an oracle, an invariant or a witness can see it
    TOOLING = "tooling"  # in the harness itself: the meta tests must see it


@dataclasses.dataclass(frozen=True)
class Fault:
    """What to break.

    `target` is `module:attribute.path`; `patch` takes the original attribute and returns its replacement. `caught_by`
    names the observable that has to notice, `localised` texts that its explanation has to hold.
    """

    id: str
    description: str
    kind: FaultKind
    target: str
    patch: Callable[[typing.Any], typing.Any]
    caught_by: str = ""
    localised: tuple[str, ...] = ()


@dataclasses.dataclass
class Planted:
    """A fault in place. `hits` counts the calls of a patched function; it stays None where a call cannot be counted."""

    fault: Fault
    hits: int | None = None

    def require_hit(self) -> None:
        """Raises FaultError when the broken code never ran: then nothing was tested."""
        if self.hits == 0:
            raise FaultError(
                f"fault {self.fault.id}: {self.fault.target} was never called; plant it where the case passes."
            )


@contextlib.contextmanager
def planted(fault: Fault) -> Iterator[Planted]:
    """Replaces the target while the block runs, and puts the very same object back, whatever happens.

    Traces that jax has cached are dropped before and after: a cached trace would hide the fault, or keep it.

    Raises:
        FaultError: when the target is not there, or the patch gives the original back.
    """
    owner, name, original = _resolve(fault)
    state = Planted(fault)
    function = original.__func__ if isinstance(original, staticmethod | classmethod) else original
    replacement = _counted(fault.patch(function), state)
    if replacement is function:
        raise FaultError(f"fault {fault.id}: the patch returns {fault.target} unchanged; it has to break something.")
    if isinstance(original, staticmethod | classmethod):
        replacement = type(original)(replacement)
    _forget_traces()
    setattr(owner, name, replacement)
    try:
        yield state
    finally:
        setattr(owner, name, original)
        _forget_traces()


def _resolve(fault: Fault) -> tuple[typing.Any, str, typing.Any]:
    """The object that holds the attribute itself (not by inheritance), the attribute's name, and its raw value."""
    module, _, path = fault.target.partition(":")
    *parents, name = path.split(".")
    try:
        owner = functools.reduce(getattr, parents, importlib.import_module(module))
        original = inspect.getattr_static(owner, name)
    except (ImportError, AttributeError) as error:
        raise FaultError(
            f"fault {fault.id}: target {fault.target} is not there ({error}); name module:attribute."
        ) from None
    if name not in vars(owner):
        raise FaultError(f"fault {fault.id}: {fault.target} is inherited; name the class that defines it.")
    return owner, name, original


def _counted(replacement: typing.Any, state: Planted) -> typing.Any:
    if not isinstance(replacement, types.FunctionType):
        return replacement
    state.hits = 0

    @functools.wraps(replacement)
    def counting(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:
        state.hits = (state.hits or 0) + 1
        return replacement(*args, **kwargs)

    return counting


def _forget_traces() -> None:
    jax = sys.modules.get("jax")
    if jax is not None:
        jax.clear_caches()
