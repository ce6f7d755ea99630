"""`paraflax prove A B` on any two importable functions: what it takes, what it answers, and how it refuses."""

import json
import textwrap

import pytest

from harness import cli
from harness.subjects.compact import SUBJECT

STEPS = """
    import jax
    import jax.numpy as jnp
    from jaxtyping import Array, Float, Int
    from harness import Program

    def old(params, x): return {"y": jnp.tanh(x @ params["w"])}
    def new(state, x): return {"z": jnp.tanh(x @ state["kernel"])}
    def names(path): return {"0/kernel": "0/w", "output/z": "y"}.get("/".join(path), "/".join(path))
    def no_name(path): raise KeyError(path)
    def one(x, y): return x * y + 1
    def other(x, y): return 1 + y * x
    def doubled(x, y): return 2 * (x * y + 1)
    def shorter(x, y): return other(x, y)[:2]
    def left(x, y, z): return (x + y) + z
    def right(x, y, z): return x + (y + z)
    def in_python(x):
        for _ in range(3): x = jnp.sin(x)
        return x
    def in_a_scan(x): return jax.lax.scan(lambda x, _: (jnp.sin(x), None), x, None, length=3)[0]
    def inputs(): return jnp.ones(3), jnp.ones(3)
    def annotated(x: Float[Array, "4 8"], rows: Int[Array, "n=3"], epsilon=1e-5): return x[rows] + epsilon
    def annotated_too(x: Float[Array, "4 8"], rows: Int[Array, "3"]): return 1e-5 + x[rows]
    def made(): return Program(old, ({"w": jnp.ones((8, 4))}, jnp.ones((3, 8))))
    def defaulted(x=jnp.ones(3)): return 2 * x
    def made_badly(): raise RuntimeError("boom")
    def three(): return 3
    def concrete(x): return float(x)
    def words(x): return "hello"
    def ends(x): raise SystemExit(0)
    def with_keyword(x, *, k): return k * x
    def from_keys(key): return jax.random.normal(key, (3,))
    def from_keys_too(key): return jax.random.normal(key, shape=(3,))

    class Layer:
        def __call__(self, x): return x * 2
        def apply(self, x): return x + x
        def double(self, x): return 2 * x

    layer = Layer()
    program = made()
"""
KERNEL = '[{"kernel": "float32[8,4]"}, "f32[3,8]"]'


@pytest.fixture
def steps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steps.py").write_text(textwrap.dedent(STEPS))


def proves(a, b, *options):
    return cli.main(["prove", *(f"steps.py:{word}" if word.isidentifier() else word for word in (a, b)), *options])


@pytest.mark.parametrize(
    "words",
    [
        ("one", "other", "--args", "float32[3] float32[3]"),
        ("one", "other", "--args", "bf16[2,3], f32[]"),
        ("one", "other", "--args", '["int8[4]", "i8[4]"]'),
        ("one", "other", "--args", "steps.py:inputs"),
        ("old", "new", "--args", '[{"w": "float32[8,4]"}, "f32[3,8]"]', "--args-b", KERNEL, "--rename-b",
         '{"0/kernel": "0/w", "output/z": "y"}'),
        ("made", "new", "--args-b", KERNEL, "--rename-b", "steps.py:names"),
        ("program", "new", "--args", KERNEL, "--rename-b", "steps.py:names"),
        ("new", "old", "--args", KERNEL, "--args-b", '[{"w": "float32[8,4]"}, "f32[3,8]"]', "--rename-a",
         "steps.py:names"),
        ("annotated", "annotated_too"),
        ("defaulted", "steps.py:layer", "--args-b", "float32[3]"),
        ("steps.py:layer", "steps.py:layer.double", "--args", "float32[3]"),
        ("jax.numpy:add", "operator:add", "--args", "float32[3] float32[3]"),
        ("from_keys", "from_keys_too", "--args", "key[]"),
    ],
)  # fmt: skip
def test_two_importable_functions_are_proved(words, steps, capsys):
    assert proves(*words) == 0
    assert "proved (exact" in capsys.readouterr().out


def test_arguments_that_nobody_gave_are_told(steps, capsys):
    assert proves("annotated", "annotated_too") == 0
    told = "arguments of steps.py:annotated, from its annotations and defaults: [float32[4,8], int32[3]]"
    assert told in capsys.readouterr().out


def test_a_function_takes_the_arguments_of_the_program_on_the_other_side(steps, capsys):
    assert proves("program", "old") == 3  # the Program's own function: nothing would be compared
    told = capsys.readouterr().out
    assert "from the other side: [{w: float32[8,4]}, float32[3,8]]" in told
    assert "same function object" in told


def test_functions_that_differ_are_undecided_with_the_operation(steps, capsys):
    assert proves("one", "doubled", "--args", "f32[3] f32[3]") == 3
    assert "steps.py" in capsys.readouterr().out


def test_another_shape_is_a_divergence(steps, capsys):
    assert proves("one", "shorter", "--args", "f32[3] f32[3]") == 1
    assert "float32[3] against float32[2]" in capsys.readouterr().out


@pytest.mark.parametrize(("allow", "code"), [("exact", 3), ("modulo signed zero", 3), ("reassociating", 0)])
def test_a_weaker_proof_counts_only_where_it_is_allowed(allow, code, steps):
    assert proves("left", "right", "--args", "f32[3] f32[3] f32[3]", "--allow", allow) == code


def test_check_is_told_what_counts_and_a_subject_may_decline(monkeypatch, capsys):
    assert cli.main(["check", "llama-tiny", "--step", "forward", "--allow", "reassociating"]) == 0
    monkeypatch.setattr(type(SUBJECT), "check", lambda self, case: iter(()))
    assert cli.main(["check", "llama-tiny", "--allow", "reassociating"]) == 2
    assert "compares exactly only" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("one", "one", "--args", "f32[3] f32[3]"), ("made", "made")], ids=" ".join)
def test_one_function_on_both_sides_is_never_proved(words, steps, capsys):
    assert proves(*words) == 3
    assert "same function object" in capsys.readouterr().out


def test_the_verdict_as_json_is_all_that_is_printed(steps, capsys):
    assert proves("annotated", "annotated_too", "--json") == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "proved"


def test_a_file_in_a_package_may_import_its_neighbours(tmp_path, monkeypatch):
    package = tmp_path / "paraflax_test_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "maths.py").write_text("def twice(x): return 2 * x\n")
    (package / "model.py").write_text("from .maths import twice\ndef f(x): return twice(x)\ndef g(x): return x * 2\n")
    monkeypatch.chdir(package)
    assert cli.main(["prove", "model.py:f", "model.py:g", "--args", "f32[3]"]) == 0


WRONG = [
    (("one", "other"), "no arguments are given"),
    (("one", "other", "--args", "float32"), "is no array"),
    (("one", "other", "--args", ""), "is no array"),
    (("one", "other", "--args", "float99[3]"), "no known dtype"),
    (("one", "other", "--args", "object[3]"), "no known dtype"),
    (("one", "other", "--args", "float64[3] f32[3]"), "32 bits"),
    (("one", "other", "--args", "float32[-1]"), "is no array"),
    (("one", "other", "--args", "["), "is not JSON"),
    (("one", "other", "--args", '{"x": "f32[3]"}'), "is no list"),
    (("one", "other", "--args", "[1, 2]"), "the leaf 1 is no array"),
    (("one", "other", "--args", "steps.py:three"), "tuple of arguments"),
    (("one", "other", "--args", "steps.py:made_badly"), "boom"),
    (("one", "other", "--args", "nowhere:inputs"), "nowhere"),
    (("one", "other", "--args", "f32[3]"), "missing a required argument: 'y'"),
    (("one", "other", "--args", "f32[3] f32[3] f32[3]"), "too many positional arguments"),
    (("one", "other", "--args", "f32[3] f32[4]"), "cannot be traced"),
    (("one", "other", "--args", "f32[3] f32[3]", "--allow", "sloppy"), "modulo signed zero, reassociating"),
    (("one", "nothing", "--args", "f32[3] f32[3]"), "has no attribute 'nothing'"),
    (("one", "gone.py:f", "--args", "f32[3] f32[3]"), "no file gone.py"),
    (("one", "nowhere:f", "--args", "f32[3] f32[3]"), "No module named 'nowhere'"),
    (("one", "steps.py", "--args", "f32[3] f32[3]"), "is no module:attribute"),
    (("one", "steps.py:jnp.pi", "--args", "f32[3] f32[3]"), "is of type float"),
    (("concrete", "words", "--args", "f32[]"), "cannot be traced"),
    (("words", "concrete", "--args", "f32[3]"), "cannot be traced"),
    (("ends", "words", "--args", "f32[3]"), "SystemExit"),
    (("with_keyword", "words", "--args", "f32[3]"), "missing a required argument: 'k'"),
    (("made_badly", "made"), "boom"),
    (("three", "made"), "returns no Program but int"),
    (("made", "program", "--args", "f32[3]"), "both sides are Programs"),
    (("old", "made", "--args", KERNEL, "--args-b", "f32[3]"), "is a Program"),
    (("made", "program", "--rename-b", "steps.py:names"), "is a Program and names its leaves itself"),
    (("one", "other", "--args", "f32[3] f32[3]", "--rename-b", "steps.py:program"), "is of type Program"),
    (("one", "other", "--args", "f32[3] f32[3]", "--rename-b", "steps.py:no_name"), "fails for the leaf 0"),
    (("one", "other", "--args", "f32[3] f32[3]", "--rename-b", "steps.py:three"), "fails for the leaf 0"),
    (("one", "other", "--args", "f32[3] f32[3]", "--rename-b", '{"2": "0"}'), "there is no leaf 2"),
    (("one", "other", "--args", "f32[3] f32[3]", "--rename-b", '{"1": "0"}'), "one to one"),
    (("one", "other", "--args", "f32[3] f32[3]", "--rename-b", '{"1": 0}'), "is no string"),
    (("one", "other", "--args", "f32[3] f32[3]", "--rename-b", "{"), "is not JSON"),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_words_are_one_sentence_and_exit_2(words, said, steps, capsys):
    assert proves(*words) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.startswith("paraflax: ")
    assert captured.err.endswith(".\n")
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.out + captured.err


def test_a_module_that_ends_the_process_proves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text("print('done')\nraise SystemExit(0)\n")
    assert cli.main(["prove", "script.py:f", "script.py:g"]) == 2
    assert "SystemExit" in capsys.readouterr().err


@pytest.mark.parametrize(("rounds", "code"), [("3", 0), ("2", 3), ("-1", 2)], ids=["enough", "too few", "no number"])
def test_scans_of_so_many_rounds_are_copies_of_their_body(rounds, code, steps):
    assert proves("in_python", "in_a_scan", "--args", "f32[4]", "--unroll", rounds) == code
