"""The command: help like a manual page, one sentence for wrong input, and an exit code for every end."""

import importlib.metadata
import json
import re
import sys
import types

import pytest

from harness import cli, goldens
from harness.goldens import Golden
from harness.subjects import Case, NamedVerdict
from harness.verdict import Kind

from .verdicts import run_python, verdict

COMMANDS = [
    "gate",
    "check",
    "repro",
    "prove",
    "goldens",
    "goldens status",
    "goldens regen",
    "goldens review",
    "goldens accept",
]


class WrongConfig(ValueError):
    """What a subject raises."""


class Config:
    family = "toy"


class ToySubject:
    """Config `7` diverges, `8` is undecided, `9` crashes, `10` compares nothing, everything else is proved."""

    name, backends, steps, forbidden_sources = "toy", ("a", "b"), ("forward", "train_step"), {}

    def case(self, config, step, *, mesh=None, label=None):
        if step not in self.steps:
            raise WrongConfig(f"step = {step!r}: must be forward or train_step; name a known step.")
        return Case("toy_subject:SUBJECT", Config(), json.dumps(config), step, mesh, label)

    def read_config(self, text):
        if not text.isdigit():
            raise WrongConfig(f"config = {text!r}: is no number;\nname one.")
        return int(text)

    def case_from_json(self, data):
        return self.case(data["config"], data["step"], mesh=data.get("mesh"))

    def case_from_token(self, token):
        from harness.subjects.case import read_token

        return self.case_from_json(read_token(token))

    def preset_cases(self):
        return [self.case(1, "forward"), self.case(2, "forward")]

    golden_cases = preset_cases

    def golden(self, case):
        return Golden(case.id, {"case": {"family": "toy"}, "leaves": {"a": "f32" + ELSE.get("golden", "")}})

    def check(self, case):
        if case.config_json == "9":
            raise RuntimeError("boom\nsecond line")
        kind = {"7": Kind.DIVERGED, "8": Kind.UNDECIDED}.get(case.config_json, Kind.PROVED)
        if case.config_json != "10":
            yield NamedVerdict("logits", verdict(kind), case)


ELSE = {}


@pytest.fixture
def here(tmp_path, monkeypatch):
    module = types.ModuleType("toy_subject")
    module.SUBJECT = ToySubject()
    monkeypatch.setitem(sys.modules, "toy_subject", module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("harness.gate.settle_platform", lambda: None)
    monkeypatch.setattr("harness.cli.settle_platform", lambda: None)
    monkeypatch.delenv("CI", raising=False)
    ELSE.clear()
    return tmp_path


def toy(*words):
    return cli.main([*words, "--subject", "toy_subject:SUBJECT"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_purpose_exit_codes_and_defaults(command, capsys):
    assert cli.main([*command.split(), "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Usage: paraflax" in text
    assert "Exit codes: 0" in text
    if command == "gate":
        for words in ("10m", "paraflax gate --only gemma2", "Default: 0", "records.jsonl", "4 our own crash"):
            assert words in text


@pytest.mark.parametrize(
    ("config", "code"), [("1", 0), ("7", 1), ("8", 3), ("10", 3), ("9", 4), ("x", 2)], ids=lambda value: str(value)
)
def test_check_answers_with_the_exit_code_of_its_verdicts(config, code, here, capsys):
    assert toy("check", config, "--step", "forward") == code
    said = capsys.readouterr()
    if config == "7":
        assert "first difference: mul" in said.out
        assert "rerun: paraflax repro eN" in said.out
    if code in (2, 4):
        assert said.err.count("\n") == 1
        assert "Traceback" not in said.err


def test_a_crash_says_where_its_traceback_is(here, capsys):
    assert toy("check", "9") == 4
    said = capsys.readouterr().err
    (path,) = re.findall(r"the traceback is in (\S+)\.$", said)
    assert "crashed: RuntimeError: boom;" in said
    assert "second line" in (here / path).read_text()


WRONG = [
    ["check", "1", "--step", "backward"],
    ["check", "none.json"],
    ["check", "1", "--subject", "nowhere:SUBJECT"],
    ["check", "1", "--subject", "nobody"],
    ["check"],
    ["gate", "--budget", "ten"],
    ["gate", "--budget", "-5m"],
    ["gate", "--budget", "nan"],
    ["gate", "--budget", "inf"],
    ["gate", "--profile", "weekly"],
    ["gate", "-n", "many"],
    ["gate"],
    ["repro", "nonsense"],
    ["prove", "os.path", "os:sep"],
    ["prove", "nowhere:a", "nowhere:b"],
    ["prove", "os:sep", "os:sep"],
    ["goldens", "regen", "--bogus"],
    ["bogus"],
    ["--bogus"],
]


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_input_is_one_sentence_and_exit_2(words, here, capsys):
    words = (
        words
        if "--subject" in words or words[0] != "check" or len(words) < 2
        else [*words, "--subject", "toy_subject:SUBJECT"]
    )
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert said.err.startswith("paraflax: ")
    assert said.err.endswith(".\n")
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.out + said.err


def test_a_json_file_holds_a_config_or_a_whole_case(here, capsys):
    (here / "case.json").write_text('{"config": 7, "step": "train_step"}')
    assert toy("check", "case.json") == 1
    assert "train_step" in capsys.readouterr().out
    (here / "broken.json").write_text('{"config": ')
    assert toy("check", "broken.json") == 2
    assert "is not JSON" in capsys.readouterr().err


def test_a_printed_token_repeats_the_case(here, capsys):
    token = ToySubject().case(7, "forward").token
    assert cli.main(["repro", token]) == 1
    said = capsys.readouterr().out
    assert "case: SUBJECT.case(" in said
    assert "first difference: mul" in said


def test_goldens_from_missing_to_accepted(here, capsys):
    assert toy("goldens", "status") == 2
    assert capsys.readouterr().err.count("is missing") == 2
    assert toy("goldens", "regen") == 0
    assert toy("goldens", "status") == 0
    ELSE["golden"] = "[8]"
    assert toy("goldens", "status") == 1
    assert toy("goldens", "regen", "*") == 0
    capsys.readouterr()
    assert cli.main(["goldens", "review"]) == 0
    assert "[leaves] a: recorded f32, now f32[8]" in capsys.readouterr().out
    assert cli.main(["goldens", "reject", ToySubject().preset_cases()[0].id]) == 0
    assert cli.main(["goldens", "accept"]) == 0
    stored = [goldens.read(here / "goldens" / goldens.filename_of(case)) for case in ToySubject().golden_cases()]
    assert [golden.sections["leaves"]["a"] for golden in stored] == ["f32", "f32[8]"]


def test_unused_goldens_are_red_until_pruned(here, capsys):
    assert toy("goldens", "regen") == 0
    goldens.write(here / "goldens", Golden("toy-gone-1", {"case": {"family": "toy"}, "leaves": {"a": "f32"}}))
    assert toy("goldens", "status") == 2
    assert "toy/toy-gone-1.txt: is unused" in capsys.readouterr().err
    assert toy("goldens", "prune") == 0
    assert toy("goldens", "status") == 0


@pytest.mark.parametrize("words", [["regen"], ["prune"]])
def test_under_ci_the_goldens_commands_write_nothing(words, here, capsys, monkeypatch):
    monkeypatch.setenv("CI", "true")
    assert toy("goldens", *words) == 2
    assert "environment variable CI" in capsys.readouterr().err
    assert not (here / "goldens").exists()


def test_a_truncated_golden_is_named_by_review(here, capsys):
    assert toy("goldens", "regen") == 0
    ELSE["golden"] = "[8]"
    assert toy("goldens", "regen") == 0
    (path,) = list((here / "goldens").rglob(f"{ToySubject().preset_cases()[0].id}.txt"))
    path.write_text(path.read_text()[:-9])
    capsys.readouterr()
    assert cli.main(["goldens", "review"]) == 2
    assert "content hash" in capsys.readouterr().err


def test_version_names_paraflax_and_jax(capsys):
    assert cli.main(["--version"]) == 0
    assert re.match(r"paraflax .* \(python 3\.\d+\.\d+, jax \d", capsys.readouterr().out)


SHOUT = '''
def shout(word: str, *, times: int = 1) -> None:
    """Say a word aloud.

    More of it.
    """
    print(word.upper() * times)
'''


def test_commands_of_others_are_named_without_loading_and_get_their_arguments(here, capsys, monkeypatch):
    package = here / "others"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "cli.py").write_text(SHOUT)
    monkeypatch.syspath_prepend(str(here))
    entries = importlib.metadata.EntryPoints(
        [importlib.metadata.EntryPoint("shout", "others.cli:shout", "paraflax.commands")]
    )
    monkeypatch.setattr("harness.extensions.importlib.metadata.entry_points", lambda group: entries.select(group=group))
    monkeypatch.setattr(cli.app, "registered_commands", [*cli.app.registered_commands])
    assert cli.main(["--help"]) == 0
    assert "Say a word aloud." in capsys.readouterr().out
    assert "others.cli" not in sys.modules
    assert cli.main(["shout", "hey", "--times", "2"]) == 0
    assert capsys.readouterr().out == "HEYHEY\n"
    assert cli.main(["shout", "--bogus"]) == 2
    assert cli.main(["shout", "--help"]) == 0


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("45", 45), ("1.5m", 90)])
def test_times_are_read_with_their_units(text, seconds):
    assert cli.read_time(text) == seconds


GATE = """
import pytest
from parity_tests.report.verdicts import verdict
from harness.verdict import Kind

@pytest.mark.gate
def test_it(parity):
    parity.expect(verdict(Kind.{kind}), case="llama-1", observable="logits", family="llama", layers="scanned")
"""


def gate(directory, *words):
    return run_python(directory, "-m", "harness.cli", "gate", "-n", "0", "--report", "out", *words)


def test_the_gate_prints_table_and_certificate_and_answers_parity_then_divergence(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_a.py").write_text(GATE.format(kind="PROVED"))
    done = gate(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("verdicts", "1 proved", "certificate", "report in out"):
        assert words in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "records.jsonl", "summary.md", "certificate.json", "junit.xml", "pytest.log",
    }  # fmt: skip
    (tmp_path / "test_a.py").write_text(GATE.format(kind="DIVERGED"))
    assert gate(tmp_path).returncode == 1


WEAKER = """
import jax, jax.numpy as jnp, pytest
from harness import Program, prove

X = jax.ShapeDtypeStruct((4,), jnp.float32)

@pytest.mark.gate
def test_it(parity):
    left, right = Program(lambda x, y, z: (x + y) + z, (X, X, X)), Program(lambda x, y, z: x + (y + z), (X, X, X))
    parity.expect(prove(left, right, allow="reassociating"), case="sum", observable="logits")
"""


@pytest.mark.parametrize(
    ("allowed", "code"), [("reassociating", 0), ("modulo signed zero", 3), ("exact", 3), (None, 3), ("all", 2)]
)
def test_a_gate_refuses_a_proof_by_weaker_rewrites_than_it_allows(allowed, code, tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_a.py").write_text(WEAKER)
    done = gate(tmp_path, *(["--allow", allowed] if allowed else []))
    assert done.returncode == code, done.stdout + done.stderr
    assert code != 3 or "the proof is reassociating" in " ".join(done.stdout.split())


def test_what_a_weaker_gate_let_pass_is_not_replayed_by_an_exact_one(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_a.py").write_text(WEAKER)
    assert [gate(tmp_path, "--allow", words).returncode for words in ("reassociating", "exact")] == [0, 3]


def test_a_gate_that_runs_nothing_is_undecided_and_a_refusal_of_pytest_is_one_sentence(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_a.py").write_text(GATE.format(kind="PROVED"))
    assert gate(tmp_path, "--only", "nothing_of_that_name").returncode == 3
    (tmp_path / "conftest.py").write_text(
        "import pytest\ndef pytest_configure():\n    raise pytest.UsageError('shadowed: move it.')\n"
    )
    refused = gate(tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "shadowed: move it;" in refused.stderr


TOY = """
import json
from harness.goldens import Golden
from harness.subjects import Case, NamedVerdict
from harness.verdict import Kind
from parity_tests.report.verdicts import verdict

class Config:
    family = "toy"

class Subject:
    name, forbidden_sources = "toy", {"linen": ("models/linen/",)}

    def preset_cases(self):
        return [Case("toy", Config(), json.dumps(number), "forward") for number in (1, 2)]

    golden_cases = preset_cases

    def golden(self, case):
        return Golden(case.id, {"case": {"family": "toy"}, "leaves": {"a": "f32"}})

    def check(self, case):
        yield NamedVerdict("logits", verdict(Kind.PROVED), case)

SUBJECT = Subject()
"""


def test_the_general_suite_drives_any_subject_and_sees_the_wrong_side(tmp_path):
    (tmp_path / "toy_pair.py").write_text(TOY)
    run_python(tmp_path, "-m", "harness.cli", "goldens", "regen", "--subject", "toy_pair:SUBJECT")
    done = gate(tmp_path, "--subject", "toy_pair:SUBJECT", "--no-memo")
    assert done.returncode == 1
    assert "wrong side linen: models/linen/layers.py" in " ".join(done.stdout.split())
    assert "a file of one side is in the other's trace: linen: models/linen/layers.py" in done.stdout
    (tmp_path / "toy_pair.py").write_text(TOY.replace('"models/linen/"', '"models/nnx/"'))
    assert gate(tmp_path, "--subject", "toy_pair:SUBJECT", "--no-memo").returncode == 0
