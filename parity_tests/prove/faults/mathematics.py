"""Faults of model mathematics, sown values and quantised layers, each in a few lines as a model would have them.

Shape letters: B batch, T query, S key, N heads, H head dim, D model, F hidden, E experts, V vocab, R rank.
"""

import jax
import jax.numpy as jnp

from .rows import Room, b, f, i


def cap_grads(q, k):
    @jax.custom_vjp
    def capped(x):
        return 30.0 * jnp.tanh(x / 30.0)

    def forward(x):
        inner = jnp.tanh(x / 30.0)
        return 30.0 * inner, inner

    def backward(inner, upstream):
        slope = 1 - inner * inner
        return (upstream * slope,)

    capped.defvjp(forward, backward)
    return jax.value_and_grad(lambda q: jnp.sum(jnp.square(capped(q @ k.T))))(q)


def _cap_grads(q, k):
    @jax.custom_vjp
    def squash(z):
        return jnp.tanh(z / 30.0) * 30.0

    def run(z):
        t = jnp.tanh(z / 30.0)
        return t * 30.0, t

    def transpose(t, ct):
        return ((1 - t * t) * ct,)

    squash.defvjp(run, transpose)

    def total(queries):
        return jnp.sum(jnp.square(squash(jnp.matmul(queries, k.T))))

    return jax.value_and_grad(total)(q)


def experts(params, x):
    scale = params["expert_scale"]
    weights = jax.nn.softmax(x @ params["gate"], axis=-1)
    weights = weights * scale
    hidden = jax.nn.silu(jnp.einsum("BD,EDF->BEF", x, params["wi"]))
    out = jnp.einsum("BEF,EFD->BED", hidden, params["wo"])
    return jnp.einsum("BED,BE->BD", out, weights)


def _experts(params, x):
    scores_BE = jnp.dot(x, params["gate"])
    routing_BE = jax.nn.softmax(scores_BE, axis=-1) * params["expert_scale"]
    hidden_BEF = jax.nn.silu(jnp.einsum("BD,EDF->BEF", x, params["wi"]))
    return jnp.einsum("BED,BE->BD", jnp.einsum("BEF,EFD->BED", hidden_BEF, params["wo"]), routing_BE)


_EXPERTS = ({"gate": f(8, 4), "expert_scale": f(4), "wi": f(4, 8, 16), "wo": f(4, 16, 8)}, f(6, 8))


def yarn(q, k, positions):
    mscale = 0.1 * jnp.log(4.0) + 1.0
    frequencies = 10_000.0 ** -(jnp.arange(4, dtype=jnp.float32) / 4)
    angles = positions[:, None] * frequencies
    cos, sin = jnp.cos(angles) * mscale, jnp.sin(angles) * mscale
    turned = [jnp.concatenate([x[:, :4] * cos - x[:, 4:] * sin, x[:, 4:] * cos + x[:, :4] * sin], -1) for x in (q, k)]
    return turned[0] @ turned[1].T


def _yarn(q, k, positions):
    attention_scale = 0.1 * jnp.log(4.0) + 1.0
    exponents = jnp.arange(4, dtype=jnp.float32) / 4
    angles = positions[:, None] * (10_000.0**-exponents)
    cos, sin = attention_scale * jnp.cos(angles), attention_scale * jnp.sin(angles)

    def rotate(x):
        first, second = x[:, :4], x[:, 4:]
        return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    return rotate(q) @ rotate(k).T


def latent_cache(params, x):
    latent = x @ params["down"]
    keys = jnp.einsum("BTR,RNH->BTNH", latent, params["up_k"])
    values = jnp.einsum("BTR,RNH->BTNH", latent, params["up_v"])
    cache_k = jnp.zeros((2, 8, 4, 12), x.dtype).at[:, :5].set(keys)
    cache_v = jnp.zeros((2, 8, 4, 6), x.dtype).at[:, :5].set(values)
    return {"key": cache_k, "value": cache_v}


def _latent_cache(params, x):
    latent_BTR = x @ params["down"]
    caches = {}
    for name, dim in (("key", 12), ("value", 6)):
        full = jnp.einsum("BTR,RNH->BTNH", latent_BTR, params[f"up_{name[0]}"])
        caches[name] = jnp.zeros((2, 8, 4, dim), x.dtype).at[:, :5].set(full)
    return caches


def block_norm(params, x):
    mean = jnp.mean(x, axis=-1, keepdims=True)
    centred = x - mean
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + 1e-6) * params["scale"] @ params["w"]


def _block_norm(params, x):
    shifted = x - jnp.mean(x, axis=-1, keepdims=True)
    spread = jnp.mean(jnp.square(shifted), axis=-1, keepdims=True)
    return (shifted * jax.lax.rsqrt(spread + 1e-6) * params["scale"]) @ params["w"]


def top_k(params, x):
    probs = jax.nn.softmax(x @ params["gate"], axis=-1)
    weights, chosen = jax.lax.top_k(probs, 2)
    weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    dense = jnp.sum(jax.nn.one_hot(chosen, 4) * weights[..., None], axis=-2)
    return jnp.einsum("BED,BE->BD", jnp.einsum("BD,EDF->BEF", x, params["w"]), dense)


def _top_k(params, x):
    probs_BE = jax.nn.softmax(jnp.matmul(x, params["gate"]), axis=-1)
    kept_BK, index_BK = jax.lax.top_k(probs_BE, 2)
    share_BK = kept_BK / jnp.sum(kept_BK, axis=-1, keepdims=True)
    routing_BE = jnp.sum(jax.nn.one_hot(index_BK, 4) * share_BK[..., None], axis=-2)
    return jnp.einsum("BED,BE->BD", jnp.einsum("BD,EDF->BEF", x, params["w"]), routing_BE)


def layer_inputs(table, tokens, images, is_image):
    text = table[jnp.where(is_image, 0, tokens)]
    merged = jnp.where(is_image[..., None], images, text)
    return jnp.tanh(merged) * jnp.sqrt(jnp.float32(8))


def _layer_inputs(table, tokens, images, is_image):
    safe = jnp.where(is_image, 0, tokens)
    rows = table[safe]
    return jnp.sqrt(jnp.float32(8)) * jnp.tanh(jnp.where(is_image[..., None], images, rows))


def softmax_in_float32(q, k, v):
    scores = jnp.einsum("TH,SH->TS", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("TS,SH->TH", weights.astype(v.dtype), v)


def _softmax_in_float32(q, k, v):
    weights = jax.nn.softmax(jnp.einsum("TH,SH->TS", q, k, preferred_element_type=jnp.float32), axis=-1)
    return weights.astype(jnp.bfloat16) @ v


_HALF = (f(4, 8, dtype=jnp.bfloat16),) * 3


def partial_rope(x, positions):
    rotated, passed = x[..., :4], x[..., 4:]
    angles = positions[:, None] * 10_000.0 ** -(jnp.arange(2, dtype=jnp.float32) / 2)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = rotated[..., :2], rotated[..., 2:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin, passed], axis=-1)


def _partial_rope(x, positions):
    angles = positions[:, None] * (10_000.0 ** -(jnp.arange(2, dtype=jnp.float32) / 2))
    head = x[..., :4]
    a, c = head[..., :2], head[..., 2:]
    turned = (a * jnp.cos(angles) - c * jnp.sin(angles), c * jnp.cos(angles) + a * jnp.sin(angles))
    return jnp.concatenate([*turned, x[..., 4:]], axis=-1)


def quantised_dense(x, kernel):
    scale = jnp.max(jnp.abs(kernel), axis=0) / 127.0
    stored = jnp.round(kernel / scale).astype(jnp.int8)
    return (x @ stored.astype(x.dtype)) * scale


def _quantised_dense(x, kernel):
    step = jnp.max(jnp.abs(kernel), axis=0) / 127.0
    integers = jnp.round(kernel / step).astype(jnp.int8)
    return jnp.matmul(x, integers.astype(jnp.float32)) * step


def amax_step(x, kernel, history):
    amax = jnp.max(history)
    scaled = jnp.clip(x * (448.0 / amax), -448.0, 448.0)
    fresh = jnp.max(jnp.abs(x))
    history = jnp.concatenate([fresh[None], history[:-1]])
    return scaled @ kernel * (amax / 448.0), history


def _amax_step(x, kernel, history):
    peak = history.max()
    new_history = jnp.concatenate([jnp.max(jnp.abs(x))[None], history[:-1]])
    limited = jnp.clip((448.0 / peak) * x, -448.0, 448.0)
    return (limited @ kernel) * (peak / 448.0), new_history


def adapted(params, x):
    out = x @ params["kernel"]
    low = x @ params["lora_a"]
    return out + (low @ params["lora_b"]) * (16.0 / 4)


def _adapted(params, x):
    update = jnp.matmul(jnp.matmul(x, params["lora_a"]), params["lora_b"])
    return x @ params["kernel"] + 4.0 * update


_SQUARE = ({"kernel": f(8, 8), "lora_a": f(8, 8), "lora_b": f(8, 8)}, f(3, 8))


def adapted_block(params, x):
    def lora(name, x):
        return x @ params[name]["a"] @ params[name]["b"]

    query = x @ params["query"]["w"] + lora("query", x)
    mixed = jnp.tanh(query)
    out = mixed @ params["out"]["w"] + lora("out", mixed)
    return out * params["out_norm"]["scale"]


def _adapted_block(params, x):
    hidden = jnp.tanh(x @ params["query"]["w"] + (x @ params["query"]["a"]) @ params["query"]["b"])
    extra = (hidden @ params["out"]["a"]) @ params["out"]["b"]
    return (hidden @ params["out"]["w"] + extra) * params["out_norm"]["scale"]


_ADAPTED = (
    {name: {"w": f(8, 8), "a": f(8, 2), "b": f(2, 8)} for name in ("query", "out")} | {"out_norm": {"scale": f(8)}},
    f(3, 8),
)


def sown_loss(params, x):
    hidden = jnp.tanh(x @ params["w"])
    sown = {"mtp": jnp.mean(jnp.square(hidden @ params["mtp"])), "moe": jnp.mean(jnp.abs(hidden))}
    mtp_loss = sown["mtp"]
    lb_loss = sown.get("moe", 0.0)
    return jnp.mean(hidden) + 0.1 * mtp_loss + 0.01 * lb_loss


def _sown_loss(params, x):
    h = jnp.tanh(jnp.matmul(x, params["w"]))
    auxiliary = jnp.mean(jnp.square(h @ params["mtp"]))
    balance = jnp.mean(jnp.abs(h))
    return jnp.mean(h) + 0.1 * auxiliary + 0.01 * balance


def sown_through_scan(params, x):
    def layer(x, w):
        x = jnp.tanh(x @ w)
        return x, jnp.mean(jnp.square(x))

    x, losses = jax.lax.scan(layer, x, params)
    return jnp.mean(x) + 0.01 * jnp.sum(losses)


def _sown_through_scan(params, x):
    def body(carry, kernel):
        new = jnp.tanh(jnp.matmul(carry, kernel))
        return new, jnp.mean(new * new)

    last, sown = jax.lax.scan(body, x, params)
    total = jnp.sum(sown)
    return 0.01 * total + jnp.mean(last)


def qk_clip(params, x):
    scores = jnp.einsum("TD,LDE,SE->LTS", x, params["q"], x)
    peaks = jnp.max(scores, axis=(1, 2))
    factor = jnp.minimum(1.0, 100.0 / peaks)
    return params["q"] * jnp.sqrt(factor)[:, None, None]


def _qk_clip(params, x):
    max_logits_L = jnp.max(jnp.einsum("TD,LDE,SE->LTS", x, params["q"], x), axis=(1, 2))
    shrink_L = jnp.sqrt(jnp.minimum(100.0 / max_logits_L, 1.0))
    return params["q"] * shrink_L[:, None, None]


def sown_state(params, x):
    hidden = jnp.tanh(x @ params["w"])
    logits = hidden @ params["head"]
    return {"logits": logits, "hidden": hidden}


def _sown_state(params, x):
    state = jnp.tanh(jnp.matmul(x, params["w"]))
    return {"hidden": state, "logits": jnp.matmul(state, params["head"])}


_STATE = ({"w": f(8, 8), "head": f(8, 5)}, f(3, 8))

MATHEMATICS = (
    Room("M04", "the expert scale is applied to the output kernel again", experts, _experts, _EXPERTS,
         'hidden, params["wo"])', 'hidden, params["wo"] * scale[:, None, None])'),
    Room("M06b", "the whole head is turned instead of its rotary part", partial_rope, _partial_rope, (f(5, 8), f(5)),
         "rotated, passed = x[..., :4], x[..., 4:]", "rotated, passed = x[..., 4:], x[..., :4]"),
    Room("M10", "the derivative of the cap is left out of a backward rule", cap_grads, _cap_grads, (f(4, 8), f(5, 8)),
         "return (upstream * slope,)", "return (upstream,)", lost="return jnp.sum(jnp.square(squash("),
    Room("M15b", "softmax in half precision", softmax_in_float32, _softmax_in_float32, _HALF,
         "weights = jax.nn.softmax(scores, axis=-1)", "weights = jax.nn.softmax(scores.astype(q.dtype), axis=-1)"),
    Room("M18", "the attention scale of YaRN is ignored", yarn, _yarn, (f(5, 8), f(5, 8), f(5)),
         "cos, sin = jnp.cos(angles) * mscale, jnp.sin(angles) * mscale", "cos, sin = jnp.cos(angles), jnp.sin(angles)",
         lost="cos, sin = attention_scale"),
    Room("M19", "a latent cache sizes its keys by the values' head", latent_cache, _latent_cache,
         ({"down": f(8, 3), "up_k": f(3, 4, 12), "up_v": f(3, 4, 6)}, f(2, 5, 8)),
         "jnp.zeros((2, 8, 4, 12), x.dtype).at[:, :5].set(keys)",
         "jnp.zeros((2, 8, 4, 6), x.dtype).at[:, :5].set(keys[..., :6])"),
    Room("M22", "another class of norm", block_norm, _block_norm, ({"scale": f(8), "w": f(8, 4)}, f(3, 8)),
         "centred = x - mean", "centred = x", lost="shifted = x -"),
    Room("M24", "the routing weights are not normalised", top_k, _top_k, ({"gate": f(8, 4), "w": f(4, 8, 6)}, f(3, 8)),
         "weights = weights / jnp.sum(weights, axis=-1, keepdims=True)", "pass", lost="share_BK = kept_BK /"),
    Room("M27", "image rows are not masked before the lookup", layer_inputs, _layer_inputs,
         (f(11, 8), i(2, 5), f(2, 5, 8), b(2, 5)),
         "table[jnp.where(is_image, 0, tokens)]", "table[tokens]", lost="safe = jnp.where"),
    Room("S01", "the sown loss is taken for another one and read as 0", sown_loss, _sown_loss,
         ({"w": f(8, 8), "mtp": f(8, 4)}, f(3, 8)), 'mtp_loss = sown["mtp"]', "mtp_loss = 0.0", lost="auxiliary = "),
    Room("S03", "a sown value stays in the state", sown_state, _sown_state, _STATE,
         '"hidden": hidden}', '"hidden": hidden, "sown": jnp.mean(hidden)}'),
    Room("S04", "the scan drops what its layers sow", sown_through_scan, _sown_through_scan, (f(3, 8, 8), f(2, 8)),
         "return x, jnp.mean(jnp.square(x))", "return x, jnp.mean(0.0 * x)", lost="return new,"),
    Room("S06", "the path of a sown loss is wrong, so its default is read", sown_loss, _sown_loss,
         ({"w": f(8, 8), "mtp": f(8, 4)}, f(3, 8)), 'sown.get("moe", 0.0)', 'sown.get("layers/moe", 0.0)',
         lost="balance = "),
    Room("S07", "the peaks are read at the wrong level, so nothing is clipped", qk_clip, _qk_clip,
         ({"q": f(3, 8, 8)}, f(5, 8)), "factor = jnp.minimum(1.0, 100.0 / peaks)", "factor = jnp.ones(3)",
         lost="shrink_L ="),
    Room("S10", "intermediate values are left in the initial state", sown_state, _sown_state, _STATE,
         'return {"logits": logits, "hidden": hidden}',
         'return {"logits": logits, "hidden": hidden, "intermediates": jnp.abs(logits)}'),
    Room("S12", "a missing statistic means no update", qk_clip, _qk_clip, ({"q": f(3, 8, 8)}, f(5, 8)),
         'return params["q"] * jnp.sqrt(factor)[:, None, None]', 'return params["q"] + 0 * factor[:, None, None]',
         lost="return params"),
    Room("S13", "the logits are returned whether asked for or not", sown_state, _sown_state, _STATE,
         "logits = hidden", "logits = hidden * 1.0"),
    Room("Q01", "served with a kernel of zeros", quantised_dense, _quantised_dense, (f(3, 8), f(8, 8)),
         "stored.astype(x.dtype)", "jnp.zeros_like(stored).astype(x.dtype)", lost="integers = "),
    Room("Q06", "the history of maxima is not updated", amax_step, _amax_step, (f(3, 8), f(8, 8), f(4)),
         "history = jnp.concatenate([fresh[None], history[:-1]])", "history = history + 0 * fresh",
         lost="new_history ="),
    Room("A01", "the two adapter factors are exchanged", adapted, _adapted, _SQUARE,
         'low = x @ params["lora_a"]', 'low = x @ params["lora_b"]'),
    Room("A02", "one target is not adapted", adapted_block, _adapted_block, _ADAPTED,
         'params["out"]["w"] + lora("out", mixed)', 'params["out"]["w"]', lost="extra = "),
    Room("A04", "scaled by alpha instead of alpha over rank", adapted, _adapted, _SQUARE, "(16.0 / 4)", "16.0"),
    Room("A05", "a norm is adapted because its name contains the target's", adapted_block, _adapted_block, _ADAPTED,
         'out * params["out_norm"]["scale"]', '(out + lora("out", out)) * params["out_norm"]["scale"]'),
    Room("A07", "the adapters are lost", adapted, _adapted, _SQUARE,
         'return out + (low @ params["lora_b"]) * (16.0 / 4)', "return out + 0.0 * low", lost="return x @"),
)  # fmt: skip
