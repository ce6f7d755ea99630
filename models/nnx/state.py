"""Train state of the NNX twin, and the way between canonical names and NNX state.

The structure of a model or of a train state is found once per configuration by abstract evaluation; values are then
poured into it. What leaves this package by name is a flat dict; what a train step carries is a pure `nnx.State`.
"""

import dataclasses
import functools
import itertools
import typing

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util
from jaxtyping import Array, Key

from ..config import Attention, GatedDelta, LatentAttention, ModelConfig, TrainConfig
from ..protocol import Cache, Intermediates, Params, ParamSpec
from ..sharding import DEFAULT_RULES, Rules
from ..training import make_optimizer
from .model import Transformer
from .moe import ChoiceBias


class TrainStateNNX(nnx.Module):
    """A model and its optimizer, or a model alone. The step counter is the optimizer's."""

    def __init__(self, model: Transformer, optimizer: nnx.Optimizer | None) -> None:
        self.model = model
        self.optimizer = optimizer

    def apply_gradients(self, grads: nnx.State, **kwargs: object) -> None:
        """Updates model and optimizer in place, but for the biases of choices; `kwargs` go to the optax update.

        Raises:
            RuntimeError: when there is no optimizer.
        """
        if self.optimizer is None:
            raise RuntimeError("apply_gradients needs an optimizer, and this train state was made without one")
        kept = jax.tree.map(lambda leaf: leaf, nnx.state(self.model, ChoiceBias))  # variables of its own
        self.optimizer.update(self.model, grads, **kwargs)
        nnx.update(self.model, kept)

    def balance(self, sown: Intermediates, rate: float) -> None:
        """Adds `rate` to the choice bias of each expert that was chosen less often than the mean, and takes it from
        one chosen more often. `sown` has the counts of each layer, or of each stack of layers.
        """

        def moved(path: tuple, bias_E: Array) -> Array:
            counts_E = sown[_canonical(path).removesuffix("gate/choice_bias") + "expert_counts"]
            direction_E = jnp.sign(counts_E.mean(axis=-1, keepdims=True) - counts_E)
            # A stack's layers are the first axis of what it sowed, and the second of its parameters.
            return (bias_E.astype(jnp.float32) + rate * direction_E.T).astype(bias_E.dtype)

        nnx.update(self.model, jax.tree.map_with_path(moved, nnx.state(self.model, ChoiceBias)))


@dataclasses.dataclass(frozen=True)
class ModelStructure:
    """A model without its values: the graph, the abstract parameters, and whatever else it holds (random streams)."""

    graphdef: nnx.GraphDef
    params: nnx.State
    rest: nnx.State

    def merge(self, params: Params, key: Key[Array, ""] | None = None) -> Transformer:
        """The model with these parameters. Without a key its random streams hold no value and must not be read."""
        rest = jax.tree.map(lambda leaf: leaf if key is None else _stream_value(leaf, key), self.rest)
        return nnx.merge(self.graphdef, self.pour(params), rest)

    def pour(self, params: Params) -> nnx.State:
        """The parameters as NNX state.

        Raises:
            ValueError: naming the first parameter that is missing, unknown or of another shape.
        """
        leaves, treedef = jax.tree_util.tree_flatten_with_path(self.params)
        expected = {_canonical(path): leaf.shape for path, leaf in leaves}
        for name in sorted(expected.keys() ^ params.keys()):
            found = "is missing" if name in expected else "is unknown"
            raise ValueError(f"params[{name!r}] {found}: this config has the parameters that param_specs(config) lists")
        for name, shape in expected.items():
            if params[name].shape != shape:
                raise ValueError(f"params[{name!r}] has shape {params[name].shape}, this config needs {shape}")
        return treedef.unflatten([params[name] for name in expected])


def _stream_value(leaf: jax.ShapeDtypeStruct, key: Key[Array, ""]) -> Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return key
    return jnp.zeros(leaf.shape, leaf.dtype)


def _canonical(path: tuple) -> str:
    """The name of a leaf of a model's state: the keys of its path without the variable's own `value`."""
    return "/".join(str(entry.key) for entry in path[:-1])


def new_model(config: ModelConfig, rules: Rules, key: Key[Array, ""], dropout_key: Key[Array, ""]) -> Transformer:
    """A model with fresh parameters."""
    return Transformer(config, rules=rules, rngs=nnx.Rngs(params=key, dropout=dropout_key))


@functools.lru_cache(maxsize=256)
def model_structure(config: ModelConfig, rules: Rules = DEFAULT_RULES) -> ModelStructure:
    """What a model of this config consists of, by abstract evaluation.

    `jax.eval_shape` of the split model, not `nnx.eval_shape` of the model: that one takes logical names for mesh axes
    and fails under a mesh.
    """

    def build() -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
        model = new_model(config, rules, jax.random.key(0), jax.random.key(0))
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        return graphdef, params, rest

    return ModelStructure(*jax.eval_shape(build))


@functools.lru_cache(maxsize=256)
def train_structure(
    config: ModelConfig, train: TrainConfig, rules: Rules = DEFAULT_RULES
) -> tuple[nnx.GraphDef, nnx.State]:
    """The graph that turns a train state back into modules, and the abstract train state."""
    shapes = {name: jax.ShapeDtypeStruct(spec.shape, spec.dtype) for name, spec in param_specs(config).items()}
    return jax.eval_shape(lambda params: nnx.split(_new_modules(config, train, params, rules)), shapes)


def _new_modules(config: ModelConfig, train: TrainConfig, params: Params, rules: Rules) -> TrainStateNNX:
    model = model_structure(config, rules).merge(params, jax.random.key(train.seed))
    return TrainStateNNX(model, nnx.Optimizer(model, make_optimizer(train.optimizer), wrt=nnx.Param))


def new_train_state(config: ModelConfig, train: TrainConfig, params: Params) -> nnx.State:
    """The pure state of a model with these parameters and a fresh optimizer. `train.seed` starts the dropout stream."""
    return nnx.state(_new_modules(config, train, params, DEFAULT_RULES))


def abstract_train_state(config: ModelConfig, train: TrainConfig) -> nnx.State:
    """The train state with a `ShapeDtypeStruct` for each array. Variables are mutable: each call makes its own."""
    _, state = train_structure(config, train)
    return jax.tree.map(lambda leaf: leaf, state)


def state_axes(state: nnx.State) -> nnx.State:
    """The same tree with each variable's logical axis names; `()` where it has none."""
    return jax.tree.map(
        lambda variable: variable.replace(variable.get_metadata("out_sharding", ())), state,
        is_leaf=lambda node: isinstance(node, nnx.Variable),
    )


def canonical_params(model_state: nnx.State) -> Params:
    """The parameters in a model's state, by canonical name."""
    leaves = jax.tree_util.tree_leaves_with_path(nnx.filter_state(model_state, nnx.Param))
    return {_canonical(path): leaf for path, leaf in leaves}


def param_specs(config: ModelConfig) -> dict[str, ParamSpec]:
    """Shape, stored dtype and logical axes of each parameter, as the modules declare them."""
    params = model_structure(config).params
    variables = nnx.to_flat_state(params)
    axes = {"/".join(map(str, path)): variable.get_metadata("out_sharding") for path, variable in variables}
    return {name: ParamSpec(leaf.shape, leaf.dtype, axes[name]) for name, leaf in canonical_params(params).items()}


def empty_cache(config: ModelConfig, batch_size: int, length: int) -> Cache:
    """Zeros for `length` positions a row. Segment 0 marks a slot that nothing was written to."""
    cache = {}
    for stack in config.stacks:
        blocks = (stack.length,) if stack.scanned else ()
        for block, layer in itertools.product(stack.names, stack.cycle):
            path = [block, layer.name, f"self_attention{layer.suffix}"]
            prefix = "/".join(["decoder", *(word for word in path if word is not None)])
            for name, leaf in _layer_cache(config.attention_of(layer), config, batch_size, length).items():
                cache[f"{prefix}/{name}"] = jnp.zeros(blocks + leaf.shape, leaf.dtype)
    return cache


def _layer_cache(
    attention: Attention | LatentAttention | GatedDelta, config: ModelConfig, batch_size: int, length: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """What one layer's cache holds, by variable: something of each position, or a state however long the text is."""
    dtype = jnp.dtype(config.dtype)
    if isinstance(attention, GatedDelta):
        channels = 2 * attention.num_key_heads * attention.key_dim + attention.num_value_heads * attention.value_dim
        state = (batch_size, attention.num_value_heads, attention.key_dim, attention.value_dim)
        return {
            "conv_state": jax.ShapeDtypeStruct((batch_size, attention.conv_width - 1, channels), dtype),
            "recurrent_state": jax.ShapeDtypeStruct(state, jnp.float32),
        }
    if isinstance(attention, LatentAttention):
        widths = {"cached_latent": (attention.kv_rank,), "cached_rope_key": (attention.rope_dim,)}
    else:
        heads = (attention.num_kv_heads, attention.head_dim)
        widths = {"cached_key": heads, "cached_value": heads}
    slots = (batch_size, length)
    leaves = {name: jax.ShapeDtypeStruct(slots + width, dtype) for name, width in widths.items()}
    return leaves | {"cached_segment_ids": jax.ShapeDtypeStruct(slots, jnp.int32)}


def nest_cache(cache: Cache) -> dict:
    """The cache as the decoder takes it: by block, by layer if it has a name, by attention, by variable."""
    return traverse_util.unflatten_dict(cache, sep="/")["decoder"]


def flatten_cache(cache: dict) -> Cache:
    """The decoder's cache by canonical name."""
    return typing.cast(Cache, traverse_util.flatten_dict({"decoder": cache}, sep="/"))  # text keys, by `sep`


def flatten_sown(sown: dict[str, dict]) -> Intermediates:
    """What each layer sowed, once each, by canonical name."""
    flat = typing.cast(dict[str, tuple[Array]], traverse_util.flatten_dict({"decoder": sown}, sep="/"))
    return {name: value for name, (value,) in flat.items()}
