"""Presets against the published parameter counts.

`published_counts.tsv` has one line a published figure: the preset, `all` of the parameters or the `body` (all but token
table and untied head), the figure as printed, the vocabulary it was counted with, and how it is known:

* `report`: a table in the authors' own report. `card`: the model card's text.
* `stored`: the elements in the released safetensors files, as public repositories quote the files' metadata.
* `config`: worked out from the released `config.json`, by us or as quoted; the files themselves were not looked at.
  Of llama4, qwen3-next and gemma4 Hugging Face's classes count the same, built without memory (torch's device `meta`).
* `name`: only a rounded number, in the model's name or its paper.

Our presets of Gemma 1 to 3 are MaxText's, whose vocabularies of 256,128 and 262,144 are the reports'; the released
files have 256,000 and 262,208 rows. That difference, one model vector a row, is the only one that is allowed for.
"""

import csv
import dataclasses
import math
import pathlib
import re

import pytest

import models
from models import cli

FILE = pathlib.Path(__file__).with_name("published_counts.tsv")
EVIDENCE = ("report", "card", "stored", "config", "name")
UNITS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9}


@dataclasses.dataclass(frozen=True)
class Figure:
    """One line of the file. `unit` is what the last printed digit is worth."""

    preset: str
    part: str
    value: float
    unit: float
    vocabulary: int
    evidence: str
    source: str


def _figure(row):
    digits, decimals, unit = re.fullmatch(r"([\d,]+)(\.\d+)?([kMB]?)", row["parameters"]).groups()
    worth = UNITS[unit] / 10 ** len((decimals or ".")[1:])
    value = float(digits.replace(",", "") + (decimals or "")) * UNITS[unit]
    return Figure(row["preset"], row["part"], value, worth, int(row["vocabulary"]), row["evidence"], row["source"])


FIGURES = [_figure(row) for row in csv.DictReader(FILE.read_text(encoding="utf-8").splitlines(), delimiter="\t")]


def _count(config, figure):
    """The parameters of the figure's part, with its vocabulary."""
    tables = 1 if config.tied_head else 2
    total = sum(math.prod(spec.shape) for spec in models.backend("nnx").param_specs(config).values())
    body = total - tables * config.vocab_size * config.embed_dim
    return body if figure.part == "body" else body + tables * figure.vocabulary * config.embed_dim


def _agrees(config, figure):
    return abs(_count(config, figure) - figure.value) <= figure.unit / 2 * (figure.unit > 1)


def test_every_published_preset_has_a_published_count():
    assert {figure.preset for figure in FIGURES} == {name for name in models.presets() if not name.endswith("-tiny")}
    assert {figure.evidence for figure in FIGURES} == set(EVIDENCE)
    assert all(figure.source and figure.part in ("all", "body") for figure in FIGURES)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: f"{figure.preset}-{figure.part}-{figure.evidence}")
def test_the_parameter_count_is_the_published_one(figure):
    config = models.preset(figure.preset)
    assert _agrees(config, figure), f"{_count(config, figure):,} parameters, {figure.value:,.0f} in {figure.source}"


def test_only_the_first_gemmas_count_another_vocabulary():
    other = {figure.preset for figure in FIGURES if figure.vocabulary != models.preset(figure.preset).vocab_size}
    first = ("gemma-", "gemma2-", "gemma3-")
    assert other == {name for name in models.presets() if name.startswith(first) and not name.endswith("-tiny")}


@pytest.mark.parametrize("figure", [figure for figure in FIGURES if figure.unit == 1][::8], ids=lambda it: it.preset)
def test_a_model_with_one_more_of_anything_is_noticed(figure):
    config = models.preset(figure.preset)
    wider = dataclasses.replace(config.mlp, hidden_dim=config.mlp.hidden_dim + 1)
    deeper = config.num_layers + 1
    for changed in (config.replace(mlp=wider), config.replace(num_layers=deeper)):
        assert not _agrees(changed, figure)


def test_the_command_prints_each_count_in_full(capsys):
    cli.list_presets()
    lines = {line.split()[0]: line.split()[-1] for line in capsys.readouterr().out.splitlines() if line.strip()}
    for name, config in models.presets().items():
        specs = models.backend("nnx").param_specs(config).values()
        assert lines[name] == f"{sum(math.prod(spec.shape) for spec in specs):,}"
