"""From a jaxpr to terms: dead code left out, calls inlined, loops solved, every other equation one node.

Weak types are no part of a term. They steer dtype promotion while Python runs; the traced equations carry the dtypes
that came out. Weak types of a program's own leaves, which steer whoever calls it, are execution facts.
"""

import dataclasses
import functools
import typing
from collections.abc import Sequence

import numpy as np
from jax.core import Tracer
from jax.extend.core import Literal

from . import control, draws, effects, execution, kernels, loops, manual, refs, rules
from .params import Params, Unmodelled, array_token, params_token, token
from .primitives import (
    CALLS,
    IDENTITIES,
    IGNORED,
    LATE_PURE,
    LINEAR_SOLVE,
    PURE,
    QUICK,
    TIE,
    late,
    reason,
)
from .refs import Cell
from .terms import Graph, Node, Origin, free_variables, reachable


class Evaluator:
    """Builds the terms of one program. What it cannot model becomes a node that equals nothing, with the reason."""

    def __init__(
        self, name: str, allow: rules.Strength, *,
        early: bool, explained: bool = False, shared: "Evaluator | None" = None, unroll: int = 0,
    ):
        """`shared` lends its graph: then equal terms of both programs are one node, built once. `early` lifts draws.

        `explained` keeps every place where a term was written.
        """
        self.name, self.unroll = name, unroll
        self.graph = Graph(rules.table(allow)) if shared is None else shared.graph
        self.graph.written = {} if explained else self.graph.written
        self.graph.rebuilders.update(loops.REBUILDERS | {"cond": control.rebuild_cond})
        self.facts = execution.Facts()
        self.has_unmodelled = self.has_draws = self.calls_python = False
        self.early = draws.Early() if early else None
        self.read: list[typing.Any] = []  # every equation that counts
        self.histories = effects.Histories(self.graph)
        self.manual: manual.Context | None = None  # inside a shard_map
        self.is_sealed = False  # inside a body that only its digest stands for
        self._order = 0
        self._quick: dict[tuple[typing.Any, ...], list[Node]] = {} if shared is None else shared._quick
        self._operations: dict[typing.Any, Operation] = {} if shared is None else shared._operations
        self._literals: dict[tuple[typing.Any, ...], Node] = {} if shared is None else shared._literals
        self._handlers = {
            **dict.fromkeys(CALLS, self._call),
            **dict.fromkeys(IDENTITIES, self._identity),
            LINEAR_SOLVE: self._linear_solve,
            TIE: lambda equation, operands, origin, used: operands[1:],
            **control.handlers(self),
            **manual.handlers(self),
            **effects.handlers(self),
            **refs.handlers(self),
            **kernels.handlers(self),
        }
        self._late = {
            "compute_on.compute_on": self._compute_on,
            "shard_alike.shard_alike": self._identity,
            **refs.late_handlers(self),
            **kernels.late_handlers(self),
        }

    def finish(self) -> None:
        """Forget the handlers, which hold the evaluator: its terms are then freed at once, and not by a collection."""
        self._handlers.clear()
        self._late.clear()

    @property
    def context(self) -> bytes:
        """What an operation means beside its operands: the mesh whose devices run it, or nothing."""
        return b"" if self.manual is None else self.manual.token

    def closed(self, closed, args: Sequence[Node], caller: Origin | None, used=None) -> list[Node]:
        """The outputs of a closed jaxpr, or of an open one without constants."""
        jaxpr = getattr(closed, "jaxpr", closed)
        consts = [
            self._captured(var, value)
            for var, value in zip(jaxpr.constvars, getattr(closed, "consts", ()), strict=True)
        ]
        return self.jaxpr(jaxpr, consts, args, caller, used)

    def jaxpr(self, jaxpr, consts, args, caller: Origin | None, used=None) -> list[Node]:
        """The outputs of a jaxpr over argument terms; those not `used` are computed only if others need them."""
        env: dict[typing.Any, Node] = {}
        env.update(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))
        needed, live = _live(jaxpr, used)
        self.read += live
        quick = self._quick if self.graph.written is None else None
        for equation in live:
            self._order += 1
            operands = []
            for var in equation.invars:
                operands.append(env[var] if type(var) is not Literal else self._literal(var))
            if quick is None or equation.primitive not in QUICK:
                results = self._equation(equation, operands, caller, needed)
            else:
                key = (self._operation(equation), *operands)
                results = quick.get(key)
                if results is None:
                    results = self._first(key, equation, operands, caller, needed)
            if len(results) == 1:
                env[equation.outvars[0]] = results[0]
            else:
                env.update(zip(equation.outvars, results, strict=True))
        wanted = used or [True] * len(jaxpr.outvars)
        return [
            self._read(env, var) if keep else self._unused(var) for var, keep in zip(jaxpr.outvars, wanted, strict=True)
        ]

    def _operation(self, equation) -> "Operation":
        """What a quick equation does, one object for all that do the same."""
        primitive, params = equation.primitive, equation.params
        # Names too: jax gives the parameters of one primitive in no fixed order.
        key = (primitive, *params, *params.values()) if params else primitive
        found = self._operations.get(key)
        if found is None:
            values = tuple(params.values())
            known = _known(tuple(params), values, tuple(map(type, values)), IGNORED)
            found = self._operations[key] = Operation(PURE[primitive], known)
        return found

    def _first(self, key, equation, operands, caller: Origin | None, needed) -> list[Node]:
        """The results of a quick equation that was not met before."""
        operation: Operation = key[0]
        if operation.params is None or equation.effects:
            return self._equation(equation, operands, caller, needed)
        origin = Origin(equation, caller, self._order)
        try:
            results = self._build(operation.op, operation.params, equation, tuple(operands), origin)
        except Unmodelled as why:
            return self.unmodelled(equation, operands, origin, str(why))
        self._quick[key] = results
        return results

    def _equation(self, equation, operands, caller: Origin | None, needed) -> list[Node]:
        origin = Origin(equation, caller, self._order)
        handler = self._handlers.get(equation.primitive)
        try:
            if handler is None:
                results = self._plain(equation, operands, origin)
            else:
                results = handler(equation, operands, origin, [var in needed for var in equation.outvars])
        except Unmodelled as why:
            results = self.unmodelled(equation, operands, origin, str(why))
        if self.graph.written is not None:
            for node in effects.contents(results):
                self.graph.written.setdefault(node.digest, []).append(origin)
        return results

    def _read(self, env, var) -> Node:
        return self._literal(var) if type(var) is Literal else env[var]

    def _unused(self, var) -> Node:
        # A free variable: were it read after all, the program's outputs would not be closed, and not be compared.
        return loops.variable(self.graph, "unused", 0, None, var.aval)

    def _literal(self, literal) -> Node:
        value, aval = literal.val, literal.aval
        # Equal numbers of unlike types or signs of zero are unlike keys; floats by their text, which keeps every bit.
        text = value.tobytes() if isinstance(value, np.ndarray | np.generic) else repr(value)
        key = (aval.dtype, aval.shape, type(value), text)
        node = self._literals.get(key)
        if node is None:
            node = self._literals[key] = self._constant(np.asarray(value, dtype=aval.dtype))
        return node

    def _captured(self, var, value) -> Node:
        try:
            return self._constant(value)
        except Unmodelled as reason:
            self.has_unmodelled = True
            name = token((self.name, self.graph.fresh()))
            return self.graph.leaf("unmodelled", name, *_aval(var), attrs=f"a captured array: {reason}")

    def _constant(self, value) -> Node:
        if hasattr(value, "dtype") and not isinstance(value.dtype, np.dtype):
            return self.graph.leaf("constant", array_token(value), tuple(value.shape), value.dtype, attrs=value)
        if isinstance(value, Tracer):
            raise Unmodelled("a value that leaked out of another trace")
        array = np.asarray(value)
        if array.dtype == object:
            raise Unmodelled(f"a constant of type {type(value).__name__}")
        return rules.constant(self.graph, array, None)

    def unmodelled(self, equation, operands, origin, why: str) -> list[Node]:
        """Results that equal nothing; so do the references and histories that the equation may have changed."""
        plain = tuple(operand for operand in operands if type(operand) is not Cell)
        for cell in [*refs.cells_of(operands), *self.histories.touched(equation)]:
            cell.value = self.unknown(equation, cell.value, origin, why)
        return [self.unknown(equation, var.aval, origin, why, plain) for var in equation.outvars]

    def unknown(self, equation, like, origin, why: str, operands=()) -> Node:
        """A new term that equals nothing."""
        self.has_unmodelled = True
        name = token((self.name, self.graph.fresh()))
        shape, dtype = getattr(like, "shape", ()), getattr(like, "dtype", np.dtype(bool))
        words = f"{equation.primitive.name}: {why}"
        return self.graph.raw("unmodelled", name, words, operands, shape, dtype, origin, free_variables(operands))

    def sealed(self, body) -> list[Node]:
        """The terms that `body()` returns, for a digest of them only: then nothing in them may be lifted or unknown."""
        outside, before = self.is_sealed, {cell: cell.value for cell in self.histories.cells.values()}
        self.is_sealed = True
        try:
            found = body()
        finally:
            self.is_sealed = outside
            changed = [cell for cell, value in before.items() if cell.value is not value]
            for cell in changed:
                cell.value = before[cell]
        if changed:
            raise Unmodelled("side effects inside a body that is compared as a whole")
        for node in reachable(found).values() if self.has_unmodelled else ():
            if node.op == "unmodelled":
                raise Unmodelled(f"in its body {node.attrs}")
        return found

    def add(self, left: Node, right: Node, origin) -> Node:
        """The sum of two arrays of one type."""
        return self.graph.build("add", b"", {}, (left, right), left.shape, left.dtype, origin)

    def _plain(self, equation, operands, origin) -> list[Node]:
        op = PURE.get(equation.primitive)
        if op is None:
            return self._rare(equation, operands, origin)
        if equation.effects:
            raise Unmodelled("the operation has side effects")
        if op in rules.READS_BITS:
            rules.refuse_computed_floats(operands)
        params = equation.params
        data = b""
        if params:
            data = self._token(params)
            self.facts.at = origin
            self.facts.placement(params)
        if op == "random_bits" and (self.is_sealed or self.manual is not None):
            op = "random_bits_inside"  # each device, each step of a grid has its own: not lifted
        elif op == "random_bits":
            self.has_draws = True
            if self.early is not None:
                return [self.early.draw(self.graph, operands[0], data, equation.outvars[0].aval, origin)]
        return self._build(op, Params(params, data), equation, tuple(operands), origin)

    def _rare(self, equation, operands, origin) -> list[Node]:
        name = late(equation.primitive) or ""
        if name in LATE_PURE:
            PURE[equation.primitive] = equation.primitive.name
            return self._plain(equation, operands, origin)
        handler = self._late.get(name)
        if handler is None:
            raise Unmodelled(reason(equation.primitive))
        self._handlers[equation.primitive] = handler
        return handler(equation, operands, origin, [True] * len(equation.outvars))

    def _build(self, op, params: Params, equation, operands, origin) -> list[Node]:
        data, outvars = params.token, equation.outvars
        if len(outvars) == 1:
            aval = outvars[0].aval
            return [self.graph.build(op, data, params, operands, aval.shape, aval.dtype, origin)]
        return [
            self.graph.build(op, data + b"output %d" % k, {**params, "output": k}, operands, *_aval(var), origin)
            for k, var in enumerate(outvars)
        ]

    def _token(self, params) -> bytes:
        jaxprs = {name: params[name] for name in ("update_jaxpr", "jaxpr") if params.get(name) is not None}
        if not jaxprs:
            return params_token(params, IGNORED)
        bodies = {name: self._body(value, params) for name, value in jaxprs.items()}
        # `computation` is the Python function that a reduction's `jaxpr` was traced from.
        rest = {name: value for name, value in params.items() if name not in jaxprs and name != "computation"}
        return params_token({**rest, **bodies}, IGNORED)

    def _body(self, jaxpr, params) -> bytes:
        """A small function inside parameters (the update of a scatter, a reduction): its outputs over its arguments."""
        jaxpr, consts = getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", params.get("update_consts", ()))
        if len(consts) != len(jaxpr.constvars):
            raise Unmodelled("constants for a function that takes others, so this is no program")
        args = [self.graph.leaf("argument", b"%d" % k, *_aval(var)) for k, var in enumerate(jaxpr.invars)]
        num_read = len(self.read)
        outs = self.sealed(lambda: self.jaxpr(jaxpr, [self._constant(value) for value in consts], args, None))
        # jax traces it once for all programs, so its frames are those of whichever program came first.
        del self.read[num_read:]
        return b"".join(node.digest for node in outs)

    def _call(self, equation, operands, origin, used) -> list[Node]:
        params = equation.params
        self.facts.at = origin
        self.facts.call(equation)
        return self.closed(params[CALLS[equation.primitive]], operands, origin, used)

    def _identity(self, equation, operands, origin, used) -> list[Node]:
        del used
        self.facts.at = origin
        self.facts.identity(equation)
        return operands

    def _compute_on(self, equation, operands, origin, used) -> list[Node]:
        self.facts.at = origin
        self.facts.add("compute_on", str(equation.params["compute_type"]))
        return self.closed(equation.params["jaxpr"], operands, origin, used)

    def _linear_solve(self, equation, operands, origin, used) -> list[Node]:
        """What `solve` computes; the other functions serve differentiation, which is done."""
        lengths, jaxprs = equation.params["const_lengths"], equation.params["jaxprs"]
        start = lengths.matvec + lengths.vecmat
        consts = operands[start : start + lengths.solve]
        return self.closed(jaxprs.solve, [*consts, *operands[sum(lengths) :]], origin, used)


@dataclasses.dataclass(eq=False, slots=True)
class Operation:
    """A quick primitive with its parameters; without them where each equation that has them is looked at anew."""

    op: str
    params: Params | None


@functools.lru_cache(maxsize=4096)
def _known(names, values, types, ignored) -> Params | None:
    """Parameters that say nothing but what is computed: what is placed is counted, what is unknown stays so.

    `types` tells those apart that are equal and have other digests, as True and 1.
    """
    del types
    params = dict(zip(names, values, strict=True))
    try:
        return None if execution.places(params) else Params(params, params_token(params, ignored))
    except Unmodelled:
        return None


def _aval(var) -> tuple[tuple[int, ...], typing.Any]:
    return var.aval.shape, var.aval.dtype


def _live(jaxpr, used) -> tuple[set[typing.Any], list[typing.Any]]:
    """The variables that the used outputs need, and the equations that make them or have effects, in program order."""
    keep = used or [True] * len(jaxpr.outvars)
    needed = {var for var, wanted in zip(jaxpr.outvars, keep, strict=True) if wanted and type(var) is not Literal}
    live = []
    for equation in reversed(jaxpr.eqns):
        if equation.effects or not needed.isdisjoint(equation.outvars):
            live.append(equation)
            for var in equation.invars:
                if type(var) is not Literal:
                    needed.add(var)
    live.reverse()
    return needed, live
