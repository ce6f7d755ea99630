"""Hugging Face live, on random models: `pytest -m witness`, with the extra `witness` installed."""

import json

import numpy as np
import pytest

from models.checkpoints.huggingface import config_from_hf, load_hf, params_to_hf, save_hf

from .cases import LENGTHS, RECORDED, draw_batch
from .random_cases import MODEL_TYPES, random_attributes, random_batch
from .ratio import (
    BACKENDS,
    EXACT_LIMIT,
    GRADIENT_LIMIT,
    LIMIT,
    float64_logits_of,
    gradient_ratios,
    gradients_of,
    logits_of,
    model_of,
    ratio,
)
from .recordings import load

pytestmark = pytest.mark.witness

SEEDS = range(4)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_twins_agree_with_hugging_face_on_random_models(model_type, seed, record_property):
    from .record import recorded

    attributes = random_attributes(model_type, seed)
    heard, _ = recorded(attributes, random_batch(attributes["vocab_size"], seed), seed=seed)
    config, params = model_of(heard, scan_layers=seed % 2 == 0)
    twin = BACKENDS[seed % 2]
    found = {backend: ratio(logits_of(backend, config, params, heard.batch), heard) for backend in BACKENDS}
    exact = ratio(float64_logits_of(twin, config, params, heard.batch), heard)
    gradients = gradient_ratios(gradients_of(twin, config, params, heard.batch), heard)
    record_property("ratio", {backend: round(value, 3) for backend, value in found.items()})
    record_property("exact", round(exact, 4))
    record_property("gradient", round(max(gradients.values()), 3))
    assert max(found.values()) <= LIMIT, (found, attributes)
    assert exact <= EXACT_LIMIT, (exact, attributes)
    assert max(gradients.values()) <= GRADIENT_LIMIT, (gradients, attributes)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_config_means_what_their_class_makes_of_it(model_type, seed, tmp_path):
    """Their class fills in what is absent and spells it anew: what it then writes must mean the same to us."""
    import transformers

    attributes = random_attributes(model_type, seed)
    rng = np.random.default_rng(seed)
    optional = ("num_key_value_heads", "head_dim", "rms_norm_eps", "tie_word_embeddings", "sliding_window", "n_inner")
    left_out = {key for key in optional if rng.random() < 0.5}
    left_out -= {"num_key_value_heads"} if model_type == "deepseek_v3" else set()  # the class would take 128
    given = {key: value for key, value in attributes.items() if key not in left_out}
    if model_type != "gpt2":
        given["hidden_size"] = 24  # an even head dim for every number of heads
        if "num_key_value_heads" in left_out:
            given |= {"num_attention_heads": 32, "hidden_size": 64}  # what their defaults divide
    transformers.AutoConfig.for_model(**given).save_pretrained(tmp_path)
    theirs = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config_from_hf(theirs) == config_from_hf(given)


@pytest.mark.parametrize("name", RECORDED)
def test_recording_is_what_hugging_face_says_today(name):
    from .record import TOKEN_SEED, WEIGHT_SEED, recorded

    kept, batch = load(name), draw_batch(RECORDED[name]["vocab_size"], LENGTHS, seed=TOKEN_SEED)
    today, _ = recorded(RECORDED[name], batch, seed=WEIGHT_SEED)
    assert kept.attributes == today.attributes
    assert kept.tensors.keys() == today.tensors.keys()
    assert all(np.array_equal(kept.tensors[key], today.tensors[key]) for key in kept.tensors)
    # Two float64 sums in another order: far below the float32 error that the ratio is about.
    assert np.abs(kept.truth - today.truth).max() < 1e-6 * kept.float32_error
    for key, gradient in kept.gradients.items():  # rounded to float32 once, so the last bit may fall otherwise
        np.testing.assert_allclose(gradient, today.gradients[key], rtol=2e-7, atol=1e-12)


@pytest.mark.parametrize("shard_size", [10**9, 60_000], ids=["whole", "sharded"])
@pytest.mark.parametrize("name", RECORDED)
def test_directories_are_read_both_ways(name, shard_size, tmp_path):
    import transformers

    from .hugging_face import filed

    heard = load(name)
    config, params = model_of(heard)
    save_hf(config, params, tmp_path / "ours", shard_bytes=shard_size)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report[part] for part in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    held = filed(theirs)
    assert held.keys() == heard.tensors.keys()
    assert all(np.array_equal(value, heard.tensors[key]) for key, value in held.items())
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=shard_size)
    back_config, back = load_hf(tmp_path / "theirs")
    assert back_config == config
    tensors = params_to_hf(back_config, back)
    assert tensors.keys() == heard.tensors.keys()
    assert all(tensors[key].tobytes() == heard.tensors[key].tobytes() for key in tensors)
