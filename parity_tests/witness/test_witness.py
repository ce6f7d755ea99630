"""Both twins against the recorded logits of Hugging Face, and that the comparison can fail. Needs no torch."""

import dataclasses
import functools
import shutil

import numpy as np
import pytest

from harness.goldens import read_blob
from models.config import Rope

from .cases import LENGTHS, RECORDED, Batch
from .planted import FAULTS, SMALL_FAULTS, epsilon, layers, router
from .ratio import (
    BACKENDS,
    EXACT_LIMIT,
    GRADIENT_LIMIT,
    LIMIT,
    float64_logits_of,
    gradient_ratios,
    gradients_of,
    logits_by_params,
    logits_of,
    model_of,
    ratio,
    unheard,
    verdict,
)
from .recordings import FILES, ROOT, load


@pytest.fixture(scope="module")
def recording():
    """`recording(name)`, each read once."""
    return functools.cache(load)


BOTH_WAYS = ("llama", "gemma2", "gemma3", "gpt2", "deepseek_v3")
"""Run by each twin, scanned and unscanned. Of the others each twin runs one: that it is the same model is proved."""
RUNS = [
    (name, backend_name, layers)
    for name in RECORDED
    for backend_name in BACKENDS
    for layers in ("scanned", "unscanned")
    if name in BOTH_WAYS or (backend_name == "linen") == (layers == "scanned")
]


@pytest.mark.gate
@pytest.mark.parametrize(("name", "backend_name", "layers"), RUNS)
def test_twin_agrees_with_hugging_face(name, backend_name, layers, recording, parity):
    try:
        heard = recording(name)
    except ValueError as error:
        answer, family = unheard(error), ""
    else:
        config, params = model_of(heard, scan_layers=layers == "scanned")
        logits = logits_of(backend_name, config, params, heard.batch)
        answer, family = verdict(logits, heard, name=backend_name), config.family
    parity.expect(answer, case=f"{name}-{backend_name}", observable="witness", family=family, layers=layers)


@pytest.mark.parametrize("backend_name", BACKENDS)
@pytest.mark.parametrize("name", RECORDED)
def test_twin_means_what_hugging_face_means(name, backend_name, recording):
    heard = recording(name)
    config, params = model_of(heard)
    assert ratio(float64_logits_of(backend_name, config, params, heard.batch), heard) <= EXACT_LIMIT


@pytest.mark.parametrize("name", RECORDED)
def test_gradients_agree_with_hugging_face(name, recording):
    """One twin each: that the other has the same gradients is proved."""
    heard = recording(name)
    config, params = model_of(heard)
    backend_name = BACKENDS[list(RECORDED).index(name) % 2]
    found = gradient_ratios(gradients_of(backend_name, config, params, heard.batch), heard)
    assert found.keys() == heard.tensors.keys()
    assert max(found.values()) <= GRADIENT_LIMIT, {key: value for key, value in found.items() if value > GRADIENT_LIMIT}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_model_is_heard(fault, recording, parity):
    name, break_config = FAULTS[fault]
    heard = recording(name)
    config, params = model_of(heard)
    logits = logits_of("linen", break_config(config), params, heard.batch)
    parity.control(verdict(logits, heard, name="linen"), case=name, fault=fault, localised="times as far")
    assert ratio(logits, heard) > 10 * LIMIT


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("llama", lambda config: config.replace(positions=Rope(505_000.0))),
        ("gemma3", lambda config: layers(config, window=25)),
        ("deepseek_v3", lambda config: router(config, scale=2.45)),
    ],
)
def test_a_fault_in_the_model_is_heard_in_the_gradients(name, fault, recording):
    heard = recording(name)
    config, params = model_of(heard)
    found = gradient_ratios(gradients_of("nnx", fault(config), params, heard.batch), heard)
    assert max(found.values()) > 10 * GRADIENT_LIMIT


@pytest.mark.parametrize("name", RECORDED)
def test_a_small_fault_is_seen_in_what_a_twin_means(name, recording):
    heard = recording(name)
    config, params = model_of(heard)
    logits = float64_logits_of("linen", epsilon(config, SMALL_FAULTS[name]), params, heard.batch)
    assert ratio(logits, heard) > 2 * EXACT_LIMIT


def _last_row(heard):
    """The recording of its last row alone, which costs a tenth of the whole."""
    length = heard.batch.lengths[-1]
    batch = Batch(heard.batch.tokens[-1:, :length], (length,))
    return dataclasses.replace(heard, batch=batch, truth=heard.truth[-length:])


@pytest.mark.parametrize("name", RECORDED)
def test_every_parameter_leaf_is_heard(name, recording):
    heard = _last_row(recording(name))
    config, params = model_of(heard)
    logits = logits_by_params("nnx", config, heard.batch)
    rng, deaf = np.random.default_rng(5), []
    for leaf, value in params.items():
        # Uneven: a norm that follows would undo a common factor.
        changed = {**params, leaf: value * (1 + 0.01 * rng.standard_normal(value.shape).astype(value.dtype))}
        if ratio(logits(changed), heard) <= LIMIT:
            deaf.append(leaf)
    assert deaf == []


@pytest.mark.parametrize("name", RECORDED)
def test_what_the_padding_holds_does_not_matter(name, recording):
    heard = recording(name)
    config, params = model_of(heard)
    other = np.where(heard.batch.valid, heard.batch.tokens, (heard.batch.tokens + 1) % config.vocab_size)
    logits = logits_of("linen", config, params, dataclasses.replace(heard.batch, tokens=other))
    assert ratio(logits, heard) <= LIMIT


def test_a_logit_that_is_not_a_number_is_no_agreement(recording):
    assert ratio(np.full_like(recording("llama").truth, np.nan), recording("llama")) == np.inf


@pytest.mark.parametrize("name", RECORDED)
def test_recording_shows_what_a_fault_could_hide_behind(name, recording):
    heard = recording(name)
    assert heard.truth.shape == (sum(LENGTHS), heard.attributes["vocab_size"])
    assert heard.truth.dtype == np.float64
    assert np.isfinite(heard.truth).all()
    assert heard.truth.std() > 1
    assert heard.batch.lengths == LENGTHS
    assert all(np.unique(value).size > value.size / 2 for value in heard.tensors.values())
    assert (ROOT / f"witness/{name}.npz").stat().st_size <= 2**20


def test_missing_recording_is_an_error_that_names_it(tmp_path):
    shutil.copytree(ROOT, tmp_path, dirs_exist_ok=True)
    (tmp_path / "witness/llama.npz").unlink()
    with pytest.raises(ValueError, match=r"^golden witness/llama\.npz: is missing; .*make witness"):
        load("llama", tmp_path)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:5000] + b"!" + data[5001:]])
def test_damaged_recording_is_an_error_that_names_it(damage, tmp_path):
    shutil.copytree(ROOT, tmp_path, dirs_exist_ok=True)
    (tmp_path / "witness/llama.npz").write_bytes(damage((tmp_path / "witness/llama.npz").read_bytes()))
    with pytest.raises(ValueError, match=r"^golden witness/llama\.npz: is truncated or was edited.*make witness"):
        load("llama", tmp_path)


def test_no_recording_is_missing_unused_or_damaged():
    assert sorted(f"witness/{path.name}" for path in (ROOT / "witness").iterdir()) == sorted(FILES)
    assert all(read_blob(ROOT, name) for name in FILES)
