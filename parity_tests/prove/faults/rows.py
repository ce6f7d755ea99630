"""One row of the table of faults: what it is, how it is planted, and whether the first finding names its line.

IDs are those of the list of migration faults that the project was given; the wording is our own.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp

from harness import Program, Verdict, prove
from harness.subjects.compact import SUBJECT
from models.config import Remat

from .planting import Span, edited, edited_twin, marked


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the prover said about a planted fault; `lines` are the statements that it has to name, one of them."""

    verdict: Verdict
    lines: tuple[Span, ...]

    @property
    def finding(self) -> typing.Any:
        """The first finding, or None."""
        return self.verdict.findings[0] if self.verdict.findings else None

    @property
    def noticed(self) -> bool:
        """Whether the programs were told apart: not proved, or proved and executed otherwise."""
        return self.finding is not None and (not self.verdict or self.finding.kind == "execution")

    @property
    def named(self) -> str:
        """The planted line as the finding names it; empty where it does not."""
        if not self.noticed:
            return ""
        text = "\n".join([*self.finding.sources, *self.finding.operations, self.finding.detail])
        return next((str(span) for span in self.lines if span.names(text)), "")


@dataclasses.dataclass(frozen=True)
class Room:
    """A fault of something the twins do not have: an honest function, one by another hand, and the edit of the first.

    `lost` is a text of the other hand's function: the line that has no counterpart where the fault leaves one out.
    """

    id: str
    what: str
    honest: Callable[..., typing.Any]
    other: Callable[..., typing.Any]
    args: tuple[typing.Any, ...]
    old: str
    new: str
    lost: str = ""

    def honest_verdict(self) -> Verdict:
        """Of the two honest functions."""
        return prove(Program(self.other, self.args, name="honest"), Program(self.honest, self.args, name="port"))

    def outcome(self) -> Outcome:
        """Of the honest function by the other hand against the faulty one."""
        faulty, line = edited(self.honest, self.old, self.new)
        lines = (line, marked(self.other, self.lost)) if self.lost else (line,)
        verdict = prove(Program(self.other, self.args, name="honest"), Program(faulty, self.args, name="faulty"))
        return Outcome(verdict, lines)


@dataclasses.dataclass(frozen=True)
class Twin:
    """A fault in a file of `models`: against the other twin, or if `common` in both alike, against its former self.

    `lost` names the file and text of the honest side's line where the fault leaves something out.
    """

    id: str
    what: str
    label: str
    step: str
    path: str
    old: str
    new: str
    common: bool = False
    mesh: str | None = None
    lost: tuple[str, str] | None = None

    @property
    def twin(self) -> str:
        """The twin whose program is planted."""
        room = self.path.split("/")[1]
        return room if room in SUBJECT.backends else "nnx"

    def outcome(self) -> Outcome:
        """Of the honest program against the planted one."""
        case = SUBJECT.case(setups()[self.label], self.step, label=self.label, mesh=self.mesh)
        against = self.twin if self.common else next(name for name in SUBJECT.backends if name != self.twin)
        honest = SUBJECT.program(against, case)
        honest.name = "former" if self.common else against
        with edited_twin(self.twin, self.path, self.old, self.new) as line:
            verdict = prove(honest, SUBJECT.program(self.twin, case))
        return Outcome(verdict, (line, *([_line_of(*self.lost)] if self.lost else ())))


@dataclasses.dataclass(frozen=True)
class Untraced:
    """A fault that no trace of a step shows, why, and what notices it instead."""

    id: str
    what: str
    why: str
    caught: str


Row = Room | Twin | Untraced


@functools.cache
def setups() -> dict[str, typing.Any]:
    """The subject's small setups by label, each with full remat too."""
    made = SUBJECT.tiny_setups() | SUBJECT.variants()
    remat = {
        f"{label}-remat": dataclasses.replace(setup, model=setup.model.replace(remat=Remat.FULL))
        for label, setup in made.items()
    }
    return made | remat


def _line_of(path: str, text: str) -> Span:
    from .planting import ROOT, span

    content = (ROOT / path).read_text(encoding="utf-8")
    assert content.count(text) == 1, f"{path}: {text!r} stands there {content.count(text)} times"
    return span(ROOT / path, content, content.index(text))


def f(*shape: int, dtype: typing.Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """A float argument."""
    return jax.ShapeDtypeStruct(shape, dtype)


def i(*shape: int) -> jax.ShapeDtypeStruct:
    """An integer argument."""
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def b(*shape: int) -> jax.ShapeDtypeStruct:
    """A boolean argument."""
    return jax.ShapeDtypeStruct(shape, jnp.bool_)


def key() -> typing.Any:
    """A random key."""
    return jax.eval_shape(lambda: jax.random.key(0))
