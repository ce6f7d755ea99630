"""One oracle per op: NumPy float64 in plain loops, written from the source it names and never from the op.

Arguments and names are the op's, without `dtype`: an oracle has one precision, and is given operands that are already
rounded as the op promises to round them. Slow on purpose; feed it small arrays.
"""

import cmath
import math

import numpy as np

from models.config import Activation, LinearScaling, Llama3Scaling, Moe, Rope, Router, Score, Unrotated, YarnScaling
from models.ops import Experts


def embed(tokens: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Row `tokens[b, t]` of the table; NaN outside it. Source: definition of a lookup table."""
    vocab, dim = table.shape
    out = np.full((*tokens.shape, dim), np.nan)
    for index in np.ndindex(*tokens.shape):
        for d in range(dim):
            if 0 <= tokens[index] < vocab:
                out[index][d] = table[tokens[index], d]
    return out


def unembed(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """`out[b, t, v] = sum_d x[b, t, d] table[v, d]`. Source: Press and Wolf, "Using the Output Embedding"."""
    out = np.zeros((*x.shape[:2], table.shape[0]))
    for b, t, v in np.ndindex(*out.shape):
        out[b, t, v] = math.fsum(x[b, t, d] * table[v, d] for d in range(x.shape[2]))
    return out


def head(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """`out[b, t, v] = sum_d x[b, t, d] kernel[d, v]`. Source: definition of the matrix product."""
    out = np.zeros((*x.shape[:2], kernel.shape[1]))
    for b, t, v in np.ndindex(*out.shape):
        out[b, t, v] = math.fsum(x[b, t, d] * kernel[d, v] for d in range(x.shape[2]))
    return out


def dense(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None = None, *, num_contracted: int = 1) -> np.ndarray:
    """`out[i, j] = sum_c x[i, c] kernel[c, j] + bias[j]`, an index being one or more axes. Source: definition."""
    outer, inner = x.shape[: x.ndim - num_contracted], kernel.shape[num_contracted:]
    out = np.zeros(outer + inner)
    for i in np.ndindex(*outer):
        for j in np.ndindex(*inner):
            terms = [x[i + c] * kernel[c + j] for c in np.ndindex(*kernel.shape[:num_contracted])]
            out[i + j] = math.fsum(terms) + (0.0 if bias is None else bias[j])
    return out


def rms_norm(x: np.ndarray, scale: np.ndarray | None, *, epsilon: float, zero_centered: bool) -> np.ndarray:
    """Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", eq. 4; Gemma stores `scale - 1`."""
    scale = np.full(x.shape[-1], 0.0 if zero_centered else 1.0) if scale is None else scale
    out = np.zeros(x.shape)
    for row in np.ndindex(*x.shape[:-1]):
        root = math.sqrt(math.fsum(value * value for value in x[row]) / x.shape[-1] + epsilon)
        for d in range(x.shape[-1]):
            out[row][d] = x[row][d] / root * (scale[d] + 1.0 if zero_centered else scale[d])
    return out


def layer_norm(
    x: np.ndarray, scale: np.ndarray, bias: np.ndarray, *, epsilon: float, zero_centered: bool
) -> np.ndarray:
    """Source: Ba, Kiros and Hinton, "Layer Normalization", eq. 3 and 4 (biased variance)."""
    out = np.zeros(x.shape)
    for row in np.ndindex(*x.shape[:-1]):
        mean = math.fsum(x[row]) / x.shape[-1]
        variance = math.fsum((value - mean) ** 2 for value in x[row]) / x.shape[-1]
        for d in range(x.shape[-1]):
            factor = scale[d] + 1.0 if zero_centered else scale[d]
            out[row][d] = factor * (x[row][d] - mean) / math.sqrt(variance + epsilon) + bias[d]
    return out


def rotate(x: np.ndarray, positions: np.ndarray, rope: Rope) -> np.ndarray:
    """Each pair of what turns, a complex number, times `exp(i angle)`; the rest of the head stays as it is.

    Source: Su et al., "RoFormer", eq. 13 (neighbours) and 34; GPT-NeoX for halves and for turning a part; Gemma 4 for
    the proportional kind.
    """
    out = np.array(x)
    for b, t, n in np.ndindex(*x.shape[:3]):
        for first, second, rate in pairs(rope, x.shape[3]):
            angle = float(positions[b, t]) * rate
            turned = complex(x[b, t, n, first], x[b, t, n, second]) * cmath.rect(amplitude(rope), angle)
            out[b, t, n, first], out[b, t, n, second] = turned.real, turned.imag
    return out


def pairs(rope: Rope, dim: int) -> list[tuple[int, int, float]]:
    """The dimensions that turn together, and their radians a position; `proportional` pairs all of the head."""
    turning = round(dim * rope.fraction)
    paired = dim if rope.proportional else turning
    places = [(2 * i, 2 * i + 1) if rope.interleaved else (i, i + paired // 2) for i in range(turning // 2)]
    return [(first, second, frequency(rope, i, paired)) for i, (first, second) in enumerate(places)]


def temper(q: np.ndarray, positions: np.ndarray, unrotated: Unrotated) -> np.ndarray:
    """A factor for each stretch of `length` tokens that has ended, this one counted.

    Source: Nakanishi, "Scalable-Softmax", section 3; Llama 4's attention temperature (Meta 2025).
    """
    out = np.zeros(q.shape)
    for b, t in np.ndindex(*positions.shape):
        stretches = math.floor((int(positions[b, t]) + 1) / unrotated.length)
        out[b, t] = q[b, t] * (math.log(stretches + 1) * unrotated.temperature + 1)
    return out


def frequency(rope: Rope, i: int, turning: int) -> float:
    """Radians a position of pair `i`. Source: "RoFormer", section 3.2.2, and the scaling's own paper."""
    plain = 1.0 / rope.max_timescale ** (2 * i / turning)
    match rope.scaling:
        case LinearScaling(factor):
            return plain / factor
        case Llama3Scaling():
            return _llama3_frequency(plain, rope.scaling)
        case YarnScaling():
            return _yarn_frequency(plain, i, turning, rope.max_timescale, rope.scaling)
        case _:
            return plain


def _llama3_frequency(plain: float, scaling: Llama3Scaling) -> float:
    """Source: Llama 3.1's `apply_scaling`, by wavelengths: long ones stretched, short ones kept, a blend between."""
    wavelength = 2 * math.pi / plain
    longest = scaling.original_length / scaling.low_frequency_factor
    shortest = scaling.original_length / scaling.high_frequency_factor
    if wavelength < shortest:
        return plain
    if wavelength > longest:
        return plain / scaling.factor
    smooth = (scaling.original_length / wavelength - scaling.low_frequency_factor) / (
        scaling.high_frequency_factor - scaling.low_frequency_factor
    )
    return (1 - smooth) * plain / scaling.factor + smooth * plain


def _yarn_frequency(plain: float, i: int, turning: int, base: float, scaling: YarnScaling) -> float:
    """Source: "YaRN", definition 2 (NTK-by-parts), the ramp between dimensions as in the authors' code."""
    ends = []
    for turns in (scaling.beta_fast, scaling.beta_slow):
        wavelength = scaling.original_length / turns
        ends.append(turning / 2 * math.log(wavelength / (2 * math.pi), base))
    kept, stretched = (math.floor(ends[0]), math.ceil(ends[1])) if scaling.truncate else ends
    kept, stretched = max(kept, 0), min(stretched, turning - 1)
    if kept == stretched:
        stretched += 0.001
    ramp = min(max((i - kept) / (stretched - kept), 0.0), 1.0)
    return ramp * plain / scaling.factor + (1 - ramp) * plain


def amplitude(rope: Rope) -> float:
    """The length every pair gains. Source: "YaRN", eq. 22: `sqrt(1 / t) = 0.1 ln(s) + 1`."""
    if not isinstance(rope.scaling, YarnScaling):
        return 1.0
    given = rope.scaling.attention_factor
    return 0.1 * math.log(rope.scaling.factor) + 1.0 if given is None else given


def attention_mask(
    query_positions: np.ndarray,
    key_positions: np.ndarray,
    query_segments: np.ndarray,
    key_segments: np.ndarray,
    *,
    window: int | None,
    chunk: int | None = None,
) -> np.ndarray:
    """A query sees its own document's keys at its position and at the `window - 1` positions before it, never padding.

    Source: Beltagy et al., "Longformer", section 3.1; "Mistral 7B", section 2 (the window counts the query itself);
    Llama 4 (Meta 2025) for chunks: the positions from a multiple of `chunk` on.
    """
    batch, num_queries = query_positions.shape
    out = np.zeros((batch, num_queries, key_positions.shape[1]), bool)
    for b, t, s in np.ndindex(*out.shape):
        position, segment = int(query_positions[b, t]), int(query_segments[b, t])
        first = 0 if window is None else position - window + 1
        first = first if chunk is None else max(first, position - position % chunk)
        in_reach = int(key_positions[b, s]) in range(first, position + 1)
        out[b, t, s] = in_reach and segment > 0 and segment == int(key_segments[b, s])
    return out


def soft_cap(x: np.ndarray, cap: float) -> np.ndarray:
    """Source: Gemma 2 report, section 2, "Logit soft-capping"."""
    out = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        out[index] = cap * math.tanh(x[index] / cap)
    return out


def attend(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray, *, scale: float, soft_cap: float | None,
    sinks: np.ndarray | None = None,
) -> np.ndarray:
    """A sink is one more key, with a logit of its own and a value of zero.

    Source: Vaswani et al., "Attention Is All You Need", eq. 1; Ainslie et al., "GQA", figure 2; Xiao et al., "Efficient
    Streaming Language Models with Attention Sinks", section 3.3 (a trained sink).
    """
    group = q.shape[2] // k.shape[2]
    out = np.zeros((*q.shape[:3], v.shape[3]))
    for b, t, n in np.ndindex(*q.shape[:3]):
        keys = [s for s in range(k.shape[1]) if mask[b, t, s]]
        logits = [scale * math.fsum(q[b, t, n, h] * k[b, s, n // group, h] for h in range(q.shape[3])) for s in keys]
        if soft_cap is not None:
            logits = [soft_cap * math.tanh(logit / soft_cap) for logit in logits]
        weights = _softmax(logits if sinks is None else [*logits, float(sinks[n])])[: len(keys)]
        for h in range(v.shape[3]):
            out[b, t, n, h] = math.fsum(w * v[b, s, n // group, h] for w, s in zip(weights, keys, strict=True))
    return out


def _softmax(logits: list[float]) -> list[float]:
    exps = [math.exp(logit - max(logits)) for logit in logits]
    return [value / math.fsum(exps) for value in exps]


def activate(x: np.ndarray, activation: Activation) -> np.ndarray:
    """Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", section 2: the tanh and sigmoid forms; SiLU."""
    out = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        value = float(x[index])
        if activation is Activation.GELU:
            inner = math.sqrt(2 / math.pi) * (value + 0.044715 * value * value * value)
            out[index] = 0.5 * value * (1.0 + math.tanh(inner))
        else:
            out[index] = value * _sigmoid(1.702 * value if activation is Activation.QUICK_GELU else value)
    return out


def _sigmoid(value: float) -> float:
    """Both branches are `1 / (1 + exp(-value))`; each avoids the overflow of the other."""
    return 1.0 / (1.0 + math.exp(-value)) if value >= 0 else math.exp(value) / (1.0 + math.exp(value))


def gate(
    gate: np.ndarray, linear: np.ndarray, activation: Activation, *, clamp: float | None = None,
    linear_offset: float = 0.0,
) -> np.ndarray:
    """Source: Shazeer, "GLU Variants Improve Transformer", eq. 5 and 6; bounds and offset as in GPT-OSS."""
    bound = math.inf if clamp is None else clamp
    activated = activate(np.vectorize(lambda value: min(value, bound), otypes=[float])(gate), activation)
    out = np.zeros(gate.shape)
    for index in np.ndindex(*gate.shape):
        out[index] = activated[index] * (max(min(linear[index], bound), -bound) + linear_offset)
    return out


def cross_entropy(logits: np.ndarray, targets: np.ndarray, *, z_loss: float) -> tuple[np.ndarray, np.ndarray]:
    """`-log softmax(logits)[target]` and `z_loss log(Z)^2`. Source: PaLM, section 5, "Loss function"."""
    xent, z_losses = np.zeros(targets.shape), np.zeros(targets.shape)
    for b, t in np.ndindex(*targets.shape):
        row = [float(value) for value in logits[b, t]]
        log_z = max(row) + math.log(math.fsum(math.exp(value - max(row)) for value in row))
        xent[b, t] = log_z - row[int(targets[b, t])]
        z_losses[b, t] = z_loss * log_z**2
    return xent, z_losses


def write_cache(cache: np.ndarray, new: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Slot `start[b] + t` of row `b` becomes `new[b, t]`; every other slot stays. Source: definition."""
    out = np.array(cache)
    for b, t in np.ndindex(*new.shape[:2]):
        out[b, start[b] + t] = new[b, t]
    return out


def sigmoid_gate(x: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Source: Qiu et al., "Gated Attention for Large Language Models", eq. 5."""
    out = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        out[index] = x[index] * _sigmoid(float(logits[(*index[:-1], min(index[-1], logits.shape[-1] - 1))]))
    return out


def route(
    logits: np.ndarray, choice_bias: np.ndarray | None, router: Router, *, expert_scale: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and chosen experts of each token, the best first; of equals the first, and zero before minus zero.

    Source: "Mixtral of Experts", section 2.1; "DeepSeek-V2", section 2.2 (groups); "DeepSeek-V3", eq. 12 to 16.
    """
    chosen = np.zeros((*logits.shape[:2], router.num_chosen), int)
    for b, t in np.ndindex(*logits.shape[:2]):
        merits = merits_of(logits[b, t], choice_bias, router)
        size = router.num_experts // router.num_groups
        groups = best(group_merits(merits, router), router.num_chosen_groups)
        candidates = [e for e in range(router.num_experts) if e // size in groups]
        chosen[b, t] = [candidates[at] for at in best([merits[e] for e in candidates], router.num_chosen)]
    return weights_of(logits, chosen, router, expert_scale), chosen


def best(values: list[float], count: int) -> list[int]:
    """Where the largest values are."""
    ranked = sorted(range(len(values)), key=lambda at: (-values[at], -math.copysign(1.0, values[at]), at))
    return ranked[:count]


def merits_of(logits: np.ndarray, choice_bias: np.ndarray | None, router: Router) -> list[float]:
    """What one token's choice goes by."""
    scores = list(logits) if router.score is Score.SOFTMAX_OF_CHOSEN else scores_of(logits, router)
    if choice_bias is None:
        return [float(score) for score in scores]
    return [float(score + bias) for score, bias in zip(scores, choice_bias, strict=True)]


def group_merits(merits: list[float], router: Router) -> list[float]:
    """The sums of each group's best merits."""
    size = router.num_experts // router.num_groups
    groups = [sorted(merits[start : start + size], reverse=True) for start in range(0, len(merits), size)]
    return [math.fsum(group[: router.group_top]) for group in groups]


def scores_of(logits: np.ndarray, router: Router) -> list[float]:
    """One token's scores."""
    row = [float(logit) for logit in logits]
    return [_sigmoid(logit) for logit in row] if router.score is Score.SIGMOID else _softmax(row)


def weights_of(
    logits: np.ndarray, chosen: np.ndarray, router: Router, expert_scale: np.ndarray | None = None
) -> np.ndarray:
    """The weights of experts that are already chosen."""
    weights = np.zeros(chosen.shape)
    for b, t in np.ndindex(*chosen.shape[:2]):
        if router.score is Score.SOFTMAX_OF_CHOSEN:
            values = _softmax([float(logits[b, t, e]) for e in chosen[b, t]])
        else:
            scores = scores_of(logits[b, t], router)
            values = [scores[e] for e in chosen[b, t]]
            if router.normalized:
                values = [value / math.fsum(values) if math.fsum(values) else 0.0 for value in values]
        factors = [1.0 if expert_scale is None else float(expert_scale[e]) for e in chosen[b, t]]
        weights[b, t] = [router.scale * value * factor for value, factor in zip(values, factors, strict=True)]
    return weights


def load_balance(logits: np.ndarray, chosen: np.ndarray, valid: np.ndarray, router: Router) -> np.ndarray:
    """Source: "Switch Transformers", eq. 4 to 6; "DeepSeek-V3", eq. 17 to 20, over all tokens instead of a sequence."""
    tokens = [token for token in np.ndindex(*valid.shape) if valid[token]]
    total = 0.0
    for expert in range(router.num_experts):
        share = sum(list(chosen[token]).count(expert) for token in tokens) / max(len(tokens) * router.num_chosen, 1)
        scores = [scores_of(logits[token], router) for token in tokens]
        mean = math.fsum(row[expert] / math.fsum(row) if math.fsum(row) else 0.0 for row in scores)
        total += router.num_experts * share * mean / max(len(tokens), 1)
    return np.asarray(total)


def expert_counts(chosen: np.ndarray, valid: np.ndarray, num_experts: int) -> np.ndarray:
    """Source: "DeepSeek-V3", section 2.1.2: the load of each expert."""
    counts = np.zeros(num_experts)
    for b, t, j in np.ndindex(*chosen.shape):
        counts[chosen[b, t, j]] += bool(valid[b, t])
    return counts


def mix_experts(
    x: np.ndarray, weights: np.ndarray, chosen: np.ndarray, valid: np.ndarray, experts: Experts, moe: Moe
) -> np.ndarray:
    """Source: "Outrageously Large Neural Networks", eq. 1; "Switch Transformers", section 2.2 (capacity); Llama 4."""
    out = np.zeros(x.shape)
    for b, t, j in zip(*np.nonzero(taken(chosen, valid, moe)), strict=True):
        before, after = (weights[b, t, j], 1.0) if moe.scale_inputs else (1.0, weights[b, t, j])
        out[b, t] += after * _expert(before * x[b, t][None, None], int(chosen[b, t, j]), experts, moe)[0, 0]
    return out


def taken(chosen: np.ndarray, valid: np.ndarray, moe: Moe) -> np.ndarray:
    """Which choices an expert still had room for, row by row."""
    out = np.zeros(chosen.shape, bool)
    capacity = math.inf
    if moe.capacity_factor is not None:
        capacity = math.ceil(math.prod(chosen.shape[1:]) * moe.capacity_factor / moe.router.num_experts)
    for b in range(chosen.shape[0]):
        load = [0] * moe.router.num_experts
        for t, j in np.ndindex(*chosen.shape[1:]):
            if valid[b, t] and load[chosen[b, t, j]] < capacity:
                load[chosen[b, t, j]] += 1
                out[b, t, j] = True
    return out


def _expert(x: np.ndarray, expert: int, experts: Experts, moe: Moe) -> np.ndarray:
    """One expert's gated MLP."""
    wi_0, wi_1, wo = experts.wi_0_EDF, experts.wi_1_EDF, experts.wo_EFD
    biases = [experts.wi_0_bias_EF, experts.wi_1_bias_EF, experts.wo_bias_ED]
    bias_0, bias_1, bias_o = (None if bias is None else bias[expert] for bias in biases)
    hidden = gate(
        dense(x, wi_0[expert], bias_0), dense(x, wi_1[expert], bias_1), moe.activation, clamp=moe.clamp,
        linear_offset=moe.linear_offset,
    )  # fmt: skip
    return dense(hidden, wo[expert], bias_o)
