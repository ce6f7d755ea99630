"""Layouts are bijections between stored paths and canonical names, and a tree tells which one it is."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.checkpoints import CheckpointError, Layout, detect, from_canonical, to_canonical

NNX = (Layout.NNX_NATIVE, Layout.NNX_INTEGER, Layout.NNX_BOXED, Layout.NNX_PLAIN)

WORDS = st.one_of(
    st.sampled_from(
        [
            "decoder", "layers", "layers_0", "layers_3", "layers_11", "layers_remainder", "dense_layers_3",
            "moe_layers_11", "mlp", "moe", "wi_0", "2b",
        ]
    ),
    st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True),
)
LEAVES = st.sampled_from(
    ["kernel", "bias", "choice_bias", "sinks", "wi_0", "scale", "layer_scale", "A_log", "embedding", "w8", "0"]
)
BLOCKS = st.sampled_from(
    ["layers", "layers_3", "layers_11", "layers_remainder", "dense_layers", "dense_layers_3", "moe_layers_11"]
)
IN_BLOCKS = st.tuples(BLOCKS, st.lists(WORDS, max_size=3), LEAVES).map(
    lambda drawn: "/".join(["decoder", drawn[0], *drawn[1], drawn[2]])
)
ANYWHERE = st.tuples(st.lists(WORDS, max_size=5), LEAVES).map(lambda drawn: "/".join([*drawn[0], drawn[1]]))
PARAMETERS = st.one_of(ANYWHERE, IN_BLOCKS)
ENTRIES = st.integers(0, 12).map(str)

# what may follow each first word of a canonical name
NAMES = st.one_of(
    PARAMETERS.map(lambda name: f"params/{name}"),
    st.tuples(ENTRIES, st.sampled_from(["mu", "nu"]), PARAMETERS).map(lambda drawn: "opt_state/" + "/".join(drawn)),
    ENTRIES.map(lambda entry: f"opt_state/{entry}/count"),
    st.just("step"),
)
ANY_WORDS = st.one_of(WORDS, LEAVES, st.sampled_from(["value", "count", "key", "params", "mu", "opt_state", "3", "11"]))
ANY_NAMES = st.one_of(NAMES, st.lists(ANY_WORDS, min_size=1, max_size=7).map("/".join).map(lambda rest: f"aux/{rest}"))
ANY_PATHS = st.one_of(
    st.lists(ANY_WORDS, min_size=1, max_size=7).map(tuple),
    st.tuples(st.sampled_from(["model", "optimizer", "params", "nnx_aux"]), st.lists(ANY_WORDS, max_size=6)).map(
        lambda drawn: (drawn[0], *drawn[1])
    ),
)


def _plain(name):
    """Whether no layout has a reason to refuse the name: `decoder/layers/3` is a block's number in one of them."""
    return re.search(r"(^|/)decoder/layers/\d+(/|$)", name) is None


@pytest.mark.parametrize("layout", Layout)
@settings(max_examples=60)
@given(name=NAMES.filter(_plain))
def test_every_name_has_a_place_and_comes_back(layout, name):
    assert to_canonical(layout, from_canonical(layout, name)) == name


@pytest.mark.parametrize("layout", Layout)
@settings(max_examples=60)
@given(name=ANY_NAMES)
def test_a_strange_name_comes_back_or_is_refused(layout, name):
    try:
        path = from_canonical(layout, name)
    except CheckpointError:
        return
    assert to_canonical(layout, path) == name


@pytest.mark.parametrize("layout", Layout)
@settings(max_examples=60)
@given(path=ANY_PATHS)
def test_a_strange_path_comes_back_or_is_refused(layout, path):
    try:
        name = to_canonical(layout, path)
    except CheckpointError:
        return
    assert from_canonical(layout, name) == path


@pytest.mark.parametrize("layout", NNX)
def test_known_parameter_names_decide_what_is_auxiliary(layout):
    parameters = {"decoder/strange/count"}
    path = from_canonical(layout, "params/decoder/strange/count", parameters=parameters)
    assert to_canonical(layout, path, parameters=parameters) == "params/decoder/strange/count"
    table = from_canonical(layout, "aux/decoder/routing/table", parameters=parameters)
    assert to_canonical(layout, table, parameters=parameters) == "aux/decoder/routing/table"


# lines of the whole states of llama2-7b and gemma3-4b as MaxText's two backends hold them, scanned and not
TABLES = {
    "params/decoder/layers/mlp/wi_0/kernel": (
        "params/params/decoder/layers/mlp/wi_0/kernel", "model/decoder/layers/mlp/wi_0/kernel/value"
    ),
    "params/decoder/layers_10/self_attention/query/kernel": (
        "params/params/decoder/layers_10/self_attention/query/kernel",
        "model/decoder/layers_10/self_attention/query/kernel/value",
    ),
    "params/decoder/layers/layers_5/self_attention/key_norm/scale": (
        "params/params/decoder/layers/layers_5/self_attention/key_norm/scale",
        "model/decoder/layers/layers_5/self_attention/key_norm/scale/value",
    ),
    "opt_state/0/mu/decoder/layers_remainder/layers_0/mlp/wo/kernel": (
        "opt_state/0/mu/params/decoder/layers_remainder/layers_0/mlp/wo/kernel",
        "optimizer/opt_state/0/mu/decoder/layers_remainder/layers_0/mlp/wo/kernel/value",
    ),
    "params/token_embedder/embedding": (
        "params/params/token_embedder/embedding", "model/token_embedder/embedding/value"
    ),
    "opt_state/0/mu/decoder/layers/self_attention/key/kernel": (
        "opt_state/0/mu/params/decoder/layers/self_attention/key/kernel",
        "optimizer/opt_state/0/mu/decoder/layers/self_attention/key/kernel/value",
    ),
    "opt_state/0/nu/decoder/layers_10/mlp/wo/kernel": (
        "opt_state/0/nu/params/decoder/layers_10/mlp/wo/kernel",
        "optimizer/opt_state/0/nu/decoder/layers_10/mlp/wo/kernel/value",
    ),
    "opt_state/0/count": ("opt_state/0/count", "optimizer/opt_state/0/count/value"),
    "opt_state/2/count": ("opt_state/2/count", "optimizer/opt_state/2/count/value"),
    "step": ("step", "optimizer/step/value"),
}


@pytest.mark.parametrize("name", TABLES)
def test_paths_are_the_ones_that_maxtext_writes(name):
    linen, nnx = (tuple(path.split("/")) for path in TABLES[name])
    assert from_canonical(Layout.LINEN, name) == linen
    assert from_canonical(Layout.FINAL, name) == linen
    assert from_canonical(Layout.NNX_BOXED, name) == nnx
    assert to_canonical(Layout.NNX_BOXED, nnx) == name


def test_random_state_is_auxiliary():
    path = ("model", "decoder", "layers", "dropout", "rngs", "aqt", "key", "value")
    assert to_canonical(Layout.NNX_BOXED, path) == "aux/decoder/layers/dropout/rngs/aqt/key"
    assert from_canonical(Layout.FINAL, "aux/decoder/layers/dropout/rngs/aqt/key") == ("nnx_aux", *path[:-1])


def test_integer_layers_keep_their_numbers():
    name = "params/decoder/layers_10/mlp/wo/kernel"
    path = ("model", "decoder", "layers", "10", "mlp", "wo", "kernel", "value")
    assert from_canonical(Layout.NNX_INTEGER, name) == path
    assert to_canonical(Layout.NNX_INTEGER, path) == name
    with pytest.raises(CheckpointError, match="layers/10"):
        to_canonical(Layout.NNX_NATIVE, path)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("decoder/layers/layers_5/mlp/wo/kernel", "decoder/layers/layers_5/mlp/wo/kernel"),
        ("decoder/layers_2/layers_5/mlp/wo/kernel", "decoder/layers/2/layers_5/mlp/wo/kernel"),
        ("decoder/layers_2/layers_5/layer_scale", "decoder/layers/2/layers_5/layer_scale"),
        ("decoder/layers_2/layer_scale", "decoder/layers/2/layer_scale"),
        ("decoder/layers_2/layers_0/self_attention/A_log", "decoder/layers/2/layers_0/self_attention/A_log"),
        ("decoder/layers_remainder/layers_0/mlp/wo/kernel", "decoder/layers_remainder/layers_0/mlp/wo/kernel"),
        ("decoder/dense_layers_2/mlp/wo/kernel", "decoder/dense_layers_2/mlp/wo/kernel"),
        ("decoder/moe_layers_2/moe/wo", "decoder/moe_layers_2/moe/wo"),
    ],
)
def test_only_the_decoders_own_blocks_become_integers(name, path):
    stored = ("model", *path.split("/"), "value")
    assert from_canonical(Layout.NNX_INTEGER, f"params/{name}") == stored
    assert to_canonical(Layout.NNX_INTEGER, stored) == f"params/{name}"


FULL = (*TABLES, "aux/decoder/rngs/dropout/key")


@pytest.mark.parametrize("layout", Layout)
def test_a_tree_tells_its_layout(layout):
    names = [name for name in FULL if layout is not Layout.LINEN or not name.startswith("aux/")]
    assert detect(from_canonical(layout, name) for name in names) is layout


@pytest.mark.parametrize("layout", Layout)
def test_weights_alone_tell_how_they_are_read(layout):
    name = "params/decoder/layers_3/mlp/wo/kernel"
    path = from_canonical(layout, name)
    assert to_canonical(detect([path]), path) == name


def test_a_mixed_tree_is_refused():
    paths = [from_canonical(Layout.LINEN, "step"), from_canonical(Layout.NNX_NATIVE, "params/decoder/norm/scale")]
    with pytest.raises(CheckpointError, match="mixes the leaves of two layouts"):
        detect(paths)


def test_an_empty_tree_is_refused():
    with pytest.raises(CheckpointError, match="has none"):
        detect([])


def test_a_path_of_no_layout_is_named():
    with pytest.raises(CheckpointError, match="ema/decoder/scale"):
        detect([("ema", "decoder", "scale"), from_canonical(Layout.LINEN, "step")])


def test_a_layout_has_no_place_for_what_it_does_not_keep():
    with pytest.raises(CheckpointError, match="aux/decoder/table"):
        from_canonical(Layout.LINEN, "aux/decoder/table")
