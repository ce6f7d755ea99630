"""Oracles of the short convolution and of the gated delta rule: NumPy float64, token by token. See `oracles`."""

import math

import numpy as np


def documents(segments: np.ndarray) -> np.ndarray:
    """How many documents of the row have ended before each token. Source: definition of a packed row."""
    out = np.zeros(segments.shape, int)
    for b in range(segments.shape[0]):
        ended, current = 0, None
        for t, segment in enumerate(segments[b]):
            if segment != 0:
                ended += current is not None and segment != current
                current = segment
            out[b, t] = ended
    return out


def causal_conv(
    x: np.ndarray, kernel: np.ndarray, state: np.ndarray | None, documents: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Source: "Gated Delta Networks", section 3.4 and figure 1 (convolution, then SiLU); "Mamba", section 3.4."""
    taps = convolved(x, kernel, state, documents, valid)
    out = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        out[index] = taps[index] * (1.0 + math.tanh(taps[index] / 2)) / 2
    return out, last_inputs(x, kernel.shape[0] - 1, state, documents, valid)


def convolved(
    x: np.ndarray, kernel: np.ndarray, state: np.ndarray | None, documents: np.ndarray, valid: np.ndarray
) -> np.ndarray:
    """The sums over the taps, before the nonlinearity."""
    out, width = np.zeros(x.shape), kernel.shape[0]
    for b, t, c in np.ndindex(*x.shape):
        terms = []
        for back in range(width):
            at = t - back
            if at >= 0 and valid[b, at] and documents[b, at] == documents[b, t]:
                terms.append(kernel[width - 1 - back, c] * x[b, at, c])
            if at < 0 and state is not None and documents[b, t] == 0:
                terms.append(kernel[width - 1 - back, c] * state[b, at, c])
        out[b, t, c] = math.fsum(terms)
    return out


def last_inputs(
    x: np.ndarray, count: int, state: np.ndarray | None, documents: np.ndarray, valid: np.ndarray
) -> np.ndarray:
    """What the next call's first tokens reach: a queue that padding passes by and that a new document empties."""
    out = np.zeros((x.shape[0], count, x.shape[2]))
    for b in range(x.shape[0]):
        queue, current = list(out[b] if state is None else state[b]), 0
        for t in np.flatnonzero(valid[b]):
            if documents[b, t] != current:
                queue, current = list(np.zeros_like(out[b])), documents[b, t]
            queue = [*queue[1:], x[b, t]]
        out[b] = queue
    return out


def decay(a: np.ndarray, b: np.ndarray, a_log: np.ndarray, dt_bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Source: "Mamba-2", section 7.1 (softplus of the step, the rate's logarithm trained); "Gated Delta Networks"."""
    log_decay, beta = np.zeros(a.shape), np.zeros(a.shape)
    for i, t, n in np.ndindex(*a.shape):
        step = float(a[i, t, n] + dt_bias[n])
        softplus = step + math.log1p(math.exp(-step)) if step > 0 else math.log1p(math.exp(step))
        log_decay[i, t, n] = -math.exp(a_log[n]) * softplus
        gate = float(b[i, t, n])
        beta[i, t, n] = 1 / (1 + math.exp(-gate)) if gate > 0 else math.exp(gate) / (1 + math.exp(gate))
    return log_decay, beta


def gated_delta(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, log_decay: np.ndarray, beta: np.ndarray, state: np.ndarray | None,
    documents: np.ndarray, valid: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The state before a token fades, what it then holds for the key moves towards the value, and the query reads.

    Source: Yang et al., "Gated Delta Networks", eq. 10: `S_t = a_t S_t-1 (I - b_t k_t k_t') + b_t v_t k_t'`; unit
    queries and keys of section 3.4.
    """
    batch, length, num_heads, value_dim = v.shape
    group, key_dim = num_heads // k.shape[2], k.shape[3]
    out, last = np.zeros(v.shape), np.zeros((batch, num_heads, key_dim, value_dim))
    for i, n in np.ndindex(batch, num_heads):
        held, current = np.array(last[i, n] if state is None else state[i, n], np.float64), 0
        for t in range(length):
            if not valid[i, t]:
                continue
            if documents[i, t] != current:
                held, current = np.zeros_like(held), documents[i, t]
            key, query = unit(k[i, t, n // group]), unit(q[i, t, n // group]) / math.sqrt(key_dim)
            held = math.exp(log_decay[i, t, n]) * held
            missing = [v[i, t, n, e] - math.fsum(held[:, e] * key) for e in range(value_dim)]
            held = held + beta[i, t, n] * np.outer(key, missing)
            out[i, t, n] = [math.fsum(held[:, e] * query) for e in range(value_dim)]
        last[i, n] = held
    return out, last


def unit(vector: np.ndarray) -> np.ndarray:
    """Length one, but for what keeps a vector of zeros where it is."""
    return vector / math.sqrt(math.fsum(value * value for value in vector) + 1e-6)
