"""Scanned programs against their unrolled twins: a stacked leaf's rows are the leaves of the layers, one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness import Kind, Program, ProgramError, Stacked, check, prove, settings
from harness.subjects.compact import programs
from harness.subjects.compact.subject import SUBJECT

from .eager import Interpreter
from .values import same_bits

BACKENDS = ("linen", "nnx")
LATER = pytest.mark.scheduled_only
OWN_LAYERS = ("llama4", "qwen3-next", "gemma4")  # the attention of a cycle's layers differs


@functools.cache
def _twin(backend: str, label: str, step: str, layers_apart: bool) -> Program:
    case = SUBJECT.case({**SUBJECT.tiny_setups(), **SUBJECT.variants()}[label], step)
    made = programs.program(backend, case, layers_apart=layers_apart)
    made.name = f"{backend} {label}"
    return made


def _verdict(backend: str, family: str, step: str, allow: str = "exact", variant: str = "", other: str = ""):
    scanned = _twin(backend, f"{family}-scanned{variant}", step, True)
    unscanned = _twin(other or backend, f"{family}-unscanned{variant}", step, False)
    return prove(scanned, unscanned, allow=allow, unroll=8)


# --- this project's own models ---


@pytest.mark.parametrize("step", [pytest.param("forward", marks=LATER), "loss_and_grads"])
@pytest.mark.parametrize(
    "family", ["llama", "gemma2", *(pytest.param(name, marks=LATER) for name in ("gpt3", *OWN_LAYERS))]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scanned_forward_and_its_gradients_are_the_unscanned_ones(backend, family, step):
    verdict = _verdict(backend, family, step)
    assert verdict.kind is Kind.PROVED, verdict.explain()
    assert verdict.strength == "exact"
    assert any("layers_0/" in row for row in verdict.certificate.stacked)


@pytest.mark.parametrize("family", ["llama", *(pytest.param(name, marks=LATER) for name in ("gpt3", "gemma2"))])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scanned_train_step_is_the_unscanned_one_but_for_the_order_of_the_gradient_norm(backend, family):
    verdict = _verdict(backend, family, "train_step", "reassociating")
    assert verdict.kind is Kind.PROVED, verdict.explain()
    assert verdict.strength == "reassociating"
    assert "sum of pieces" in verdict.certificate.rules


@pytest.mark.parametrize("variant", ["-dropout", pytest.param("-bfloat16", marks=LATER)])
def test_dropout_and_half_precision_are_unrolled_too(variant):
    verdict = _verdict("linen", "llama", "loss_and_grads", variant=variant)
    assert verdict.kind is Kind.PROVED, verdict.explain()
    assert verdict.strength == "exact" + (", modulo key derivation" if variant == "-dropout" else "")


def test_a_scanned_twin_is_the_unscanned_one_of_the_other_backend():
    verdict = _verdict("linen", "llama", "loss_and_grads", other="nnx")
    assert verdict.kind is Kind.PROVED, verdict.explain()


@LATER
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scanned_train_step_that_was_proved_draws_its_rows_and_runs(backend):
    scanned, unscanned = (_twin(backend, f"llama-{label}scanned", "train_step", label == "") for label in ("", "un"))
    assert check(scanned, unscanned, unroll=8, allow="exact").kind in (Kind.BITWISE, Kind.CLOSE)


# --- small programs: what is proved is run, what differs is not proved ---

X = jax.ShapeDtypeStruct((2, 4), jnp.float32)
W = jax.ShapeDtypeStruct((4, 3, 4), jnp.float32)  # layers along axis 1


def _layer(x, w):
    return x + jnp.tanh(x @ w)


def _scanned(w, x, reverse=False, layer=_layer):
    return jax.lax.scan(lambda x, w: (layer(x, w), None), x, jnp.moveaxis(w, 1, 0), reverse=reverse)[0]


def _looped(ws, x, layer=_layer):
    for w in ws:
        x = layer(x, w)
    return x


def _trained(run):
    """One step of momentum: a result with the layout of the parameters, an update in half precision."""

    def step(w, m, x):
        loss, grads = jax.value_and_grad(lambda w: jnp.sum(jnp.sin(run(w, x))))(w)
        m = jax.tree.map(lambda m, g: 0.9 * m + g.astype(jnp.bfloat16).astype(jnp.float32), m, grads)
        return {"loss": loss, "w": jax.tree.map(lambda w, m: w - 0.1 * m, w, m), "m": m}

    return step


def _names(path, order=(0, 1, 2)):
    name = {"0": "w", "1": "m", "2": "x"}.get(path[0], path[0])
    return Stacked(tuple(f"{name}/{k}" for k in order), 1) if name in ("w", "m") else name


def _plain(path):
    return "/".join([{"0": "w", "1": "m", "2": "x"}.get(path[0], path[0]), *path[1:]])


def _rows(leaf):
    return tuple(jax.ShapeDtypeStruct((4, 4), jnp.float32) for _ in range(3))


def _pair(scanned=_scanned, looped=_looped, naming=_names):
    left = Program(_trained(scanned), (W, W, X), name_input=naming, name_output=naming, name="scanned")
    right = Program(_trained(looped), (_rows(W), _rows(W), X), name_input=_plain, name_output=_plain, name="looped")
    return left, right


def test_a_stacked_update_is_the_updates_of_its_rows():
    verdict = prove(*_pair(), unroll=3)
    assert verdict.kind is Kind.PROVED, verdict.explain()
    assert verdict.strength == "exact"
    assert verdict.certificate.stacked["scanned: output m/2"] == "row 2 of 3 along axis 1 of m"


def test_what_is_proved_by_unrolling_gives_equal_bits_op_by_op():
    values = {leaf.name: np.random.default_rng(k).standard_normal(leaf.shape).astype(np.float32)
              for k, leaf in enumerate(_pair()[0].inputs)}  # fmt: skip
    results = []
    for program in _pair():
        traced = program.trace()
        with settings.tracing():
            outs = Interpreter().closed(traced.jaxpr, [values[leaf.name] for leaf in program.inputs])
        results.append({leaf.name: out for leaf, out in zip(traced.outputs, outs, strict=True)})
    assert results[0].keys() == results[1].keys()
    assert all(same_bits(value, results[1][name]) for name, value in results[0].items())


OTHER = {
    "another order of the layers": {"naming": functools.partial(_names, order=(1, 0, 2))},
    "a scan from the end": {"scanned": functools.partial(_scanned, reverse=True)},
    "another layer": {"scanned": functools.partial(_scanned, layer=lambda x, w: x + jnp.sin(x @ w))},
    "one layer twice": {"looped": lambda ws, x: _looped((ws[0], ws[0], ws[2]), x)},
    "a layer left out": {"looped": lambda ws, x: _looped(ws[:2], x)},
}


@pytest.mark.parametrize("name", OTHER)
def test_another_loop_is_not_proved(name):
    verdict = prove(*_pair(**OTHER[name]), unroll=3)
    assert verdict.kind is Kind.UNDECIDED
    assert any(finding.kind == "value" for finding in verdict.findings)


def test_a_scan_longer_than_asked_for_is_not_unrolled():
    assert prove(*_pair(), unroll=2).kind is Kind.UNDECIDED


def test_rows_that_the_other_program_lacks_are_another_structure():
    left, right = _pair()
    fewer = jax.ShapeDtypeStruct((4, 2, 4), jnp.float32)
    left = Program(_trained(_scanned), (fewer, fewer, X), name_input=functools.partial(_names, order=(0, 1)),
                   name_output=functools.partial(_names, order=(0, 1)), name="scanned")  # fmt: skip
    assert prove(left, right, unroll=3).kind is Kind.DIVERGED


def test_a_wrong_number_of_rows_is_refused_in_one_sentence():
    with pytest.raises(ProgramError, match="not 2 rows along axis 1"):
        Program(_scanned, (W, X), name_input=lambda path: Stacked(("a", "b"), 1) if path == ("0",) else "x")


@LATER
def test_stacked_programs_are_measured_like_others():
    def sample(key):
        return tuple(jax.random.normal(jax.random.fold_in(key, k), leaf.shape) for k, leaf in enumerate((W, W, X)))

    left = Program(_trained(_scanned), (W, W, X), name_input=_names, name_output=_names, sample=sample, name="scanned")
    verdict = check(left, _pair()[1])
    assert verdict.kind in (Kind.BITWISE, Kind.CLOSE), verdict.explain()
