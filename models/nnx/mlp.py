"""The feed-forward part of a layer, gated or plain. The maths is in `models.ops`.

Shape letters: B batch, T query, D model, F hidden.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from .. import ops
from ..config import Mlp as MlpConfig
from ..config import ModelConfig
from ..sharding import Rules
from .layers import Dense, constrain, make_norm

HIDDEN_AXES = ("activation_batch", "activation_length", "activation_mlp")


class Mlp(nnx.Module):
    """Input norm if it has one of its own, input kernels, activation, output kernel."""

    def __init__(self, config: ModelConfig, mlp: MlpConfig, *, rules: Rules, rngs: nnx.Rngs) -> None:
        self.mlp = mlp
        self.rules = rules
        embed, hidden = (config.embed_dim,), (mlp.hidden_dim,)
        shared = {"bias": mlp.bias, "config": config, "rngs": rngs}
        if mlp.input_norm is not None:
            setattr(self, mlp.input_norm, make_norm(config))
        if mlp.gated:
            self.wi_0 = Dense(embed, hidden, ("embed", "mlp"), **shared)
            self.wi_1 = Dense(embed, hidden, ("embed", "mlp"), **shared)
        else:
            self.wi = Dense(embed, hidden, ("embed", "mlp"), **shared)
        self.wo = Dense(hidden, embed, ("mlp", "embed"), **shared)

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        if self.mlp.input_norm is not None:
            with jax.named_scope(self.mlp.input_norm):
                x = getattr(self, self.mlp.input_norm)(x)
        hidden_BTF = constrain(self._hidden(x), HIDDEN_AXES, self.rules)
        with jax.named_scope("wo"):
            return self.wo(hidden_BTF)

    def _hidden(self, x: Float[Array, "b t d"]) -> Float[Array, "b t f"]:
        activation = self.mlp.activation
        if not self.mlp.gated:
            with jax.named_scope("wi"):
                hidden_BTF = self.wi(x)
            return ops.activate(hidden_BTF, activation)
        with jax.named_scope("wi_0"):
            gate_BTF = self.wi_0(x)
        with jax.named_scope("wi_1"):
            linear_BTF = self.wi_1(x)
        return ops.gate(gate_BTF, linear_BTF, activation)
