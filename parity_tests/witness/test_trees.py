"""MaxText as a witness: each twin declares the parameters of a published size with MaxText's paths, shapes and axes.

`trees/*.tsv` are MaxText's scanned Linen trees: path, shape, logical axis names. What it calls otherwise than we do is
`maxtext_name`, the name under which its checkpoints are read: of these tables, olmo3's `attention` alone.
"""

import pathlib

import pytest

from models import backend, preset
from models.checkpoints.conventions import maxtext_name

from .ratio import BACKENDS

TREES = pathlib.Path(__file__).parent / "trees"
TABLES = sorted(path.stem for path in TREES.glob("*.tsv"))


def _table(name):
    header, *rows = (line.split("\t") for line in (TREES / f"{name}.tsv").read_text(encoding="utf-8").splitlines())
    assert header == ["path", "shape", "axes"]
    return {path: (tuple(int(size) for size in shape.split()), tuple(axes.split())) for path, shape, axes in rows}


def _tree(backend_name, config):
    """The twin's parameters under MaxText's names."""
    specs = backend(backend_name).param_specs(config)
    tree = {maxtext_name(config, name): (spec.shape, spec.axes) for name, spec in specs.items()}
    assert len(tree) == len(specs)
    return tree


def test_every_published_preset_has_its_table():
    assert TABLES == [
        "gemma-2b", "gemma2-2b", "gemma3-4b", "gpt3-175b", "llama2-7b", "llama3.1-405b", "llama3.1-8b", "mistral-7b",
        "olmo3-7b", "qwen3-0.6b",
    ]


def test_only_the_attention_of_olmo3_has_another_name_there():
    renamed = {}
    for name in TABLES:
        config = preset(name)
        renamed[name] = {
            (ours, theirs)
            for path in backend("linen").param_specs(config)
            for ours, theirs in zip(path.split("/"), maxtext_name(config, path).split("/"), strict=True)
            if ours != theirs
        }
    assert renamed == {name: {("self_attention", "attention")} if name == "olmo3-7b" else set() for name in TABLES}


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
