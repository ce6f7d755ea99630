"""What a program does beside computing its outputs: calls of Python, printing. Each kind is a history, one more term.

A history is a cell like any reference: an operation adds itself to it, with what it was given, and loops and branches
carry it as they carry references. So two programs have one history when they do the same things to the same values in
the same order, as often. What `jax.debug` prints cannot change an output: it has a history of its own. A pure callback
has none: it is a function of its operands.
"""

import sys
import typing

import numpy as np

from .callables import callable_token, loose_token, name_of
from .params import token
from .primitives import by_name
from .refs import Cell, cells_of

IO, DEBUG = "side effects", "debug output"
_BOOL = np.dtype(np.bool_)


def _types(**names: str) -> dict[type, str | None]:
    """Types of jax's effects by module, where this jax has them; which history they add to."""
    found: dict[type, str | None] = {}
    for place, words in names.items():
        module = sys.modules.get("jax._src." + place.replace("__", "."))
        for word in words.split():
            name, _, kind = word.partition(":")
            if hasattr(module, name):
                found[getattr(module, name)] = {"io": IO, "debug": DEBUG, "": None}.get(kind, kind)
    return found


# None: a whole program that has it is no function of its arguments alone. "local": it ends where it began, with the
# body that names an axis or makes a reference; mesh contexts and cells say it all.
_KINDS = _types(
    callback="IOEffect:io OrderedIOEffect:io",
    debugging="DebugEffect:debug OrderedDebugEffect:debug",
    core="NamedAxisEffect InternalMutableArrayEffect:local",
    lax__lax="NoDCEEffect:local",
    state__types="ReadEffect WriteEffect AccumEffect",
)


class Histories:
    """The history of each kind at this point of a program."""

    def __init__(self, graph):
        self.cells = {kind: Cell(graph.leaf("history", token(kind), (), _BOOL, attrs=kind)) for kind in (IO, DEBUG)}

    def touched(self, equation) -> list[Cell]:
        """The histories that an equation may add to. An effect of an unknown type is one of the outside world."""
        kinds = {_KINDS.get(type(effect), IO) for effect in equation.effects}
        return [cell for kind, cell in self.cells.items() if kind in kinds]


def unmodelled(effects: typing.Iterable[typing.Any]) -> list[str]:
    """The effects of a whole program that no history holds: references that are its inputs, unknown types."""
    return sorted(str(effect) for effect in effects if _KINDS.get(type(effect)) is None)


def touched(evaluator, equation, operands) -> list[Cell]:
    """Every cell that an equation may change: references among its operands, histories."""
    if not equation.effects:
        return []
    return [*cells_of(operands), *evaluator.histories.touched(equation)]


def contents(operands) -> list[typing.Any]:
    """The operands, references by what they hold."""
    return [operand.value if type(operand) is Cell else operand for operand in operands]


def handlers(evaluator) -> dict[typing.Any, typing.Any]:
    """Calls of Python and printing."""
    calls = _Calls(evaluator)
    table = {}
    for name, handler in (
        ("pure_callback", calls.pure), ("io_callback", calls.io), ("debug_callback", calls.debug),
        ("debug_print", calls.debug), ("dce_sink", calls.nothing),
    ):  # fmt: skip
        table.update(dict.fromkeys(by_name((name,)), handler))
    return table


class _Calls:
    def __init__(self, evaluator):
        self.evaluator = evaluator

    def pure(self, equation, operands, origin, used):
        """A function of the operands, the same one exactly if it is the same Python object."""
        del used
        self.evaluator.calls_python = True
        return self._nodes("pure_callback", equation, operands, origin)

    def io(self, equation, operands, origin, used):
        """A call that also depends on what was done before, and is something done."""
        del used
        self.evaluator.calls_python = True
        history = self.evaluator.histories.cells[IO]
        before = [history.value, *operands]
        self._add(history, "io_callback", equation, before, origin)
        return self._nodes("io_callback", equation, before, origin)

    def debug(self, equation, operands, origin, used):
        """Something shown. It has no results."""
        del used
        history = self.evaluator.histories.cells[DEBUG]
        self.evaluator.facts.at = origin
        self.evaluator.facts.add(DEBUG, str(equation.params.get("fmt", "a call of Python")))
        self._add(history, equation.primitive.name, equation, [history.value, *operands], origin)
        return []

    def nothing(self, equation, operands, origin, used):
        """A value that is only kept alive."""
        del equation, operands, origin, used
        return []

    def _add(self, history, op, equation, operands, origin):
        data, attrs = self._token(equation)
        history.value = self.evaluator.graph.raw(op, data, attrs, tuple(operands), (), _BOOL, origin)

    def _nodes(self, op, equation, operands, origin):
        data, attrs = self._token(equation)
        return [
            self.evaluator.graph.raw(op, data + b"result %d" % k, {**attrs, "result": k}, tuple(operands),
                                     tuple(var.aval.shape), var.aval.dtype, origin)
            for k, var in enumerate(equation.outvars)
        ]  # fmt: skip

    def _token(self, equation) -> tuple[bytes, dict[str, typing.Any]]:
        params = {key: value for key, value in equation.params.items() if key not in _RESULTS}
        attrs = {key: params[key] for key in ("callback", "fmt", "ordered", "effect") if key in params}
        data = self.evaluator.context
        if "callback" in params:
            attrs["callback"] = name_of(params["callback"])
            data += b"callback" + callable_token(params.pop("callback"))
        if "effect" in params:
            data += b"effect" + token(type(params.pop("effect")).__name__)
        return data + loose_token(params), attrs


# The results' types are those of the equation's results, and where they are placed is no part of their value.
_RESULTS = frozenset({"result_avals", "sharding"})
