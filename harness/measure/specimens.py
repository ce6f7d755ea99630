"""A small training step in many spellings: honest ones, which only round differently, and faulty ones.

They calibrate the noise ratio and show what it detects. Shapes: `B` rows, `T` tokens, `D` width, `N` heads, `H` head
dim, `F` hidden, `V` vocabulary, `L` layers.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp

from ..program import Program

B, T, D, N, H, F, V, L = 3, 12, 24, 2, 36, 40, 53, 2  # the root of H is 6, exact also in bfloat16


@dataclasses.dataclass(frozen=True)
class Spelling:
    """How the step is written. The defaults are the reference; every other value is honest or a fault."""

    dtype: typing.Any = jnp.float32
    softmax_dtype: typing.Any = jnp.float32
    epsilon: float = 1e-6
    norm: str = "rsqrt"
    rotary: str = "cos first"
    scale: str = "query"
    contraction: str = "dense"
    reduction: str = "whole"
    embedding: str = "gather"
    literal: str = "divide"
    mask_shift: int = 0
    mlp_bias: bool = True
    residual: float = 1.0
    decay: float = 0.1
    beta: float = 0.95
    positions_from: int = 0
    keys_from: str = "own"


REFERENCE = Spelling()
HONEST: dict[str, dict[str, typing.Any]] = {
    "norm divides by a root": {"norm": "sqrt"},
    "norm with fast variance": {"norm": "fast"},
    "rotary adds in the other order": {"rotary": "sin first"},
    "scale on the logits": {"scale": "logits"},
    "contraction as a reshaped matmul": {"contraction": "reshaped"},
    "contraction with operands swapped": {"contraction": "swapped"},
    "loss summed in halves": {"reduction": "halves"},
    "embedding by a one-hot product": {"embedding": "one-hot"},
    "a literal's inverse": {"literal": "multiply"},
    "all at once": {
        "norm": "sqrt", "rotary": "sin first", "scale": "logits", "contraction": "swapped",
        "reduction": "halves", "embedding": "one-hot", "literal": "multiply",
    },
}  # fmt: skip
FAULTS: dict[str, dict[str, typing.Any]] = {
    "epsilon 1e-5 for 1e-6": {"epsilon": 1e-5},
    "causal mask off by one": {"mask_shift": 1},
    "bias dropped": {"mlp_bias": False},
    "residual scaled by 1.001": {"residual": 1.001},
    "residual scaled by 1.00001": {"residual": 1.00001},
    "softmax in bfloat16": {"softmax_dtype": jnp.bfloat16},
    "everything in bfloat16": {"dtype": jnp.bfloat16},
    "no weight decay": {"decay": 0.0},
    "second moment decays by 0.9": {"beta": 0.9},
    "query positions from one": {"positions_from": 1},
    "keys read the values' kernel": {"keys_from": "value"},
}


def program(spelling: Spelling = REFERENCE, *, name: str = "specimen") -> Program:
    """The step of a spelling: parameters, moments and tokens to loss, gradients and both after an Adam step."""
    abstract = jax.eval_shape(sample, jax.random.key(0))
    return Program(lambda *args: _step(spelling, *args), abstract, sample=sample, name=name)


def spell(changes: dict[str, typing.Any], **base: typing.Any) -> Spelling:
    """The reference with `base` and then `changes` applied."""
    return dataclasses.replace(REFERENCE, **{**base, **changes})


def sample(key: jax.Array) -> tuple[dict[str, jax.Array], dict[str, jax.Array], dict[str, jax.Array], jax.Array]:
    """Parameters, moments and tokens [B, T+1]; every leaf drawn."""
    shapes = {
        "embedding": (V, D), "head": (D, V), "scale": (L, D), "query": (L, D, N, H), "key": (L, D, N, H),
        "key_bias": (L, N, H), "value": (L, D, N, H), "out": (L, N, H, D), "up": (L, D, F), "bias": (L, F),
        "down": (L, F, D),
    }  # fmt: skip
    keys = jax.random.split(key, 3 * len(shapes) + 1)
    params, mu, nu = {}, {}, {}
    for number, (name, shape) in enumerate(shapes.items()):
        fan = {"embedding": 1, "scale": 1, "key_bias": 4, "bias": 4}.get(name, D)
        params[name] = jax.random.normal(keys[3 * number], shape) * fan**-0.5
        mu[name] = jax.random.normal(keys[3 * number + 1], shape) * 0.01
        nu[name] = jnp.square(jax.random.normal(keys[3 * number + 2], shape) * 0.01) + 1e-6
    return params, mu, nu, jax.random.randint(keys[-1], (B, T + 1), 0, V)


def _step(
    how: Spelling, params: typing.Any, mu: typing.Any, nu: typing.Any, tokens: jax.Array
) -> dict[str, typing.Any]:
    loss, grads = jax.value_and_grad(lambda p: _loss(how, p, tokens))(params)
    mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mu, grads)
    nu = jax.tree.map(lambda n, g: how.beta * n + (1 - how.beta) * g * g, nu, grads)
    updated = jax.tree.map(lambda p, m, n: p - 1e-3 * (m / (jnp.sqrt(n) + 1e-8) + how.decay * p), params, mu, nu)
    return {"loss": loss, "grads": grads, "mu": mu, "nu": nu, "params": updated}


def _loss(how: Spelling, params: typing.Any, tokens: jax.Array) -> jax.Array:
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    if how.embedding == "gather":
        x_BTD = params["embedding"][inputs]
    else:
        one_hot = jax.nn.one_hot(inputs, V)
        x_BTD = jnp.einsum("btv,vd->btd", one_hot, params["embedding"])
    x_BTD = x_BTD.astype(how.dtype)
    layers = {name: value for name, value in params.items() if name not in ("embedding", "head")}
    x_BTD, _ = jax.lax.scan(lambda x, layer: (_layer(how, layer, x), None), x_BTD, layers)
    logits = jnp.einsum("btd,dv->btv", x_BTD.astype(jnp.float32), params["head"])
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    if how.reduction == "whole":
        return -picked.mean()
    return -(picked[:, : T // 2].sum() + picked[:, T // 2 :].sum()) / picked.size


def _layer(how: Spelling, layer: typing.Any, x_BTD: jax.Array) -> jax.Array:
    layer = jax.tree.map(lambda value: value.astype(how.dtype), layer)
    with jax.named_scope("norm"):
        h_BTD = _norm(how, x_BTD, layer["scale"])
    with jax.named_scope("attention"):
        x_BTD = x_BTD * jnp.asarray(how.residual, how.dtype) + _attention(how, layer, h_BTD)
    with jax.named_scope("mlp"):
        hidden = _project(how, x_BTD, layer["up"])
        hidden = jax.nn.silu(hidden + layer["bias"] if how.mlp_bias else hidden)
        return x_BTD + _project(how, hidden, layer["down"])


def _norm(how: Spelling, x_BTD: jax.Array, scale_D: jax.Array) -> jax.Array:
    x = x_BTD.astype(jnp.float32)
    mean = x.mean(-1, keepdims=True)
    if how.norm == "fast":
        variance = jnp.square(x).mean(-1, keepdims=True) - jnp.square(mean)
    else:
        variance = jnp.square(x - mean).mean(-1, keepdims=True)
    centred = x - mean
    if how.norm == "sqrt":
        normed = centred / jnp.sqrt(variance + how.epsilon)
    else:
        normed = centred * jax.lax.rsqrt(variance + how.epsilon)
    return normed.astype(how.dtype) * scale_D


def _project(how: Spelling, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Contracts the last axis of `x` with the first of `kernel`."""
    if how.contraction == "dense":
        return jnp.einsum("bti,i...->bt...", x, kernel)
    flat_x, flat_kernel = x.reshape(-1, x.shape[-1]), kernel.reshape(kernel.shape[0], -1)
    flat = flat_x @ flat_kernel if how.contraction == "reshaped" else (flat_kernel.T @ flat_x.T).T
    return flat.reshape(*x.shape[:-1], *kernel.shape[1:])


def _attention(how: Spelling, layer: typing.Any, h_BTD: jax.Array) -> jax.Array:
    keys = layer["key"] if how.keys_from == "own" else layer["value"]
    q_BTNH, k_BSNH = _project(how, h_BTD, layer["query"]), _project(how, h_BTD, keys) + layer["key_bias"]
    v_BSNH = _project(how, h_BTD, layer["value"])
    q_BTNH = _rotate(how, q_BTNH, how.positions_from)
    k_BSNH = _rotate(how, k_BSNH, 0)
    ten = jnp.asarray(10, how.dtype)
    q_BTNH = q_BTNH / ten if how.literal == "divide" else q_BTNH * jnp.asarray(0.1, how.dtype)
    root = jnp.asarray(H**0.5, jnp.float32)
    q_BTNH = q_BTNH * root.astype(how.dtype) if how.scale == "query" else q_BTNH
    logits = jnp.einsum("btnh,bsnh->bnts", q_BTNH, k_BSNH, preferred_element_type=jnp.float32)
    logits = logits if how.scale == "query" else logits * root
    allowed = jnp.arange(T)[:, None] + how.mask_shift >= jnp.arange(T)[None]
    weights = jax.nn.softmax(jnp.where(allowed, logits, -1e30).astype(how.softmax_dtype), axis=-1)
    mixed = jnp.einsum("bnts,bsnh->btnh", weights.astype(how.dtype), v_BSNH)
    return _project(how, mixed.reshape(B, T, N * H), layer["out"].reshape(N * H, D))


def _rotate(how: Spelling, x_BTNH: jax.Array, first: int) -> jax.Array:
    frequencies = 100.0 ** (-jnp.arange(H // 2) / (H // 2))
    angles = (jnp.arange(T) + first)[:, None, None] * frequencies
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    left, right = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    if how.rotary == "sin first":
        turned = jnp.concatenate([-right * sin + left * cos, left * sin + right * cos], axis=-1)
    else:
        turned = jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)
    return turned.astype(x_BTNH.dtype)
