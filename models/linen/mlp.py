"""The feed-forward part of a layer, gated or plain.

B batch, T query position, D model, F hidden.
"""

from flax import linen as nn
from jaxtyping import Array, Float

from .. import ops
from ..config import ModelConfig, schema
from .layers import Dense, constrain, make_norm

HIDDEN = ("activation_batch", "activation_length", "activation_mlp")


class Mlp(nn.Module):
    """`wo(activation(wi_0(x)) * wi_1(x))`, or `wo(activation(wi(x)))`, after the MLP's own norm if it has one."""

    config: ModelConfig
    mlp: schema.Mlp

    @nn.compact
    def __call__(self, x_BTD: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """What the layer adds to its residual stream."""
        config, mlp = self.config, self.mlp
        if mlp.input_norm is not None:
            x_BTD = make_norm(config, mlp.input_norm)(x_BTD)
        if mlp.gated:
            gate_BTF, linear_BTF = self._wide("wi_0")(x_BTD), self._wide("wi_1")(x_BTD)
            hidden_BTF = ops.gate(gate_BTF, linear_BTF, mlp.activation)
        else:
            hidden_BTF = ops.activate(self._wide("wi")(x_BTD), mlp.activation)
        hidden_BTF = constrain(hidden_BTF, HIDDEN)
        shape = (mlp.hidden_dim, config.embed_dim)
        return Dense(config, shape, ("mlp", "embed"), use_bias=mlp.bias, name="wo")(hidden_BTF)

    @nn.nowrap
    def _wide(self, name: str) -> Dense:
        config, mlp = self.config, self.mlp
        return Dense(config, (config.embed_dim, mlp.hidden_dim), ("embed", "mlp"), use_bias=mlp.bias, name=name)
