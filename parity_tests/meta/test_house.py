"""House rules that a machine can hold: who imports whom, mirrored twins, no dead ends, no hidden skips."""

import ast
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = sorted(path for top in ("harness", "models", "benchmarks") for path in (ROOT / top).rglob("*.py"))
TWINS = ("linen", "nnx")


def _name(path):
    return path.relative_to(ROOT).as_posix()


def _imports(path):
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, node.module] if node.module else base)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _starts(name, *roots):
    return any(name == root or name.startswith(root + ".") for root in roots)


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_follow_the_arrows(path):
    where, names = _name(path), list(_imports(path))
    if where.startswith("harness/") and not where.startswith("harness/subjects/compact/"):
        assert not [name for name in names if _starts(name, "flax", "models")]
    assert where.startswith("benchmarks/") or not [name for name in names if _starts(name, "benchmarks")]
    assert not [name for name in names if _starts(name, "parity_tests")]
    if where.startswith("models/"):
        assert not [name for name in names if _starts(name, "harness") or "bridge" in name.split(".")]
    if where.startswith(("models/ops/", "models/training/", "models/config/")):
        assert not [name for name in names if _starts(name, "flax", "models.linen", "models.nnx")]
    if where.startswith("models/linen/"):
        assert not [name for name in names if _starts(name, "flax.nnx", "models.nnx")]
    if where.startswith("models/nnx/"):
        assert not [name for name in names if _starts(name, "flax.linen", "models.linen")]


# What one API needs and the other does not: Linen's train state is flax's own class, and NNX carries between its calls
# what Linen keeps in module fields and variable collections. A parameter
# that no optimizer may move is a kind of variable in NNX.
OWN_CLASSES = {
    "linen": {"Keys"},
    "nnx": {"ChoiceBias", "Context", "ModelStructure", "Output", "TrainStateNNX"},
}


def _classes(twin):
    found = {}
    for path in sorted((ROOT / "models" / twin).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        found[path.name] = names - OWN_CLASSES[twin]
    return found


def test_twins_have_the_same_files_and_classes():
    linen, nnx = (_classes(twin) for twin in TWINS)
    assert linen == nnx
    assert {"DecoderLayer", "Block", "Decoder"} <= linen["decoder.py"]


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_no_dead_ends_and_no_branch_on_the_backend(path):
    text = path.read_text(encoding="utf-8")
    assert "NotImplementedError" not in text
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text)
    if _name(path).startswith("models/"):
        assert not re.search(r"""backend\s*==\s*['"]""", text)


def test_nothing_is_skipped_but_for_a_missing_accelerator():
    # spelled in parts, so that a search of the tests for these words finds nothing
    pattern = re.compile("|".join(["pytest" + r"\.skip", "mark" + r"\.skip", "import" + "orskip", "x" + "fail"]))
    found = [
        f"{_name(path)}: {line.strip()}"
        for path in sorted((ROOT / "parity_tests").rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if pattern.search(line)
    ]
    assert found == []


def _tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_tracked_file_holds_a_machine_path_or_a_registry_host():
    path_of_a_machine = re.compile(r"(?<![\w.])/(?:work|root|home/\w+)/")
    host = re.compile("py" + r"pi\.org|python" + r"hosted\.org")
    text_files = [path for path in _tracked() if path.suffix not in {".npz", ".png", ".safetensors"}]
    assert text_files
    for path in text_files:
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not path_of_a_machine.search(text), _name(path)
        assert not host.search(text), _name(path)


def test_the_lock_pins_every_package_by_hash():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", lock.strip())
    assert len(entries) > 50
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in lock
