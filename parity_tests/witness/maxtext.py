"""MaxText as a witness: each twin declares the parameters of a published size with MaxText's paths, shapes and axes.

`trees/*.tsv` are MaxText's scanned Linen trees: path, shape, logical axis names. What it calls otherwise than we do is
`maxtext_name`, the name under which its checkpoints are read, `AXES`, an axis of one parameter of four models,
`DECLARED`, what qwen3-next declares otherwise, and `stacked`, gemma4's local layers that are one leaf there.
"""

import pathlib
import re

from models import backend, preset
from models.checkpoints.conventions import maxtext_name

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


def read_table(name):
    """Path to shape and axis names, as MaxText has them."""
    header, *rows = (line.split("\t") for line in (TREES / f"{name}.tsv").read_text(encoding="utf-8").splitlines())
    assert header == ["path", "shape", "axes"]
    return {path: (tuple(int(size) for size in shape.split()), tuple(axes.split())) for path, shape, axes in rows}


def tree_of(backend_name, table):
    """The twin's parameters under MaxText's names; an axis without a name is called None, as in the tables."""
    config = preset(table)
    specs = backend(backend_name).param_specs(config)
    tree = {
        maxtext_name(config, name): declared(table, name, spec.shape, named_axes(table, name, spec.axes))
        for name, spec in specs.items()
    }
    assert len(tree) == len(specs)
    return stacked(tree)


def declared(table, name, shape, axes):
    for end, way in DECLARED.get(table, {}).items():
        if name.endswith(end):
            return way(shape, axes)
    return shape, axes


def stacked(tree):
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


def named_axes(table, name, axes):
    named = AXES.get(table, {}) if name.endswith("gate/kernel") else {}
    return tuple(named.get(str(axis), str(axis)) for axis in axes)
