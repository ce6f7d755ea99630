"""The float64 truth is the program's own mathematics: against NumPy, with narrow casts, loops, draws and integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness import Program, ProgramError
from harness.measure import Unsupported, op_by_op, truth
from harness.measure.roundoff import output_roundoffs

from . import small


def _close(found, expected, bound=1e-12):
    assert found.dtype == np.float64
    assert np.abs(found - expected).max() <= bound * np.abs(expected).max()


def test_truth_of_a_training_step_is_numpys():
    program = small.program()
    args = small.sample(jax.random.key(3))
    expected = small.numpy_step(*args)
    for leaf, found in zip(program.outputs, truth(program, args), strict=True):
        _close(found, expected[leaf.name])


def test_truth_op_by_op_is_the_compiled_truth():
    program = small.program()
    args = small.sample(jax.random.key(3))
    stepped = op_by_op(program, jax.tree.leaves(args), float64=True)
    for found, expected in zip(stepped, truth(program, args), strict=True):
        _close(found, expected)


def test_truth_sees_through_narrow_casts():
    x = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)

    def narrow(x):
        return jax.lax.reduce_precision(x.astype(jnp.bfloat16).astype(jnp.float16), 5, 10).astype(jnp.float32) * 3

    (found,) = truth(Program(narrow, (x,)), (x,))
    _close(found, x.astype(np.float64) * 3, 0.0)


def test_a_literal_is_read_as_the_named_number_that_it_rounds():
    x = np.random.default_rng(2).standard_normal((4, 6)).astype(np.float32)

    def decayed(x):
        return jax.lax.scan(lambda c, row: (c * 0.1 + row, None), jnp.zeros(6), x)[0]

    exact = sum(0.1 ** (3 - row) * x[row].astype(np.float64) for row in range(4))
    rounded = sum(float(np.float32(0.1)) ** (3 - row) * x[row].astype(np.float64) for row in range(4))
    program = Program(decayed, (x,))
    _close(truth(program, (x,), (7.0, 0.1))[0], exact, 1e-15)
    # A neighbour that rounds to another float32 is another number.
    _close(truth(program, (x,), (0.1 * (1 + 1e-7),))[0], rounded, 1e-15)
    assert np.abs(exact - rounded).max() > 1e-10


def test_truth_follows_scan_while_and_cond():
    x = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)

    def loops(x):
        total, steps = jax.lax.scan(lambda c, row: (c * 0.5 + row, c.sum()), jnp.zeros(6), x, reverse=True)
        _, grown = jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * 1.5), (0, total))
        return jax.lax.cond(x[0, 0] > 0, lambda v: v + 1, lambda v: v - 1, grown), steps

    carry, sums = np.zeros(6), np.zeros(4)
    for row in range(3, -1, -1):
        sums[row] = carry.sum()
        carry = carry * 0.5 + x[row].astype(np.float64)
    grown = carry * 1.5**3 + (1 if x[0, 0] > 0 else -1)
    found = truth(Program(loops, (x,)), (x,))
    _close(found[0], grown)
    _close(found[1], sums)


def test_truth_replays_the_runs_own_draws():
    def dropped(x, key):
        keep = jax.random.bernoulli(key, 0.7, x.shape)
        return jnp.where(keep, x / 0.7, 0.0)

    x, key = jnp.ones((50,)), jax.random.key(5)
    program = Program(dropped, (x, key))
    (found,) = truth(program, (x, key))
    assert np.array_equal(found != 0, np.asarray(dropped(x, key)) != 0)
    assert 0 < np.count_nonzero(found) < 50


def test_integers_keep_their_width_and_gathers_scatters_their_meaning():
    def update(table, rows):
        return table.at[rows].add(1.5).at[rows[0]].set(0.25), rows * 7, table[rows].sum()

    table, rows = jnp.linspace(0, 1, 12).reshape(4, 3), jnp.array([1, 1, 3])
    found = truth(Program(update, (table, rows)), (table, rows))
    wide = np.asarray(table, np.float64)
    expected = wide.copy()
    np.add.at(expected, np.asarray(rows), 1.5)
    expected[1] = 0.25
    _close(found[0], expected)
    assert found[1].dtype == np.int32
    _close(found[2], wide[np.asarray(rows)].sum())


def test_a_callback_has_no_truth():
    def called(x):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    x = jnp.ones(3)
    with pytest.raises(Unsupported, match="pure_callback"):
        truth(Program(called, (x,)), (x,))


def test_the_compute_dtype_of_an_output_is_the_coarsest_on_its_way():
    def mixed(x):
        return {"wide": jnp.sin(x), "narrow": jnp.sin(x.astype(jnp.bfloat16)).astype(jnp.float32), "count": x > 0}

    program = Program(mixed, (jnp.ones(3),))
    found = dict(zip([leaf.name for leaf in program.outputs], output_roundoffs(program), strict=True))
    assert found == {"count": 0.0, "narrow": 2.0**-8, "wide": 2.0**-24}


def test_abstract_arguments_without_a_sample_are_refused():
    program = Program(jnp.sin, (jax.ShapeDtypeStruct((3,), jnp.float32),))
    with pytest.raises(ProgramError, match="sample"):
        program.draw(jax.random.key(0))
