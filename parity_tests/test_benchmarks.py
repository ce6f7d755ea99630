"""The benchmark of the prover runs and fills its tables. No figure is judged: a machine's speed is no test."""

import itertools
import json
import pathlib

import pytest

from benchmarks import cases, completeness, prove, timing
from harness import prove as decide


@pytest.fixture(scope="module")
def figures():
    return prove.measure(prove.QUICK, [part for part in prove.PARTS if part != "rate"])


def rows_of(text):
    return {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")}


def test_the_tables_have_a_row_for_every_group(figures):
    rows = rows_of(prove.markdown(figures))
    assert {"forward", "loss and gradients", "train step", "prefill", "generate"} <= rows
    assert {"gradients, train step with remat", "the same with dropout"} <= rows
    deep = {f"{kind} {step}" for kind in ("unrolled", "scanned") for step in ("forward", "train_step")}
    assert deep | {"plain forward", "plain gradients"} <= rows
    assert {"all together", "llama-scanned forward"} <= rows


def test_every_pair_that_is_timed_is_proved(figures):
    timed = [row for part in ("tiny", "deep", "published", "cold") for row in figures[part]]
    assert {row["kind"] for row in timed} == {"proved"}
    assert all(row["trace"] > 0 and row["proof"] > 0 for part in ("tiny", "deep") for row in figures[part])


def test_the_figures_survive_a_file_and_say_where_they_are_from(figures):
    text = prove.markdown(json.loads(json.dumps(figures)))
    assert text == prove.markdown(figures)
    assert f"{figures['machine']['cores']} cores of" in text


def test_a_pair_that_is_not_proved_is_marked(figures):
    spoilt = [{**row, "kind": "undecided"} for row in figures["tiny"]]
    assert "forward (not all proved: undecided)" in rows_of(prove.markdown({**figures, "tiny": spoilt}))


def test_growth_is_the_exponent_of_the_layers():
    rows = [{"group": "g", "layers": layers, "proof": 3.0 * layers**1.5} for layers in (2, 8, 128)]
    assert prove.growth(rows)["g"] == pytest.approx(1.5)


def test_fresh_programs_are_traced_each_time():
    case = cases.find("llama-scanned forward")
    assert case.make()[0] is not case.make()[0]
    assert timing.sample(case.make).trace > 0


def test_every_pair_whose_memory_is_taken_can_be_found():
    assert [cases.find(name).name for name in prove.Size().memory] == list(prove.Size().memory)


def test_every_published_preset_is_timed():
    from models.config import presets

    large = {name for name in presets() if not name.endswith("-tiny")}
    assert {case.name.split()[0] for case in cases.published()} == large


@pytest.mark.scheduled_only
def test_the_rate_is_taken_on_two_processes():
    rate = prove.measure(prove.QUICK, ["rate"])["rate"]
    assert rate["pairs"] == rate["proved"] == prove.QUICK.configs * len(completeness.STEPS)


@pytest.mark.scheduled_only
@pytest.mark.parametrize("name", [case.name for case in cases.deep() if case.layers in (128, 1000)])
def test_deep_pairs_are_proved(name):
    assert str(decide(*cases.find(name).make()).kind) == "proved"


def test_the_readme_has_the_tables_that_the_benchmark_writes(figures):
    page = (pathlib.Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    shown = page.partition(prove.START)[2].partition(prove.END)[0]
    headers = [before for before, line in itertools.pairwise(prove.markdown(figures).splitlines()) if "---" in line]
    assert len(headers) == 5
    assert all(header in shown for header in headers)


def test_figures_replace_what_stood_between_the_marks():
    page = f"before {prove.START} old {prove.END} after"
    assert prove.replaced(page, "new") == f"before {prove.START}\n\nnew\n\n{prove.END} after"
    with pytest.raises(SystemExit, match="no place for figures"):
        prove.replaced("a page", "new")
