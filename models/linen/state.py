"""The Linen train state: a flax `TrainState` over `{"params": tree}`, made, described and named."""

import functools
import typing
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import PartitionSpec
from jaxtyping import Array, PyTree

from ..config import AdamW, ModelConfig, TrainConfig
from ..protocol import Mode
from ..training.optimizers import make_optimizer
from .model import Transformer

Variables = Mapping[str, typing.Any]


def variables_of(leaves: dict[str, typing.Any], collection: str = "params") -> Variables:
    """The collection as Linen wants it, from canonical names."""
    return {collection: unflatten_dict(leaves, sep="/")}


def canonical(variables: Variables, collection: str = "params") -> dict[str, typing.Any]:
    """The leaves of a collection by canonical name. A boxed leaf stays boxed."""
    return flatten_dict(variables[collection], sep="/")


def init(config: ModelConfig, mode: Mode, key: Array, shape: tuple[int, int]) -> Variables:
    """Fresh variables in their boxes, in decode mode with a cache for `shape` = batch, length. Traced, never run."""
    zeros = jnp.zeros(shape, jnp.int32)
    return Transformer(config, mode).init(key, zeros, zeros, zeros, mutable=["params", "cache"])


@functools.lru_cache(maxsize=256)
def abstract_variables(config: ModelConfig, mode: Mode = Mode.TRAIN, shape: tuple[int, int] = (1, 1)) -> Variables:
    """Shapes, dtypes and logical axes of the variables, each a `LogicallyPartitioned` box; nothing is computed."""
    return jax.eval_shape(functools.partial(init, config, mode, shape=shape), key=jax.random.key(0))


@functools.cache
def initializer(config: ModelConfig) -> Callable[[Array], Variables]:
    """The compiled function from a key to unboxed parameters."""
    return jax.jit(lambda key: nn.unbox(init(config, Mode.TRAIN, key, (1, 1))))


# One optimizer and one apply function for each setting: both are static in a TrainState and compared by identity.
@functools.cache
def optimizer_of(optimizer: AdamW) -> optax.GradientTransformation:
    """The transformation of these settings, the same object at every call."""
    return make_optimizer(optimizer)


@functools.cache
def _apply_fn(config: ModelConfig) -> Callable[..., typing.Any]:
    return Transformer(config).apply


def create(config: ModelConfig, train: TrainConfig, params: Variables) -> TrainState:
    """The state at step 0."""
    tx = optimizer_of(train.optimizer)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        apply_fn=_apply_fn(config),
        params=params,  # pyright: ignore[reportArgumentType]  # flax says FrozenDict, and takes any tree
        tx=tx,
        opt_state=tx.init(params),
    )


def abstract(config: ModelConfig, train: TrainConfig) -> TrainState:
    """The state's tree with a `ShapeDtypeStruct` for each array."""
    return nn.unbox(_abstract_boxed(config, train))


def axes(config: ModelConfig, train: TrainConfig) -> PyTree:
    """The state's tree with a tuple of logical names for each array, read from the boxes."""
    specs = nn.get_partition_spec(_abstract_boxed(config, train))
    return jax.tree.map(tuple, specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))


@functools.lru_cache(maxsize=256)
def _abstract_boxed(config: ModelConfig, train: TrainConfig) -> TrainState:
    return jax.eval_shape(functools.partial(create, config, train), abstract_variables(config))
