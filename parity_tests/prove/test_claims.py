"""What a proof must ignore, what it must not, what it refuses, and how it says where two programs part."""

import functools

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from harness import Converted, Kind, Program, ProgramError, fingerprint, prove

X = jax.ShapeDtypeStruct((4, 4), jnp.float32)
S = jax.ShapeDtypeStruct((), jnp.int32)


def _proved(a, b, args=(X,), **kwargs):
    return prove(Program(a, args, name="a", **kwargs), Program(b, args, name="b", **kwargs))


# --- honest rewrites are proved ---


def test_renaming_order_duplicates_dead_code_and_calls_vanish():
    def plain(x):
        return jnp.sin(x) @ jnp.cos(x) + jnp.sin(x)

    @jax.jit
    def inner(x):
        return jnp.sin(x)

    def wrapped(x):
        unused = jnp.exp(x)
        second = jax.checkpoint(jnp.cos)(x)
        first = inner(x)
        del unused
        return inner(x) + first @ second

    assert _proved(plain, wrapped).kind is Kind.PROVED


def test_custom_derivatives_are_their_primal_before_differentiation():
    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))
    assert _proved(lambda x: sine(x) * 2, lambda x: jnp.sin(x) * 2).kind is Kind.PROVED


def test_a_rule_of_a_custom_derivative_counts_after_differentiation():
    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.sin(x),))
    total = [lambda x, f=f: f(x).sum() for f in (sine, jnp.sin)]
    assert _proved(jax.grad(total[0]), jax.grad(total[1])).kind is Kind.UNDECIDED


def test_a_captured_array_is_the_literal_it_equals():
    zeros = np.full((4, 4), 2.0, np.float32)
    assert _proved(lambda x: x * zeros, lambda x: x * 2.0).kind is Kind.PROVED


def test_branches_that_agree_need_no_choice():
    def chosen(x):
        return jax.lax.cond(x.sum() > 0, jnp.sin, jnp.sin, x)

    assert _proved(chosen, lambda x: jnp.sin(x)).kind is Kind.PROVED


def test_an_unsigned_counter_declared_as_signed_is_proved():
    unsigned = Program(lambda n: n + jnp.uint32(1), (jax.ShapeDtypeStruct((), jnp.uint32),),
                       name_input=lambda path: Converted("step", jnp.int32),
                       name_output=lambda path: Converted("step", jnp.int32))  # fmt: skip
    signed = Program(lambda n: n + 1, (S,), name_input=lambda path: "step", name_output=lambda path: "step")
    verdict = prove(unsigned, signed)
    assert verdict.kind is Kind.PROVED
    assert len(verdict.certificate.conversions) == 2


# --- differences are not proved ---

DIFFERENT = {
    "literal": (lambda x: x + 1e-5, lambda x: x + 1e-6),
    "sign of zero": (lambda x: x * 0.0, lambda x: x * -0.0),
    "operand order": (lambda x: x - jnp.sin(x), lambda x: jnp.sin(x) - x),
    "axis": (lambda x: jnp.sum(x, 0), lambda x: jnp.sum(x, 1)),
    "order of collapsed axes": (
        lambda x: jax.lax.reshape(jax.lax.reshape(x, (16,), (1, 0)), (2, 8)),
        lambda x: jax.lax.reshape(x, (2, 8)),
    ),
    "precision": (lambda x: x @ x, lambda x: jnp.matmul(x, x, precision="default")),
    "accumulation": (
        lambda x: jnp.matmul(x.astype(jnp.bfloat16), x.astype(jnp.bfloat16), preferred_element_type=jnp.float32),
        lambda x: (x.astype(jnp.bfloat16) @ x.astype(jnp.bfloat16)).astype(jnp.float32),
    ),
    "rounding": (lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), lambda x: x),
    "association": (lambda x: (x + x.T) + 1.0, lambda x: x + (x.T + 1.0)),
    "captured arrays of one shape": (
        lambda x: x * np.arange(4, dtype=np.float32),
        lambda x: x * np.arange(1, 5, dtype=np.float32),
    ),
    "branch": (
        lambda x: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x),
        lambda x: jax.lax.cond(x.sum() > 0, jnp.cos, jnp.sin, x),
    ),
    "scatter mode": (lambda x: x.at[jnp.array([1, 9])].set(0.0), lambda x: x.at[jnp.array([1, 9])].add(0.0)),
    "sort key": (lambda x: jnp.sort(x, 0), lambda x: jnp.sort(x, 1)),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_different_program_is_not_proved(name):
    assert _proved(*DIFFERENT[name]).kind is Kind.UNDECIDED


@pytest.mark.parametrize("what", ["shape", "dtype", "name"])
def test_leaves_that_do_not_match_diverge(what):
    other = {"shape": lambda x: jnp.sin(x)[:2], "dtype": lambda x: jnp.sin(x).astype(jnp.bfloat16), "name": jnp.sin}[
        what
    ]
    rename = (lambda path: "other") if what == "name" else None
    verdict = prove(Program(jnp.cos, (X,)), Program(other, (X,), name_output=rename))
    assert verdict.kind is Kind.DIVERGED
    assert all(finding.kind == "structure" and finding.leaves for finding in verdict.findings)


# --- what is not understood is undecided, with its name ---


def _callback(x):
    return jax.pure_callback(lambda value: np.sin(value), X, x)  # another function each time it is traced


def _device_state(x):
    return x + jax.lax.rng_uniform(0.0, 1.0, X.shape)


def _called_for_effect(x):
    return jax.experimental.io_callback(lambda value: np.sin(value), X, x)


@pytest.mark.parametrize("fn", [_callback, _device_state, _called_for_effect], ids=["callback", "state", "effect"])
def test_what_cannot_be_told_to_be_the_same_is_undecided(fn):
    @functools.wraps(fn)
    def again(x):
        return fn(x)

    verdict = prove(Program(fn, (X,)), Program(again, (X,)))
    assert verdict.kind is Kind.UNDECIDED
    assert verdict.reason
    assert not verdict


def test_what_is_not_understood_but_not_needed_does_no_harm():
    def dead(x):
        _callback(x)
        return jnp.sin(x)

    assert _proved(dead, jnp.sin).kind is Kind.PROVED


# --- execution differs, values do not ---


def test_a_missing_sharding_constraint_is_an_execution_finding():
    mesh = AbstractMesh((2,), ("data",), axis_types=(AxisType.Auto,))

    def constrained(x):
        return jax.lax.with_sharding_constraint(jnp.sin(x), PartitionSpec("data"))

    with jax.sharding.use_abstract_mesh(mesh):
        verdict = _proved(constrained, jnp.sin)
        prints = [fingerprint(Program(fn, (X,))) for fn in (constrained, jnp.sin)]
    assert verdict.kind is Kind.PROVED
    assert [finding.kind for finding in verdict.findings] == ["execution"]
    assert "('data',)" in verdict.findings[0].detail
    assert prints[0].value == prints[1].value
    assert prints[0].execution != prints[1].execution


def test_recomputation_and_unrolling_are_execution_findings():
    def build(unroll, remat):
        layer = jax.checkpoint(jnp.sin) if remat else jnp.sin
        return jax.grad(lambda x: jax.lax.scan(lambda c, _: (layer(c), None), x, None, 4, unroll=unroll)[0].sum())

    verdict = _proved(build(1, False), build(2, True))
    assert verdict.kind is Kind.PROVED
    assert {finding.title.split(" differs")[0] for finding in verdict.findings} >= {"unroll"}
    assert all(finding.kind == "execution" for finding in verdict.findings)


def test_fingerprints_do_not_depend_on_names_and_order():
    def one(x):
        return jnp.sin(x) + jnp.cos(x)

    def two(y):
        c = jnp.cos(y)
        return c + jnp.sin(y)

    a, b = (fingerprint(Program(fn, (X,))) for fn in (one, two))
    assert (a.value, a.execution) == (b.value, b.execution)


# --- explanation ---


def _norm(x, epsilon):
    with jax.named_scope("norm"):
        return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + epsilon)


def _model(epsilon):
    def layer(x, w):
        with jax.named_scope("layers"):
            return x + jnp.tanh(_norm(x, epsilon) @ w), None

    def loss(params, x):
        y = jax.lax.scan(layer, x, params["w"])[0]
        return jnp.mean((y @ params["head"]) ** 2)

    return jax.value_and_grad(loss)


def test_one_cause_is_one_finding_with_line_scope_and_leaves():
    params = {"w": jax.ShapeDtypeStruct((3, 4, 4), jnp.float32), "head": X}
    verdict = _proved(_model(1e-5), _model(1e-6), (params, X))
    assert verdict.kind is Kind.UNDECIDED
    (finding,) = verdict.findings
    line = _norm.__code__.co_firstlineno + 2
    for source in finding.sources:
        assert source.split(" < ")[0].endswith(f"test_claims.py:{line} (_norm)")
        assert "(_model.<locals>.layer)" in source
    assert finding.scope == "layers/norm"
    assert set(finding.leaves) == {"0", "1/head", "1/w"}
    assert "1e-05" in finding.operations[0] or "9.99" in finding.operations[0]
    assert "inside a loop body" in finding.detail


def test_sources_name_the_files_of_the_trace():
    verdict = _proved(lambda x: jnp.sin(x), lambda x: jnp.sin(x))
    for files in verdict.certificate.sources.values():
        assert [name.rsplit("/", 1)[-1] for name in files] == ["test_claims.py"]


def test_a_function_that_jax_traced_once_brings_no_file_of_the_other_side():
    """The update of a scatter: jax keeps its trace by dtype, with the frames of the program that asked first."""
    text = "def run(x, i):\n    return grad(lambda x: x[i].sum())(x)\n"
    sides = []
    for file in ("one.py", "other.py"):
        names = {"grad": jax.grad}
        exec(compile(text, file, "exec"), names)
        sides.append(names["run"])
    jax.clear_caches()
    verdict = _proved(*sides, args=(jax.ShapeDtypeStruct((4,), jnp.bfloat16), jax.ShapeDtypeStruct((2,), jnp.int32)))
    files = verdict.certificate.sources.values()
    assert [("one.py" in names, "other.py" in names) for names in files] == [(True, False), (False, True)]


# --- programs that cannot be compared ---


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Program(3, (X,)), "fn must be a function"),
        (lambda: Program(jnp.sin, X), "args must be a tuple"),
        (lambda: Program(lambda x: x.nothing, (X,)).trace(), "cannot be traced"),
        (lambda: Program(jnp.sin, ("text",)).trace(), "input leaf 0 is a str"),
        (lambda: Program(jnp.add, (X, X), name_input=lambda path: "x").trace(), "both named 'x'"),
        (lambda: Program(jnp.sin, (X,), name_output=lambda path: 3).trace(), "answered int for output leaf output"),
        (lambda: Program(jnp.sin, (X,)).draw(jax.random.key(0)), "abstract arguments"),
    ],
)  # fmt: skip
def test_bad_programs_get_one_clear_sentence(build, words):
    with pytest.raises(ProgramError, match=words) as caught:
        build()
    assert "\n" not in str(caught.value)


# --- names and keys that could be taken for others ---


def test_stacked_arrays_are_not_taken_for_the_rows_of_a_loop():
    def rows(x):
        return jax.lax.scan(lambda c, row: (c + jnp.tanh(row), row * 2.0), x[0], jnp.stack([x[0], x[1]]))

    def others(x):
        return jax.lax.scan(lambda c, row: (jnp.tanh(row) + c, 2.0 * row), x[0], jnp.stack([x[0], x[1]]))

    assert _proved(rows, others).kind is Kind.PROVED
