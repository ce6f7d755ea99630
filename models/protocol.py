"""What both twins offer, in one Protocol: parameters, train state, steps and cache of a configured model.

It names no framework and picks none. `models.backend("linen" | "nnx")` returns a twin.
"""

import dataclasses
import enum
import typing
from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Int

from .config import ModelConfig, TrainConfig
from .sharding import DEFAULT_RULES, Rules
from .training.batch import Batch
from .training.objectives import LossTerms

Params = dict[str, Array]
Cache = dict[str, Array]
Intermediates = dict[str, Array]
State = typing.Any
Metrics = dict[str, Float[Array, ""]]


class Mode(enum.Enum):
    """What a forward pass reads: the batch alone, or the batch and the cache (prefill and autoregressive steps)."""

    TRAIN = "train"
    DECODE = "decode"


@dataclasses.dataclass(frozen=True)
class ParamSpec:
    """One parameter as a twin declares it: shape, stored dtype and the logical name of each axis."""

    shape: tuple[int, ...]
    dtype: jax.numpy.dtype
    axes: tuple[str | None, ...]


class Backend(typing.Protocol):
    """One implementation of the model. Every step it returns is pure, jittable and not yet jitted."""

    name: str

    def init(self, config: ModelConfig, key: Array) -> Params:
        """Fresh parameters by canonical name."""
        ...

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
        ...

    def param_specs(self, config: ModelConfig) -> dict[str, ParamSpec]:
        """Every parameter as this twin's own module declares it, from an abstract init."""
        ...

    def forward(self, config: ModelConfig, *, rules: Rules = DEFAULT_RULES) -> Callable[[Params, Batch], Array]:
        """`(params, batch) -> logits [b, t, v]`, dropout off."""
        ...

    def intermediates(
        self, config: ModelConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[Params, Batch], tuple[Array, Intermediates]]:
        """`(params, batch) -> (logits, what the layers sowed by canonical name)`, dropout off.

        `hidden_states` is the residual stream [b, t, d] after a layer, with a leading layer axis when scanned. It lies
        where the layer's parts lie: `decoder/layers/layers_0/hidden_states` for a layer with a name of its own.
        A mixture of experts adds, in its own place, `moe/load_balance` (a scalar) and `moe/expert_counts` [e].
        """
        ...

    def loss_and_grads(
        self, config: ModelConfig, train: TrainConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[Params, Batch, Array | None], tuple[LossTerms, Params]]:
        """`(params, batch, key) -> (loss terms, gradient of the loss by canonical name)`; the key feeds dropout."""
        ...

    def create_state(self, config: ModelConfig, train: TrainConfig, params: Params) -> State:
        """The twin's own train state at step 0, holding these parameters."""
        ...

    def abstract_state(self, config: ModelConfig, train: TrainConfig) -> State:
        """The train state's tree with a `ShapeDtypeStruct` in place of each array."""
        ...

    def state_axes(self, config: ModelConfig, train: TrainConfig) -> State:
        """The train state's tree with the tuple of logical axis names of each leaf; `()` for scalars and rng state."""
        ...

    def train_step(
        self, config: ModelConfig, train: TrainConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[State, Batch], tuple[State, Metrics]]:
        """`(state, batch) -> (state, metrics)`: one optimizer update."""
        ...

    def eval_step(
        self, config: ModelConfig, train: TrainConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[State, Batch], Metrics]:
        """`(state, batch) -> metrics`: dropout off, state unchanged."""
        ...

    def params_of(self, state: State) -> Params:
        """The parameters of a train state by canonical name."""
        ...

    def init_cache(self, config: ModelConfig, batch_size: int, length: int) -> Cache:
        """An empty cache for `length` positions a row, by canonical name: beside the parameters of its attention."""
        ...

    def prefill(
        self, config: ModelConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[Params, Cache, Array, Array, Array], tuple[Array, Cache]]:
        """`(params, cache, tokens, positions, segment_ids) -> (logits, cache)`; padding has segment 0."""
        ...

    def generate(
        self, config: ModelConfig, *, rules: Rules = DEFAULT_RULES
    ) -> Callable[[Params, Cache, Array, Array], tuple[Array, Cache]]:
        """`(params, cache, tokens [b, 1], positions [b, 1]) -> (logits, cache)`: one autoregressive step."""
        ...
