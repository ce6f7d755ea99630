"""The smallest NNX modules: norms, dense maps, embeddings, dropout. They hold parameters and call `models.ops`.

Every parameter carries the logical names of its axes in `out_sharding`, the key that flax 0.12 reads. Eager sharding is
off: the names are logical, and only `models.sharding.resolve` turns them into mesh axes.
Shape letters: B batch, T query, D model, V vocab.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from .. import ops
from ..config import ModelConfig, schema
from ..sharding import Rules, resolve


def param(value: Array, axes: tuple[str | None, ...], kind: type[nnx.Param] = nnx.Param) -> nnx.Param:
    """A parameter that knows the logical name of each of its axes."""
    return kind(value, out_sharding=axes, eager_sharding=False)


def normal(key: Key[Array, ""], shape: tuple[int, ...], std: float, config: ModelConfig) -> Array:
    """Gaussian initial values in the stored dtype."""
    return jax.random.normal(key, shape, jnp.dtype(config.weight_dtype)) * std


def constrain(x: Array, axes: tuple[str, ...], rules: Rules) -> Array:
    """Places an activation on the mesh of the context; without a mesh there is nothing to place."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, resolve(axes, rules, dict(mesh.shape)))


class RmsNorm(nnx.Module):
    """Root-mean-square norm over the last axis, of length `size`, with a learned scale."""

    def __init__(self, config: ModelConfig, size: int) -> None:
        self.config = config
        self.scale = param(_initial_scale(config, size), ("norm",))

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        norm = self.config.norm
        return ops.rms_norm(
            x, self.scale[...], epsilon=norm.epsilon, zero_centered=norm.zero_centered,
            dtype=jnp.dtype(self.config.dtype),
        )


class LayerNorm(nnx.Module):
    """Layer norm with a learned scale and bias."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.scale = param(_initial_scale(config, config.embed_dim), ("norm",))
        self.bias = param(jnp.zeros((config.embed_dim,), jnp.dtype(config.weight_dtype)), ("norm",))

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        norm = self.config.norm
        return ops.layer_norm(
            x, self.scale[...], self.bias[...], epsilon=norm.epsilon, zero_centered=norm.zero_centered,
            dtype=jnp.dtype(self.config.dtype),
        )


def _initial_scale(config: ModelConfig, size: int) -> Float[Array, " d"]:
    fill = 0.0 if config.norm.zero_centered else 1.0
    return jnp.full((size,), fill, jnp.dtype(config.weight_dtype))


def make_norm(config: ModelConfig) -> RmsNorm | LayerNorm:
    """The norm that `config.norm` describes, over the model axis."""
    if isinstance(config.norm, schema.RmsNorm):
        return RmsNorm(config, config.embed_dim)
    return LayerNorm(config)


class Dense(nnx.Module):
    """A linear map from the axes `inputs` to the axes `outputs`; `axes` names those of the kernel, in that order."""

    def __init__(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], axes: tuple[str | None, ...], *, bias: bool,
        config: ModelConfig, rngs: nnx.Rngs,
    ) -> None:
        self.num_contracted = len(inputs)
        self.config = config
        self.kernel = param(normal(rngs.params(), inputs + outputs, math.prod(inputs) ** -0.5, config), axes)
        zeros = jnp.zeros(outputs, jnp.dtype(config.weight_dtype))
        self.bias = param(zeros, axes[len(inputs) :]) if bias else None

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        bias = None if self.bias is None else self.bias[...]
        return ops.dense(
            x, self.kernel[...], bias, num_contracted=self.num_contracted, dtype=jnp.dtype(self.config.dtype)
        )


class Embed(nnx.Module):
    """A table of `rows` model vectors, read by index."""

    def __init__(self, rows: int, *, std: float, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        self.embedding = param(normal(rngs.params(), (rows, config.embed_dim), std, config), ("vocab", "embed_vocab"))

    def __call__(self, indices: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        return ops.embed(indices, self.embedding[...], dtype=jnp.dtype(self.config.dtype))


class Dropout(nnx.Module):
    """Zeroes a fraction `rate` of the elements and scales the rest up. No key, no dropout."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, x: Float[Array, "b t d"], key: Key[Array, ""] | None) -> Float[Array, "b t d"]:
        if key is None:
            return x
        keep_prob = 1 - self.rate
        mask = jax.random.bernoulli(key, keep_prob, x.shape)
        return jnp.where(mask, x / keep_prob, 0)
