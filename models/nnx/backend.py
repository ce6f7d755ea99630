"""The NNX twin behind the `models.backend.Backend` Protocol."""

import functools
from collections.abc import Callable

import jax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from ..config import ModelConfig, TrainConfig
from ..protocol import Cache, Intermediates, Metrics, Params, ParamSpec
from ..sharding import DEFAULT_RULES, Rules
from ..training import Batch, LossTerms
from . import state as states
from . import steps


class Backend:
    """Flax NNX. A train state is a pure `nnx.State` of `TrainStateNNX`."""

    name = "nnx"

    def init(self, config: ModelConfig, key: Key[Array, ""]) -> Params:
        """Fresh parameters by canonical name."""
        return _compiled_init(config)(key)

    def apply(
        self,
        config: ModelConfig,
        params: Params,
        tokens: Int[Array, "b t"],
        *,
        positions: Int[Array, "b t"] | None = None,
        segment_ids: Int[Array, "b t"] | None = None,
    ) -> Float[Array, "b t v"]:
        """Logits of a forward pass without dropout."""
        return _compiled_apply(config)(params, tokens, positions, segment_ids)

    def param_specs(self, config: ModelConfig) -> dict[str, ParamSpec]:
        """Every parameter as the modules declare it."""
        return states.param_specs(config)

    def forward(self, config: ModelConfig, *, rules: Rules = DEFAULT_RULES) -> Callable[[Params, Batch], Array]:
        """`(params, batch) -> logits [b, t, v]`, dropout off."""
        return steps.forward(config, rules=rules)

    def intermediates(
        self, config: ModelConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[Params, Batch], tuple[Array, Intermediates]]:
        """`(params, batch) -> (logits, what the layers sowed by canonical name)`, dropout off."""
        return steps.intermediates(config, rules=rules)

    def loss_and_grads(
        self, config: ModelConfig, train: TrainConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[Params, Batch, Array | None], tuple[LossTerms, Params]]:
        """`(params, batch, key) -> (loss terms, gradients by canonical name)`."""
        return steps.loss_and_grads(config, train, rules=rules)

    def create_state(self, config: ModelConfig, train: TrainConfig, params: Params) -> nnx.State:
        """The train state at step 0 with these parameters."""
        return _compiled_create(config, train)(params)

    def abstract_state(self, config: ModelConfig, train: TrainConfig) -> nnx.State:
        """The train state with a `ShapeDtypeStruct` in place of each array."""
        return states.abstract_train_state(config, train)

    def state_axes(self, config: ModelConfig, train: TrainConfig) -> nnx.State:
        """The train state's tree with the logical axis names of each leaf."""
        return states.state_axes(states.abstract_train_state(config, train))

    def train_step(
        self, config: ModelConfig, train: TrainConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[nnx.State, Batch], tuple[nnx.State, Metrics]]:
        """`(state, batch) -> (state, metrics)`: one optimizer update."""
        return steps.train_step(config, train, rules=rules)

    def eval_step(
        self, config: ModelConfig, train: TrainConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[nnx.State, Batch], Metrics]:
        """`(state, batch) -> metrics`: dropout off, state unchanged."""
        return steps.eval_step(config, train, rules=rules)

    def params_of(self, state: nnx.State) -> Params:
        """The parameters of a train state by canonical name."""
        return states.canonical_params(state["model"])

    def init_cache(self, config: ModelConfig, batch_size: int, length: int) -> Cache:
        """An empty cache for `length` positions a row."""
        return states.empty_cache(config, batch_size, length)

    def prefill(
        self, config: ModelConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[Params, Cache, Array, Array, Array], tuple[Array, Cache]]:
        """`(params, cache, tokens, positions, segment_ids) -> (logits, cache)`."""
        return steps.prefill(config, rules=rules)

    def generate(
        self, config: ModelConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[Params, Cache, Array, Array], tuple[Array, Cache]]:
        """`(params, cache, tokens [b, 1], positions [b, 1]) -> (logits, cache)`."""
        return steps.generate(config, rules=rules)


@functools.lru_cache(maxsize=64)
def _compiled_init(config: ModelConfig) -> Callable[[Array], Params]:
    def init(key: Key[Array, ""]) -> Params:
        return states.canonical_params(nnx.state(states.new_model(config, DEFAULT_RULES, key, key)))

    return jax.jit(init)


@functools.lru_cache(maxsize=64)
def _compiled_apply(config: ModelConfig) -> Callable[..., Array]:
    return jax.jit(steps.apply(config))


@functools.lru_cache(maxsize=64)
def _compiled_create(config: ModelConfig, train: TrainConfig) -> Callable[[Params], nnx.State]:
    return jax.jit(functools.partial(states.new_train_state, config, train))


BACKEND = Backend()
