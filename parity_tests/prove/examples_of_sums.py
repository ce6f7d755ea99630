"""Examples of the rules about sums and contractions."""

import jax.numpy as jnp
from jax import lax

from .rule_example import LESS_THAN_A_BYTE, Example, but


def _dot(x, y, wanted):
    return lax.dot_general(x, y, (((2,), (2,)), ((0,), (0,))), preferred_element_type=wanted)


def _sums():
    yield Example(
        "result type",
        lambda x, y: _dot(x, y, x.dtype),
        lambda x, y: _dot(x, y, None),
        count=2,
        shape=(3, 4, 5),
        only=but(*LESS_THAN_A_BYTE),
    )
    yield Example(
        "result type",
        lambda x, y: _dot(x, y, jnp.float32).astype(x.dtype),
        lambda x, y: _dot(x, y, None),
        count=2,
        shape=(3, 4, 5),
        only=("bfloat16", "float16", "float8_e5m2"),
        unlike=("bfloat16", "float16", "float8_e5m2"),
    )
    reals = ("float32", "bfloat16", "float16", "complex64")
    yield Example(
        "sum in any order", lambda x, y, z: (x + y) + z, lambda x, y, z: x + (z + y), count=3, only=(*reals, "int32")
    )
    yield Example(
        "sum of pieces",
        lambda x, y: lax.reduce_sum(lax.concatenate([x, y], 2), (0, 2)),
        lambda x, y: lax.reduce_sum(x, (0, 2)) + lax.reduce_sum(y, (0, 2)),
        count=2,
        only=reals,
        others=((2, 3, 1),),
    )
    yield Example(
        "sum of sums",
        lambda x: lax.reduce_sum(lax.reduce_sum(x, (2,)), (0, 1)),
        lambda x: lax.reduce_sum(x, (0, 1, 2)),
        only=reals,
    )
    yield Example(
        "sum of sums",
        lambda x: lax.reduce_sum(lax.reshape(lax.transpose(x, (2, 0, 1)), (x.size,)), (0,)),
        lambda x: lax.reduce_sum(x, (0, 1, 2)),
        only=reals,
    )

    def einsum(letters):
        return lambda x, y: jnp.einsum(letters, x, y)

    for left, right in (
        (
            lambda x, y: lax.dot_general(x, y, (((0,), (0,)), ((1,), (1,)))),
            lambda x, y: lax.transpose(lax.dot_general(y, x, (((0,), (0,)), ((1,), (1,)))), (0, 2, 1)),
        ),
        (einsum("abc,dbc->ad"), lambda x, y: lax.dot_general(x, y, (((2, 1), (2, 1)), ((), ())))),
        (einsum("abc,abd->adc"), lambda x, y: lax.transpose(jnp.einsum("abc,abd->acd", x, y), (0, 2, 1))),
        (
            einsum("abc,dbc->adb"),
            lambda x, y: jnp.einsum("cba,cbd->adb", lax.transpose(x, (2, 1, 0)), lax.transpose(y, (2, 1, 0))),
        ),
    ):
        yield Example("contraction", left, right, count=2, shape=(3, 4, 5), others=((2, 3, 1),), only=reals)


EXAMPLES = tuple(_sums())
