"""The commands `import-hf` and `export-hf`: the way there and back, and bad input in one sentence, nothing written."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from harness.cli import main
from models import backend, cli, preset
from models.checkpoints import load, save_hf
from models.config import dumps

CONFIG = preset("olmo3-tiny")
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


def _params(config):
    rng = np.random.default_rng(1)
    return {
        name: rng.standard_normal(spec.shape, np.float32) for name, spec in backend("nnx").param_specs(config).items()
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model in Hugging Face's layout, in several files."""
    directory = tmp_path_factory.mktemp("hf") / "model"
    save_hf(CONFIG, _params(CONFIG), directory, shard_bytes=20_000)
    return directory


def _tensors(directory):
    files = sorted(directory.glob("*.safetensors"))
    return {name: value for file in files for name, value in safetensors.numpy.load_file(file).items()}


@pytest.mark.parametrize("scan", [True, False], ids=["scanned", "unscanned"])
def test_every_tensor_comes_back_to_the_bit(scan, model, tmp_path, capsys):
    cli.import_hf(model, tmp_path / "run", scan=scan)
    config, _ = load(tmp_path / "run")
    assert config == CONFIG.replace(scan_layers=scan)
    cli.export_hf(tmp_path / "run", tmp_path / "back", shard_bytes=20_000)
    there, back = _tensors(model), _tensors(tmp_path / "back")
    assert there.keys() == back.keys()
    for name, value in there.items():
        assert (value.shape, value.dtype, value.tobytes()) == (back[name].shape, back[name].dtype, back[name].tobytes())
    assert (model / "config.json").read_text() == (tmp_path / "back/config.json").read_text()
    assert len(list((tmp_path / "back").glob("*.safetensors"))) == len(list(model.glob("*.safetensors"))) > 1
    assert "olmo3, " in capsys.readouterr().out


def test_an_imported_model_is_a_train_state_of_either_twin(model, tmp_path):
    from models.checkpoints import restore
    from models.config import TrainConfig

    cli.import_hf(model, tmp_path / "run")
    _, params = load(tmp_path / "run")
    for name in ("linen", "nnx"):
        twin = backend(name)
        state = restore(tmp_path / "run", backend=twin, config=CONFIG, train=TrainConfig())
        assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), twin.params_of(state), params)))


def test_a_checkpoint_without_a_config_needs_one(model, tmp_path):
    cli.import_hf(model, tmp_path / "run")
    (tmp_path / "run/0/config.json").unlink()
    file = tmp_path / "model.json"
    file.write_text(dumps(CONFIG))
    with pytest.raises(ValueError, match=r"has no config\.json"):
        cli.export_hf(tmp_path / "run", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    cli.export_hf(tmp_path / "run", tmp_path / "back", config=file)
    assert _tensors(tmp_path / "back").keys() == _tensors(model).keys()


def _rewrite(directory, change):
    tensors = change(_tensors(directory))
    for file in directory.glob("model*"):
        file.unlink()
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")


def _edit(directory, **keys):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def _truncate(directory):
    path = sorted(directory.glob("*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-1])


BAD = {
    "missing tensor": (lambda d: _rewrite(d, lambda t: {k: v for k, v in t.items() if k != Q_PROJ}), Q_PROJ),
    "extra tensor": (lambda d: _rewrite(d, lambda t: {**t, "model.extra": t[Q_PROJ]}), "model.extra"),
    "wrong shape": (lambda d: _rewrite(d, lambda t: {**t, Q_PROJ: t[Q_PROJ][:-1].copy()}), Q_PROJ),
    "wrong dtype": (lambda d: _rewrite(d, lambda t: {**t, Q_PROJ: t[Q_PROJ].astype(np.float16)}), Q_PROJ),
    "truncated file": (_truncate, "is truncated or damaged"),
    "missing shard": (lambda d: sorted(d.glob("*.safetensors"))[1].unlink(), "00002-of-"),
    "unsupported architecture": (lambda d: _edit(d, model_type="mamba"), "model_type = 'mamba'"),
    "unknown attribute": (lambda d: _edit(d, attention_temperature=2.0), "attention_temperature = 2.0"),
    "unsupported scaling": (
        lambda d: _edit(d, rope_parameters={"full_attention": {"rope_type": "dynamic", "factor": 2.0}}),
        "rope_parameters = ",
    ),
    "no config": (lambda d: (d / "config.json").unlink(), "config.json: is missing"),
}


@pytest.fixture
def commands(monkeypatch):
    """The command line with both commands, as the entry points of an installed distribution give them."""
    import importlib.metadata

    import typer

    import harness.cli
    from harness import extensions

    entries = importlib.metadata.EntryPoints(
        importlib.metadata.EntryPoint(name, f"models.cli:{name.replace('-', '_')}", extensions.GROUP)
        for name in ("import-hf", "export-hf")
    )
    monkeypatch.setattr("harness.extensions.importlib.metadata.entry_points", lambda group: entries.select(group=group))
    app = typer.Typer()
    app.callback()(lambda: None)
    extensions.add_to(app)
    monkeypatch.setattr(harness.cli, "app", app)


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_nothing_is_written(case, model, tmp_path, capfd):
    damage, words = BAD[case]
    bad = tmp_path / "bad"
    bad.mkdir()
    for file in model.iterdir():
        (bad / file.name).write_bytes(file.read_bytes())
    damage(bad)
    assert main(["import-hf", str(bad), str(tmp_path / "run")]) == 2
    said = capfd.readouterr().err.strip()
    assert words in said
    assert len(said.splitlines()) == 1
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("commands")
def test_nothing_that_exists_is_written_over(model, tmp_path, capfd):
    assert main(["import-hf", str(model), str(tmp_path / "run")]) == 0
    before = sorted(path.name for path in (tmp_path / "run/0").rglob("*"))
    capfd.readouterr()
    assert main(["import-hf", str(model), str(tmp_path / "run")]) == 2
    assert "run: exists already" in capfd.readouterr().err
    assert main(["export-hf", str(tmp_path / "run"), str(model)]) == 2
    assert "model: exists already" in capfd.readouterr().err
    assert main(["export-hf", str(tmp_path / "nowhere"), str(tmp_path / "back")]) == 2
    assert "nowhere: is not there" in capfd.readouterr().err
    assert sorted(path.name for path in (tmp_path / "run/0").rglob("*")) == before
    assert not (tmp_path / "back").exists()


@pytest.mark.usefixtures("commands")
def test_a_model_that_hugging_face_cannot_say_is_refused_by_field(tmp_path, capfd):
    from models.checkpoints import save
    from models.config import TrainConfig

    config, twin = preset("gpt3-tiny"), backend("linen")
    state = twin.create_state(config, TrainConfig(), _params(config))
    save(tmp_path / "run", state, backend=twin, config=config, train=TrainConfig())
    assert main(["export-hf", str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    said = capfd.readouterr().err.strip()
    assert said.startswith("norm = ") or "norm = " in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()
