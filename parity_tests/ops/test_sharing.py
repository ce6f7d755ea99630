"""What both twins share: every op has an oracle that is used, and nothing shared knows Flax or draws random numbers."""

import ast
import inspect
import pathlib
import types

import pytest

import models
from models import ops, training

from . import oracles, recurrent_oracles, training_oracles

ROOT = pathlib.Path(models.__file__).resolve().parent
TESTS = pathlib.Path(__file__).resolve().parent
SHARED = sorted([*(ROOT / "ops").glob("*.py"), *(ROOT / "training").glob("*.py"), ROOT / "sharding.py"])
RECURRENT = ("causal_conv", "decay", "documents", "gated_delta")
FORBIDDEN = ("flax", "models.linen", "models.nnx")


def without_oracle(package: types.ModuleType, witnesses: object, sources: str) -> list[str]:
    """Public functions that lack an oracle with a source, or whose oracle no test calls."""
    missing = []
    for name in package.__all__:
        if inspect.isclass(getattr(package, name)):
            continue
        oracle = getattr(witnesses, name, None)
        if oracle is None or "Source:" not in (oracle.__doc__ or "") or f"oracles.{name}(" not in sources:
            missing.append(name)
    return missing


def sources_of_tests() -> str:
    """The text of this folder's checks and tests, this file left out."""
    return "\n".join(path.read_text() for path in TESTS.glob("*.py") if path.name != pathlib.Path(__file__).name)


def test_every_op_has_an_oracle_that_is_used() -> None:
    both = types.SimpleNamespace(**vars(oracles), **{name: vars(recurrent_oracles)[name] for name in RECURRENT})
    assert without_oracle(ops, both, sources_of_tests()) == []


def test_every_rule_of_training_has_an_oracle_that_is_used() -> None:
    assert without_oracle(training, training_oracles, sources_of_tests()) == []


def test_an_op_without_an_oracle_is_noticed() -> None:
    package = types.SimpleNamespace(__all__=["embed", "brand_new"], embed=ops.embed, brand_new=lambda x: x)
    assert without_oracle(package, oracles, sources_of_tests()) == ["brand_new"]
    assert without_oracle(package, oracles, "no test calls anything") == ["embed", "brand_new"]


def test_no_op_hides_from_the_public_list() -> None:
    """A public function of any module of `models.ops` is re-exported, so that the walk above sees it."""
    for path in sorted((ROOT / "ops").glob("[!_]*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert node.name in ops.__all__, f"{path.name} defines {node.name}, which models.ops does not export"


def imported(source: str, package: str) -> set[str]:
    """Absolute names of the modules that a file of `package` imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def offenders(names: set[str]) -> set[str]:
    return {name for name in names for root in FORBIDDEN if name == root or name.startswith(root + ".")}


@pytest.mark.parametrize("path", SHARED, ids=lambda path: str(path.relative_to(ROOT)))
def test_shared_code_imports_neither_flax_nor_a_twin(path: pathlib.Path) -> None:
    package = ".".join(["models", *path.relative_to(ROOT).parent.parts])
    assert not offenders(imported(path.read_text(), package))


@pytest.mark.parametrize(
    "source",
    [
        "import flax", "from flax import nnx", "import flax.linen as nn", "from ..nnx import model",
        "from .. import linen", "def f():\n    from flax.core import meta",
    ],
)
def test_an_import_of_flax_or_a_twin_is_noticed(source: str) -> None:
    assert offenders(imported(source, "models.ops"))


@pytest.mark.parametrize("path", sorted((ROOT / "ops").glob("*.py")), ids=lambda path: path.name)
def test_ops_draw_no_random_numbers(path: pathlib.Path) -> None:
    attributes = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert "random" not in attributes
    assert not any("random" in name.split(".") for name in imported(path.read_text(), "models.ops"))
