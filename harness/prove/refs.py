"""Mutable references as values: a reference is a cell, and what it holds at this point of the program is a term.

One variable is one cell: jax lets no two variables of a program be one reference, and a cell that is passed on to a
called function or a loop body stays the cell it is. How a part of a reference is read or written is what jax's own
rules make of it (`discharge`); an operation for which there is none is not modelled.
"""

import sys
import typing

import jax

from harness import settings

from .params import Unmodelled
from .primitives import by_name

ACCESS = by_name(("get", "swap", "addupdate"))


class Cell:
    """A mutable reference: `value` is its contents at this point of the program."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value

    def __getattr__(self, name: str) -> typing.Any:
        raise Unmodelled("a reference where an array is expected")


def handlers(evaluator) -> dict[typing.Any, typing.Any]:
    """What makes, reads, writes and ends references."""
    references = _References(evaluator)
    table = dict.fromkeys(ACCESS, references.access)
    for name, handler in (
        ("new_ref", references.new), ("empty_ref", references.empty), ("freeze", references.freeze),
        ("free_ref", references.free), ("run_state", references.run_state),
    ):  # fmt: skip
        table.update(dict.fromkeys(by_name((name,)), handler))
    return table


def late_handlers(evaluator) -> dict[str, typing.Any]:
    """The same for references in kernels."""
    references = _References(evaluator)
    return {
        "primitives.masked_load": references.access,
        "primitives.masked_swap": references.access,
        "primitives.run_scoped": references.run_scoped,
    }


def cells_of(operands) -> list[Cell]:
    """The references among operands, each once."""
    return list({id(operand): operand for operand in operands if type(operand) is Cell}.values())


def is_whole(equation) -> bool:
    """Whether an access names no part of its reference."""
    tree = equation.params.get("tree")
    return tree is not None and tree.num_leaves == 0 and tree == jax.tree.structure(())


class _References:
    def __init__(self, evaluator):
        self.evaluator = evaluator

    def new(self, equation, operands, origin, used):
        """A cell with the first contents. Where it is kept is no part of the value."""
        del equation, origin, used
        return [Cell(operands[0])]

    def empty(self, equation, operands, origin, used):
        del operands, used
        return [Cell(self.evaluator.unmodelled(equation, (), origin, "a reference that was never written")[0])]

    def freeze(self, equation, operands, origin, used):
        del equation, origin, used
        return [_cell(operands[0]).value]

    def free(self, equation, operands, origin, used):
        del equation, operands, origin, used
        return []

    def access(self, equation, operands, origin, used):
        """Reads or writes of a part: jax's rule as a function of the contents, inlined."""
        del used
        cells = cells_of(operands)
        if len(cells) != sum(type(operand) is Cell for operand in operands) or not cells:
            raise Unmodelled("an access that is not to distinct references")
        if is_whole(equation) and equation.primitive in ACCESS:
            return self._whole(equation, operands, origin)
        pure, written = _discharged(equation)
        outs = self.evaluator.closed(pure, [x.value if type(x) is Cell else x for x in operands], origin)
        for place, value in zip(written, outs, strict=False):
            _cell(operands[place]).value = value
        return outs[len(written) :]

    def _whole(self, equation, operands, origin):
        name, cell = ACCESS[equation.primitive], _cell(operands[0])
        before = cell.value
        if name == "swap":
            cell.value = operands[1]
        elif name == "addupdate":
            cell.value = self.evaluator.add(before, operands[1], origin)
        return [] if name == "addupdate" else [before]

    def run_state(self, equation, operands, origin, used):
        """Values become cells for the time of the body; the results are what they hold in the end."""
        del used
        params = equation.params
        if not all(params["is_initialized"]):
            raise Unmodelled("a reference that was never written")
        if cells_of(operands):
            raise Unmodelled("a reference inside the state of another")
        cells = [Cell(operand) for operand in operands]
        self.evaluator.jaxpr(params["jaxpr"], (), cells, origin)
        return [cell.value for cell in cells]

    def run_scoped(self, equation, operands, origin, used):
        """A body with references of its own, whose first contents are unknown."""
        jaxpr = equation.params["jaxpr"]
        if equation.params["collective_axes"] or any(equation.params["ref_transforms"]):
            raise Unmodelled("scratch memory shared between devices or threads, or reshaped")
        scratch = []
        for var in jaxpr.invars:
            contents = self.evaluator.unknown(equation, var.aval, origin, "scratch memory that was never written")
            scratch.append(Cell(contents))
        return self.evaluator.jaxpr(jaxpr, operands, scratch, origin, used)


def _cell(operand) -> Cell:
    if type(operand) is not Cell:
        raise Unmodelled("a reference that is an input of the program")
    return operand


def _discharged(equation) -> tuple[typing.Any, list[int]]:
    """A closed jaxpr of contents and operands: the new contents of the references written, then the results."""
    module = sys.modules.get("jax._src.state.discharge")
    rule = getattr(module, "_discharge_rules", {}).get(equation.primitive)
    if rule is None:
        raise Unmodelled("an access to a reference that jax gives no pure form")
    in_avals, out_avals = ([var.aval for var in side] for side in (equation.invars, equation.outvars))
    written: list[int] = []

    def pure(*args):
        after, results = rule(in_avals, out_avals, *args, **equation.params)
        written[:] = [place for place, value in enumerate(after) if value is not None]
        results = results if equation.primitive.multiple_results else [results]
        return [after[place] for place in written], list(results)

    args = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in in_avals]
    try:
        with settings.tracing(), _as_written(equation):
            made = jax.make_jaxpr(pure)(*args)
    except Exception as error:
        raise Unmodelled(f"an access to a reference that jax cannot make pure ({type(error).__name__})") from error
    return made, written


def _as_written(equation):
    """The frames and scopes of the equation, for what is traced in its place."""
    info = equation.source_info
    return sys.modules["jax._src.source_info_util"].user_context(info.traceback, name_stack=info.name_stack)
