"""A mixture of experts: the router's parameters, the experts' kernels, the MLP beside them. The maths is `models.ops`.

Shape letters: B batch, T query, D model, E experts, F hidden, k chosen experts.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from .. import ops
from ..config import Mlp as MlpConfig
from ..config import ModelConfig
from ..config import Moe as MoeConfig
from ..config import Router as RouterConfig
from ..sharding import Rules
from .attention import Context
from .layers import Dense, make_norm, normal, param
from .mlp import Mlp


class ChoiceBias(nnx.Param):
    """A parameter that no gradient reaches and that no optimizer may move."""


class Gate(nnx.Module):
    """The router's parameters; called, its float32 logits."""

    def __init__(self, config: ModelConfig, router: RouterConfig, *, rngs: nnx.Rngs) -> None:
        shape = (config.embed_dim, router.num_experts)
        self.kernel = param(normal(rngs.params(), shape, config.embed_dim**-0.5, config), ("embed_moe", None))
        zeros = jnp.zeros((router.num_experts,), jnp.dtype(config.weight_dtype))
        self.bias = param(zeros, (None,)) if router.logit_bias else None
        self.choice_bias = param(zeros, (None,), ChoiceBias) if router.choice_bias else None
        self.epsilon = config.norm.epsilon
        dtype = jnp.dtype(config.weight_dtype)
        self.scale = param(jnp.ones((config.embed_dim,), dtype), ("embed",)) if router.input_scale else None
        self.expert_scale = param(jnp.ones((router.num_experts,), dtype), ("exp",)) if router.expert_scale else None

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t e"]:
        bias = None if self.bias is None else self.bias[...]
        return ops.dense(self._read(x), self.kernel[...], bias, dtype=jnp.float32)

    def _read(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """What the logits are made of: the input, or in float32 its norm times a vector over the root of the width."""
        if self.scale is None:
            return x
        normed = ops.rms_norm(x, None, epsilon=self.epsilon, zero_centered=False, dtype=jnp.float32)
        return normed * self.scale[...].astype(jnp.float32)[None, None, :] * x.shape[-1] ** -0.5


class Moe(nnx.Module):
    """Each token goes through the experts that its router chose, and through the shared MLP if there is one."""

    def __init__(self, config: ModelConfig, moe: MoeConfig, *, rules: Rules, rngs: nnx.Rngs) -> None:
        self.config = config
        self.moe = moe
        self.gate = Gate(config, moe.router, rngs=rngs)
        num, embed, hidden = moe.router.num_experts, config.embed_dim, moe.hidden_dim
        into, out_of = ("exp", "embed_moe", "mlp_moe"), ("exp", "mlp_moe", "embed_moe")
        self.wi_0 = param(normal(rngs.params(), (num, embed, hidden), embed**-0.5, config), into)
        self.wi_1 = param(normal(rngs.params(), (num, embed, hidden), embed**-0.5, config), into)
        self.wo = param(normal(rngs.params(), (num, hidden, embed), hidden**-0.5, config), out_of)
        if moe.bias:
            dtype = jnp.dtype(config.weight_dtype)
            self.wi_0_bias = param(jnp.zeros((num, hidden), dtype), ("exp", "activation_mlp"))
            self.wi_1_bias = param(jnp.zeros((num, hidden), dtype), ("exp", "activation_mlp"))
            self.wo_bias = param(jnp.zeros((num, embed), dtype), ("exp", "activation_embed"))
        if moe.shared_hidden_dim is not None:
            shared = MlpConfig(moe.shared_hidden_dim, moe.activation, gated=True)
            self.shared_experts = Mlp(config, shared, rules=rules, rngs=rngs)
        if moe.shared_gate:
            self.shared_gate = Dense((embed,), (1,), ("embed", None), bias=False, config=config, rngs=rngs)
        if moe.branch_norms is not None:
            for name in dataclasses.astuple(moe.branch_norms):
                setattr(self, name, make_norm(config))

    def __call__(
        self, x: Float[Array, "b t d"], residual: Float[Array, "b t d"], context: Context
    ) -> Float[Array, "b t d"]:
        """The weighted sum of the chosen experts, plus the shared MLP. `x` is the normed residual stream."""
        norms = self.moe.branch_norms
        if norms is None:
            mixed_BTD = self._mixed(x, x, context)
            return mixed_BTD if self.moe.shared_hidden_dim is None else mixed_BTD + self._shared(x)
        mixed_BTD = self._mixed(self._norm(norms.experts_pre, residual), residual, context)
        return self._norm(norms.shared_post, self._shared(x)) + self._norm(norms.experts_post, mixed_BTD)

    def _mixed(
        self, x: Float[Array, "b t d"], routed: Float[Array, "b t d"], context: Context
    ) -> Float[Array, "b t d"]:
        """The experts' sum on `x`, chosen by what the router reads in `routed`. Padding takes no room in an expert."""
        router = self.moe.router
        valid_BT = context.segment_ids != 0
        with jax.named_scope("gate"):
            logits_BTE = self.gate(routed)
            choice_bias = None if self.gate.choice_bias is None else self.gate.choice_bias[...]
            scale = None if self.gate.expert_scale is None else self.gate.expert_scale[...].astype(jnp.float32)
            weights_BTk, chosen_BTk = ops.route(logits_BTE, choice_bias, router, expert_scale_E=scale)
        if context.record:
            self.sow(nnx.Intermediate, "load_balance", ops.load_balance(logits_BTE, chosen_BTk, valid_BT, router))
            self.sow(nnx.Intermediate, "expert_counts", ops.expert_counts(chosen_BTk, valid_BT, router.num_experts))
        with jax.named_scope("experts"):
            return ops.mix_experts(x, weights_BTk, chosen_BTk, valid_BT, self._experts(), self.moe)

    def _shared(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        with jax.named_scope("shared_experts"):
            shared_BTD = self.shared_experts(x)
        if not self.moe.shared_gate:
            return shared_BTD
        with jax.named_scope("shared_gate"):
            return ops.sigmoid_gate(shared_BTD, self.shared_gate(x))

    def _norm(self, name: str, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        with jax.named_scope(name):
            return getattr(self, name)(x)

    def _experts(self) -> ops.Experts:
        """Kernels and biases in the computation's dtype."""
        names = ["wi_0", "wi_1", "wo", *(["wi_0_bias", "wi_1_bias", "wo_bias"] if self.moe.bias else [])]
        return ops.Experts(*(getattr(self, name)[...].astype(self.config.dtype) for name in names))
