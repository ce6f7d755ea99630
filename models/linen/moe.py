"""A mixture of experts: the gate that scores them, their kernels, and the MLP that every token goes through.

What is chosen and mixed is `models.ops`'.

B batch, T query position, D model, F hidden, E experts, k chosen experts.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from .. import ops
from ..config import ModelConfig, schema
from .layers import Axes, Dense, declare, dtype_of, make_norm
from .mlp import Mlp

# A collection apart from the residual streams: a train step that balances its experts records nothing else.
ROUTING = "routing"


class Gate(nn.Module):
    """The router's logits. What it does to their scores and weights is in attributes, since no logit has it."""

    config: ModelConfig
    router: schema.Router

    def setup(self) -> None:
        """Declares the kernel, and the biases and scales that the router has."""
        config, router = self.config, self.router
        dtype, shape = config.weight_dtype, (router.num_experts,)
        init, zeros = nn.initializers.normal(config.embed_dim**-0.5), nn.initializers.zeros_init()
        ones, width = nn.initializers.ones_init(), (config.embed_dim,)
        self.kernel = declare(self, "kernel", init, (config.embed_dim, *shape), ("embed_moe", None), dtype)
        self.bias = declare(self, "bias", zeros, shape, (None,), dtype) if router.logit_bias else None
        self.choice_bias = declare(self, "choice_bias", zeros, shape, (None,), dtype) if router.choice_bias else None
        self.scale = declare(self, "scale", ones, width, ("embed",), dtype) if router.input_scale else None
        self.expert_scale = declare(self, "expert_scale", ones, shape, ("exp",), dtype) if router.expert_scale else None

    def __call__(self, x_BTD: Float[Array, "b t d"]) -> Float[Array, "b t e"]:
        """Float32 logits: in bfloat16 near ties would be chosen by rounding."""
        if self.scale is not None:
            epsilon = self.config.norm.epsilon
            x_BTD = ops.rms_norm(x_BTD, None, epsilon=epsilon, zero_centered=False, dtype=jnp.float32)
            x_BTD = x_BTD * self.scale.astype(jnp.float32)[None, None] * self.config.embed_dim**-0.5
        return ops.dense(x_BTD, self.kernel, self.bias, dtype=jnp.float32)


class Moe(nn.Module):
    """The chosen experts' weighted outputs, and beside them the shared MLP's if there is one."""

    config: ModelConfig
    moe: schema.Moe

    @nn.compact
    def __call__(
        self, x_BTD: Float[Array, "b t d"], residual_BTD: Float[Array, "b t d"], segments_BT: Int[Array, "b t"]
    ) -> Float[Array, "b t d"]:
        """What the layer adds to its residual stream. Padding, of segment 0, takes no expert's capacity.

        Gate and experts read the normed `x`; with norms of the branches, they read the residual stream.
        """
        norms = self.moe.branch_norms
        if norms is None:
            out_BTD = self._mixed(x_BTD, x_BTD, segments_BT)
            return out_BTD if self.moe.shared_hidden_dim is None else out_BTD + self._shared(x_BTD)
        inputs_BTD = make_norm(self.config, norms.experts_pre)(residual_BTD)
        out_BTD = self._mixed(inputs_BTD, residual_BTD, segments_BT)
        out_BTD = make_norm(self.config, norms.experts_post)(out_BTD)
        return make_norm(self.config, norms.shared_post)(self._shared(x_BTD)) + out_BTD

    @nn.nowrap
    def _mixed(
        self, x_BTD: Float[Array, "b t d"], gate_BTD: Float[Array, "b t d"], segments_BT: Int[Array, "b t"]
    ) -> Float[Array, "b t d"]:
        """The experts' outputs of `x`, chosen and weighted by what the gate makes of its own input."""
        moe, valid_BT = self.moe, segments_BT != 0
        gate = Gate(self.config, moe.router, name="gate")
        logits_BTE = gate(gate_BTD)
        scale_E = None if gate.expert_scale is None else gate.expert_scale.astype(jnp.float32)
        with jax.named_scope("gate"):
            weights_BTk, chosen_BTk = ops.route(logits_BTE, gate.choice_bias, moe.router, expert_scale_E=scale_E)
        self._record(logits_BTE, chosen_BTk, valid_BT)
        experts = self._experts()
        with jax.named_scope("experts"):
            return ops.mix_experts(x_BTD, weights_BTk, chosen_BTk, valid_BT, experts, moe)

    @nn.nowrap
    def _shared(self, x_BTD: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """What every token gets, less where its gate is low if there is one."""
        config, moe = self.config, self.moe
        assert moe.shared_hidden_dim is not None  # the configuration has no gate or norms of it otherwise
        shared = schema.Mlp(hidden_dim=moe.shared_hidden_dim, activation=moe.activation, gated=True)
        out_BTD = Mlp(config, shared, name="shared_experts")(x_BTD)
        if not moe.shared_gate:
            return out_BTD
        logit_BT1 = Dense(config, (config.embed_dim, 1), ("embed", None), name="shared_gate")(x_BTD)
        return ops.sigmoid_gate(out_BTD, logit_BT1)

    @nn.nowrap
    def _record(
        self, logits_BTE: Float[Array, "b t e"], chosen_BTk: Int[Array, "b t k"], valid_BT: Bool[Array, "b t"]
    ) -> None:
        """Sows how evenly the experts were chosen; nothing is computed where nobody asks."""
        if not self.is_mutable_collection(ROUTING):
            return
        router = self.moe.router
        self.sow(ROUTING, "load_balance", ops.load_balance(logits_BTE, chosen_BTk, valid_BT, router))
        self.sow(ROUTING, "expert_counts", ops.expert_counts(chosen_BTk, valid_BT, router.num_experts))

    @nn.nowrap
    def _experts(self) -> ops.Experts:
        """All experts' kernels and biases in the compute dtype."""
        dim, hidden = self.config.embed_dim, self.moe.hidden_dim
        wide, wide_axes = (dim, hidden), ("embed_moe", "mlp_moe")
        return ops.Experts(
            self._kernel("wi_0", wide, wide_axes),
            self._kernel("wi_1", wide, wide_axes),
            self._kernel("wo", (hidden, dim), ("mlp_moe", "embed_moe")),
            self._bias("wi_0_bias", hidden, "activation_mlp"),
            self._bias("wi_1_bias", hidden, "activation_mlp"),
            self._bias("wo_bias", dim, "activation_embed"),
        )

    @nn.nowrap
    def _kernel(self, name: str, shape: tuple[int, int], axes: Axes) -> Float[Array, "e d f"]:
        init = nn.initializers.normal(shape[0] ** -0.5)
        return self._declare(name, init, shape, axes)

    @nn.nowrap
    def _bias(self, name: str, size: int, axis: str) -> Float[Array, "e d"] | None:
        return self._declare(name, nn.initializers.zeros_init(), (size,), (axis,)) if self.moe.bias else None

    @nn.nowrap
    def _declare(self, name: str, init: jax.nn.initializers.Initializer, shape: tuple[int, ...], axes: Axes) -> Array:
        config, shape = self.config, (self.moe.router.num_experts, *shape)
        return declare(self, name, init, shape, ("exp", *axes), config.weight_dtype).astype(dtype_of(config.dtype))
