"""Faults of layers in loops, random draws, optimizers, shardings, decoding and parallel runtimes, in a few lines each.

Shape letters: B batch, T position, S cache slot, N heads, H head dim, D model, L layers, R replicas, M microbatches.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec

from .rows import Room, f, i, key

MESH = AbstractMesh((2, 2), ("fsdp", "tensor"))
constrain = jax.lax.with_sharding_constraint


def on_mesh(function):
    """The function under the mesh of this page, so that constraints may name its axes."""

    @functools.wraps(function)
    def placed(*args):
        with jax.sharding.use_abstract_mesh(MESH):
            return function(*args)

    return placed


# --- random draws ---


def layer_inits(key):
    keys = jax.random.split(key, 3)
    return jax.vmap(lambda k: jax.random.normal(k, (4, 4)))(keys)


def _layer_inits(key):
    draw = jax.vmap(functools.partial(jax.random.normal, shape=(4, 4)))
    return draw(jax.random.split(key, 3))


def samples(key, logits):
    keys = jax.random.split(key, 3)
    first = jax.random.categorical(keys[0], logits)
    second = jax.random.categorical(keys[1], logits)
    return jnp.stack([first, second])


def _samples(key, logits):
    one, two, _ = jax.random.split(key, 3)
    return jnp.stack([jax.random.categorical(one, logits), jax.random.categorical(two, logits)])


def counted(key, count, x):
    noise = jax.random.normal(jax.random.fold_in(key, count), x.shape)
    count = count + 1
    return x + noise, count


def _counted(key, count, x):
    noisy = x + jax.random.normal(jax.random.fold_in(key, count), x.shape)
    return noisy, 1 + count


# --- layers in loops ---


def stacked(params, x):
    def layer(x, w):
        return jnp.tanh(x @ w), jnp.mean(x)

    x, means = jax.lax.scan(layer, x, params)
    return {"x": x, "means": means}


def _stacked(params, x):
    def body(h, kernel):
        return jnp.tanh(jnp.matmul(h, kernel)), jnp.mean(h)

    last, per_layer = jax.lax.scan(body, x, params)
    return {"means": per_layer, "x": last}


def remembered(state, xs):
    states = []
    for index in range(3):
        new = 0.9 * state[index] + xs[index]
        states.append(new)
    return jnp.stack(states)


def _remembered(state, xs):
    return jnp.stack([xs[k] + 0.9 * state[k] for k in range(3)])


def unstacked(params, x):
    order = sorted(params, key=lambda name: int(name.split("_")[1]))
    for name in order:
        x = jnp.tanh(x @ params[name])
    return x


def _unstacked(params, x):
    for k in range(len(params)):
        x = jnp.tanh(jnp.matmul(x, params[f"layers_{k}"]))
    return x


_ELEVEN = ({f"layers_{k}": f(4, 4) for k in range(11)}, f(2, 4))


def clipped_scales(kernels, peaks):
    factor = jnp.minimum(1.0, 50.0 / peaks)
    return kernels * jnp.sqrt(factor)[:, None, None]


def _clipped_scales(kernels, peaks):
    limit = jnp.sqrt(jnp.minimum(1.0, 50.0 / peaks))
    return kernels * limit[:, None, None]


def paired(params, x):
    def block(x, pair):
        for w in (pair[0], pair[1]):
            x = jnp.tanh(x @ w)
        return x, None

    pairs = params[:4].reshape(2, 2, 4, 4)
    x, _ = jax.lax.scan(block, x, pairs)
    return jnp.tanh(x @ params[4])


def _paired(params, x):
    def body(h, two):
        h = jnp.tanh(jnp.matmul(h, two[0]))
        return jnp.tanh(jnp.matmul(h, two[1])), None

    h, _ = jax.lax.scan(body, x, jnp.reshape(params[:4], (2, 2, 4, 4)))
    last = params[4]
    return jnp.tanh(jnp.matmul(h, last))


def counters(params, x, count):
    def layer(carry, w):
        x, count = carry
        return (jnp.tanh(x @ w), count + 1), None

    (x, count), _ = jax.lax.scan(layer, (x, count), params)
    return x, count


def _counters(params, x, count):
    def body(carry, kernel):
        number, h = carry
        return (1 + number, jnp.tanh(jnp.matmul(h, kernel))), None

    (number, h), _ = jax.lax.scan(body, (count, x), params)
    return h, number


@on_mesh
def stack_axes(params, x):
    params = constrain(params, PartitionSpec(None, "fsdp", "tensor"))
    x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params)
    return x


@on_mesh
def _stack_axes(params, x):
    placed = constrain(params, PartitionSpec(None, "fsdp", "tensor"))

    def body(h, kernel):
        return jnp.tanh(jnp.matmul(h, kernel)), None

    return jax.lax.scan(body, x, placed)[0]


# --- optimizers ---


def skipping(params, grads, norm, mean_norm):
    spike = norm > 3.0 * mean_norm
    update = jnp.where(spike, 0.0, grads)
    return params - 0.1 * update


def _skipping(params, grads, norm, mean_norm):
    is_skipped = norm > mean_norm * 3.0
    return params - 0.1 * jnp.where(is_skipped, 0.0, grads)


def orthogonal(kernel, momentum):
    x = momentum / jnp.linalg.norm(momentum)
    for _ in range(2):
        x = 1.5 * x - 0.5 * (x @ x.T @ x)
    return kernel - 0.02 * x


def _orthogonal(kernel, momentum):
    m = momentum / jnp.linalg.norm(momentum)
    for _ in range(2):
        cubic = (m @ m.T) @ m
        m = 1.5 * m - 0.5 * cubic
    return kernel - m * 0.02


def by_name(params, momenta):
    new = {}
    for name, kernel in params.items():
        muon = name.endswith("kernel")
        step = jnp.sign(momenta[name]) if muon else 0.1 * momenta[name]
        new[name] = kernel - step
    return new


def _by_name(params, momenta):
    signed = jnp.sign(momenta["mlp/kernel"])
    return {"mlp/kernel": params["mlp/kernel"] - signed, "bias": params["bias"] - momenta["bias"] * 0.1}


_NAMED = ({"mlp/kernel": f(4, 4), "bias": f(4)},) * 2


def counted_rate(step, applied, grads):
    rate = 0.1 * jnp.minimum(1.0, (applied + 1) / 100.0)
    return rate * grads, step + 1


def _counted_rate(step, applied, grads):
    warm = jnp.minimum(1.0, (applied + 1) / 100.0)
    return (warm * 0.1) * grads, 1 + step


CAPTURED = jnp.arange(4.0)


def captured(params, x):
    weights = params
    return jax.value_and_grad(lambda w: jnp.sum(jnp.square(x @ w)))(weights)


def _captured(params, x):
    def loss(w):
        return jnp.sum(jnp.square(jnp.matmul(x, w)))

    return jax.value_and_grad(loss)(params)


def clipped(grads):
    total = grads[0] + grads[1] + grads[2]
    norm = jnp.sqrt(jnp.sum(jnp.square(total)))
    return total * jnp.minimum(1.0, 1.0 / norm)


def _clipped(grads):
    gathered = (grads[0] + grads[1]) + grads[2]
    length = jnp.sqrt(jnp.sum(gathered * gathered))
    shrink = jnp.minimum(1.0, 1.0 / length)
    return gathered * shrink


def summed(grads):
    total = jnp.zeros(grads.shape[1:], jnp.float32)
    for k in range(3):
        grad = grads[k]
        total = total + grad.astype(jnp.float32)
    return total


def _summed(grads):
    first, second, third = (grads[k].astype(jnp.float32) for k in range(3))
    return jnp.zeros((4,), jnp.float32) + first + second + third


def offloaded(state, grads):
    mu = jax.device_put(state, jax.memory.Space.Device)
    new = 0.9 * mu + 0.1 * grads
    return jax.device_put(new, jax.memory.Space.Host)


def _offloaded(state, grads):
    resident = jax.device_put(state, jax.memory.Space.Device)
    return jax.device_put(0.9 * resident + 0.1 * grads, jax.memory.Space.Host)


def spliced(state):
    leaves = [state["a_stats"], state["model"], state["z_rest"]]
    model = leaves[1]
    return {"model": jnp.tanh(model), "a_stats": leaves[0] * 2.0, "z_rest": leaves[2]}


def _spliced(state):
    return {"z_rest": state["z_rest"], "model": jnp.tanh(state["model"]), "a_stats": 2.0 * state["a_stats"]}


# --- shardings ---


@on_mesh
def ruled(params, x):
    rules = (("heads", "tensor"), ("embed", "fsdp"), ("heads", "fsdp"))
    axis = next(mesh for name, mesh in rules if name == "heads")
    hidden = constrain(x @ params, PartitionSpec(None, axis))
    return jnp.tanh(hidden)


@on_mesh
def _ruled(params, x):
    return jnp.tanh(constrain(jnp.matmul(x, params), PartitionSpec(None, "tensor")))


@on_mesh
def divided(params, mu, grads):
    mu = constrain(0.9 * mu + 0.1 * grads, PartitionSpec("fsdp", None))
    new = constrain(params - 0.1 * mu, PartitionSpec(None, "tensor"))
    return new, mu


@on_mesh
def _divided(params, mu, grads):
    moment = constrain(0.9 * mu + 0.1 * grads, PartitionSpec("fsdp", None))
    return constrain(params - 0.1 * moment, PartitionSpec(None, "tensor")), moment


@on_mesh
def evaluated(params, tokens):
    tokens = constrain(tokens, PartitionSpec("fsdp", None))
    return jnp.sum(params[tokens], axis=1)


@on_mesh
def _evaluated(params, tokens):
    rows = constrain(tokens, PartitionSpec("fsdp", None))
    return params[rows].sum(axis=1)


@on_mesh
def low_rank(x, a, b):
    a = constrain(a, PartitionSpec("fsdp", None))
    b = constrain(b, PartitionSpec(None, "tensor"))
    return x @ a @ b


@on_mesh
def _low_rank(x, a, b):
    down = x @ constrain(a, PartitionSpec("fsdp", None))
    return down @ constrain(b, PartitionSpec(None, "tensor"))


# --- decoding ---


def decoded(mode, q, keys, values, fresh):
    keys = jnp.concatenate([keys, fresh], axis=0)
    weights = jax.nn.softmax(q @ keys.T)
    return weights @ jnp.concatenate([values, fresh], axis=0) * mode


def _decoded(mode, q, keys, values, fresh):
    scores = q @ jnp.concatenate([keys, fresh], axis=0).T
    return (jax.nn.softmax(scores) @ jnp.concatenate([values, fresh], axis=0)) * mode


def prefilled(x, length):
    cache = jnp.zeros((2, 16, 4)).at[:, :6].set(x)
    return {"cache": cache, "length": length + 6}


def _prefilled(x, length):
    empty = jnp.zeros((2, 16, 4))
    return {"length": 6 + length, "cache": empty.at[:, :6].set(x)}


def inserted(cache, prefix, slot):
    start = (slot, 0, 0)
    return jax.lax.dynamic_update_slice(cache, prefix[None], start)


def _inserted(cache, prefix, slot):
    return jax.lax.dynamic_update_slice_in_dim(cache, jnp.expand_dims(prefix, 0), slot, axis=0)


def inserted_length(lengths, slot, prompt_length):
    return lengths.at[slot].set(prompt_length) + 1


def _inserted_length(lengths, slot, prompt_length):
    fresh = lengths.at[slot].set(prompt_length)
    return 1 + fresh


def chunked(cache, chunk, done):
    positions = done + jnp.arange(3)
    cache = jax.lax.dynamic_update_slice(cache, chunk, (done, 0))
    return cache, positions


def _chunked(cache, chunk, done):
    return jax.lax.dynamic_update_slice(cache, chunk, (done, 0)), jnp.arange(3) + done


def donating(state, token):
    def step(s, t):
        return 0.5 * s + t

    return jax.jit(step)(state, token)


def _donating(state, token):
    @jax.jit
    def advance(old, new):
        return 0.5 * old + new

    return advance(state, token)


def quantised_cache(q, keys):
    scale = jnp.max(jnp.abs(keys), axis=-1, keepdims=True) / 127.0
    stored = jnp.round(keys / scale).astype(jnp.int8)
    return q @ (stored.astype(jnp.float32) * scale).T


def _quantised_cache(q, keys):
    step = jnp.max(jnp.abs(keys), axis=-1, keepdims=True) / 127.0
    small = jnp.round(keys / step).astype(jnp.int8)
    return q @ jnp.transpose(small.astype(jnp.float32) * step)


def inserted_state(engine, prefix, slot):
    cache = engine["cache"].at[slot].set(prefix["cache"])
    recurrent = engine["recurrent"].at[slot].set(prefix["recurrent"])
    return {"cache": cache, "recurrent": recurrent}


def _inserted_state(engine, prefix, slot):
    return {name: engine[name].at[slot].set(prefix[name]) for name in ("recurrent", "cache")}


_ENGINE = ({"cache": f(4, 6), "recurrent": f(4, 3)}, {"cache": f(6), "recurrent": f(3)}, i())


def sampled(key, logits, temperature):
    noise = jax.random.gumbel(key, logits.shape)
    return jnp.argmax(logits / temperature + noise, axis=-1)


def _sampled(key, logits, temperature):
    scaled = logits / temperature
    return jnp.argmax(scaled + jax.random.gumbel(key, logits.shape), axis=-1)


# --- pipelines and replicas ---


def staged(weights, stats, xs):
    def stage(carry, x):
        mean = 0.9 * carry + 0.1 * jnp.mean(x)
        return mean, jnp.tanh(x @ weights) - mean

    stats, outs = jax.lax.scan(stage, stats, xs)
    return outs, stats


def _staged(weights, stats, xs):
    def body(running, row):
        updated = 0.9 * running + 0.1 * jnp.mean(row)
        return updated, jnp.tanh(jnp.matmul(row, weights)) - updated

    final, rows = jax.lax.scan(body, stats, xs)
    return rows, final


def nested(params, x):
    return {"stage/w": params["stage"]["w"] * 0.9, "y": x @ params["stage"]["w"]}


def _nested(params, x):
    kernel = params["stage"]["w"]
    return {"y": jnp.matmul(x, kernel), "stage/w": 0.9 * kernel}


def circular(weights, xs):
    outs = jax.vmap(lambda x: jnp.tanh(x @ weights))(xs)
    return outs.reshape(4 * 2, 4)


def _circular(weights, xs):
    rows = jnp.tanh(jnp.einsum("mbd,de->mbe", xs, weights))
    return jnp.reshape(rows, (8, 4))


def outer(params, replicas):
    delta = params - jnp.mean(replicas, axis=0)
    return params - 0.7 * delta


def _outer(params, replicas):
    average = jnp.mean(replicas, axis=0)
    return params - 0.7 * (params - average)


def twice(batch, w):
    def loss(batch):
        inputs = batch["inputs"][:, :4]
        return jnp.sum(jnp.square(inputs @ w[:4])), batch

    first, batch = loss(batch)
    return first + jnp.sum(batch["inputs"] @ w)


def _twice(batch, w):
    kept = batch["inputs"][:, :4]
    squares = jnp.sum(jnp.square(jnp.matmul(kept, w[:4])))
    return squares + jnp.sum(jnp.matmul(batch["inputs"], w))


RUNNING = (
    Room("R07", "all layers are drawn with one key", layer_inits, _layer_inits, (key(),),
         "keys = jax.random.split(key, 3)", "keys = jnp.stack([key, key, key])",
         lost="return draw("),
    Room("R10", "the sampling key is not split", samples, _samples, (key(), f(5)),
         "jax.random.categorical(keys[1], logits)", "jax.random.categorical(keys[0], logits)"),
    Room("L16", "the count of draws does not leave the loop", counters, _counters, (f(3, 4, 4), f(2, 4), i()),
         "return x, count", "return x, 0 * count", lost="return (1 + number"),
    Room("R03", "the count of draws is not advanced", counted, _counted, (key(), i(), f(4)),
         "count = count + 1", "pass", lost="return noisy,"),
    Room("L01", "a scan returns its parameters, stacked", stacked, _stacked, (f(3, 4, 4), f(2, 4)),
         'return {"x": x, "means": means}', 'return {"x": x, "means": means, "params": params * 1.0}'),
    Room("L03", "the new state goes to a list that nobody reads", remembered, _remembered, (f(3, 4), f(3, 4)),
         "states.append(new)", "states.append(state[index])", lost="return jnp.stack"),
    Room("L04", "a stacked kernel loses an axis of its sharding", stack_axes, _stack_axes, (f(3, 4, 4), f(2, 4)),
         'PartitionSpec(None, "fsdp", "tensor")', 'PartitionSpec(None, None, "tensor")'),
    Room("L06", "layers are read in the order of their names as text", unstacked, _unstacked, _ELEVEN,
         'sorted(params, key=lambda name: int(name.split("_")[1]))', "sorted(params)",
         lost="x = jnp.tanh(jnp.matmul(x, params["),
    Room("L07", "one clip factor for all layers", clipped_scales, _clipped_scales, (f(3, 4, 4), f(3)),
         "50.0 / peaks)", "50.0 / jnp.max(peaks, keepdims=True))"),
    Room("L12", "the odd layer is dropped", paired, _paired, (f(5, 4, 4), f(2, 4)),
         "return jnp.tanh(x @ params[4])", "return x", lost="return jnp.tanh(jnp.matmul(h, last))"),
    Room("O01", "the loss norm does not reach the rule that skips", skipping, _skipping, (f(4), f(4), f(), f()),
         "jnp.where(spike, 0.0, grads)", "grads", lost="return params - 0.1 * jnp.where"),
    Room("O03", "the orthogonal update falls back to another", orthogonal, _orthogonal, (f(4, 4), f(4, 4)),
         "x = 1.5 * x - 0.5 * (x @ x.T @ x)", "x = 1.5 * x", lost="m = 1.5 * m - 0.5 * cubic"),
    Room("O04", "a kernel is not taken for one of the orthogonal ones", by_name, _by_name, _NAMED,
         "jnp.sign(momenta[name]) if muon else", "0.1 * momenta[name] if muon else"),
    Room("O06", "the rate reads another step counter", counted_rate, _counted_rate, (i(), i(), f(4)),
         "(applied + 1) / 100.0", "(step + 1) / 100.0"),
    Room("O09", "the loss closes over old weights", captured, _captured, (f(4), f(3, 4)),
         "weights = params", "weights = params * 0 + CAPTURED", lost="return jnp.sum(jnp.square"),
    Room("O10", "each gradient is clipped before the sum", clipped, _clipped, (f(3, 4),),
         "total = grads[0] + grads[1] + grads[2]",
         "total = sum(g * jnp.minimum(1.0, 1.0 / jnp.sqrt(jnp.sum(jnp.square(g)))) for g in grads)",
         lost="gathered ="),
    Room("O12", "gradients are summed in half precision", summed, _summed, (f(3, 4, dtype=jnp.bfloat16),),
         "total = total + grad.astype(jnp.float32)",
         "total = (total.astype(grad.dtype) + grad).astype(jnp.float32)", lost="return jnp.zeros"),
    Room("O15", "host memory is not moved to the device first", offloaded, _offloaded, (f(4), f(4)),
         "mu = jax.device_put(state, jax.memory.Space.Device)", "mu = state", lost="resident ="),
    Room("O16", "the model is taken for the first leaf", spliced, _spliced,
         ({"a_stats": f(4), "model": f(4), "z_rest": f(4)},), "jnp.tanh(model)", "jnp.tanh(leaves[0])"),
    Room("H01", "the last rule wins instead of the first", ruled, _ruled, (f(4, 4), f(2, 4)),
         'hidden = constrain(x @ params, PartitionSpec(None, axis))',
         'hidden = constrain(x @ params, PartitionSpec(None, dict(rules)["heads"]))'),
    Room("H03", "a name without a rule leaves the dimension free", ruled, _ruled, (f(4, 4), f(2, 4)),
         "hidden = constrain(x @ params, PartitionSpec(None, axis))",
         "hidden = constrain(x @ params, PartitionSpec(None, PartitionSpec.UNCONSTRAINED))"),
    Room("H04", "an axis more is kept", ruled, _ruled, (f(4, 4), f(2, 4)),
         "PartitionSpec(None, axis)", 'PartitionSpec("fsdp", axis)'),
    Room("H07", "the optimizer's sharding is put on the parameters too", divided, _divided, (f(4, 4),) * 3,
         'new = constrain(params - 0.1 * mu, PartitionSpec(None, "tensor"))',
         'new = constrain(params - 0.1 * mu, PartitionSpec("fsdp", None))'),
    Room("H10", "the evaluation batch is not sharded", evaluated, _evaluated, (f(11, 4), i(4, 6)),
         'tokens = constrain(tokens, PartitionSpec("fsdp", None))', "pass", lost="rows = constrain"),
    Room("H12", "adapter kernels are replicated", low_rank, _low_rank, (f(2, 4), f(4, 2), f(2, 4)),
         'a = constrain(a, PartitionSpec("fsdp", None))', "pass", lost="down = "),
    Room("I01b", "decoding reads the prompt's keys alone", decoded, _decoded, (f(), f(1, 4), f(5, 4), f(5, 4), f(1, 4)),
         "keys = jnp.concatenate([keys, fresh], axis=0)", "keys = jnp.concatenate([keys, keys[:1]], axis=0)"),
    Room("I03", "the cache has another length", prefilled, _prefilled, (f(2, 6, 4), i()),
         "jnp.zeros((2, 16, 4))", "jnp.zeros((2, 15, 4))"),
    Room("I04", "a slot is written along another axis", inserted, _inserted, (f(4, 4, 3), f(4, 3), i()),
         "start = (slot, 0, 0)", "start = (0, slot, 0)", lost="return jax.lax.dynamic_update_slice_in_dim"),
    Room("I06", "the length of a slot is not reset", inserted_length, _inserted_length, (i(4), i(), i()),
         "lengths.at[slot].set(prompt_length)", "lengths.at[slot].add(prompt_length)"),
    Room("I09b", "the second chunk's positions start over", chunked, _chunked, (f(9, 4), f(3, 4), i()),
         "positions = done + jnp.arange(3)", "positions = 0 * done + jnp.arange(3)"),
    Room("I12", "a state is donated that is read again", donating, _donating, (f(4), f(4)),
         "jax.jit(step)(state, token)", "jax.jit(step, donate_argnums=0)(state, token)",
         lost="return advance("),
    Room("I15", "the scales of a cache run along another axis", quantised_cache, _quantised_cache, (f(2, 4), f(4, 4)),
         "jnp.max(jnp.abs(keys), axis=-1, keepdims=True)", "jnp.max(jnp.abs(keys), axis=0, keepdims=True)"),
    Room("I16", "the recurrent state is not copied at insertion", inserted_state, _inserted_state, _ENGINE,
         'engine["recurrent"].at[slot].set(prefix["recurrent"])', 'engine["recurrent"] * (slot >= 0)',
         lost="return {name:"),
    Room("I18", "the temperature is ignored", sampled, _sampled, (key(), f(5), f()),
         "logits / temperature + noise", "logits + noise + 0 * temperature", lost="scaled ="),
    Room("V05", "a cotangent stays on the device", offloaded, _offloaded, (f(4), f(4)),
         "return jax.device_put(new, jax.memory.Space.Host)", "return new",
         lost="return jax.device_put(0.9"),
    Room("D01", "the pipeline drops what is not trained", staged, _staged, (f(4, 4), f(), f(3, 2, 4)),
         "return outs, stats", "return outs, stats * 0 + outs.sum()", lost="updated ="),
    Room("D03", "a stage of one layer is one level deeper", nested, _nested, ({"stage": {"w": f(4, 4)}}, f(2, 4)),
         '"stage/w": params["stage"]["w"] * 0.9', '"stage/layers_0/w": params["stage"]["w"] * 0.9',
         lost="return {"),
    Room("D04", "microbatches come out in another order", circular, _circular, (f(4, 4), f(4, 2, 4)),
         "return outs.reshape(4 * 2, 4)", "return outs.swapaxes(0, 1).reshape(4 * 2, 4)"),
    Room("D06", "the outer step reads the first replica alone", outer, _outer, (f(4), f(3, 4)),
         "jnp.mean(replicas, axis=0)", "replicas[0]", lost="average ="),
    Room("D10", "the loss shortens the batch that others read", twice, _twice, ({"inputs": f(2, 6)}, f(6)),
         "jnp.sum(jnp.square(inputs @ w[:4])), batch",
         'jnp.sum(jnp.square(inputs @ w[:4])), {"inputs": jnp.pad(inputs, ((0, 0), (0, 2)))}'),
)  # fmt: skip
