"""A pair in plain JAX, no framework: one stack of layers written twice, unrolled, by two hands."""

import functools
import typing

import jax
import jax.numpy as jnp

from harness.program import Path, Program

ROWS, TOKENS, WIDTH, HIDDEN = 3, 12, 32, 64
PARTNERS = {"norm": "scale", "in": "up", "out": "down"}  # what the second hand calls the first one's parameters


def _normed(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6) * scale


def first(params: list[dict[str, jax.Array]], x: jax.Array) -> jax.Array:
    """Matrix products by operator, one layer after the other."""
    for layer in params:
        h = _normed(x, layer["scale"])
        x = x + jax.nn.silu(h @ layer["up"]) @ layer["down"]
    return jnp.mean(jnp.square(x))


def second(params: dict[str, list[jax.Array]], x: jax.Array) -> jax.Array:
    """Parameters by kind, products by einsum, a fold over the layers."""

    def layer(x: jax.Array, weights: tuple[jax.Array, ...]) -> jax.Array:
        scale, up, down = weights
        spread = jax.lax.rsqrt(1e-6 + jnp.mean(jnp.square(x), -1, keepdims=True))
        h = jnp.einsum("btd,df->btf", scale * (spread * x), up)
        return jnp.einsum("btf,fd->btd", h * jax.nn.sigmoid(h), down) + x

    out = functools.reduce(layer, zip(params["norm"], params["in"], params["out"], strict=True), x)
    return jnp.mean(jnp.square(out))


def programs(layers: int, *, gradients: bool) -> tuple[Program, Program]:
    """Fresh programs of both hands; names are the first hand's."""

    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    shapes = {"scale": array(WIDTH), "up": array(WIDTH, HIDDEN), "down": array(HIDDEN, WIDTH)}
    one = [dict(shapes) for _ in range(layers)]
    two = {name: [shapes[partner]] * layers for name, partner in PARTNERS.items()}

    def renamed(path: Path) -> str:
        if path and path[-2:-1] and path[-2] in PARTNERS:
            return "/".join([*path[:-2], path[-1], PARTNERS[path[-2]]])
        return "/".join(path)

    sides: list[typing.Any] = [(first, one, "/".join), (second, two, renamed)]
    made = []
    for fn, params, name in sides:
        step = jax.value_and_grad(fn) if gradients else functools.partial(fn)
        made.append(
            Program(step, (params, array(ROWS, TOKENS, WIDTH)), name_input=name, name_output=lambda path, name=name:
                    name(path) or "loss", name=fn.__name__)
        )  # fmt: skip
    return made[0], made[1]
