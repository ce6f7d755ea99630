"""The attack can fail: provers with a planted fault are caught, each by the mutants or loops that should catch it."""

import dataclasses

import numpy as np
import pytest

from harness.prove import canonical, control, loops, primitives, rules
from harness.prove.terms import Graph, Table

from . import loop_attack
from .attack import Attack

Patch = pytest.MonkeyPatch


def _commuting_subtraction(patch: Patch) -> None:
    _more_rules(patch, "sub", rules.table(rules.Strength.EXACT).rules["add"][-1])


def _more_rules(patch: Patch, op: str, *more) -> None:
    table = rules.table

    def longer(allow):
        known = table(allow).rules
        return Table({**known, op: (*more, *known.get(op, ()))})

    patch.setattr(rules, "table", longer)


def _dropped(*names: str):
    def plant(patch: Patch) -> None:
        for module in (canonical, rules.base):
            patch.setattr(module, "IGNORED", primitives.IGNORED | set(names))

    return plant


def _lossless_round_trips(patch: Patch) -> None:
    def apply(graph, op, attrs, operands, shape, dtype, origin):
        (node,) = operands
        if node.op == "convert_element_type" and node.operands[0].dtype == dtype:
            return node.operands[0]
        return None

    _more_rules(patch, "convert_element_type", dataclasses.replace(rules.RULES[3], apply=apply))


def _transposes_that_only_reshape(patch: Patch) -> None:
    def transpose(graph, node, permutation, origin):
        return rules.reshape(graph, node, tuple(node.shape[dim] for dim in permutation), origin)

    patch.setattr(rules.moves, "transpose", transpose)


def _zeros_without_sign(patch: Patch) -> None:
    constant = canonical.rules.constant

    def unsigned(graph, array, origin):
        array = np.asarray(array)
        return constant(graph, np.where(array == 0, np.zeros_like(array), array), origin)

    patch.setattr(rules, "constant", unsigned)


def _loops_without(name: str):
    def plant(patch: Patch) -> None:
        token = loops.Loop.token.fget
        plain = {"length": 1, "reverse": False}[name]
        patch.setattr(
            loops.Loop,
            "token",
            property(lambda loop: token(dataclasses.replace(loop, **{name: plain if loop.length else loop.length}))),
        )

    return plant


def _endings_that_do_not_count(patch: Patch) -> None:
    def trips(graph, loop, condition, origin):
        return graph.leaf("constant", b"some trips", (), np.dtype(bool), attrs=np.bool_(True))

    patch.setattr(loops, "trips", trips)


def _quotient_left_out(rounds):
    """Labels refined so many times; a component is known by its labels, and what its carries do is forgotten."""

    def plant(patch: Patch) -> None:
        at = loops._at

        def refine(self, members, labels):
            for _ in range(rounds(len(set(labels)))):
                terms = self.over(members, labels)
                labels = [loops.digest(label, term.digest) for label, term in zip(labels, terms, strict=True)]
            return labels

        def known_by_labels(graph, system, inits, terms, origin):
            return at(graph, system, inits, inits if len(inits) > 1 else terms, origin)

        patch.setattr(loops._Problem, "refine", refine)
        patch.setattr(loops, "_at", known_by_labels)

    return plant


def _choices_without_condition(patch: Patch) -> None:
    patch.setattr(control, "_choose", lambda graph, index, options, origin: options[0])


def _calls_by_name(patch: Patch) -> None:
    call, known = canonical.Evaluator._call, {}

    def remembered(self, equation, operands, origin, used):
        key = (self.graph, equation.params.get("name"), *(node.digest for node in operands))
        if key not in known:
            known[key] = call(self, equation, operands, origin, [True] * len(used))
        return known[key]

    patch.setattr(canonical.Evaluator, "_call", remembered)


def _cases_in_any_order(patch: Patch) -> None:
    raw = Graph.raw

    def sorted_operands(self, op, token, attrs, operands, *rest, **more):
        if op == "select_n":
            operands = (operands[0], *sorted(operands[1:], key=lambda node: node.digest))
        return raw(self, op, token, attrs, operands, *rest, **more)

    patch.setattr(Graph, "raw", sorted_operands)


# fault -> how it is planted, and the target whose mutants (or loops) catch it
FAULTS = {
    "subtraction commutes": (_commuting_subtraction, "optimizer"),
    "dimension numbers are left out": (_dropped("dimension_numbers"), "attention"),
    "every round trip of dtypes is lossless": (_lossless_round_trips, "optimizer"),
    "transposes only reshape": (_transposes_that_only_reshape, "attention"),
    "direction of loops is left out": (_loops_without("reverse"), "loops"),
    "the end of while loops does not count": (_endings_that_do_not_count, "random loops"),
    "the quotient is left out after one round": (_quotient_left_out(lambda _: 1), "random loops"),
    "branches are chosen without the condition": (_choices_without_condition, "random loops"),
    "calls are known by name": (_calls_by_name, "search"),
    "the order of cases is left out": (_cases_in_any_order, "optimizer"),
}
RARE = {  # these take longer to meet
    "axes of a reduction are left out": (_dropped("axes"), "attention"),
    "flags and axes of running sums are left out": (_dropped("reverse", "axis"), "indexing"),
    "zeros have no sign": (_zeros_without_sign, "sampling"),
    "length of loops is left out": (_loops_without("length"), "loops"),
    "the quotient is left out after as many rounds as classes": (_quotient_left_out(lambda n: n), "random loops"),
}
STEP, MOST = 60, {"mutants": 1500, "loops": 3000}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_attack_catches_a_planted_unsound_prover(fault, monkeypatch):
    _hold(fault, *FAULTS[fault], monkeypatch)


@pytest.mark.scheduled_only
@pytest.mark.parametrize("fault", RARE)
def test_the_attack_catches_a_planted_unsound_prover_by_night(fault, monkeypatch):
    _hold(fault, *RARE[fault], monkeypatch)


def _hold(fault: str, plant, where: str, patch: Patch) -> None:
    plant(patch)
    if where == "random loops":
        caught = any(loop_attack.run(f"planted {k}", STEP).unsound for k in range(MOST["loops"] // STEP))
    else:
        caught = any(Attack(where, seed=k).run(STEP).unsound for k in range(MOST["mutants"] // STEP))
    assert caught, f"nothing in {where} shows that {fault}"
