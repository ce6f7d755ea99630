"""From a jaxpr to terms: dead code left out, calls inlined, loops solved, every other equation one node.

Weak types are no part of a term. They steer dtype promotion while Python runs; the traced equations carry the dtypes
that came out. Weak types of a program's own leaves, which steer whoever calls it, are execution facts.
"""

import collections
import typing
from collections.abc import Iterable, Sequence

import numpy as np
from jax.core import Tracer
from jax.extend.core import Literal

from . import draws, execution, loops, rules
from .params import Unmodelled, array_token, params_token, token
from .primitives import CALLS, COND, IDENTITIES, IGNORED, PURE, SCAN, WHILE
from .terms import Graph, Node, Origin, free_variables


class Evaluator:
    """Builds the terms of one program. What it cannot model becomes a node that equals nothing, with the reason."""

    def __init__(
        self, name: str, allow: rules.Strength, *,
        early: bool, explained: bool = False, shared: "Evaluator | None" = None,
    ):
        """`shared` lends its graph: then equal terms of both programs are one node, built once. `early` lifts draws.

        `explained` keeps every place where a term was written.
        """
        self.name = name
        self.graph = Graph(rules.table(allow)) if shared is None else shared.graph
        self.graph.written = {} if explained else self.graph.written
        self.graph.rebuilders.update(loops.REBUILDERS | {"cond": _rebuild_cond})
        self.facts = execution.Facts()
        self.has_unmodelled = self.has_draws = False
        self.early = draws.Early() if early else None
        self.origins: list[Origin] = []  # of every equation that was read, in program order
        self._nesting = 0
        self._literals: dict[tuple[typing.Any, ...], Node] = {} if shared is None else shared._literals
        self._built: dict[tuple[typing.Any, ...], list[Node]] = {} if shared is None else shared._built
        self._handlers = {
            SCAN: self._scan,
            WHILE: self._while,
            COND: self._cond,
            **dict.fromkeys(CALLS, self._call),
            **dict.fromkeys(IDENTITIES, self._identity),
        }

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
        handlers, origins = self._handlers, self.origins
        for equation in live:
            operands = [env[var] if type(var) is not Literal else self._literal(var) for var in equation.invars]
            origin = Origin(equation, caller, len(origins))
            origins.append(origin)
            handler = handlers.get(equation.primitive)
            try:
                if handler is None:
                    results = self._plain(equation, operands, origin)
                else:
                    results = handler(equation, operands, origin, [var in needed for var in equation.outvars])
            except Unmodelled as reason:
                results = self._unmodelled(equation, operands, origin, str(reason))
            env.update(zip(equation.outvars, results, strict=True))
            if self.graph.written is not None:
                for node in results:
                    self.graph.written.setdefault(node.digest, []).append(origin)
        wanted = used or [True] * len(jaxpr.outvars)
        return [
            self._read(env, var) if keep else self._unused(var) for var, keep in zip(jaxpr.outvars, wanted, strict=True)
        ]

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

    def _unmodelled(self, equation, operands, origin, reason: str) -> list[Node]:
        self.has_unmodelled = True
        name = token((self.name, self.graph.fresh()))
        why = f"{equation.primitive.name}: {reason}"
        free = free_variables(operands)
        return [
            self.graph.raw("unmodelled", name + b"%d" % k, why, tuple(operands), *_aval(var), origin, free)
            for k, var in enumerate(equation.outvars)
        ]

    def _plain(self, equation, operands, origin) -> list[Node]:
        op = PURE.get(equation.primitive)
        if op is None:
            raise Unmodelled("this primitive is not known to the prover")
        if equation.effects:
            raise Unmodelled("the operation has side effects")
        params = equation.params
        data = b""
        if params:
            data = self._token(params)
            self.facts.at = origin
            self.facts.placement(params)
        if op == "random_bits":
            self.has_draws = True
            if self.early is not None:
                return [self.early.draw(self.graph, operands[0], data, equation.outvars[0].aval, origin)]
        key = (op, data, *operands)
        results = self._built.get(key)
        if results is None:
            results = self._built[key] = self._build(op, data, equation, tuple(operands), origin)
        return results

    def _build(self, op, data, equation, operands, origin) -> list[Node]:
        params, outvars = equation.params, equation.outvars
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
        rest = {name: value for name, value in params.items() if name not in jaxprs}
        return params_token({**rest, **bodies}, IGNORED)

    def _body(self, jaxpr, params) -> bytes:
        """A small function inside parameters (the update of a scatter, a reduction): its outputs over its arguments."""
        jaxpr, consts = getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", params.get("update_consts", ()))
        if len(consts) != len(jaxpr.constvars):
            raise Unmodelled("constants for a function that takes others, so this is no program")
        args = [self.graph.leaf("argument", b"%d" % k, *_aval(var)) for k, var in enumerate(jaxpr.invars)]
        outs = self.jaxpr(jaxpr, [self._constant(value) for value in consts], args, None)
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

    def _carries(self, loop: loops.Loop, inits: Sequence[Node]) -> list[Node]:
        """A variable for each carry, named by initial value, so that a twin's loop finds the terms of the first one."""
        alike: collections.Counter[bytes] = collections.Counter()
        carries = []
        for init in inits:
            alike[init.digest] += 1
            identity = (self._nesting, init.digest, alike[init.digest])
            carries.append(loops.variable(self.graph, "carry", loop.depth, identity, init))
        return carries

    def _enter(self) -> int:
        self._nesting += 1
        return len(self.early.pending) if self.early is not None else 0

    def _leave(self, start: int, carries: Sequence[Node], values: Sequence[Node]) -> None:
        self._nesting -= 1
        if self.early is not None:
            self.early.settle(self.graph, start, carries, values)

    def _scan(self, equation, operands, origin, used) -> list[Node]:
        params = _only(equation.params, ("reverse", "length", "jaxpr", "num_consts", "num_carry", "unroll", "linear",
                                         "_split_transpose"))  # fmt: skip
        self.facts.at = origin
        self.facts.scan(params)
        graph, num_consts, num_carry = self.graph, params["num_consts"], params["num_carry"]
        consts, inits, arrays = _split(operands, num_consts, num_carry)
        loop = loops.Loop(loops.depth_of(operands), params["length"], params["reverse"])
        carries = self._carries(loop, inits)
        rows = [loops.slice_at(graph, loop.depth, array, origin) for array in arrays]
        keep = [True] * num_carry + used[num_carry:]
        start = self._enter()
        outs = self.closed(params["jaxpr"], [*consts, *carries, *rows], origin, keep)
        solved = loops.solve(graph, loop, inits, carries, outs[:num_carry], outs[num_carry:], origin)
        self._leave(start, carries, solved.values)
        finals = [loops.after(graph, loop, value, None, origin) for value in solved.values]
        return finals + [loops.stack(graph, loop, term, origin) for term in solved.extras]

    def _while(self, equation, operands, origin, used) -> list[Node]:
        del used
        params = _only(equation.params, ("cond_nconsts", "cond_jaxpr", "body_nconsts", "body_jaxpr"))
        graph = self.graph
        cond_consts, body_consts, inits = _split(operands, params["cond_nconsts"], params["body_nconsts"])
        loop = loops.Loop(loops.depth_of(operands), None, False)
        carries = self._carries(loop, inits)
        start = self._enter()
        outs = self.closed(params["body_jaxpr"], [*body_consts, *carries], origin)
        condition = self.closed(params["cond_jaxpr"], [*cond_consts, *carries], origin)
        solved = loops.solve(graph, loop, inits, carries, outs, condition, origin)
        self._leave(start, carries, solved.values)
        trip = loops.trips(graph, loop, solved.extras[0], origin)
        return [loops.after(graph, loop, value, trip, origin) for value in solved.values]

    def _cond(self, equation, operands, origin, used) -> list[Node]:
        params = _only(equation.params, ("branches",))
        index, *rest = operands
        branches = [self.closed(branch, rest, origin, used) for branch in params["branches"]]
        return [_choose(self.graph, index, list(options), origin) for options in zip(*branches, strict=True)]


def _aval(var) -> tuple[tuple[int, ...], typing.Any]:
    return var.aval.shape, var.aval.dtype


def _only(params, names: Iterable[str]):
    unknown = set(params) - set(names)
    if unknown:
        raise Unmodelled(f"the parameter {sorted(unknown)[0]} is not known to the prover")
    return params


def _split(operands, *sizes: int) -> list[list[Node]]:
    parts, start = [], 0
    for size in sizes:
        parts.append(operands[start : start + size])
        start += size
    return [*parts, operands[start:]]


def _live(jaxpr, used) -> tuple[set[typing.Any], list[typing.Any]]:
    """The variables that the used outputs need, and the equations that make them, in program order."""
    keep = used or [True] * len(jaxpr.outvars)
    needed = {var for var, wanted in zip(jaxpr.outvars, keep, strict=True) if wanted and type(var) is not Literal}
    live = []
    for equation in reversed(jaxpr.eqns):
        if not needed.isdisjoint(equation.outvars):
            live.append(equation)
            needed.update([var for var in equation.invars if type(var) is not Literal])
    live.reverse()
    return needed, live


def _choose(graph: Graph, index: Node, options: list[Node], origin) -> Node:
    """One output of a conditional. Branches that agree need no choice."""
    first = options[0]
    if all(option is first for option in options):
        return first
    return graph.raw("cond", b"", {}, (index, *options), first.shape, first.dtype, origin)


def _rebuild_cond(graph: Graph, node: Node, operands: tuple[Node, ...]) -> Node:
    return _choose(graph, operands[0], list(operands[1:]), node.origin)
