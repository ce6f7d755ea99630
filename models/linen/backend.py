"""The Linen twin behind `models.protocol.Backend`: canonical flat parameters outside, Linen trees inside."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from flax.training.train_state import TrainState
from jaxtyping import Array, Float, Int, PyTree

from ..config import ModelConfig, TrainConfig
from ..protocol import Cache, Intermediates, Metrics, Mode, Params, ParamSpec
from ..sharding import DEFAULT_RULES, Rules
from ..training.batch import Batch
from ..training.objectives import LossTerms
from . import state as states
from . import steps
from .moe import ROUTING
from .state import canonical, variables_of


class Backend:
    """See `models.protocol.Backend`."""

    name = "linen"

    def init(self, config: ModelConfig, key: Array) -> Params:
        """Fresh parameters by canonical name, from one compiled init."""
        return canonical(states.initializer(config)(key))

    def apply(
        self,
        config: ModelConfig,
        params: Params,
        tokens: Int[Array, "b t"],
        *,
        positions: Int[Array, "b t"] | None = None,
        segment_ids: Int[Array, "b t"] | None = None,
    ) -> Float[Array, "b t v"]:
        """Logits without dropout; positions count from 0 and all tokens are one document unless given."""
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
        if segment_ids is None:
            segment_ids = jnp.ones(tokens.shape, jnp.int32)
        batch = Batch(tokens, tokens, positions, segment_ids, segment_ids)
        return self.forward(config)(params, batch)

    def param_specs(self, config: ModelConfig) -> dict[str, ParamSpec]:
        """Shape, dtype and logical axes of every parameter, read from the boxes of an abstract init."""
        boxes = canonical(states.abstract_variables(config))
        return {name: ParamSpec(box.value.shape, box.value.dtype, tuple(box.names)) for name, box in boxes.items()}

    def forward(self, config: ModelConfig, *, rules: Rules = DEFAULT_RULES) -> Callable[[Params, Batch], Array]:
        """`(params, batch) -> logits [b, t, v]`, dropout off."""
        run = steps.forward(config, rules)
        return lambda params, batch: run(variables_of(params), batch)

    def intermediates(
        self, config: ModelConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[Params, Batch], tuple[Array, Intermediates]]:
        """`(params, batch) -> (logits, what the layers sowed by canonical name)`, dropout off."""
        run = steps.intermediates(config, rules)

        def intermediates(params: Params, batch: Batch) -> tuple[Array, Intermediates]:
            logits, sown = run(variables_of(params), batch)
            leaves = canonical(sown, "intermediates") | canonical({ROUTING: {}, **sown}, ROUTING)
            return logits, {name: value for name, (value,) in leaves.items()}

        return intermediates

    def loss_and_grads(
        self, config: ModelConfig, train: TrainConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[Params, Batch, Array | None], tuple[LossTerms, Params]]:
        """`(params, batch, key) -> (loss terms, gradient of the loss by canonical name)`."""
        run = steps.loss_and_grads(config, train, rules)

        def loss_and_grads(params: Params, batch: Batch, key: Array | None) -> tuple[LossTerms, Params]:
            terms, grads = run(variables_of(params), batch, key)
            return terms, canonical(grads)

        return loss_and_grads

    def create_state(self, config: ModelConfig, train: TrainConfig, params: Params) -> TrainState:
        """A flax `TrainState` at step 0 holding these parameters."""
        return states.create(config, train, variables_of(params))

    def abstract_state(self, config: ModelConfig, train: TrainConfig) -> TrainState:
        """The state's tree with a `ShapeDtypeStruct` in place of each array."""
        return states.abstract(config, train)

    def state_axes(self, config: ModelConfig, train: TrainConfig) -> PyTree:
        """The state's tree with the tuple of logical axis names of each leaf; `()` for scalars."""
        return states.axes(config, train)

    def train_step(
        self, config: ModelConfig, train: TrainConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
        """`(state, batch) -> (state, metrics)`: one update, with the random key of the state's step."""
        step = steps.train_step(config, train, rules)
        return lambda state, batch: step(state, batch, steps.step_key(config, train, state.step))

    def eval_step(
        self, config: ModelConfig, train: TrainConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[TrainState, Batch], Metrics]:
        """`(state, batch) -> metrics`: dropout off, state unchanged."""
        return steps.eval_step(config, train, rules)

    def params_of(self, state: TrainState) -> Params:
        """The parameters of a train state by canonical name."""
        return canonical(state.params)

    def init_cache(self, config: ModelConfig, batch_size: int, length: int) -> Cache:
        """An empty cache for `length` positions a row, by canonical name."""
        leaves = canonical(nn.unbox(states.abstract_variables(config, Mode.DECODE, (batch_size, length))), "cache")
        return {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}

    def prefill(
        self, config: ModelConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[Params, Cache, Array, Array, Array], tuple[Array, Cache]]:
        """`(params, cache, tokens, positions, segment_ids) -> (logits, cache)`; padding has segment 0."""
        return _flat_cache(steps.prefill(config, rules))

    def generate(
        self, config: ModelConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[Params, Cache, Array, Array], tuple[Array, Cache]]:
        """`(params, cache, tokens [b, 1], positions [b, 1]) -> (logits, cache)`: one autoregressive step."""
        return _flat_cache(steps.generate(config, rules))


def _flat_cache(run: Callable[..., steps.Decode]) -> Callable[..., tuple[Array, Cache]]:
    def decode(params: Params, cache: Cache, *inputs: Array) -> tuple[Array, Cache]:
        logits, updated = run(variables_of(params), variables_of(cache, "cache"), *inputs)
        return logits, canonical(updated, "cache")

    return decode


BACKEND = Backend()
