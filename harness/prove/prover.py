"""`prove` and `fingerprint`: trace, bring to canonical form, compare leaf by leaf. Nothing is compiled or run."""

import contextlib
import dataclasses
import functools
import gc
import typing
from collections.abc import Iterator

from harness.program import Leaf, Program
from harness.verdict import Certificate, Finding, Kind, LeafResult, Verdict

from . import apart, effects, explain, rules, sources
from . import draws as drawing
from . import record as records
from .canonical import Evaluator
from .params import digest, token
from .terms import Node, reachable, reads_input


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Digests of one program. Equal `value`: the same function. Equal `execution` too: run in the same way.

    `outputs` holds the digest of each output leaf by name. `undecided` says what was not modelled: then no digest may
    be compared. `facts` are the execution facts with their counts.
    """

    value: str
    execution: str
    outputs: typing.Mapping[str, str]
    facts: typing.Mapping[str, int]
    draws: int
    undecided: str | None = None

    def to_json(self) -> dict[str, typing.Any]:
        """Plain dicts, strings and numbers."""
        return dataclasses.asdict(self)


_PYTHON = "it calls Python functions, which are told apart within one process only"


class Form:
    """One program in canonical form: its evaluator and a term for each output leaf that is compared."""

    def __init__(self, program: Program, side: str, allow: rules.Strength, **options):
        """`options` are the evaluator's."""
        self.program = program
        traced = program.trace()
        self.evaluator = Evaluator(side, allow, **options)
        self.inputs = {leaf.name: self._input(leaf, side) for leaf in traced.inputs}
        args = [self._entered(leaf) for leaf in traced.inputs]
        self.effects = effects.unmodelled(traced.jaxpr.effects)
        keep = [leaf.one_sided is None for leaf in traced.outputs]
        outs = self.evaluator.closed(traced.jaxpr, args, None, keep) if not self.effects else []
        self.evaluator.finish()
        self.histories = {kind: cell.value for kind, cell in self.evaluator.histories.cells.items()}
        self.outputs = {
            leaf.name: self._converted(leaf, node)
            for leaf, node in zip(traced.outputs, outs, strict=False)
            if leaf.one_sided is None
        }
        self.weak = [f"output {leaf.name}" for leaf in traced.outputs if leaf.weak_type and leaf.one_sided is None]
        self.weak += [f"input {leaf.name}" for leaf in traced.inputs if leaf.weak_type and leaf.one_sided is None]
        self.evaluator.facts.at = None
        for words in self.weak:
            self.evaluator.facts.add("weak type", words)
        assert not any(node.free for node in self.outputs.values()), "an output is an open term"

    @functools.cached_property
    def under(self) -> dict[bytes, Node]:
        """Every term that the outputs need."""
        return reachable([*self.outputs.values(), *self.histories.values()])

    @property
    def is_final(self) -> bool:
        """Whether there is nothing to lift, or every draw was lifted while reading."""
        early = self.evaluator.early
        return early is not None and early.holds()

    @functools.cached_property
    def draws(self) -> drawing.Draws:
        """The random draws that the outputs need and that are still to be lifted."""
        return drawing.find(self.under.values() if self.evaluator.has_draws else ())

    @property
    def num_draws(self) -> int:
        """Draws of distinct keys, lifted or not."""
        early = self.evaluator.early
        return len(early.names) if early is not None else self.draws.count

    @functools.cached_property
    def draws_from_inputs(self) -> bool:
        """Whether a key depends on an input: then what was drawn counts as one, though its variable hides the key."""
        early = self.evaluator.early
        if early is not None:
            return any(reads_input(key) for _, key, _ in early.pending)
        return any(reads_input(node) for nodes in self.draws.by_order.values() for node in nodes)

    def _input(self, leaf: Leaf, side: str) -> Node:
        name = token((leaf.name,) if leaf.one_sided is None else (leaf.name, side, "one-sided"))
        return self.evaluator.graph.leaf("input", name, leaf.shape, leaf.compared_dtype, attrs=leaf.name)

    def _entered(self, leaf: Leaf) -> Node:
        node = self.inputs[leaf.name]
        return node if leaf.converted is None else rules.convert(self.evaluator.graph, node, leaf.dtype, None)

    def _converted(self, leaf: Leaf, node: Node) -> Node:
        return node if leaf.converted is None else rules.convert(self.evaluator.graph, node, leaf.converted, None)

    def lift(self, *, stages: bool) -> None:
        """Exchange draws for variables."""
        if self.draws.count:
            terms = [*self.outputs.values(), *self.histories.values()]
            lifted = drawing.lift(self.evaluator.graph, terms, self.draws, stages=stages)
            self.outputs = dict(zip(self.outputs, lifted, strict=False))
            self.histories = dict(zip(self.histories, lifted[len(self.outputs) :], strict=True))
            del self.under

    def unmodelled(self) -> str | None:
        """What was not modelled, if an output depends on it or the program has effects."""
        if self.effects:
            return f"{self.program.name} has effects that are not modelled: {self.effects[0]}"
        if not self.evaluator.has_unmodelled:
            return None
        for node in reachable([*self.outputs.values(), self.histories[effects.IO]]).values():
            if node.op == "unmodelled":
                at = sources.source_line(node)
                return f"{self.program.name}: {node.attrs}" + (f", at {at}" if at else "")
        return None

    def fingerprint(self) -> Fingerprint:
        """The digests of the terms as they stand, under the environment of the trace."""
        environment = token(tuple(sorted(self.program.trace().environment.items())))
        outputs = {name: self.outputs[name].digest.hex() for name in sorted(self.outputs)}
        done = self.histories[effects.IO]
        value = digest(environment, token(tuple(outputs.items())), *([] if done.op == "history" else [done.digest]))
        facts = self.facts()
        execution = digest(value, token(tuple(facts.items())))
        undecided = self.unmodelled() or (_PYTHON if self.evaluator.calls_python else None)
        return Fingerprint(value.hex(), execution.hex(), outputs, facts, self.num_draws, undecided)

    def facts(self) -> dict[str, int]:
        """Execution facts in words, with counts, sorted."""
        counts = self.evaluator.facts.counts
        return {f"{kind}: {words}": counts[(kind, words)] for kind, words in sorted(counts)}


def fingerprint(program: Program) -> Fingerprint:
    """The canonical digests of a program, stable across processes; draws are lifted and named by stage."""
    return _alone(program).fingerprint()


def recorded(program: Program) -> tuple[Fingerprint, records.Record]:
    """The digests of a program, and its terms in a form that can be kept and explained against later."""
    form = _alone(program)
    return form.fingerprint(), records.record(form.outputs)


def _alone(program: Program) -> Form:
    form = Form(program, "only", rules.Strength.EXACT, early=True)
    if not form.is_final:
        form = Form(program, "only", rules.Strength.EXACT, early=False)
        form.lift(stages=True)
    return form


def prove(a: Program, b: Program, *, allow: str = "exact", unroll: int = 0) -> Verdict:
    """Whether two programs are the same function of their named inputs, for all values, from their traces alone.

    `allow` is the weakest class of rewrites that counts: `exact`, `modulo signed zero` or `reassociating`. The verdict
    is `proved`, `diverged` (a leaf, its shape or dtype differs) or `undecided`, with the operations where the two
    part. Loops of a known length up to `unroll` are taken for copies of their body.

    Raises:
        ProgramError: a program cannot be traced or named.
        ValueError: `allow` is none of the three.
    """
    if allow not in rules.STRENGTHS:
        raise ValueError(f"allow={allow!r}: must be one of {', '.join(map(repr, rules.STRENGTHS))}")
    structure = apart.structure(a, b)
    if structure:
        return _verdict(a, b, Kind.DIVERGED, findings=structure, reason="the two programs have different leaves")
    vacuous = _vacuous_before(a, b)
    if vacuous:
        return _verdict(a, b, Kind.UNDECIDED, reason=vacuous)
    with uncollected():
        return _judged(a, b, rules.STRENGTHS[allow], unroll)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection meanwhile: terms are many and hold no cycles, and each pass would walk them all."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _judged(a: Program, b: Program, weakest: rules.Strength, unroll: int) -> Verdict:
    for strength in rules.Strength:
        forms = _forms(a, b, strength, unroll=unroll)
        reason = forms[0].unmodelled() or forms[1].unmodelled() or _vacuous(*forms)
        if reason:
            return _undecided(forms, reason)
        if _equal(forms) or strength == weakest:
            return _decided(forms, strength)
    raise AssertionError("every allowed class was tried")


def _forms(a: Program, b: Program, strength: rules.Strength, **options) -> tuple[Form, Form]:
    """Both programs in canonical form, draws lifted. Where they come out equal in one graph, that is the answer.

    To explain a difference, or to pair draws otherwise, one must know which side wrote a term: each gets its own graph.
    """
    first = Form(a, "a", strength, early=True, **options)
    if first.is_final:
        second = Form(b, "b", strength, early=True, shared=first.evaluator, **options)
        same = first.histories == second.histories
        if second.is_final and same and all(node is second.outputs[name] for name, node in first.outputs.items()):
            return first, second
        if not first.evaluator.has_draws:
            return first, Form(b, "b", strength, early=True, **options)
    return _apart(a, b, strength, **options)


def _apart(a: Program, b: Program, strength: rules.Strength, **options) -> tuple[Form, Form]:
    """Each program in a graph of its own, draws lifted afterwards."""
    forms = Form(a, "a", strength, early=False, **options), Form(b, "b", strength, early=False, **options)
    stages = drawing.same_stages(forms[0].draws, forms[1].draws)
    for form in forms:
        form.lift(stages=stages)
    return forms


def _equal(forms: tuple[Form, Form]) -> bool:
    same = all(node.digest == forms[1].outputs[name].digest for name, node in forms[0].outputs.items())
    return same and _same_history(forms, effects.IO)


def _same_history(forms: tuple[Form, Form], kind: str) -> bool:
    return forms[0].histories[kind].digest == forms[1].histories[kind].digest


def _histories(forms: tuple[Form, Form], kind: str) -> dict[str, tuple[Node, Node]]:
    return {kind: (forms[0].histories[kind], forms[1].histories[kind])}


def _pairs(forms: tuple[Form, Form]) -> dict[str, tuple[Node, Node]]:
    return {name: (node, forms[1].outputs[name]) for name, node in forms[0].outputs.items()}


def _decided(forms: tuple[Form, Form], strength: rules.Strength) -> Verdict:
    pairs = _pairs(forms)
    leaves = tuple(
        LeafResult(name, Kind.PROVED)
        if a.digest == b.digest
        else LeafResult(name, Kind.UNDECIDED, detail="another canonical form")
        for name, (a, b) in pairs.items()
    )
    causes = () if _equal(forms) else _explained(forms, strength)
    kind = Kind.PROVED if _equal(forms) else Kind.UNDECIDED
    lifted = forms[0].num_draws or forms[1].num_draws
    words = strength.words + (", modulo key derivation" if lifted else "")
    unproved = sum(leaf.kind is not Kind.PROVED for leaf in leaves)
    reasons = [f"{unproved} outputs not proved"] if unproved else []
    if not _same_history(forms, effects.IO):
        reasons.append("the side effects are not the same")
    reason = ", ".join(reasons)
    return _verdict(
        forms[0].program, forms[1].program, kind,
        strength=words if kind is Kind.PROVED else "", leaves=leaves,
        findings=(*causes, *apart.execution(*(form.evaluator.facts for form in forms)), *_shown(forms)),
        reason=reason, forms=forms,
    )  # fmt: skip


def _explained(forms: tuple[Form, Form], strength: rules.Strength) -> tuple[Finding, ...]:
    """Where the programs part. Both are read anew, with every place of each term, which a proof has no use for."""
    a, b = forms[0].program, forms[1].program
    again = _apart(a, b, strength, explained=True, unroll=forms[0].evaluator.unroll)
    one, two = (form.evaluator.graph.written or {} for form in again)
    return explain.findings(_pairs(again) | _histories(again, effects.IO), _names(a, b), (one, two))


def _undecided(forms: tuple[Form, Form], reason: str) -> Verdict:
    a, b = forms[0].program, forms[1].program
    leaves = tuple(LeafResult(name, Kind.UNDECIDED, detail="not modelled") for name in forms[0].outputs)
    return _verdict(a, b, Kind.UNDECIDED, leaves=leaves, reason=reason, forms=forms)


def _verdict(a: Program, b: Program, kind: Kind, *, forms=None, **fields) -> Verdict:
    prints = {name: _digests(form) for name, form in zip(_names(a, b), forms, strict=True)} if forms else {}
    certificate = _certificate(a, b, forms)
    return Verdict(kind, certificate=certificate, fingerprints=prints, programs=_names(a, b), **fields)


def _names(a: Program, b: Program) -> tuple[str, str]:
    return (a.name, b.name) if a.name != b.name else (f"{a.name} (a)", f"{b.name} (b)")


def _digests(form: Form) -> dict[str, str]:
    made = form.fingerprint()
    return {"value": made.value, "execution": made.execution}


def _shown(forms: tuple[Form, Form]) -> tuple[Finding, ...]:
    """What `jax.debug` shows, where it differs: no output depends on it, so the proof holds, but it is told.

    Where one side shows something more, the facts say so.
    """
    facts = [form.evaluator.facts.counts.items() for form in forms]
    counts = [{fact: count for fact, count in side if fact[0] == effects.DEBUG} for side in facts]
    if _same_history(forms, effects.DEBUG) or counts[0] != counts[1]:
        return ()
    a, b = (form.program for form in forms)
    causes = explain.findings(_histories(forms, effects.DEBUG), _names(a, b))
    title = "debug output differs (values are unaffected)"
    return tuple(dataclasses.replace(cause, title=title, detail=cause.title, kind="execution") for cause in causes)


def _vacuous_before(a: Program, b: Program) -> str:
    if apart.same_function(a.fn, b.fn):
        return "both sides are the same function object: nothing would be compared"
    if not any(leaf.one_sided is None for leaf in a.outputs):
        return "no output leaf is compared"
    return ""


def _vacuous(a: Form, b: Form) -> str:
    known: dict[tuple[Node, tuple[str, ...]], bool] = {}  # where the programs agree, both outputs are one term
    for form in (a, b):
        leaves = ("input", "draw") if form.draws_from_inputs else ("input",)
        for name, node in form.outputs.items():
            if (node, leaves) not in known:
                known[node, leaves] = reads_input(node, leaves)
            reads = known[node, leaves]
            if reads == bool(form.program.constant(name)):
                words = "is declared constant and depends on an input" if reads else "depends on no input"
                return f"output {name} of {form.program.name} {words}"
    return ""


def _certificate(a: Program, b: Program, forms: tuple[Form, Form] | None) -> Certificate:
    leaves = [leaf for leaf in a.outputs if leaf.one_sided is None]
    one_sided, conversions, stacked, constants = {}, {}, {}, {}
    for name, program in zip(_names(a, b), (a, b), strict=True):
        for what, leaf in [("input", leaf) for leaf in program.inputs] + [("output", leaf) for leaf in program.outputs]:
            place = f"{name}: {what} {'/'.join(leaf.path) or leaf.name}"
            if leaf.one_sided is not None:
                one_sided[place] = leaf.one_sided
            if leaf.converted is not None:
                conversions[place] = f"{leaf.dtype} compared as {leaf.converted}"
            if leaf.row:
                stacked[f"{name}: {what} {leaf.name}"] = leaf.row
            if what == "output" and (reason := program.constant(leaf.name)):
                constants[f"{name}: {what} {leaf.name}"] = reason
    used, ignored, used_rules, files, count = [], [], set(), {}, 0
    for name, form in zip(_names(a, b), forms or (), strict=False):
        for leaf in form.program.inputs:
            if leaf.one_sided is not None:
                (used if form.inputs[leaf.name].digest in form.under else ignored).append(
                    f"{name}: {'/'.join(leaf.path)}"
                )
        used_rules |= form.evaluator.graph.rules_used
        files[name] = sources.files(form.evaluator.read)
        count = max(count, form.num_draws)
    return Certificate(
        sources=files, num_leaves=len(leaves), num_elements=sum(leaf.num_elements for leaf in leaves),
        rules=tuple(sorted(used_rules)), one_sided=one_sided, unmatched_used=tuple(used),
        unmatched_ignored=tuple(ignored), draws=count, conversions=conversions, stacked=stacked,
        constants=constants, environment=a.trace().environment,
    )  # fmt: skip
