"""Every parameter leaf and every config field matters: a change of one must be noticed."""

import dataclasses

import jax
import numpy as np
import pytest

import models
from harness import fingerprint
from harness.measure import K, compiled
from harness.subjects.compact import SUBJECT
from harness.subjects.compact.setup import Setup
from models.config import (
    Activation,
    AdamW,
    Attention,
    BranchNorms,
    DType,
    GatedDelta,
    LatentAttention,
    Layer,
    LayerNorm,
    LearnedPositions,
    LinearScaling,
    Llama3Scaling,
    Mlp,
    ModelConfig,
    Moe,
    Projection,
    QkNorm,
    Remat,
    RmsNorm,
    Rope,
    Router,
    Score,
    TrainConfig,
    Unrotated,
    YarnScaling,
)

SETUPS = SUBJECT.tiny_setups()
UNIT_ROUNDOFF = 2.0**-24
# The last layer's factor is one of the whole stream that the decoder's norm is given, but for that norm's epsilon.
DIVIDED_OUT = {"params/decoder/layers_remainder/layers_0/layer_scale"}


@pytest.mark.parametrize("label", SUBJECT.deep_setups() | SUBJECT.light_setups())
def test_perturbing_any_one_parameter_leaf_is_noticed(label):
    linen, nnx = SUBJECT.programs(SUBJECT.case(SETUPS[label], "forward", label=label))
    args = jax.tree.leaves(linen.draw(jax.random.key(0)))
    run = compiled(nnx)
    by_name = dict(zip([leaf.name for leaf in linen.inputs], args, strict=True))
    order = [leaf.name for leaf in nnx.inputs]
    wanted = run([by_name[leaf] for leaf in order])[0]  # this twin's own: against the other a dropped leaf would show
    unnoticed = []
    for name in (name for name in order if name.startswith("params/")):
        changed = {**by_name, name: by_name[name] * 1.5 + 0.1}
        found = run([changed[leaf] for leaf in order])[0]
        if np.abs(found - wanted).max() <= K * UNIT_ROUNDOFF * np.abs(wanted).max():
            unnoticed.append(name)
    assert unnoticed == [name for name in order if name in DIVIDED_OUT]


BASE = dataclasses.replace(
    SETUPS["gemma2-scanned"], model=SETUPS["gemma2-scanned"].model.replace(dropout_rate=0.1, final_soft_cap=20.0)
)
# For every field a change that must show. A path is the way down through the dataclasses.
CHANGES = {
    ("model", "vocab_size"): 103,
    ("model", "embed_dim"): 24,
    ("model", "num_layers"): 6,
    ("model", "attention", "num_heads"): 8,
    ("model", "attention", "num_kv_heads"): 4,
    ("model", "attention", "head_dim"): 8,
    ("model", "attention", "projection"): Projection.FUSED,
    ("model", "attention", "qkv_bias"): True,
    ("model", "attention", "out_bias"): True,
    ("model", "attention", "qk_norm"): QkNorm.HEAD,
    ("model", "attention", "query_scale"): 0.5,
    ("model", "attention", "soft_cap"): 3.0,
    ("model", "attention", "sinks"): True,
    ("model", "attention", "out_gate"): True,
    ("model", "attention", "value_norm"): True,
    ("model", "attention", "share_kv"): True,
    ("model", "mlp", "hidden_dim"): 40,
    ("model", "mlp", "activation"): Activation.SILU,
    ("model", "mlp", "gated"): False,
    ("model", "mlp", "bias"): True,
    ("model", "mlp", "input_norm"): "mlp_layer_norm",
    ("model", "norm", "epsilon"): 1e-4,
    ("model", "norm", "zero_centered"): False,
    ("model", "positions", "max_timescale"): 500.0,
    ("model", "positions", "fraction"): 0.5,
    ("model", "positions", "interleaved"): True,
    ("model", "positions", "scaling"): LinearScaling(factor=2.0),
    ("model", "positions", "proportional"): True,
    ("model", "block_norms", "pre_attention"): None,
    ("model", "block_norms", "post_attention"): None,
    ("model", "block_norms", "pre_mlp"): None,
    ("model", "block_norms", "post_mlp"): None,
    ("model", "cycle"): (Layer(window=3, suffix="_local"), Layer(suffix="_global")),
    ("model", "prefix"): Layer(window=3),
    ("model", "num_prefix_layers"): 1,
    ("model", "scale_embedding"): False,
    ("model", "tied_head"): False,
    ("model", "final_soft_cap"): None,
    ("model", "dropout_rate"): 0.2,
    ("model", "dtype"): DType.BFLOAT16,
    ("model", "weight_dtype"): DType.BFLOAT16,
    ("model", "scan_layers"): False,
    ("model", "remat"): Remat.FULL,
    ("model", "layer_scale"): True,
    ("train", "optimizer", "peak_learning_rate"): 1e-2,
    ("train", "optimizer", "warmup_steps"): 5,
    ("train", "optimizer", "decay_steps"): 50,
    ("train", "optimizer", "final_fraction"): 0.5,
    ("train", "optimizer", "b1"): 0.8,
    ("train", "optimizer", "b2"): 0.99,
    ("train", "optimizer", "epsilon"): 1e-6,
    ("train", "optimizer", "weight_decay"): 0.0,
    ("train", "optimizer", "clip_norm"): None,
    ("train", "z_loss"): 0.0,
    ("train", "load_balance_weight"): 0.5,
    ("train", "choice_bias_rate"): 0.1,
    ("train", "seed"): 1,
}
EXEMPT = {
    ("model", "family"): "names a row of the tables and a folder of goldens; no behaviour may follow from it",
    ("train", "seed"): "starts streams whose keys are inputs of a proof; test_the_seed_starts_the_streams shows it",
}
# The same for what BASE does not hold: a layer of the cycle, and each scaling of the positions.
LAYERS = {
    "window": Layer(window=4, suffix="_local"),
    "suffix": Layer(window=5, suffix="_near"),
    "name": Layer(window=5, name="layers_0"),
    "rope": Layer(window=5, suffix="_local", rope=Rope(max_timescale=500.0)),
    "mlp": Layer(window=5, suffix="_local", mlp=Mlp(hidden_dim=40, activation=Activation.GELU, gated=True)),
    "attention": Layer(window=5, suffix="_local", attention=Attention(4, 1, 8)),
    "chunk": Layer(chunk=5, suffix="_local"),
}
NORMS = BranchNorms("shared_norm", "experts_in_norm", "experts_out_norm")
ROUTER = Router(6, 2, score=Score.SIGMOID, num_groups=3, num_chosen_groups=2)
# And for the parts that stand in for those of BASE.
PARTS = {
    LatentAttention(4, 10, 6, 4, 5): {
        "num_heads": 2, "kv_rank": 12, "nope_dim": 8, "rope_dim": 6, "value_dim": 7, "query_rank": 9,
        "query_scale": 0.5,
    },
    GatedDelta(2, 4, 3, 5, chunk=4): {
        "num_key_heads": 1, "num_value_heads": 6, "key_dim": 4, "value_dim": 6, "conv_width": 3, "chunk": 6,
    },
    Unrotated(temperature=0.1, length=4): {"temperature": 0.2, "length": 5},
    Moe(ROUTER, 24, shared_hidden_dim=16): {
        "router": dataclasses.replace(ROUTER, num_experts=9), "hidden_dim": 40, "activation": Activation.GELU,
        "bias": True, "clamp": 1.0, "linear_offset": 1.0, "capacity_factor": 1.0, "shared_hidden_dim": None,
        "shared_gate": True, "scale_inputs": True, "branch_norms": NORMS,
    },
    ROUTER: {
        "num_experts": 9, "num_chosen": 3, "score": Score.SOFTMAX, "normalized": True, "scale": 2.0, "logit_bias": True,
        "choice_bias": True, "num_groups": 2, "num_chosen_groups": 1, "group_top": 2,
        "expert_scale": True, "input_scale": True,
    },
}  # fmt: skip
PART_FIELDS = {f"{type(one).__name__}-{field}": (one, field) for one in PARTS for field in PARTS[one]}
SCALINGS = {
    LinearScaling(factor=2.0): {"factor": 3.0},
    Llama3Scaling(factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_length=512): {
        "factor": 2.0, "low_frequency_factor": 2.0, "high_frequency_factor": 6.0, "original_length": 256,
    },
    YarnScaling(factor=8.0, original_length=512, beta_fast=16.0): {
        "factor": 2.0, "original_length": 256, "beta_fast": 8.0, "beta_slow": 3.0, "truncate": False,
        "attention_factor": 2.0,
    },
}  # fmt: skip
SCALING_FIELDS = {f"{type(one).__name__}-{field}": (one, field) for one in SCALINGS for field in SCALINGS[one]}
VARIANTS = {RmsNorm: LayerNorm(epsilon=1e-6, zero_centered=True), Rope: LearnedPositions(length=32)}


def _fields(value, path=()):
    for field in dataclasses.fields(value):
        inner, here = getattr(value, field.name), (*path, field.name)
        if dataclasses.is_dataclass(inner):
            yield from _fields(inner, here)
        else:
            yield here


def _changed(value, path, new):
    if not path:
        return new
    return dataclasses.replace(value, **{path[0]: _changed(getattr(value, path[0]), path[1:], new)})


def _with_model(**changes):
    return dataclasses.replace(BASE, model=BASE.model.replace(**changes))


def _setup(path, new):
    base = BASE
    if path == ("model", "mlp", "input_norm"):  # it takes the place of the block's own norm
        base = _changed(base, ("model", "block_norms", "pre_mlp"), None)
    if path[-1] in ("prefix", "num_prefix_layers"):  # the one needs the other
        base = _with_model(prefix=Layer(), num_prefix_layers=2)
    if path[-1] in ("load_balance_weight", "choice_bias_rate"):
        base = _with_model(mlp=Moe(Router(4, 2, choice_bias=True), 24))
    if path == ("model", "positions", "proportional"):  # of the whole head it is the same
        base = _changed(base, ("model", "positions", "fraction"), 0.5)
    if path == ("model", "attention", "projection"):  # fused needs as many key heads
        base = _changed(base, ("model", "attention", "num_kv_heads"), base.model.attention.num_heads)
    return base, _changed(base, path, new)


def _holding(part):
    """BASE with this part in its place."""
    first, *others = BASE.model.cycle
    match part:
        case LatentAttention():
            return _with_model(attention=part)
        case Router():
            return _with_model(mlp=Moe(part, 24))
        case Moe():
            return _with_model(mlp=part)
        case GatedDelta():
            return _with_model(cycle=(dataclasses.replace(first, window=None, attention=part), *others))
        case Unrotated():
            return _with_model(cycle=(dataclasses.replace(first, rope=part), *others))


def _observed(setup, step="train_step"):
    specs = {name: models.backend(name).param_specs(setup.model) for name in SUBJECT.backends}
    prints = [fingerprint(program) for program in SUBJECT.programs(SUBJECT.case(setup, step))]
    return specs, [(made.value, made.execution) for made in prints]


def test_every_config_field_has_a_change_to_try():
    assert set(_fields(BASE)) == set(CHANGES) | set(EXEMPT)
    assert set(LAYERS) == {field.name for field in dataclasses.fields(Layer)}
    for scaling, changes in (SCALINGS | PARTS).items():
        assert set(changes) == {field.name for field in dataclasses.fields(scaling)}
    assert isinstance(BASE, Setup)
    assert isinstance(BASE.model, ModelConfig)


@pytest.mark.parametrize("name", PART_FIELDS)
def test_changing_any_one_field_of_a_part_shows_in_both_twins(name):
    part, field = PART_FIELDS[name]
    observed = []
    for one in (part, dataclasses.replace(part, **{field: PARTS[part][field]})):
        observed.append(_observed(_holding(one), "forward")[1])
    for backend, old, new in zip(SUBJECT.backends, *observed, strict=True):
        assert old != new, backend


@pytest.mark.parametrize("path", [path for path in CHANGES if path not in EXEMPT], ids="/".join)
def test_changing_any_one_config_field_shows_in_both_twins(path):
    base, changed = _setup(path, CHANGES[path])
    (_, before), (_, after) = _observed(base), _observed(changed)
    for backend, old, new in zip(SUBJECT.backends, before, after, strict=True):
        assert old != new, backend


@pytest.mark.parametrize("field", LAYERS)
def test_changing_any_one_field_of_a_layer_shows_in_both_twins(field):
    local, other = LAYERS[field], BASE.model.cycle[1]
    other = dataclasses.replace(other, name="layers_1", suffix="") if local.name else other
    _shows(BASE, _changed(BASE, ("model", "cycle"), (local, other)))


@pytest.mark.parametrize(("scaling", "field"), SCALING_FIELDS.values(), ids=SCALING_FIELDS)
def test_changing_any_one_field_of_a_scaling_shows_in_both_twins(scaling, field):
    long = dataclasses.replace(BASE.model.attention, head_dim=16)  # enough frequencies to tell the bounds apart
    path, base = ("model", "positions", "scaling"), _changed(BASE, ("model", "attention"), long)
    changed = dataclasses.replace(scaling, **{field: SCALINGS[scaling][field]})
    _shows(_changed(base, path, scaling), _changed(base, path, changed), step="forward")


def _shows(base, changed, **step):
    (specs, before), (changed_specs, after) = _observed(base, **step), _observed(changed, **step)
    for backend, old, new in zip(SUBJECT.backends, before, after, strict=True):
        assert old != new or specs[backend] != changed_specs[backend], backend


@pytest.mark.parametrize("kind", VARIANTS, ids=lambda kind: kind.__name__)
def test_changing_a_variant_shows_in_both_twins(kind):
    path = {RmsNorm: ("model", "norm"), Rope: ("model", "positions")}[kind]
    before, after = _observed(BASE), _observed(_changed(BASE, path, VARIANTS[kind]))
    for old, new in zip(before[1], after[1], strict=True):
        assert old != new


@pytest.mark.parametrize("backend_name", SUBJECT.backends)
def test_the_seed_starts_the_streams(backend_name):
    setup = SETUPS["llama-scanned"]
    config = setup.model.replace(dropout_rate=0.5)
    backend, batch = models.backend(backend_name), None
    params = backend.init(config, jax.random.key(0))
    losses = []
    for seed in (0, 1, 0):
        train = TrainConfig(optimizer=AdamW(), seed=seed)
        program = SUBJECT.program(backend_name, SUBJECT.case(Setup(config, train), "train_step"))
        batch = program.draw(jax.random.key(2))[1][0]
        state = backend.create_state(config, train, params)
        losses.append(float(jax.jit(backend.train_step(config, train))(state, batch)[1]["loss"]))
    assert losses[0] == losses[2] != losses[1]
