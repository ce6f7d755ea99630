"""Checks of the short convolution and of the gated delta rule, as in `checks`.

The rule's result is a sum of products of its operands, and so is every step of the chunked form: each product of the
sum is rounded at most `count` times, and `count * U32` of the sum of their absolute values bounds the error. That sum
is the rule itself on absolute values, with a minus for beta and for the values: `S + k beta (v + S' k)`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from . import recurrent_oracles as oracles
from .bounds import FLOAT32, LIBRARY, U32, assert_equal, assert_within, float64, roundoff
from .checks import Op, run

TINY = float(jnp.finfo(FLOAT32).tiny)


def check_documents(op: Op, segments: jax.Array) -> None:
    """Whole numbers: exact."""
    out = run(op, segments)
    assert out.dtype == jnp.int32
    assert_equal(out, oracles.documents(np.asarray(segments)))


def check_causal_conv(op: Op, x: jax.Array, kernel: jax.Array, state: jax.Array | None, *where: jax.Array) -> None:
    """A sum of W products in float32, then the SiLU of it, no steeper than 1.1; the state is a copy."""
    x64, kernel64, state64 = float64(x), float64(kernel), None if state is None else float64(state)
    documents, valid = map(np.asarray, where)
    truth, held = oracles.causal_conv(x64, kernel64, state64, documents, valid)
    sizes = None if state64 is None else abs(state64)
    size = oracles.convolved(abs(x64), abs(kernel64), sizes, documents, valid)
    bound = U32 * ((kernel.shape[0] + 1) * 1.1 + LIBRARY + 8) * size
    out, new_state = run(op, x, kernel, state, *where)
    assert_within(out, truth, bound + roundoff(x.dtype) * (abs(truth) + bound), dtype=x.dtype)
    assert new_state.dtype == x.dtype
    assert_equal(new_state, held)


def check_decay(op: Op, a: jax.Array, b: jax.Array, a_log: jax.Array, dt_bias: jax.Array) -> None:
    """A rounding of softplus's argument is as large in its value, where the argument is negative: there it is `exp`."""
    operands = [float64(operand) for operand in (a, b, a_log, dt_bias)]
    log_decay, beta = oracles.decay(*operands)
    rate = np.exp(operands[2])
    relative = U32 * (abs(operands[0] + operands[3]) + 4 * LIBRARY + 4)
    # Softplus underflows before the product with the rate does.
    bound = np.minimum(relative, 1.0) * abs(log_decay) + 4 * TINY * rate
    out = run(op, a, b, a_log, dt_bias)
    assert_within(out.log_decay_BTN, log_decay, bound, dtype=FLOAT32)
    assert_within(out.beta_BTN, beta, 2 * LIBRARY * U32 * beta, dtype=FLOAT32)


def check_gated_delta(
    op: Op, operands: tuple[jax.Array, ...], state: jax.Array | None, documents: jax.Array, valid: jax.Array, chunk: int
) -> None:
    """A token's part of a result went through the tokens between, each a unit key (twice), a decay and its products."""
    q, k, v, log_decay, beta = (float64(operand) for operand in operands)
    state64, where = None if state is None else float64(state), (np.asarray(documents), np.asarray(valid))
    truths = oracles.gated_delta(q, k, v, log_decay, beta, state64, *where)
    size = None if state64 is None else abs(state64)
    spreads = oracles.gated_delta(abs(q), abs(k), -abs(v), log_decay, -beta, size, *where)
    width, length = k.shape[3], k.shape[1]
    # Unit vectors twice, the product of keys, the solve's sum, the decay's exponent and itself, beta, their product.
    of_token = 2 * (width / 2 + LIBRARY + 3) + width + chunk + LIBRARY + length * abs(log_decay).max(initial=0) + 5
    count = (length + 1) * of_token
    out, last = run(op, *operands, state, documents, valid, chunk=chunk)
    results = ((out, operands[2].dtype), (last, FLOAT32))
    for (found, dtype), truth, spread in zip(results, truths, spreads, strict=True):
        bound = U32 * count * abs(spread)
        assert_within(found, truth, bound + roundoff(dtype) * (abs(truth) + bound), dtype=dtype)
