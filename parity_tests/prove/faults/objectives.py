"""Faults of losses and of how gradients are accumulated: preference, group-relative and multi-token objectives, tiling.

Shape letters: B batch, T position, D model, V vocab, G group, M microbatch.
"""

import jax
import jax.numpy as jnp

from .rows import Room, f, i


def token_log_probs(logits, tokens):
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    return jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]


def preference(chosen, rejected, ref_chosen, ref_rejected):
    beta = 0.1
    margin = (chosen - ref_chosen) - (rejected - ref_rejected)
    return -jnp.mean(jax.nn.log_sigmoid(beta * margin))


def _preference(chosen, rejected, ref_chosen, ref_rejected):
    gains = chosen - ref_chosen
    losses = rejected - ref_rejected
    return jnp.negative(jnp.mean(jax.nn.log_sigmoid((gains - losses) * 0.1)))


def auxiliary(logits, tokens, mtp_logits):
    xent = -jnp.mean(token_log_probs(logits, tokens))
    mtp = -jnp.mean(token_log_probs(mtp_logits, tokens))
    aux = {"xent": xent, "mtp_loss": mtp}
    return aux["xent"] + 0.3 * aux["mtp_loss"], aux


def _auxiliary(logits, tokens, mtp_logits):
    parts = {name: -jnp.mean(token_log_probs(x, tokens)) for name, x in (("xent", logits), ("mtp_loss", mtp_logits))}
    return parts["xent"] + 0.3 * parts["mtp_loss"], parts


_LOGITS = (f(2, 5, 11), i(2, 5), f(2, 5, 11))


def accumulated(w, xs, weights):
    def loss(w, x, weight):
        return jnp.sum(weight * jnp.square(x @ w))

    def micro(total, batch):
        x, weight = batch
        value, grads = jax.value_and_grad(loss)(w, x, weight)
        return (total[0] + value, total[1] + grads, total[2] + jnp.sum(weight)), None

    (value, grads, count), _ = jax.lax.scan(micro, (0.0, jnp.zeros_like(w), 0.0), (xs, weights))
    return value / count, grads / count


def _accumulated(w, xs, weights):
    def objective(w, x, weight):
        return jnp.sum(jnp.square(jnp.matmul(x, w)) * weight)

    def body(carry, row):
        tokens, sum_grads, sum_loss = carry
        batch, mask = row
        loss, grads = jax.value_and_grad(objective)(w, batch, mask)
        return (jnp.sum(mask) + tokens, sum_grads + grads, sum_loss + loss), None

    start = (0.0, jnp.zeros_like(w), 0.0)
    (tokens, sum_grads, sum_loss), _ = jax.lax.scan(body, start, (xs, weights))
    return sum_loss / tokens, sum_grads / tokens


_MICRO = (f(8), f(4, 3, 8), f(4, 3))


def with_balance(w, gate, xs):
    def loss(w, gate, x):
        probs = jax.nn.softmax(x @ gate)
        return jnp.sum(jnp.square(x @ w)), jnp.sum(jnp.mean(probs, axis=0) ** 2)

    def micro(total, x):
        _, xent_vjp = jax.vjp(lambda w: loss(w, gate, x)[0], w)
        _, balance_vjp = jax.vjp(lambda g: loss(w, g, x)[1], gate)
        (gw,), (gg,) = xent_vjp(1.0), balance_vjp(1.0)
        return (total[0] + gw, total[1] + gg), None

    (gw, gg), _ = jax.lax.scan(micro, (jnp.zeros_like(w), jnp.zeros_like(gate)), xs)
    return gw / 12.0, gg / 4.0


def _with_balance(w, gate, xs):
    def main(w, x):
        return jnp.sum(jnp.square(jnp.matmul(x, w)))

    def side(g, x):
        return jnp.sum(jnp.mean(jax.nn.softmax(x @ g), axis=0) ** 2)

    def body(carry, x):
        sums = (carry[0] + jax.grad(main)(w, x), carry[1] + jax.grad(side)(gate, x))
        return sums, None

    (main_sum, side_sum), _ = jax.lax.scan(body, (jnp.zeros_like(w), jnp.zeros_like(gate)), xs)
    return main_sum / 12.0, side_sum / 4.0


def group_relative(logits, tokens, ref, rewards, mask):
    centred = rewards - jnp.mean(rewards)
    advantage = centred / (jnp.std(rewards) + 1e-4)
    log_probs = token_log_probs(logits, tokens)
    ratio = ref - log_probs
    kl = jnp.exp(ratio) - ratio - 1.0
    per_token = kl * 0.04 - advantage[:, None] * jnp.exp(log_probs - jax.lax.stop_gradient(log_probs))
    per_row = jnp.sum(per_token * mask, axis=-1) / jnp.sum(mask, axis=-1)
    return jnp.mean(per_row)


def _group_relative(logits, tokens, ref, rewards, mask):
    chosen_BT = token_log_probs(logits, tokens)
    deviation = jnp.std(rewards) + 1e-4
    advantage_B = (rewards - jnp.mean(rewards)) / deviation
    gap_BT = ref - chosen_BT
    penalty_BT = (jnp.exp(gap_BT) - gap_BT) - 1.0
    policy_BT = advantage_B[:, None] * jnp.exp(chosen_BT - jax.lax.stop_gradient(chosen_BT))
    loss_BT = (0.04 * penalty_BT - policy_BT) * mask
    return jnp.mean(jnp.sum(loss_BT, axis=-1) / jnp.sum(mask, axis=-1))


_GROUP = (f(4, 5, 11), i(4, 5), f(4, 5), f(4), f(4, 5))


def rewarded(lengths, scores, logits, tokens):
    reward = scores
    return jnp.sum(reward[:, None] * token_log_probs(logits, tokens)) + 0.0 * jnp.sum(lengths)


def _rewarded(lengths, scores, logits, tokens):
    weighted = scores[:, None] * token_log_probs(logits, tokens)
    return jnp.sum(weighted) + jnp.sum(lengths) * 0.0


def completion(logits, tokens, prompt_length):
    log_probs = token_log_probs(logits[:, :-1], tokens[:, 1:])
    position = jnp.arange(4)
    mask = position[None, :] >= prompt_length[:, None] - 1
    return jnp.sum(jnp.where(mask, log_probs, 0.0), axis=-1)


def _completion(logits, tokens, prompt_length):
    start = prompt_length[:, None] - 1
    counted = jnp.arange(4)[None, :] >= start
    kept = jnp.where(counted, token_log_probs(logits[:, :-1], tokens[:, 1:]), 0.0)
    return kept.sum(axis=-1)


def tiled(hidden, head, targets):
    @jax.custom_vjp
    def loss(hidden, head):
        return forward(hidden, head)[0]

    def forward(hidden, head):
        def tile(total, rows):
            value, grads = jax.value_and_grad(lambda h, w: jnp.sum(jnp.square(h @ w - rows[1])), (0, 1))(rows[0], head)
            return (total[0] + value, total[1] + grads[1]), grads[0]

        tiles = hidden.reshape(3, 2, 8), targets.reshape(3, 2, 5)
        (value, g_head), g_hidden = jax.lax.scan(tile, (0.0, jnp.zeros_like(head)), tiles)
        return value, (g_hidden.reshape(6, 8), g_head)

    def backward(saved, upstream):
        g_hidden, g_head = saved
        return g_hidden * upstream, g_head * upstream

    loss.defvjp(forward, backward)
    return jax.value_and_grad(lambda h, w: 3.0 * loss(h, w), (0, 1))(hidden, head)


def _tiled(hidden, head, targets):
    def piece(h, w, t):
        return jnp.sum(jnp.square(jnp.matmul(h, w) - t))

    def run(h, w):
        def body(carry, row):
            value, (g_h, g_w) = jax.value_and_grad(piece, (0, 1))(row[0], w, row[1])
            return (carry[0] + g_w, carry[1] + value), g_h

        rows = h.reshape(3, 2, 8), targets.reshape(3, 2, 5)
        (g_w, value), g_h = jax.lax.scan(body, (jnp.zeros_like(w), 0.0), rows)
        return value, (g_h.reshape(6, 8), g_w)

    @jax.custom_vjp
    def total(h, w):
        return run(h, w)[0]

    total.defvjp(run, lambda saved, ct: (saved[0] * ct, saved[1] * ct))
    return jax.value_and_grad(lambda h, w: total(h, w) * 3.0, (0, 1))(hidden, head)


_TILES = (f(6, 8), f(8, 5), f(6, 5))


def tiled_sum(hidden, head):
    def tile(total, rows):
        logits = rows @ head
        return total + jnp.sum(jax.nn.logsumexp(logits, axis=-1)), None

    tiles = hidden.reshape(3, 2, 8)
    total, _ = jax.lax.scan(tile, jnp.float32(0.0), tiles)
    return total


def _tiled_sum(hidden, head):
    def body(carry, chunk):
        return jnp.sum(jax.nn.logsumexp(jnp.matmul(chunk, head), axis=-1)) + carry, None

    return jax.lax.scan(body, jnp.float32(0.0), jnp.reshape(hidden, (3, 2, 8)))[0]


def warm_up(logits, tokens, warm):
    dense = -jnp.mean(token_log_probs(logits, tokens))
    sparse = -jnp.sum(token_log_probs(logits, tokens)[:, ::2])
    return jnp.where(warm > 0, dense, sparse)


def _warm_up(logits, tokens, warm):
    chosen = token_log_probs(logits, tokens)
    early, late = jnp.mean(chosen), jnp.sum(chosen[:, ::2])
    return jnp.where(warm > 0, -early, -late)


def multi_token(logits, tokens, segments):
    targets = jnp.roll(tokens, -1, axis=-1)
    same = segments == jnp.roll(segments, -1, axis=-1)
    losses = -token_log_probs(logits, targets)
    return jnp.sum(jnp.where(same, losses, 0.0)) / jnp.sum(same)


def _multi_token(logits, tokens, segments):
    within = segments == jnp.roll(segments, -1, axis=-1)
    losses = jnp.negative(token_log_probs(logits, jnp.roll(tokens, -1, axis=-1)))
    return jnp.where(within, losses, 0.0).sum() / within.sum()


def multi_token_deep(logits, tokens, segments):
    total = 0.0
    for k in (1, 2):
        shifted = jnp.roll(segments, -k, axis=-1)
        losses = -token_log_probs(logits[k - 1], jnp.roll(tokens, -k, axis=-1))
        total = total + jnp.sum(jnp.where(segments == shifted, losses, 0.0))
    return total / jnp.sum(segments != 0)


def _multi_token_deep(logits, tokens, segments):
    def head(k):
        kept = segments == jnp.roll(segments, -k, axis=-1)
        scores = token_log_probs(logits[k - 1], jnp.roll(tokens, -k, axis=-1))
        return jnp.sum(jnp.where(kept, -scores, 0.0))

    return ((0.0 + head(1)) + head(2)) / jnp.sum(segments != 0)


_PACKED = (f(2, 5, 11), i(2, 5), i(2, 5))
_DEEP = (f(2, 2, 5, 11), i(2, 5), i(2, 5))


def balance_losses(gates, x):
    def layer(total, gate):
        probs = jax.nn.softmax(x @ gate)
        return total + jnp.sum(jnp.square(jnp.mean(probs, axis=0))), None

    total, _ = jax.lax.scan(layer, jnp.float32(0.0), gates)
    return total


def _balance_losses(gates, x):
    def body(carry, gate):
        load = jnp.mean(jax.nn.softmax(jnp.matmul(x, gate)), axis=0)
        return jnp.sum(load * load) + carry, None

    return jax.lax.scan(body, jnp.float32(0.0), gates)[0]


def unsorted(x, order, valid):
    @jax.custom_vjp
    def gather(x):
        return jnp.where(valid[:, None], x[order], 0.0)

    def backward(_, upstream):
        upstream = jnp.where(valid[:, None], upstream, 0.0)
        return (jnp.zeros((6, 8)).at[order].add(upstream),)

    gather.defvjp(lambda x: (gather(x), None), backward)
    return jax.grad(lambda x: jnp.sum(jnp.exp(gather(x))))(x)


def _unsorted(x, order, valid):
    @jax.custom_vjp
    def pick(rows):
        return jnp.where(valid[:, None], rows[order], 0.0)

    def scatter(_, ct):
        kept = jnp.where(valid[:, None], ct, 0.0)
        return (jnp.zeros((6, 8)).at[order].add(kept),)

    pick.defvjp(lambda rows: (pick(rows), None), scatter)

    def total(rows):
        return jnp.sum(jnp.exp(pick(rows)))

    return jax.grad(total)(x)


def cosine(student, teacher, mask):
    norms = jnp.linalg.norm(student, axis=-1) * jnp.linalg.norm(teacher, axis=-1)
    safe = jnp.where(mask > 0, norms, 1.0)
    similarity = jnp.sum(student * teacher, axis=-1) / safe
    return jnp.sum((1.0 - similarity) * mask) / jnp.sum(mask)


def _cosine(student, teacher, mask):
    lengths = jnp.linalg.norm(teacher, axis=-1) * jnp.linalg.norm(student, axis=-1)
    product = jnp.sum(teacher * student, axis=-1) / jnp.where(mask > 0, lengths, 1.0)
    return jnp.sum(mask * (1.0 - product)) / jnp.sum(mask)


def bias_update(params, grads):
    frozen = {"gate_bias": jnp.zeros_like(grads["gate_bias"])}
    update = {**grads, **frozen}
    return {name: params[name] - 0.1 * update[name] for name in params}


def _bias_update(params, grads):
    trained = params["kernel"] - 0.1 * grads["kernel"]
    return {"kernel": trained, "gate_bias": params["gate_bias"] - 0.1 * jnp.zeros_like(grads["gate_bias"])}


_BIAS = ({"kernel": f(8, 4), "gate_bias": f(4)},) * 2

OBJECTIVES = (
    Room("P01", "beta is multiplied in twice", preference, _preference, (f(4),) * 4,
         "beta * margin", "beta * (beta * margin)"),
    Room("P03", "the auxiliary values lack a key", auxiliary, _auxiliary, _LOGITS,
         'return aux["xent"] + 0.3 * aux["mtp_loss"], aux',
         'return aux["xent"] + 0.3 * aux["mtp_loss"], {"xent": xent}', lost="parts = "),
    Room("P04", "a mean where the accumulator expects a sum", accumulated, _accumulated, _MICRO,
         "jnp.sum(weight * jnp.square(x @ w))", "jnp.mean(weight * jnp.square(x @ w))"),
    Room("P06", "the balance gradient is divided by all weights", with_balance, _with_balance,
         (f(8), f(8, 4), f(4, 3, 8)), "return gw / 12.0, gg / 4.0", "return gw / 12.0, gg / 12.0"),
    Room("P07", "microbatches are weighted by tokens though the loss is a mean", accumulated, _accumulated, _MICRO,
         "total[1] + grads,", "total[1] + grads * jnp.sum(weight),"),
    Room("P09", "the deviation of a group lacks its epsilon", group_relative, _group_relative, _GROUP,
         "(jnp.std(rewards) + 1e-4)", "jnp.std(rewards)", lost="deviation ="),
    Room("P10", "the sign of the divergence is swapped", group_relative, _group_relative, _GROUP,
         "ratio = ref - log_probs", "ratio = log_probs - ref"),
    Room("P12", "the completion starts one position late", completion, _completion, (f(2, 5, 11), i(2, 5), i(2)),
         "prompt_length[:, None] - 1", "prompt_length[:, None]", lost="start ="),
    Room("P13", "the reward is the completion's length", rewarded, _rewarded, (f(4), f(4), f(4, 5, 11), i(4, 5)),
         "reward = scores", "reward = jnp.abs(lengths)"),
    Room("V01", "the upstream cotangent is not multiplied in", tiled, _tiled, _TILES,
         "return g_hidden * upstream, g_head * upstream", "return g_hidden, g_head * upstream",
         lost="return jax.value_and_grad"),
    Room("V02", "the accumulator is kept in half precision", tiled_sum, _tiled_sum, _TILES[:2],
         "return total + jnp.sum(jax.nn.logsumexp(logits, axis=-1)), None",
         "return (total + jnp.sum(jax.nn.logsumexp(logits, axis=-1))).astype(jnp.bfloat16).astype(jnp.float32), None"),
    Room("V04", "a missing cotangent is made along the wrong axis", tiled, _tiled, _TILES,
         "return value, (g_hidden.reshape(6, 8), g_head)",
         "return value, (g_hidden.swapaxes(0, 1).reshape(6, 8), g_head)"),
    Room("V07b", "the sparse branch is taken before the warm-up", warm_up, _warm_up, (f(2, 6, 11), i(2, 6), i()),
         "jnp.where(warm > 0, dense, sparse)", "jnp.where(warm > 0, sparse, dense)"),
    Room("V08", "tokens that do not fill a tile are cut off", tiled_sum, _tiled_sum, _TILES[:2],
         "hidden.reshape(3, 2, 8)", "hidden[:4].reshape(2, 2, 8)"),
    Room("T02", "targets cross documents", multi_token, _multi_token, _PACKED,
         "jnp.sum(jnp.where(same, losses, 0.0)) / jnp.sum(same)", "jnp.sum(losses) / jnp.sum(same)"),
    Room("T03", "the second head compares the first one's segments", multi_token_deep, _multi_token_deep, _DEEP,
         "jnp.roll(segments, -k, axis=-1)", "jnp.roll(segments, -1, axis=-1)"),
    Room("T05", "the loss is divided by the number of heads", multi_token_deep, _multi_token_deep, _DEEP,
         "return total / jnp.sum(segments != 0)", "return total / 2 / jnp.sum(segments != 0)"),
    Room("X01", "the balance loss of the last layer alone", balance_losses, _balance_losses, (f(3, 8, 4), f(6, 8)),
         "return total + jnp.sum(", "return 0.0 * total + jnp.sum("),
    Room("X03", "the backward pass of the unsort is not masked", unsorted, _unsorted,
         (f(6, 8), i(6), jax.ShapeDtypeStruct((6,), jnp.bool_)),
         "upstream = jnp.where(valid[:, None], upstream, 0.0)", "pass", lost="return jnp.sum(jnp.exp(pick"),
    Room("X04", "the gate bias is trained", bias_update, _bias_update, _BIAS,
         "update = {**grads, **frozen}", "update = {**frozen, **grads}",
         lost='return {"kernel": trained'),
    Room("X06", "padded rows are divided by their norm of 0", cosine, _cosine, (f(4, 8), f(4, 8), f(4)),
         "safe = jnp.where(mask > 0, norms, 1.0)", "safe = norms", lost="product ="),
)  # fmt: skip
