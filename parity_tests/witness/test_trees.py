"""MaxText as a witness: each twin declares the parameters of a published size with MaxText's paths, shapes and axes.

`trees/*.tsv` are MaxText's scanned Linen trees: path, shape, logical axis names. What it calls otherwise than we do is
`maxtext_name`, the name under which its checkpoints are read, and `AXES`, an axis of one parameter of three models.
"""

import pathlib

import pytest

from models import backend, preset
from models.checkpoints.conventions import maxtext_name

from .ratio import BACKENDS

TREES = pathlib.Path(__file__).parent / "trees"
TABLES = sorted(path.stem for path in TREES.glob("*.tsv"))
# Our word for the model dim of a mixture's gate kernel is `embed_moe`, as for its experts, and so is MaxText's in
# deepseek's tables. In those of its other mixtures the gate's is `embed`, as a dense kernel's.
AXES = {name: {"embed_moe": "embed"} for name in ("mixtral-8x7b", "qwen3-30b-a3b", "gpt-oss-20b")}
# The names that MaxText gives modules of ours, by table.
_DEEPSEEK = {"moe": "DeepSeekMoeBlock_0/MoeBlock_0", "moe/shared_experts": "DeepSeekMoeBlock_0/shared_experts"}
RENAMED = {
    "olmo3-7b": {"self_attention": "attention"},
    "mixtral-8x7b": {"moe": "MoeBlock_0"},
    "qwen3-30b-a3b": {"moe": "moe_block"},
    "gpt-oss-20b": {"self_attention": "GptOssAttention", "moe": "GptOssMlp"},
    "deepseek2-16b": _DEEPSEEK,
    "deepseek3-671b": _DEEPSEEK | {"gate/choice_bias": "gate/bias"},
    "kimi-k2-1t": _DEEPSEEK | {"gate/choice_bias": "gate/bias"},
}


def _table(name):
    header, *rows = (line.split("\t") for line in (TREES / f"{name}.tsv").read_text(encoding="utf-8").splitlines())
    assert header == ["path", "shape", "axes"]
    return {path: (tuple(int(size) for size in shape.split()), tuple(axes.split())) for path, shape, axes in rows}


def _tree(backend_name, table):
    """The twin's parameters under MaxText's names; an axis without a name is called None, as in the tables."""
    config = preset(table)
    specs = backend(backend_name).param_specs(config)
    tree = {maxtext_name(config, name): (spec.shape, _axes(table, name, spec.axes)) for name, spec in specs.items()}
    assert len(tree) == len(specs)
    return tree


def _axes(table, name, axes):
    named = AXES.get(table, {}) if name.endswith("gate/kernel") else {}
    return tuple(named.get(str(axis), str(axis)) for axis in axes)


def test_every_published_preset_has_its_table():
    assert TABLES == [
        "deepseek2-16b", "deepseek3-671b", "gemma-2b", "gemma2-2b", "gemma3-4b", "gpt-oss-20b", "gpt3-175b",
        "kimi-k2-1t", "llama2-7b", "llama3.1-405b", "llama3.1-8b", "mistral-7b", "mixtral-8x7b", "olmo3-7b",
        "qwen3-0.6b", "qwen3-30b-a3b",
    ]


@pytest.mark.parametrize("table", TABLES)
def test_only_modules_that_are_named_here_have_another_name_there(table):
    """The longest of our names for a part of the path is the one that is replaced."""
    config = preset(table)
    for path in backend("linen").param_specs(config):
        expected = f"/{path}/"
        for ours, theirs in sorted(RENAMED.get(table, {}).items(), key=lambda item: -len(item[0])):
            expected = expected.replace(f"/{ours}/", f"/{theirs}/")
        assert maxtext_name(config, path) == expected[1:-1]


@pytest.mark.parametrize("backend_name", BACKENDS)
@pytest.mark.parametrize("table", TABLES)
def test_parameter_tree_is_the_one_of_maxtext(table, backend_name):
    assert _tree(backend_name, table) == _table(table)


def test_a_wrong_axis_or_shape_is_noticed():
    tree, table = _tree("linen", "gemma2-2b"), _table("gemma2-2b")
    for name, (shape, axes) in table.items():
        if len(shape) > 1:
            assert tree[name] != (shape, axes[::-1])
            assert tree[name] != ((*shape[:-1], shape[-1] + 1), axes)


@pytest.mark.parametrize("table", AXES)
def test_the_gate_of_these_mixtures_alone_needs_another_axis(table):
    config, expected = preset(table), _table(table)
    unmapped = {
        name for name, spec in backend("linen").param_specs(config).items()
        if tuple(map(str, spec.axes)) != expected[maxtext_name(config, name)][1]
    }  # fmt: skip
    assert unmapped
    assert all(name.endswith("/moe/gate/kernel") for name in unmapped)
