"""A planted fault is really there while it is planted, and nothing is left of it afterwards."""

import types

import pytest

from harness.faults import Fault, FaultError, FaultKind, planted, planted_source


@pytest.fixture
def victim(monkeypatch):
    module = types.ModuleType("victim_of_faults")

    class Norm:
        def apply(self, x):
            return x * 2

        @staticmethod
        def scale(x):
            return x + 1

    class Child(Norm):
        pass

    module.Norm, module.Child, module.epsilon, module.call = Norm, Child, 1e-5, lambda x: module.epsilon * x
    monkeypatch.setitem(__import__("sys").modules, "victim_of_faults", module)
    return module


def fault(target, patch):
    return Fault("F1", "for the test", FaultKind.DIFFERS, f"victim_of_faults:{target}", patch)


def test_a_method_is_replaced_and_restored_as_the_same_object(victim):
    before = vars(victim.Norm)["apply"]
    with planted(fault("Norm.apply", lambda original: lambda self, x: -original(self, x))) as state:
        assert victim.Norm().apply(1) == -2
        assert state.hits == 1
        state.require_hit()
    assert vars(victim.Norm)["apply"] is before
    assert victim.Norm().apply(1) == 2


def test_static_methods_and_constants_survive(victim):
    before = vars(victim.Norm)["scale"]
    with planted(fault("Norm.scale", lambda original: lambda x: original(x) + 10)):
        assert victim.Norm().scale(1) == 12
    assert vars(victim.Norm)["scale"] is before
    with planted(fault("epsilon", lambda original: original * 10)):
        assert victim.call(1.0) == pytest.approx(1e-4)
    assert victim.epsilon == 1e-5


def test_an_error_inside_the_block_restores_all_the_same(victim):
    before = vars(victim.Norm)["apply"]
    with pytest.raises(RuntimeError), planted(fault("Norm.apply", lambda original: lambda self, x: 0)):
        raise RuntimeError
    assert vars(victim.Norm)["apply"] is before


def test_a_fault_that_never_ran_is_no_evidence(victim):
    with planted(fault("Norm.apply", lambda original: lambda self, x: 0)) as state:
        pass
    with pytest.raises(FaultError, match="was never called"):
        state.require_hit()


@pytest.mark.parametrize(
    ("target", "patch", "words"),
    [
        ("Norm.missing", lambda original: None, "is not there"),
        ("Child.apply", lambda original: lambda self, x: 0, "is inherited"),
        ("epsilon", lambda original: original, "unchanged"),
    ],
)
def test_what_cannot_be_planted_is_refused(target, patch, words, victim):
    with pytest.raises(FaultError, match=words), planted(fault(target, patch)):
        pass
    assert victim.epsilon == 1e-5


def test_a_source_fault_edits_a_copy_and_leaves_nothing_behind(tmp_path):
    root = tmp_path / "project"
    (root / "models").mkdir(parents=True)
    (root / ".paraflax").mkdir()
    (root / "models" / "norm.py").write_text("epsilon = 1e-5\nother = 1\n")
    with planted_source(root, "models/norm.py", "epsilon = 1e-5", "epsilon = 1e-6") as copy:
        assert (copy / "models" / "norm.py").read_text() == "epsilon = 1e-6\nother = 1\n"
        assert not (copy / ".paraflax").exists()
    assert not copy.exists()
    assert (root / "models" / "norm.py").read_text() == "epsilon = 1e-5\nother = 1\n"


@pytest.mark.parametrize(("path", "old"), [("models/none.py", "a"), ("models/norm.py", "="), ("models/norm.py", "zzz")])
def test_a_source_fault_must_be_the_one_that_was_meant(path, old, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "norm.py").write_text("epsilon = 1e-5\nother = 1\n")
    with pytest.raises(FaultError), planted_source(tmp_path, path, old, "x"):
        pass
