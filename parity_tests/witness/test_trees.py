"""MaxText as a witness: each twin declares the parameters of a published size with MaxText's paths, shapes and axes.

`trees/*.tsv` are MaxText's scanned Linen trees: path, shape, logical axis names. What it calls otherwise than we do is
`maxtext_name`, the name under which its checkpoints are read, `AXES`, an axis of one parameter of four models,
`DECLARED`, what qwen3-next declares otherwise, and `_stacked`, gemma4's local layers that are one leaf there.
"""

import pathlib
import re

import pytest

from models import backend, preset
from models.checkpoints.conventions import maxtext_name

from .ratio import BACKENDS

TREES = pathlib.Path(__file__).parent / "trees"
TABLES = sorted(path.stem for path in TREES.glob("*.tsv"))
NEXT = "qwen3-next-80b-a3b"
# Our word for the model dim of a mixture's gate kernel is `embed_moe`, as for its experts, and so is MaxText's in
# deepseek's tables. In those of its other mixtures the gate's is `embed`, as a dense kernel's.
AXES = {name: {"embed_moe": "embed"} for name in ("mixtral-8x7b", "qwen3-30b-a3b", "gpt-oss-20b", NEXT)}
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
    "llama4-17b-16e": {
        "moe": "Llama4MoEBlock_0/MoeBlock_0", "moe/shared_experts": "Llama4MoEBlock_0/shared_experts",
    },
    NEXT: {
        "pre_self_attention_layer_norm": "input_layernorm",
        "post_self_attention_layer_norm": "post_attention_layernorm",
        "self_attention": "attention",
        "self_attention/norm": "attention/norm/rms_norm",
        "moe": "mlp/routed_experts",
        "moe/shared_experts": "mlp/shared_expert",
        "moe/shared_gate": "mlp/shared_expert_gate",
        **{f"layers/layers_{at}": f"layers/layer_{at}" for at in range(4)},
        **{f"layers/layers_3/self_attention/{part}": f"layers/layer_3/attention/attention/{part}"
           for part in ("query", "key", "value", "out", "query_norm", "key_norm")},
    },
    "gemma4-26b": {
        "layers/layers_5": "scanned_blocks/global_layer",
        **{f"layers/layers_{at}": f"scanned_blocks/local_layers[{at}]" for at in range(5)},
        "layer_scale": "layer_scalar",
        "moe": "mlp/moe_block/MoeBlock_0",
        "moe/shared_experts": "mlp/moe_block/shared_experts",
        "moe/gate/scale": "mlp/pre_forward_scale_2",
        "moe/gate/expert_scale": "mlp/moe_block/MoeBlock_0/per_expert_scale",
        **{f"moe/{norm}": f"mlp/{norm}" for norm in (
            "post_feedforward_layernorm_1", "pre_feedforward_layernorm_2", "post_feedforward_layernorm_2")},
    },
}  # fmt: skip


def _nameless(shape, axes):
    """MaxText gives these leaves no names at all, not even the scan's: they are plain flax parameters."""
    del axes
    return shape, ()


def _unnamed_norm(shape, axes):
    """Its own class of norm (`Qwen3NextRMSNorm`) names no dim but the scan's."""
    return shape, ("None", *axes[1:])


def _folded(shape, axes):
    """Heads and their width are one dim, with a name of an MLP: the gate multiplies the heads as one vector."""
    assert axes == ("heads", "layers", "kv", "embed")
    return (shape[0] * shape[2], shape[1], shape[3]), ("mlp", "layers", "embed")


# By the end of our name.
DECLARED = {
    NEXT: {
        "/A_log": _nameless,
        "/dt_bias": _nameless,
        "/conv1d/kernel": _nameless,
        "/self_attention/norm/scale": _unnamed_norm,
        "/query_norm/scale": _unnamed_norm,
        "/key_norm/scale": _unnamed_norm,
        "_self_attention_layer_norm/scale": _unnamed_norm,
        "/out/kernel": _folded,
    }
}


def _table(name):
    header, *rows = (line.split("\t") for line in (TREES / f"{name}.tsv").read_text(encoding="utf-8").splitlines())
    assert header == ["path", "shape", "axes"]
    return {path: (tuple(int(size) for size in shape.split()), tuple(axes.split())) for path, shape, axes in rows}


def _tree(backend_name, table):
    """The twin's parameters under MaxText's names; an axis without a name is called None, as in the tables."""
    config = preset(table)
    specs = backend(backend_name).param_specs(config)
    tree = {
        maxtext_name(config, name): _declared(table, name, spec.shape, _axes(table, name, spec.axes))
        for name, spec in specs.items()
    }
    assert len(tree) == len(specs)
    return _stacked(tree)


def _declared(table, name, shape, axes):
    for end, way in DECLARED.get(table, {}).items():
        if name.endswith(end):
            return way(shape, axes)
    return shape, axes


def _stacked(tree):
    """The tree with the slices of a stack, `local_layers[0]` to `[4]`, as the one leaf that they are of."""
    stacks = {}
    for name, leaf in tree.items():
        stacks.setdefault(re.sub(r"\[\d+\]", "", name), []).append(leaf)
    return {name: _stack(leaves) if "/local_layers/" in name else leaves[0] for name, leaves in stacks.items()}


def _stack(leaves):
    """The local layers' axis follows the scan's. All of them are alike."""
    assert len(set(leaves)) == 1
    (shape, axes), count = leaves[0], len(leaves)
    return (*shape[:2], count, *shape[2:]), (*axes[:2], "local_layers", *axes[2:])


def _axes(table, name, axes):
    named = AXES.get(table, {}) if name.endswith("gate/kernel") else {}
    return tuple(named.get(str(axis), str(axis)) for axis in axes)


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
        if _declared(table, name, spec.shape, tuple(map(str, spec.axes))) != expected[maxtext_name(config, name)]
    }  # fmt: skip
    assert unmapped
    assert all(name.endswith("/moe/gate/kernel") for name in unmapped)


def test_every_way_of_declaring_otherwise_is_needed():
    config, expected = preset(NEXT), _table(NEXT)
    ends = set()
    for name, spec in backend("linen").param_specs(config).items():
        ours = (spec.shape, _axes(NEXT, name, spec.axes))
        if ours != expected[maxtext_name(config, name)]:
            ends |= {end for end in DECLARED[NEXT] if name.endswith(end)}
    assert ends == set(DECLARED[NEXT])


def test_a_local_layer_that_is_not_as_the_others_cannot_be_stacked():
    slices = {f"blocks/local_layers[{at}]/wo": ((4, 5, 8), ("mlp", "layers", "embed")) for at in range(3)}
    stacked = (4, 5, 3, 8), ("mlp", "layers", "local_layers", "embed")
    assert _stacked(slices) == {"blocks/local_layers/wo": stacked}
    with pytest.raises(AssertionError):
        _stacked(slices | {"blocks/local_layers[1]/wo": ((4, 5, 9), ("mlp", "layers", "embed"))})
