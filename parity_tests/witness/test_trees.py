"""MaxText as a witness: each twin declares the parameters of a published size with MaxText's paths, shapes and axes.

`trees/*.tsv` are MaxText's scanned Linen trees: path, shape, logical axis names.
"""

import pathlib

import pytest

from models import backend, preset

from .ratio import BACKENDS

TREES = pathlib.Path(__file__).parent / "trees"
TABLES = sorted(path.stem for path in TREES.glob("*.tsv"))


def _table(name):
    header, *rows = (line.split("\t") for line in (TREES / f"{name}.tsv").read_text(encoding="utf-8").splitlines())
    assert header == ["path", "shape", "axes"]
    return {path: (tuple(int(size) for size in shape.split()), tuple(axes.split())) for path, shape, axes in rows}


def _tree(backend_name, config):
    return {name: (spec.shape, spec.axes) for name, spec in backend(backend_name).param_specs(config).items()}


def test_every_published_preset_has_its_table():
    assert TABLES == ["gemma2-2b", "gpt3-175b", "llama2-7b", "llama3.1-405b", "llama3.1-8b"]


@pytest.mark.parametrize("backend_name", BACKENDS)
@pytest.mark.parametrize("table", TABLES)
def test_parameter_tree_is_the_one_of_maxtext(table, backend_name):
    assert _tree(backend_name, preset(table)) == _table(table)


def test_a_wrong_axis_or_shape_is_noticed():
    tree, table = _tree("linen", preset("gemma2-2b")), _table("gemma2-2b")
    for name, (shape, axes) in table.items():
        if len(shape) > 1:
            assert tree[name] != (shape, axes[::-1])
            assert tree[name] != ((*shape[:-1], shape[-1] + 1), axes)
