"""Examples of the rules about numbers: conversions, signs, constants, choices."""

import operator

import jax.numpy as jnp
import numpy as np
from jax import lax

from .rule_example import COMPLEX, FLOATS, FNUZ, INTEGERS, ODD_FLOATS, SMALL_INTEGERS, Example, but, const, full
from .values import NAMES


def _conversions():
    for middle in ("float32", "bfloat16", "float16", "int32", "uint32", "int8", "float8_e5m2", "float8_e4m3fnuz"):
        via = jnp.dtype(middle)
        keeps = KEPT[middle].split()
        yield Example(
            "no-op conversion",
            lambda x, via=via: x.astype(via).astype(x.dtype),
            lambda x: x,
            unlike=tuple(name for name in NAMES if name not in keeps),
            only=but(middle),
            others=(),
        )
    for name, middle, end in (
        ("int8", "int32", "float32"),
        ("bool", "int32", "float32"),
        ("bool", "float16", "uint8"),
        ("uint8", "int32", "uint32"),
        ("int8", "uint32", "int16"),
        ("int8", "float32", "int32"),
        ("float8_e5m2", "float16", "float32"),
        ("uint16", "int32", "float32"),
        ("int16", "int32", "uint16"),
    ):
        yield Example(
            "no-op conversion",
            lambda x, m=middle, e=end: x.astype(m).astype(e),
            lambda x, e=end: x.astype(e),
            only=(name,),
            others=(),
        )
    for name, middle, end in (
        ("int8", "uint8", "int32"),
        ("float32", "bfloat16", "float32"),
        ("int32", "float32", "int32"),
        ("float16", "bfloat16", "float32"),
        ("int8", "float32", "uint8"),
        ("bfloat16", "bool", "float32"),
        ("int32", "int8", "int32"),
        ("float32", "float16", "bfloat16"),
        ("float32", "int32", "float32"),
        ("uint32", "int32", "float32"),
    ):
        yield Example(
            "no-op conversion",
            lambda x, m=middle, e=end: x.astype(m).astype(e),
            lambda x, e=end: x.astype(e),
            only=(name,),
            unlike=(name,),
            others=(),
        )
    for one, other in (("int32", "uint32"), ("uint8", "int8"), ("int16", "uint16")):
        yield Example(
            "two's complement",
            lambda x, y, o=other: (x * y + x - y).astype(o),
            lambda x, y, o=other: x.astype(o) * y.astype(o) + x.astype(o) - y.astype(o),
            count=2,
            only=(one,),
        )
    for op in (lax.max, lax.div, lax.rem):
        yield Example(
            "two's complement",
            lambda x, y, op=op: op(x, y).astype("uint32"),
            lambda x, y, op=op: op(x.astype("uint32"), y.astype("uint32")),
            count=2,
            only=("int32",),
            unlike=("int32",),
            others=(),
        )
    for number, source in (
        (0.5, "float32"),
        (3, "int32"),
        (1.1, "float32"),
        (np.inf, "float32"),
        (True, "bool"),
        (2, "uint8"),
    ):
        few = tuple(name for name in ("float32", "bfloat16", "float16") if name != source)
        most = but("int2", "uint2", "bool", source, *COMPLEX, *ODD_FLOATS)
        yield Example(
            "constant conversion",
            lambda x, n=number, s=source: lax.add(x, full(n, s, x).astype(x.dtype)),
            lambda x, n=number, s=source: lax.add(x, const(np.asarray(n).astype(s), x)),
            others=(),
            only=few if number in (1.1, np.inf) else most,
            unlike=(*INTEGERS, "float8_e3m4") if number == 0.5 else (),
        )


# Which dtypes hold every value on the way there and back.
_SMALL_FLOATS = " float8_e3m4 float8_e4m3 float8_e4m3b11fnuz float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz"
_SMALL = "bool int2 int4 int8 uint2 uint4 uint8"
KEPT = {
    "float32": _SMALL + " int16 uint16 float16 bfloat16" + _SMALL_FLOATS,
    "bfloat16": _SMALL + _SMALL_FLOATS,
    "float16": _SMALL + _SMALL_FLOATS,
    "int32": _SMALL + " int16 uint16 uint32",
    "uint32": _SMALL + " int16 uint16 int32",
    "int8": "bool int2 int4 uint2 uint4 uint8",
    "float8_e5m2": "bool int2 int4 uint2",
    "float8_e4m3fnuz": "bool int2 int4 uint2 uint4",
}


def _numbers():
    for bits, name in (((8, 23), "float32"), ((8, 7), "bfloat16"), ((5, 10), "float16")):
        yield Example(
            "own precision",
            lambda x, b=bits: lax.reduce_precision(x, *b),
            lambda x: x,
            unlike=tuple(n for n in NAMES if n != name),
        )
    yield Example("square", lambda x: lax.square(x), lambda x: lax.mul(x, x), unlike=COMPLEX)
    yield Example("square", lambda x: lax.integer_pow(x, 2), lambda x: lax.mul(x, x), unlike=COMPLEX)
    yield Example("square", lambda x: lax.integer_pow(x, 1), lambda x: x)
    yield Example("comparison turned", lambda x, y: lax.gt(x, y), lambda x, y: lax.lt(y, x), count=2)
    yield Example("comparison turned", lambda x, y: lax.ge(x, y), lambda x, y: lax.le(y, x), count=2)
    yield Example("double negation", lambda x: lax.neg(lax.neg(x)), lambda x: x, unlike=ODD_FLOATS)
    yield Example("double negation", lambda x: lax.bitwise_not(lax.bitwise_not(x)), lambda x: x)
    whole = ("int8", "int16", "int32", "uint8", "uint16", "uint32")
    yield Example(
        "integer with nothing",
        lambda x: lax.div(lax.sub(lax.mul(lax.add(x, const(0, x)), const(1, x)), const(0, x)), const(1, x)),
        lambda x: x,
        only=whole,
    )
    yield Example(
        "integer with nothing",
        lambda x: lax.add(x, const(0, x)),
        lambda x: x,
        unlike=(*SMALL_INTEGERS, *FLOATS, *COMPLEX),
    )
    yield Example(
        "sum with a negative",
        lambda x, y: lax.add(x, lax.neg(y)),
        lambda x, y: lax.sub(x, y),
        count=2,
        unlike=ODD_FLOATS,
    )
    yield Example(
        "sum with a negative",
        lambda x, y: lax.sub(x, lax.neg(y)),
        lambda x, y: lax.add(x, y),
        count=2,
        unlike=ODD_FLOATS,
    )
    yield Example(
        "sum with a negative",
        lambda x, y: lax.add(lax.neg(x), y),
        lambda x, y: lax.sub(y, x),
        count=2,
        unlike=ODD_FLOATS,
    )
    yield Example(
        "sum with a negative",
        lambda x, y: lax.sub(lax.neg(x), y),
        lambda x, y: lax.sub(lax.neg(y), x),
        count=2,
        unlike=ODD_FLOATS,
    )
    yield Example(
        "sum with a negative",
        lambda x: lax.add(x, const(-2, x)),
        lambda x: lax.sub(x, const(2, x)),
        only=("int8", "int32", "float32", "bfloat16", "float16", "float8_e5m2"),
    )
    yield Example(
        "product with a negative",
        lambda x, y: lax.mul(lax.neg(x), y),
        lambda x, y: lax.neg(lax.mul(x, y)),
        count=2,
        unlike=(*COMPLEX, *ODD_FLOATS),
    )
    yield Example(
        "product with a negative",
        lambda x, y: lax.mul(lax.neg(x), lax.neg(y)),
        lambda x, y: lax.mul(x, y),
        count=2,
        unlike=(*COMPLEX, *ODD_FLOATS),
    )
    yield Example(
        "product with a negative",
        lambda x, y: lax.div(x, lax.neg(y)),
        lambda x, y: lax.neg(lax.div(x, y)),
        count=2,
        unlike=(*COMPLEX, *ODD_FLOATS, *INTEGERS),
    )
    yield Example(
        "product with a negative",
        lambda x: lax.mul(x, const(-0.5, x)),
        lambda x: lax.neg(lax.mul(x, const(0.5, x))),
        only=tuple(n for n in FLOATS if n not in ODD_FLOATS and n not in FNUZ),
    )
    for number in (8, 0.25, -2):
        yield Example(
            "power of two",
            lambda x, n=number: lax.div(x, const(n, x)),
            lambda x, n=number: lax.mul(x, const(1 / n, x)),
            only=("float32", "bfloat16", "float16", "float8_e5m2", "int32"),
            unlike=("float8_e5m2", "int32"),
        )
    yield Example(
        "power of two",
        lambda x: lax.div(x, const(3, x)),
        lambda x: lax.mul(x, const(1 / 3, x)),
        only=("float32", "bfloat16", "float16"),
        unlike=("float32", "bfloat16", "float16"),
        others=(),
    )
    yield Example(
        "clamp", lambda x, y, z: lax.clamp(x, y, z), lambda x, y, z: lax.min(lax.max(y, x), z), count=3, unlike=COMPLEX
    )
    yield Example(
        "number with nothing",
        lambda x: lax.mul(lax.add(x, const(0, x)), const(1, x)),
        lambda x: x,
        only=FLOATS,
        unlike=(*ODD_FLOATS,),
    )
    yield Example(
        "bound at infinity",
        lambda x: lax.max(x, const(-np.inf, x)),
        lambda x: x,
        only=("float32", "bfloat16", "float16"),
    )
    yield Example(
        "bound at infinity",
        lambda x: lax.min(const(np.inf, x), x),
        lambda x: x,
        only=("float32", "bfloat16", "float16"),
    )
    yield Example("settled choice", lambda x, y: lax.select(jnp.full(x.shape, True), x, y), lambda x, y: x, count=2)
    yield Example("settled choice", lambda x, y: lax.select(lax.eq(x, y), y, y), lambda x, y: y, count=2)
    yield Example(
        "settled choice",
        lambda x, y: lax.select(~lax.eq(x, y), x, y),
        lambda x, y: lax.select(lax.eq(x, y), y, x),
        count=2,
    )
    yield Example(
        "settled choice",
        lambda x, y: lax.select(lax.eq(x, y), const(1, x), const(0, x)),
        lambda x, y: lax.eq(x, y).astype(x.dtype),
        count=2,
        unlike=(*COMPLEX, *ODD_FLOATS),
    )
    for op in (lax.add, lax.mul, lax.max, lax.min, lax.eq, lax.ne, operator.and_, operator.or_, operator.xor):
        yield Example(
            "commutativity",
            lambda x, y, op=op: op(x, y),
            lambda x, y, op=op: op(y, x),
            count=2,
            unlike=COMPLEX if op in (lax.mul, lax.max, lax.min) else (),
        )


EXAMPLES = (*_conversions(), *_numbers())
