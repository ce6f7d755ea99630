"""The commands: help like a manual, and every bad input one sentence on stderr, exit code 2, nothing lost."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from harness import goldens
from harness.cli import main
from harness.subjects.compact import SUBJECT
from harness.subjects.compact.setup import dumps
from models.config import to_json

ROOT = pathlib.Path(__file__).resolve().parents[1]
TINY = SUBJECT.tiny_setups()["llama-scanned"]


def refused(capfd, *arguments):
    """The one sentence that a command answers bad input with."""
    code = main([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    assert code == 2, captured
    assert "Traceback" not in captured.err
    assert len(captured.err.strip().splitlines()) == 1, captured.err
    return captured.err


def written(path, change):
    data = to_json(TINY)
    change(data)
    path.write_text(json.dumps(data))
    return path


def test_an_unknown_config_key_is_named_with_the_nearest_one(tmp_path, capfd):
    path = written(tmp_path / "config.json", lambda data: data["model"].update(vocab_sise=3))
    said = refused(capfd, "check", path)
    assert "vocab_sise" in said
    assert "vocab_size" in said


def test_an_impossible_combination_says_which_rule(tmp_path, capfd):
    path = written(tmp_path / "config.json", lambda data: data["model"]["attention"].update(num_kv_heads=3))
    said = refused(capfd, "check", path)
    assert "num_kv_heads = 3" in said
    assert "must divide" in said


def test_an_unknown_preset_offers_the_nearest(capfd):
    assert "llama-tiny" in refused(capfd, "check", "lama-tiny")


def test_a_config_that_is_not_json_is_named(tmp_path, capfd):
    path = tmp_path / "config.json"
    path.write_text('{"model": ')
    assert "config.json" in refused(capfd, "check", path)


def test_an_unknown_step_lists_the_known_ones(capfd):
    assert "train_step" in refused(capfd, "check", "llama-tiny", "--step", "trian_step")


@pytest.mark.parametrize("token", ["nonsense", "AAAA", ""])
def test_a_token_that_is_none_is_refused(token, capfd):
    refused(capfd, "repro", token)


def test_a_wrong_flag_and_a_wrong_budget_are_refused(capfd):
    assert "--bugdet" in refused(capfd, "gate", "--bugdet", "3m")
    assert "budget" in refused(capfd, "gate", "--budget", "soon")


def test_an_unknown_subject_is_refused(capfd):
    assert "nowhere" in refused(capfd, "check", "llama-tiny", "--subject", "nowhere:SUBJECT")


def test_too_few_devices_for_a_mesh_are_counted():
    code = (
        "from harness.subjects.compact.setup import device_mesh\n"
        "try:\n    device_mesh('cpu-8')\nexcept ValueError as error:\n    print(error)\n"
    )
    environment = {"PATH": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "needs 8 devices and 1 are there" in said.stdout
    assert "xla_force_host_platform_device_count" in said.stdout


@pytest.fixture
def store(tmp_path):
    copy = tmp_path / "goldens"
    shutil.copytree(ROOT / "goldens", copy)
    return copy


def first_golden(store):
    return next(path for path in sorted((store / "llama").glob("*.txt")))


def test_a_missing_golden_is_named(store, capfd):
    path = first_golden(store)
    path.unlink()
    assert path.name in refused(capfd, "goldens", "status", "--goldens", store)


def test_a_truncated_golden_is_named_and_the_others_stay(store, capfd):
    path = first_golden(store)
    path.write_text(path.read_text()[:300])
    others = {other: other.read_bytes() for other in store.rglob("*.txt") if other != path}
    assert path.name in refused(capfd, "goldens", "status", "--goldens", store)
    assert all(other.read_bytes() == content for other, content in others.items())


def test_an_unused_golden_is_named(store, capfd):
    (store / "llama" / "llama-gone-00000000.txt").write_bytes(first_golden(store).read_bytes())
    assert "llama-gone" in refused(capfd, "goldens", "status", "--goldens", store)


def test_nothing_is_regenerated_under_ci(store, capfd, monkeypatch):
    monkeypatch.setenv("CI", "true")
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    refused(capfd, "goldens", "regen", "--goldens", store)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_a_stale_golden_diverges_and_says_what_changed(store, monkeypatch):
    monkeypatch.delenv("CI", raising=False)  # the store is a scratch copy
    case = SUBJECT.case(TINY, "forward", label="llama-scanned")
    current = SUBJECT.golden(case)
    stale = goldens.Golden(
        current.case_id,
        {**current.sections, "fingerprints": {**current.sections["fingerprints"], "value of nnx": "0" * 16}},
    )
    goldens.write(store, stale)
    verdict = goldens.check(store, current)
    assert not verdict
    assert "value of nnx" in verdict.explain()
    assert "regen" in verdict.explain()


@pytest.mark.parametrize(
    "command", [[], ["gate"], ["check"], ["prove"], ["repro"], ["goldens"], ["train"], ["presets"]]
)
def test_every_help_says_what_the_command_is_for(command, capfd):
    assert main([*command, "--help"]) == 0
    text = capfd.readouterr().out
    assert "Usage: paraflax" in text
    assert len(text.split()) > 25


@pytest.fixture
def stray(tmp_path):
    """An environment in which a file `models.py` comes before the package."""
    (tmp_path / "models.py").write_text("x = 1\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "JAX_PLATFORMS": "cpu"}


@pytest.mark.parametrize(
    ("command", "code"),
    [(["pytest", "-q", "parity_tests/test_readme.py"], 4), (["harness.cli", "check", "llama-tiny"], 2)],
    ids=["pytest", "check"],
)
def test_a_stray_models_file_is_named(stray, command, code):
    run = [sys.executable, "-P", "-m", *command]
    said = subprocess.run(run, cwd=ROOT, env=stray, capture_output=True, text=True, check=False)
    assert said.returncode == code, said.stdout + said.stderr
    assert "models.py" in said.stderr
    assert "shadows" in said.stderr
    assert "Traceback" not in said.stderr


def test_the_setup_reads_back(tmp_path):
    path = tmp_path / "setup.json"
    path.write_text(dumps(TINY))
    assert SUBJECT.read_config(str(path)) == TINY
