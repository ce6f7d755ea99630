"""Programs with references, callbacks and effects: honest pairs, and faults that look like them. No test by itself."""

import functools
import sys

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import io_callback
from jax.extend.core import Primitive

X = jax.ShapeDtypeStruct((8, 4), jnp.float32)


def reference(values=(2.0,), *, rounds=3, step=1.0, limit=0.0, row=1):
    """A reference written whole, by addition in a scan, in part in a fori loop, and in a branch."""

    def fn(x):
        ref = jax.new_ref(x * 0)
        for value in values:
            ref[...] = x * value

        def body(total, t):
            ref[...] += t * step
            return total + ref[0, 0], None

        total, _ = lax.scan(body, x[0, 0], jnp.arange(float(rounds)))
        lax.fori_loop(0, 2, lambda i, _: ref.__setitem__((row,), ref[i] * 2.0), None)
        lax.cond(x.sum() > limit, lambda: ref.__setitem__((...,), ref[...] * 3.0), lambda: None)
        return ref[...], total

    return fn


def passed_on(values=(2.0,)):
    """The same reference, written by a jitted function that gets it as its argument."""

    @jax.jit
    def write(ref, value):
        ref[...] = value

    def fn(x):
        ref = jax.new_ref(x * 0)
        for value in values:
            write(ref, x * value)
        return ref[...]

    return fn


def carried(x):
    """What `scanned` computes, with the contents carried by hand."""

    def body(carry, t):
        value, total = carry
        value = value + t
        return (value, total + value.sum()), None

    return lax.scan(body, (x, x[0, 0]), jnp.arange(3.0))[0]


def scanned(x):
    """A reference that a scan adds to."""
    ref = jax.new_ref(x)

    def body(total, t):
        ref[...] += t
        return total + ref[...].sum(), None

    total, _ = lax.scan(body, x[0, 0], jnp.arange(3.0))
    return jax.freeze(ref), total


def read_by_condition(limit):
    """A reference that the condition of a while loop reads and its body writes."""

    def fn(x):
        ref = jax.new_ref(x[0, 0] * 0)

        def body(n):
            ref[...] += 1.0
            return n + 1

        lax.while_loop(lambda n: (ref[...] < limit) & (n < 9), body, 0)
        return ref[...] + x[0, 0]

    return fn


def for_a_while(factor):
    """References that live for one function (`run_state`)."""
    run_state = sys.modules["jax._src.state.discharge"].run_state

    def fn(x):
        def body(refs):
            a, b = refs
            b[...] = a[...] * factor
            a[...] = b[...] + a[...]

        return run_state(body)((x, x * 0))

    return fn


REFERENCES = {
    "written twice": (reference((5.0, 2.0)), reference((2.0,))),
    "passed on": (passed_on(), lambda x: x * 2.0),
    "carried": (scanned, carried),
    "condition": (read_by_condition(3.0), read_by_condition(3.0)),
    "run_state": (for_a_while(2.0), lambda x: (x * 2.0 + x, x * 2.0)),
    "addupdate": (lambda x: _added(x, x), lambda x: x + x),
}


def _added(x, y):
    ref = jax.new_ref(x)
    jax.ref.addupdate(ref, (...,), y)
    return ref[...]


REFERENCE_FAULTS = {
    "value": reference((3.0,)),
    "order of writes": reference((2.0, 5.0)),
    "rounds": reference(rounds=4),
    "step": reference(step=2.0),
    "condition": reference(limit=-1e9),
    "part": reference(row=2),
}


# --- calls of Python ---


def double(x):
    """A function of NumPy arrays."""
    return np.asarray(x) * np.float32(2)


def _another():
    def double(x):
        return np.asarray(x) * np.float32(3)

    return double


OTHER = _another()  # the same `__name__`


def called(fn, **options):
    """A pure callback between operations."""
    return lambda x: jax.pure_callback(fn, X, jnp.sin(x), vmap_method="sequential", **options) + 1.0


def _scaled(x, factor):
    return np.asarray(x) * np.float32(factor)


CALLBACKS = {
    "same object": (called(double), lambda x: 1.0 + jax.pure_callback(double, X, jnp.sin(x), vmap_method="sequential")),
    "partial": (called(functools.partial(_scaled, factor=2)), called(functools.partial(_scaled, factor=2))),
}
CALLBACK_FAULTS = {
    "same name": (called(double), called(OTHER)),
    "partial": (called(functools.partial(_scaled, factor=2)), called(functools.partial(_scaled, factor=3))),
    "operand": (called(double), lambda x: jax.pure_callback(double, X, jnp.cos(x), vmap_method="sequential") + 1.0),
}


def note(x):
    """Something done with a value."""
    del x


def other_note(x):
    """Something else."""
    del x


def told(*steps, ordered=True):
    """Effects in order: each step is a function of Python and one of the value."""

    def fn(x):
        for tell, of in steps:
            io_callback(tell, None, of(x), ordered=ordered)
        return x * 2.0

    return fn


def told_in(loop, rounds=3, tell=note):
    """An effect in each round of a loop, or in a branch."""

    def scan(x):
        lax.scan(lambda c, t: (c + 1, io_callback(tell, None, c, ordered=True)), x[0, 0], jnp.arange(rounds))
        return x * 2.0

    def loop_until(x):
        def body(n):
            io_callback(tell, None, n, ordered=True)
            return n + 1

        return x * lax.while_loop(lambda n: n < rounds, body, 0)

    def branch(x):
        lax.cond(x.sum() > rounds, lambda: io_callback(tell, None, x[0], ordered=True), lambda: None)
        return x * 2.0

    def jitted(x):
        for _ in range(rounds):
            jax.jit(lambda x: io_callback(tell, None, x, ordered=True))(x)
        return x * 2.0

    return {"scan": scan, "while": loop_until, "branch": branch, "jit": jitted}[loop]


_FIRST, _SECOND = (note, jnp.sin), (other_note, jnp.cos)
EFFECTS = {
    "in order": (told(_FIRST, _SECOND), told(_FIRST, _SECOND)),
    **{loop: (told_in(loop), told_in(loop)) for loop in ("scan", "while", "branch", "jit")},
}
EFFECT_FAULTS = {
    "order": (told(_FIRST, _SECOND), told(_SECOND, _FIRST)),
    "dropped": (told(_FIRST, _SECOND), told(_FIRST)),
    "none": (told(_FIRST), lambda x: x * 2.0),
    "function": (told(_FIRST), told((other_note, jnp.sin))),
    "value": (told(_FIRST), told((note, jnp.cos))),
    "ordered": (told(_FIRST), told(_FIRST, ordered=False)),
    **{f"{loop} rounds": (told_in(loop), told_in(loop, 4)) for loop in ("scan", "while", "branch", "jit")},
    **{f"{loop} function": (told_in(loop), told_in(loop, tell=other_note)) for loop in ("scan", "while", "branch")},
}


# --- debug output ---


def printed(x):
    """Prints a value."""
    jax.debug.print("{}", x)
    return x * 2.0


def printed_in_order(x):
    """Prints in a loop, in order."""
    lax.fori_loop(0, 3, lambda i, _: jax.debug.print("{}", i, ordered=True), None)
    return x * 2.0


def shown(x):
    """Hands a value to Python."""
    jax.debug.callback(note, x)
    return x * 2.0


SHOWN = (printed, printed_in_order, shown)


def strange(x):
    """An effect that jax does not have."""
    return _STRANGE.bind(x) * 2.0


class _Effect(sys.modules["jax._src.effects"].Effect):
    pass


_STRANGE = Primitive("strange")
_STRANGE.def_effectful_abstract_eval(lambda x: (x, {_Effect()}))
