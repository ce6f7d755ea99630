"""MaxText as a witness: each twin declares the parameters of a published size with MaxText's paths, shapes and axes."""

import pytest

from models import backend, preset
from models.checkpoints.conventions import maxtext_name

from .maxtext import AXES, DECLARED, NEXT, RENAMED, TABLES, declared, named_axes, read_table, stacked, tree_of
from .ratio import BACKENDS


def test_every_published_preset_has_its_table():
    assert TABLES == [
        "deepseek2-16b", "deepseek3-671b", "gemma-2b", "gemma2-2b", "gemma3-4b", "gemma4-26b", "gpt-oss-20b",
        "gpt3-175b", "kimi-k2-1t", "llama2-7b", "llama3.1-405b", "llama3.1-8b", "llama4-17b-16e", "mistral-7b",
        "mixtral-8x7b", "olmo3-7b", "qwen3-0.6b", "qwen3-30b-a3b", NEXT,
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
    assert tree_of(backend_name, table) == read_table(table)


def test_a_wrong_axis_or_shape_is_noticed():
    tree, table = tree_of("linen", "gemma2-2b"), read_table("gemma2-2b")
    for name, (shape, axes) in table.items():
        if len(shape) > 1:
            assert tree[name] != (shape, axes[::-1])
            assert tree[name] != ((*shape[:-1], shape[-1] + 1), axes)


@pytest.mark.parametrize("table", AXES)
def test_the_gate_of_these_mixtures_alone_needs_another_axis(table):
    config, expected = preset(table), read_table(table)
    unmapped = {
        name for name, spec in backend("linen").param_specs(config).items()
        if declared(table, name, spec.shape, tuple(map(str, spec.axes))) != expected[maxtext_name(config, name)]
    }  # fmt: skip
    assert unmapped
    assert all(name.endswith("/moe/gate/kernel") for name in unmapped)


def test_every_way_of_declaring_otherwise_is_needed():
    config, expected = preset(NEXT), read_table(NEXT)
    ends = set()
    for name, spec in backend("linen").param_specs(config).items():
        ours = (spec.shape, named_axes(NEXT, name, spec.axes))
        if ours != expected[maxtext_name(config, name)]:
            ends |= {end for end in DECLARED[NEXT] if name.endswith(end)}
    assert ends == set(DECLARED[NEXT])


def test_a_local_layer_that_is_not_as_the_others_cannot_be_stacked():
    slices = {f"blocks/local_layers[{at}]/wo": ((4, 5, 8), ("mlp", "layers", "embed")) for at in range(3)}
    whole = (4, 5, 3, 8), ("mlp", "layers", "local_layers", "embed")
    assert stacked(slices) == {"blocks/local_layers/wo": whole}
    with pytest.raises(AssertionError):
        stacked(slices | {"blocks/local_layers[1]/wo": ((4, 5, 9), ("mlp", "layers", "embed"))})
