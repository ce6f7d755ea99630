"""How a difference is worded, which line it names, and that one cause is one finding."""

import jax
import jax.numpy as jnp
import pytest

from harness import Kind, Program, prove

X = jax.ShapeDtypeStruct((4, 4), jnp.float32)


def first(a, b, args=(X, X)):
    verdict = prove(Program(a, args, name="a"), Program(b, args, name="b"))
    assert verdict.kind is Kind.UNDECIDED
    return verdict.findings[0]


def _scaled(x, y):
    x = x * 2.0
    return jnp.tanh(x) @ y


def _clip_before(x, y):
    return jnp.tanh(jnp.clip(x @ y, -1.0, 1.0))


def _clip_after(x, y):
    return jnp.clip(jnp.tanh(x @ y), -1.0, 1.0)


def _rounds(count):
    return lambda x, y: jax.lax.fori_loop(0, count, lambda _, c: jnp.tanh(c @ y), x)


WORDS = {
    "literal": (lambda x, y: x + 1e-5, lambda x, y: x + 1e-6, "literal 1e-05 against 1e-06 in add"),
    "dtype": (
        lambda x, y: x.astype(jnp.bfloat16).astype(jnp.float32) @ y,
        lambda x, y: x.astype(jnp.float16).astype(jnp.float32) @ y,
        "converts to bfloat16 against float16",
    ),
    "axis": (lambda x, y: jnp.sum(x, 0), lambda x, y: jnp.sum(x, 1), "axis 0 against 1 in reduce_sum"),
    "order": (lambda x, y: x - y, lambda x, y: y - x, "operands exchanged in sub"),
    "wiring": (lambda x, y: x @ jnp.tanh(x), lambda x, y: x @ jnp.tanh(y), "tanh: a reads 0 where b reads 1"),
    "added": (lambda x, y: jnp.tanh(x) @ y, _scaled, "only b multiplies by 2.0"),
    "left out": (_scaled, lambda x, y: jnp.tanh(x) @ y, "only a multiplies by 2.0"),
    "another operation": (lambda x, y: jnp.sin(x) @ y, lambda x, y: jnp.cos(x) @ y, "sin against cos"),
    "moved": (_clip_before, _clip_after, "in another place"),
    "rounds": (_rounds(3), _rounds(4), "a loop of 3 rounds against 4"),
    "default": (lambda x, y: x + jnp.sum(y), lambda x, y: x + 3.0, "add: a reads reduce_sum of 1 where b reads 3.0"),
}


@pytest.mark.parametrize("name", WORDS)
def test_the_title_says_what_kind_of_difference_it_is(name):
    a, b, words = WORDS[name]
    assert words in first(a, b).title


def _network(fault):
    def layer(h, w):
        with jax.named_scope("mlp"):
            gate = jnp.tanh(h @ w[0])
            h = h + (gate * (h @ w[1]) if not fault else gate * (h @ w[1]) * 1.5)
        return h, None

    def loss(w, x):
        h, _ = jax.lax.scan(layer, x, w)
        return jnp.mean(h * h)

    def step(w, mu, x):
        value, grads = jax.value_and_grad(loss)(w, x)
        mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mu, grads)
        return value, jax.tree.map(lambda p, m: p - 0.01 * m, w, mu), mu

    return step


def test_a_forward_fault_of_a_train_step_is_one_finding_with_its_echoes_counted():
    weights = [jax.ShapeDtypeStruct((3, 4, 4), jnp.float32)] * 2
    programs = [Program(_network(fault), (weights, weights, X), name=name) for fault, name in ((0, "a"), (1, "b"))]
    (finding,) = prove(*programs).findings
    assert finding.title == "only b multiplies by 1.5"
    assert finding.scope == "mlp"
    assert "inside a loop body" in finding.detail
    assert "mirror it in the backward pass" in finding.detail
    assert len(finding.leaves) == 5


def _nested(scale):
    def inner(c, row):
        return c + jnp.sin(row) * scale, None

    def outer(carry, row):
        c, count = carry
        c, _ = jax.lax.scan(inner, c, row)
        return (c * count, count + 1.0), None

    return lambda x, y: jax.lax.scan(outer, (x[0], 1.0), jnp.stack([x, y]))[0][0]


def test_a_fault_in_a_nested_loop_is_found_inside_it():
    finding = first(_nested(2.0), _nested(3.0))
    assert finding.title == "literal 2.0 against 3.0 in mul"
    assert "(_nested.<locals>.inner)" in finding.sources[0]
    around = finding.detail.split("inside a loop body: ")[1].split(", in ")
    assert [words.split(" at ")[0] for words in around] == ["scan of length 4", "scan of length 2"]
    assert "(_nested.<locals>.outer)" in around[0]


def test_carries_that_feed_each_other_are_paired_by_what_they_do():
    def build(rate, flipped):
        def body(carry, row):
            a, b = carry[::-1] if flipped else carry
            new = jnp.tanh(a + b * row), b - rate * a
            return new[::-1] if flipped else new, None

        def run(x, y):
            start = (x[0], y[0])
            out, _ = jax.lax.scan(body, start[::-1] if flipped else start, x)
            return out[::-1] if flipped else out

        return run

    verdict = prove(Program(build(0.1, False), (X, X), name="a"), Program(build(0.2, True), (X, X), name="b"))
    (finding,) = verdict.findings
    assert finding.title == "literal 0.1 against 0.2 in mul"


def test_a_value_computed_elsewhere_already_names_every_line_that_reads_it():
    def honest(x, y):
        gate = jnp.tanh(x @ y)
        linear = jnp.tanh(y @ x)
        return gate * jnp.exp(linear)

    def wired(x, y):
        gate = jnp.tanh(x @ y)
        linear = jnp.tanh(x @ y)
        return gate * jnp.exp(linear)

    text = prove(Program(honest, (X, X), name="a"), Program(wired, (X, X), name="b")).findings[0]
    line = wired.__code__.co_firstlineno + 2
    assert any(f"test_explain.py:{line} " in part for part in (*text.sources, text.detail))


def test_more_causes_than_are_shown_are_counted():
    def many(scale):
        source = "\n".join(f"    out.append(jnp.sin(x[{k}]) * {k + scale}.5)" for k in range(14))
        scope = {"jnp": jnp}
        exec(compile(f"def many(x):\n    out = []\n{source}\n    return out", "many.py", "exec"), scope)
        return scope["many"]

    wide = jax.ShapeDtypeStruct((14, 4), jnp.float32)
    findings = prove(Program(many(1), (wide,), name="a"), Program(many(2), (wide,), name="b")).findings
    assert len(findings) == 12
    assert "and 2 more causes" in findings[-1].detail


def test_leaves_that_do_not_match_name_the_lines_that_make_them():
    def short(x, y):
        return (x @ y)[:2]

    verdict = prove(Program(lambda x, y: x @ y, (X, X), name="a"), Program(short, (X, X), name="b"))
    (finding,) = verdict.findings
    assert f"test_explain.py:{short.__code__.co_firstlineno + 1} " in finding.sources[1]


def test_an_execution_fact_names_the_line_that_asks():
    def careful(x, y):
        return jax.checkpoint(jnp.tanh)(x) @ y

    verdict = prove(Program(lambda x, y: jnp.tanh(x) @ y, (X, X), name="a"), Program(careful, (X, X), name="b"))
    (finding,) = verdict.findings
    assert verdict
    assert f"test_explain.py:{careful.__code__.co_firstlineno + 1} " in finding.sources[1]
