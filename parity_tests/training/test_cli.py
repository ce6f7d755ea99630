"""The command `train`: what it refuses, and what it prints."""

import json

import jax
import pytest

import models
from models import cli
from models.checkpoints import save
from models.config import ConfigError, dumps


def _config_file(tmp_path, config):
    path = tmp_path / "model.json"
    path.write_text(dumps(config))
    return path


def test_an_unknown_family_is_refused():
    with pytest.raises(ConfigError, match="'lama': must be one of llama, gpt3, gemma2"):
        cli.train(family="lama")


def test_a_family_and_a_config_file_together_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="together with --config"):
        cli.train(family="gpt3", config=_config_file(tmp_path, models.preset("llama-tiny")))


def test_an_unknown_backend_is_refused():
    with pytest.raises(ConfigError, match="one of linen, nnx"):
        cli.train(backend="haiku")


def test_an_unknown_key_of_a_config_file_is_named(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(json.dumps({**json.loads(dumps(models.preset("llama-tiny"))), "num_layer": 3}))
    with pytest.raises(ConfigError, match=r"num_layer = 3: is not a field of ModelConfig; did you mean 'num_layers'"):
        cli.train(config=path)


@pytest.mark.parametrize(("content", "rule"), [("{", "is not JSON"), (None, "cannot be read")])
def test_a_config_file_that_is_none_is_refused(content, rule, tmp_path):
    path = tmp_path / "model.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=rule):
        cli.train(config=path)


def test_a_model_that_cannot_read_bytes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="vocab_size = 97: must be at least 259"):
        cli.train(config=_config_file(tmp_path, models.preset("llama-tiny")))


def test_rows_longer_than_the_learned_positions_are_refused():
    with pytest.raises(ConfigError, match=r"positions.length = 1024: is below --length = 2000"):
        cli.train(family="gpt3", length=2000)


def test_a_run_says_what_it_trains_and_ends_with_the_held_out_loss(tmp_path, capsys):
    text = tmp_path / "text"
    text.mkdir()
    for index in range(30):
        (text / f"{index}.txt").write_text(f"line {index} of a short text\n" * 4)
    tiny = models.preset("llama-tiny").replace(vocab_size=264, num_layers=1)
    backend, out = models.backend("nnx"), tmp_path / "run"
    zeros = {name: jax.numpy.zeros(spec.shape, spec.dtype) for name, spec in backend.param_specs(tiny).items()}
    state = backend.create_state(tiny, models.TrainConfig(), zeros)
    start = save(tmp_path / "start", state, backend=backend, config=tiny)
    cli.train(config=_config_file(tmp_path, tiny), steps=2, batch=2, length=16, text=[text], start=start, out=out)
    printed = " ".join(capsys.readouterr().out.split())
    assert "llama, " in printed
    assert "held-out loss " in printed
    assert "nats a byte after step 2" in printed
    assert {path.name for path in out.iterdir()} == {"0", "2", "metrics.jsonl", ".lock"}


def test_a_default_directory_is_never_one_that_exists(tmp_path):
    (tmp_path / "llama-nnx-1").mkdir()
    assert cli._free_directory(tmp_path, "llama-nnx") == tmp_path / "llama-nnx-2"
