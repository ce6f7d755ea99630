"""The noise ratio accepts what rounding does and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness import Converted, Kind, OneSided, Program, ProgramError, measure
from harness.measure import LITERAL_BOUND, K, Runners, compiled, first_difference, measure_runs, stepwise
from harness.measure.inputs import draw_inputs
from harness.measure.pairing import pair
from harness.measure.ratio import Sample, compare_one

from . import small

FAULTS = {
    "epsilon": {"epsilon": 0.2501},
    "bias dropped": {"bias": False},
    "scaled": {"scale": 1.001},
    "mask off by one": {"shift": 1},
    "softmax in bfloat16": {"softmax_dtype": jnp.bfloat16},
}


def test_the_same_program_is_bitwise():
    verdict = measure(small.program(), small.program())
    assert verdict.kind is Kind.BITWISE, verdict.explain()
    assert verdict.certificate.num_leaves == 4


@pytest.mark.parametrize("options", [{"swapped": True}, {"root": True}], ids=str)
def test_another_order_of_rounding_is_close(options):
    verdict = measure(small.program(), small.program(**options))
    assert verdict.kind in (Kind.CLOSE, Kind.BITWISE), verdict.explain()
    assert max(leaf.ratio for leaf in verdict.leaves) <= K / 2


def test_compiled_and_op_by_op_are_close():
    program = small.program()
    runners = Runners(compiled(program), stepwise(program))
    verdict = measure_runs(program, program, runners, pair(program, program), draw_inputs(program, program, 0))
    assert verdict, verdict.explain()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_one_line_fault_is_diverged(fault):
    verdict = measure(small.program(), small.program(**FAULTS[fault]))
    assert verdict.kind is Kind.DIVERGED, verdict.explain()
    assert "loss" in verdict.findings[0].leaves
    assert "truth" in verdict.explain()


def test_nan_in_one_place_is_diverged():
    x = jnp.linspace(-1.5, 3.0, 7)
    verdict = measure(Program(jnp.sqrt, (x,)), Program(lambda x: jnp.sqrt(jnp.abs(x)), (x,)))
    assert verdict.kind is Kind.DIVERGED
    assert "finite" in verdict.leaves[0].detail


def test_nan_in_the_same_places_is_compared_elsewhere():
    x = jnp.linspace(-1.5, 3.0, 7)
    verdict = measure(Program(jnp.log, (x,)), Program(lambda x: jnp.log(x * 1.25 / 1.25), (x,)))
    assert verdict.kind in (Kind.CLOSE, Kind.BITWISE), verdict.explain()


def test_nothing_finite_is_undecided():
    x = jnp.full((3,), -2.5)
    assert measure(Program(jnp.sqrt, (x,)), Program(jnp.sqrt, (x,))).kind is Kind.UNDECIDED


def test_an_integer_off_by_one_is_diverged():
    x = jnp.arange(5)
    verdict = measure(Program(lambda x: x * 2, (x,)), Program(lambda x: x * 2 + (x == 3), (x,)))
    assert verdict.kind is Kind.DIVERGED
    assert "[3]" in verdict.leaves[0].detail


def test_no_output_is_undecided():
    x = jnp.ones(3)
    assert measure(Program(lambda x: {}, (x,)), Program(lambda x: {}, (x,))).kind is Kind.UNDECIDED


@pytest.mark.parametrize(
    "other",
    [
        lambda x: {"y": x, "z": x},
        lambda x: {"y": x.astype(jnp.bfloat16)},
        lambda x: {"y": x[None]},
        lambda x: {"z": x},
    ],
    ids=["extra", "dtype", "shape", "missing"],
)
def test_another_structure_is_diverged(other):
    x = jnp.linspace(0.1, 1, 4)
    verdict = measure(Program(lambda x: {"y": x}, (x,)), Program(other, (x,)))
    assert verdict.kind is Kind.DIVERGED
    assert verdict.findings[0].kind == "structure"


def test_inputs_are_matched_by_name_and_declared_differences_are_listed():
    def name_a(path):
        return {"0": "w", "1": "count"}[path[0]]

    def name_b(path):
        return {"0": Converted("count", jnp.int32), "1": "w", "2": OneSided("a cache that only b keeps")}[path[0]]

    w, count = jnp.linspace(0.1, 1.3, 4), jnp.asarray(3)
    a = Program(lambda w, count: w * count, (w, count), name_input=name_a)
    args = (jnp.asarray(3, jnp.uint32), w, jnp.ones(2))
    b = Program(lambda count, w, cache: w * count.astype(jnp.int32) + 0 * cache[0], args, name_input=name_b)
    verdict = measure(a, b)
    assert verdict.kind is Kind.BITWISE, verdict.explain()
    assert len(verdict.certificate.conversions) == 1
    assert "a cache that only b keeps" in verdict.explain()


def test_other_values_on_the_two_sides_are_refused_by_name():
    w = jnp.linspace(0.1, 1.3, 4)
    a, b = Program(lambda w: w * 2, (w,), name="old"), Program(lambda w: w + w, (w * 1.5,), name="new")
    with pytest.raises(ProgramError, match="input 0 holds other values in 'new' than in 'old'"):
        measure(a, b)


def test_a_cancelled_value_is_judged_by_how_strongly_it_cancels():
    x = np.random.default_rng(0).standard_normal((40,)).astype(np.float32)
    forms = (lambda x: x.sum() - x[::-1].sum(), lambda x: (x[:20].sum() + x[20:].sum()) - x.sum())
    assert measure(*(Program(form, (x,)) for form in forms)).kind is Kind.CLOSE
    coarse = Program(lambda x: x.sum() - x.astype(jnp.bfloat16).astype(jnp.float32).sum(), (x,))
    assert measure(Program(forms[1], (x,)), coarse).kind is Kind.DIVERGED


def test_a_ratio_has_a_floor_and_a_gap_has_none_to_spare():
    truth = np.array([1.0, 2.0])
    quiet = Sample(a=truth, b=truth * (1 + 2.0**-24), truth_a=truth, truth_b=truth)
    assert compare_one(quiet, 2.0**-24).ratio == pytest.approx(1.0)
    loud = Sample(a=truth, b=truth * (1 + 1e-5), truth_a=truth, truth_b=truth)
    assert not compare_one(loud, 2.0**-24).agrees
    other = Sample(a=truth, b=truth, truth_a=truth, truth_b=truth * (1 + 10 * LITERAL_BOUND))
    assert not compare_one(other, 2.0**-24).agrees


def test_a_divergence_names_the_layer_and_the_stage():
    def stack(epsilon):
        def run(x, w):
            def layer(x, inputs):
                number, w = inputs
                with jax.named_scope("norm"):
                    x = x / jnp.sqrt((x * x).mean() + jnp.where(number == 2, epsilon, 0.5))
                with jax.named_scope("mix"):
                    return jnp.tanh(x @ w), x.sum()

            with jax.named_scope("layers"):
                return jax.lax.scan(layer, x, (jnp.arange(4), w))

        rng = np.random.default_rng(0)
        x, w = rng.standard_normal((3, 6)), rng.standard_normal((4, 6, 6))
        return Program(run, (jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)))

    verdict = measure(stack(0.5), stack(0.6))
    assert "axis 0 at 2, 3 (of 4)" in verdict.leaf("1").detail
    found = first_difference(stack(0.5), stack(0.6))
    assert found.scope == "layers/norm[2]"
    assert "test_ratio.py" in found.sources[0]
    assert first_difference(stack(0.5), stack(0.5)) is None
