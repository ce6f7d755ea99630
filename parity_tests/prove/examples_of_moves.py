"""Examples of the rules that move elements, and of where an elementwise operation stands."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .rule_example import COMPLEX, FLOATS, INTEGERS, ODD_FLOATS, Example, but, const, wide


def _moves():
    yield Example(
        "reshape family",
        lambda x: lax.reshape(lax.reshape(x, (x.size,), (2, 1, 0)), x.shape),
        lambda x: lax.reshape(lax.transpose(x, (2, 1, 0)), x.shape),
    )
    yield Example("reshape family", lambda x: lax.squeeze(x, (1,)), lambda x: lax.reshape(x, (x.shape[0], x.shape[2])))
    yield Example(
        "reshape family",
        lambda x: lax.reshape(lax.reshape(x, (x.size,)), x.shape[::-1]),
        lambda x: lax.reshape(x, x.shape[::-1]),
    )
    yield Example(
        "broadcast",
        lambda x: wide(x, (2, *x.shape, 1), (1, 2, 3)),
        lambda x: wide(lax.squeeze(x, (1,)), (2, *x.shape, 1), (1, 3)),
    )
    yield Example(
        "broadcast",
        lambda x: wide(wide(x, (5, *x.shape), (1, 2, 3)), (5, 2, *x.shape), (0, 2, 3, 4)),
        lambda x: wide(x, (5, 2, *x.shape), (2, 3, 4)),
    )
    yield Example(
        "transpose",
        lambda x: lax.transpose(lax.transpose(x, (2, 0, 1)), (1, 0, 2)),
        lambda x: lax.transpose(x, (0, 2, 1)),
        shape=(3, 4, 5),
    )
    yield Example(
        "transpose",
        lambda x: lax.transpose(x, (2, 1, 0)),
        lambda x: lax.expand_dims(lax.transpose(lax.squeeze(x, (1,)), (1, 0)), (1,)),
    )
    yield Example(
        "transpose",
        lambda x: lax.transpose(wide(x, (2, *x.shape), (1, 2, 3)), (3, 1, 0, 2)),
        lambda x: wide(lax.transpose(x, (2, 0, 1)), (x.shape[2], x.shape[0], 2, 1), (0, 1, 3)),
    )
    yield Example(
        "transpose",
        lambda x, y: lax.transpose(lax.concatenate([x, y], 0), (2, 0, 1)),
        lambda x, y: lax.concatenate([lax.transpose(x, (2, 0, 1)), lax.transpose(y, (2, 0, 1))], 1),
        count=2,
    )
    yield Example("slice", lambda x: x[1:, :, 3:70][1:, :, ::3], lambda x: x[2:, :, 3:70:3], others=((9, 1, 70),))
    yield Example(
        "slice",
        lambda x, y: lax.concatenate([x, y], 0)[2:6],
        lambda x, y: lax.concatenate([x[2:], y[:2]], 0),
        count=2,
        others=((6, 1, 0),),
    )
    yield Example(
        "slice",
        lambda x: wide(x, (6, *x.shape), (1, 2, 3))[2:4, 1:],
        lambda x: wide(x[1:], (2, x.shape[0] - 1, *x.shape[1:]), (1, 2, 3)),
        others=((1, 1, 3),),
    )
    yield Example(
        "slice",
        lambda x: lax.transpose(x, (2, 0, 1))[3:9, 1:2],
        lambda x: lax.transpose(x[1:2, :, 3:9], (2, 0, 1)),
        others=(),
    )
    yield Example("slice", lambda x: x[:, :, :], lambda x: lax.slice(x, (0, 0, 0), x.shape, (1, 1, 1)))
    yield Example("split", lambda x: lax.split(x, (30, 50), 2)[1], lambda x: x[:, :, 30:], others=((0, 1, 80),))
    yield Example("unstack", lambda x: jnp.unstack(x, axis=0)[2], lambda x: x[2], others=((3, 1, 0),))
    yield Example(
        "slice at constants", lambda x: lax.dynamic_slice(x, (1, 0, 75), (2, 1, 7)), lambda x: x[1:3, :, 73:], others=()
    )
    yield Example(
        "slice at constants", lambda x: lax.dynamic_index_in_dim(x, -1, 0), lambda x: x[-1:], others=((5, 1, 0),)
    )
    yield Example(
        "concatenate",
        lambda x, y: lax.concatenate([lax.concatenate([x, y], 2), x], 2),
        lambda x, y: lax.concatenate([x, y, x], 2),
        count=2,
    )
    yield Example("concatenate", lambda x: lax.concatenate([x[:2], x[2:3], x[3:]], 0), lambda x: x, others=((3, 1, 0),))
    yield Example("concatenate", lambda x: lax.concatenate([x, x[:0]], 0), lambda x: x)
    yield Example(
        "stack", lambda x, y: jnp.stack([x, y], 1), lambda x, y: lax.concatenate([x[:, None], y[:, None]], 1), count=2
    )
    yield Example(
        "stack", lambda x, y: jnp.moveaxis(jnp.stack([x, y]), 0, 2), lambda x, y: jnp.stack([x, y], 2), count=2
    )
    yield Example(
        "padding",
        lambda x: lax.pad(x, np.asarray(1).astype(x.dtype), ((2, 1, 0), (0, 0, 0), (0, 3, 0))),
        lambda x: lax.concatenate(
            [
                lax.concatenate([const(1, x[:1].repeat(2, 0)), x, const(1, x[:1])], 0),
                const(1, x[:, :, :3][:1].repeat(x.shape[0] + 3, 0)),
            ],
            2,
        ),
        others=(),
    )
    yield Example(
        "padding",
        lambda x: lax.pad(x, np.asarray(1).astype(x.dtype), ((0, 0, 0),) * 3),
        lambda x: x,
        others=((1, 1, 1),),
    )
    yield Example(
        "tile",
        lambda x: lax.tile(x, (2, 3, 1)),
        lambda x: lax.reshape(wide(x, (2, x.shape[0], 3, *x.shape[1:]), (1, 3, 4)), (2 * x.shape[0], 3, x.shape[2])),
    )
    yield Example("reverse", lambda x: lax.rev(x, (2, 1)), lambda x: lax.rev(x, (2,)), others=((0, 1, 3), (1, 1, 2)))
    yield Example(
        "iota",
        lambda x: lax.broadcasted_iota(x.dtype, (4, 80), 1) + x[:, 0],
        lambda x: lax.iota(x.dtype, 80) + x[:, 0],
        others=(),
        only=(*INTEGERS, "float32"),
    )
    yield Example(
        "iota",
        lambda x: lax.iota(x.dtype, 80) * x[0],
        lambda x: np.arange(80).astype(x.dtype) * x[0],
        others=(),
        only=("int8", "uint8", "int16", "uint16", "int32", "uint32"),
    )
    yield Example(
        "iota",
        lambda x: lax.iota(x.dtype, 7) * x[0, 0, :7],
        lambda x: lax.iota(np.int32, 7).astype(x.dtype) * x[0, 0, :7],
        others=(),
        only=FLOATS,
        unlike=(*ODD_FLOATS,),
    )


def _elementwise():
    for op in (lax.add, lax.max, lax.eq, lax.pow, lax.atan2, lax.rem):
        yield Example(
            "scalar operand",
            lambda x, y, op=op: op(x, lax.slice(y, (0, 0, 0), (1, 1, y.shape[2]))),
            lambda x, y, op=op: op(x, wide(y[0, 0], x.shape, (2,))),
            count=2,
            others=((1, 1, 1),),
        )
    yield Example(
        "scalar operand",
        lambda x, y: lax.select(y[0, 0, 0] == y[0, 0, 1], x, y),
        lambda x, y: lax.select(wide(y[0, 0, 0] == y[0, 0, 1], x.shape, ()), x, y),
        count=2,
        others=((3, 2, 4),),
    )
    for op in (lax.add, lax.sub, lax.mul, lax.div, lax.max, lax.lt, lax.rem, lax.nextafter):
        yield Example(
            "axes of size 1",
            lambda x, y, op=op: op(x, y)[:, 0],
            lambda x, y, op=op: op(x[:, 0], y[:, 0]),
            count=2,
            unlike=() if op in (lax.add, lax.sub) else COMPLEX,
        )
    for op in (
        lax.abs,
        lax.sqrt,
        lax.sign,
        lax.floor,
        lax.is_finite,
        lambda x: lax.integer_pow(x, 3),
        lambda x: lax.integer_pow(x, -2),
    ):
        yield Example("axes of size 1", lambda x, op=op: op(x)[:, 0], lambda x, op=op: op(x[:, 0]), unlike=COMPLEX)
    for op in (lax.neg, lax.bitwise_not):
        yield Example("axes of size 1", lambda x, op=op: op(x)[:, 0], lambda x, op=op: op(x[:, 0]))
    for end in ("float32", "int32", "bool", "bfloat16"):
        yield Example(
            "axes of size 1",
            lambda x, end=end: x.astype(end)[:, 0],
            lambda x, end=end: x[:, 0].astype(end),
            only=but(end),
        )
    for op in (lax.add, lax.sub, lax.mul, lax.div, lax.min, lax.le):
        yield Example(
            "repeated alike",
            lambda x, y, op=op: op(wide(x, (3, *x.shape), (1, 2, 3)), wide(y, (3, *x.shape), (1, 2, 3))),
            lambda x, y, op=op: wide(op(x, y), (3, *x.shape), (1, 2, 3)),
            count=2,
            unlike=() if op in (lax.add, lax.sub) else COMPLEX,
            others=((0, 1, 3), (1, 2, 1)),
        )
        yield Example(
            "pieces",
            lambda x, y, op=op: op(lax.concatenate([x, y], 2), lax.concatenate([y, x], 2)),
            lambda x, y, op=op: lax.concatenate([op(x, y), op(y, x)], 2),
            count=2,
            unlike=() if op in (lax.add, lax.sub) else COMPLEX,
            others=((1, 2, 1),),
        )
    yield Example(
        "repeated alike",
        lambda x: lax.neg(wide(x[0, 0], (3, *x.shape), (3,))),
        lambda x: wide(lax.neg(x[0, 0]), (3, *x.shape), (3,)),
        others=((2, 3, 1),),
    )
    yield Example(
        "pieces",
        lambda x, y: (lax.concatenate([x, y], 0) * np.asarray(2).astype(x.dtype)).astype(jnp.float32),
        lambda x, y: lax.concatenate([(x * const(2, x)).astype(jnp.float32), (y * const(2, x)).astype(jnp.float32)], 0),
        count=2,
        unlike=COMPLEX,
        others=((1, 2, 1),),
        only=but("int2"),
    )


def _keys():
    def first(x, count, number):
        return jax.random.key_data(jax.random.split(jax.random.wrap_key_data(x), count)[number])

    def folded(x, number):
        return jax.random.key_data(jax.random.fold_in(jax.random.wrap_key_data(x), number))

    plain = {"shape": (2,), "others": (), "only": ("uint32",)}
    yield Example("slice", lambda x: first(x, 3, 0), lambda x: folded(x, 0), **plain)
    yield Example("slice", lambda x: first(x, 2, 1), lambda x: first(x, 500, 1), **plain)
    yield Example("slice", lambda x: jax.random.split(x, 3)[2], lambda x: jax.random.fold_in(x, 2), **plain)


def _reductions():
    yield Example(
        "raw key",
        lambda x: jax.random.key_data(jax.random.wrap_key_data(x)),
        lambda x: x,
        shape=(3, 2),
        others=((0, 2),),
        only=("uint32",),
    )
    for reduce in (
        lax.reduce_sum,
        lax.reduce_max,
        lax.reduce_min,
        lax.reduce_prod,
        lax.reduce_and,
        lax.reduce_or,
        lax.reduce_xor,
    ):
        yield Example("reduced axes", lambda x, f=reduce: f(x, (2, 0)), lambda x, f=reduce: f(x, (0, 2)))
        yield Example(
            "reduced axes", lambda x, f=reduce: f(x, (1, 2)), lambda x, f=reduce: f(lax.squeeze(x, (1,)), (1,))
        )
        yield Example("reduced axes", lambda x, f=reduce: f(x, (1,)), lambda x: lax.squeeze(x, (1,)))


EXAMPLES = (*_moves(), *_elementwise(), *_keys(), *_reductions())
