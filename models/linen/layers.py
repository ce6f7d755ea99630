"""The smallest modules of the Linen twin: norms, dense, embeddings, dropout, and how they declare and constrain arrays.

They hold parameters and call `models.ops`; there is no maths here.

B batch, T query position, D model, V vocabulary.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.errors import ScopeParamShapeError
from flax.linen.spmd import logical_to_mesh_axes
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from .. import ops
from ..config import LayerNorm as LayerNormConfig
from ..config import ModelConfig, schema
from ..sharding import check_vocabulary

Axes = tuple[str | None, ...]
MeshAxes = tuple[str, ...]
Initializer = jax.nn.initializers.Initializer

RESIDUAL = ("activation_batch", "activation_norm_length", "activation_embed")


def constrain(x: Float[Array, "..."], axes: Axes) -> Float[Array, "..."]:
    """Constrains the layout of an activation by the logical rules in force; nothing without a mesh or without rules.

    Linen assigns the mesh axes of every rule, then those that the mesh lacks or has once only are dropped: the choice
    does not depend on the mesh (`models.sharding.resolve` states the same; `nn.with_logical_constraint` cannot drop).
    """
    mesh, rules = jax.sharding.get_abstract_mesh(), nn.get_logical_axis_rules()
    if mesh.empty or not rules:
        return x
    check_vocabulary(axes, rules)
    spec = logical_to_mesh_axes(axes, rules)
    assert spec is not None  # it is for axes that are None
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*(_entry(dim, mesh.shape) for dim in spec)))


def _entry(dim: MeshAxes | str | None, sizes: Mapping[str, int]) -> MeshAxes | str | None:
    """One dimension's mesh axes without those that split nothing; Linen spells a single axis without its tuple."""
    axes = (dim,) if isinstance(dim, str) else dim or ()
    kept = tuple(axis for axis in axes if sizes.get(axis, 1) > 1)
    return kept if len(kept) > 1 else next(iter(kept), None)


def dtype_of(dtype: schema.DType) -> jnp.dtype:
    """The array dtype of a configuration's word."""
    return jnp.dtype(dtype.value)


def declare(
    module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...], axes: Axes, dtype: schema.DType
) -> Array:
    """A parameter of `module` with a logical name for every axis.

    One that is there is read, and its shape held to the configuration's. Linen's `param` would trace the initializer
    for that, at every application: close to half of what a first trace of a forward pass costs.

    Raises:
        ScopeParamShapeError: a parameter that is there has another shape.
    """
    if not module.has_variable("params", name):
        return module.param(name, nn.with_logical_partitioning(init, axes), shape, dtype_of(dtype), unbox=True)
    value = nn.unbox(module.get_variable("params", name))
    if value.shape != shape:
        raise ScopeParamShapeError(name, "/".join(module.path), value.shape, shape)
    return value


def _scale_init(*, zero_centered: bool) -> Initializer:
    return nn.initializers.zeros_init() if zero_centered else nn.initializers.ones_init()


class RmsNorm(nn.Module):
    """Root-mean-square norm over the last axis, with the constants of `config.norm`."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b t *n d"]) -> Float[Array, "b t *n d"]:
        """The normed `x`, in the compute dtype."""
        config, norm = self.config, self.config.norm
        init = _scale_init(zero_centered=norm.zero_centered)
        scale_D = declare(self, "scale", init, x.shape[-1:], ("norm",), config.weight_dtype)
        return ops.rms_norm(
            x, scale_D, epsilon=norm.epsilon, zero_centered=norm.zero_centered, dtype=dtype_of(config.dtype)
        )


class LayerNorm(nn.Module):
    """Layer norm with scale and bias over the model axis, with the constants of `config.norm`."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """The normed `x`, in the compute dtype."""
        config, norm = self.config, self.config.norm
        init = _scale_init(zero_centered=norm.zero_centered)
        scale_D = declare(self, "scale", init, x_BTD.shape[-1:], ("norm",), config.weight_dtype)
        bias_D = declare(self, "bias", nn.initializers.zeros_init(), x_BTD.shape[-1:], ("norm",), config.weight_dtype)
        return ops.layer_norm(
            x_BTD,
            scale_D,
            bias_D,
            epsilon=norm.epsilon,
            zero_centered=norm.zero_centered,
            dtype=dtype_of(config.dtype),
        )


def make_norm(config: ModelConfig, name: str) -> RmsNorm | LayerNorm:
    """The norm that `config.norm` asks for, under that name."""
    return LayerNorm(config, name=name) if isinstance(config.norm, LayerNormConfig) else RmsNorm(config, name=name)


class Dense(nn.Module):
    """A linear map whose kernel has the contracted axes first. The bias covers the other axes.

    The kernel is an attribute, since the head contracts with it into float32.
    """

    config: ModelConfig
    shape: tuple[int, ...]
    axes: Axes
    num_contracted: int = 1
    use_bias: bool = False

    def setup(self) -> None:
        """Declares the kernel, and the bias if there is one."""
        split, dtype = self.num_contracted, self.config.weight_dtype
        init = nn.initializers.normal(math.prod(self.shape[:split]) ** -0.5)
        self.kernel = declare(self, "kernel", init, self.shape, self.axes, dtype)
        zeros, shape, axes = nn.initializers.zeros_init(), self.shape[split:], self.axes[split:]
        self.bias = declare(self, "bias", zeros, shape, axes, dtype) if self.use_bias else None

    def __call__(self, x: Float[Array, "b t ..."]) -> Float[Array, "b t ..."]:
        """`x @ kernel + bias` in the compute dtype."""
        dtype = dtype_of(self.config.dtype)
        return ops.dense(x, self.kernel, self.bias, num_contracted=self.num_contracted, dtype=dtype)


class Embed(nn.Module):
    """A table of vectors, one for each id. The table is an attribute, since a tied head reads it too."""

    config: ModelConfig
    num_rows: int
    std: float

    def setup(self) -> None:
        """Declares the table [rows, model]."""
        config, init = self.config, nn.initializers.normal(self.std)
        shape, axes = (self.num_rows, config.embed_dim), ("vocab", "embed_vocab")
        self.embedding = declare(self, "embedding", init, shape, axes, config.weight_dtype)

    def __call__(self, ids_BT: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        """Rows of the table in the compute dtype."""
        return ops.embed(ids_BT, self.embedding, dtype=dtype_of(self.config.dtype))


class Dropout(nn.Module):
    """Zeroes elements with probability `rate` and scales the rest up; draws once from `dropout` for each call."""

    rate: float
    deterministic: bool

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """`x` itself, without a draw, when deterministic or at rate 0."""
        if self.deterministic or self.rate == 0:
            return x
        keep_prob = 1.0 - self.rate
        keep = jax.random.bernoulli(self.make_rng("dropout"), keep_prob, x.shape)
        return jnp.where(keep, x / keep_prob, 0)
