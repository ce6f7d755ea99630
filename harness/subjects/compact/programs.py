"""The steps of both twins as Programs: the same canonical names, whatever tree a twin keeps."""

import contextlib
import dataclasses
import functools
import typing
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

import models
from models.checkpoints.layouts import Layout
from models.protocol import Backend

from ...program import Program
from ..case import Case
from . import inputs, names
from .setup import Setup, abstract_mesh

LAYOUTS = {"linen": Layout.LINEN, "nnx": Layout.NNX_BOXED}


@dataclasses.dataclass(frozen=True)
class Parts:
    """A program before it has a name: function, abstract arguments, names of input and output leaves."""

    fn: Callable[..., typing.Any]
    args: tuple[typing.Any, ...]
    name_input: names.Naming
    name_output: names.Naming


def program(backend_name: str, case: Case, *, layers_apart: bool = False) -> Program:
    """One twin's program of a case. Its sample draws every input leaf by canonical name.

    `layers_apart` names a scanned model's leaves layer by layer, as those of the unscanned model.
    """
    backend, setup = models.backend(backend_name), case.config
    extent = inputs.extent_of(setup.model)
    parts = STEPS[case.step](backend, setup, extent)
    if layers_apart:
        lengths = {stack.names[0]: stack.length for stack in setup.model.stacks if stack.scanned}
        namings = [names.layers_apart(naming, lengths) for naming in (parts.name_input, parts.name_output)]
        parts = dataclasses.replace(parts, name_input=namings[0], name_output=namings[1])
    return _finish(parts, setup, extent, mesh=case.mesh, name=backend_name)


def _finish(parts: Parts, setup: Setup, extent: inputs.Extent, *, mesh: str | None, name: str) -> Program:
    def sample(key: jax.Array) -> tuple[typing.Any, ...]:
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        values = [inputs.draw(leaf, setup.model, extent, seed) for leaf in made.inputs]
        return jax.tree.unflatten(jax.tree.structure(made.args), values)

    made = Program(
        _on_mesh(parts.fn, mesh),
        parts.args,
        name_input=parts.name_input,
        name_output=parts.name_output,
        constant=names.constant,
        sample=sample,
        name=name,
    )
    return made


def _on_mesh(fn: Callable[..., typing.Any], mesh: str | None) -> Callable[..., typing.Any]:
    @functools.wraps(fn)
    def placed(*args: typing.Any) -> typing.Any:
        with placement(mesh):
            return fn(*args)

    return placed


@contextlib.contextmanager
def placement(mesh: str | None) -> Iterator[None]:
    """Makes the activation constraints refer to an abstract mesh; without one they are absent."""
    if mesh is None:
        yield
        return
    with jax.sharding.use_abstract_mesh(abstract_mesh(mesh)):
        yield


def abstract_params(backend: Backend, setup: Setup) -> dict[str, jax.ShapeDtypeStruct]:
    """Parameters as this twin declares them, without values."""
    specs = backend.param_specs(setup.model)
    return {name: jax.ShapeDtypeStruct(spec.shape, spec.dtype) for name, spec in specs.items()}


def _prefixed(*prefixes: str) -> Callable[[tuple[str, ...]], str]:
    """Names a leaf by its argument's prefix and the rest of its path."""

    def name(path: tuple[str, ...]) -> str:
        return "/".join([prefixes[int(path[0])], *path[1:]])

    return name


def _plain(path: tuple[str, ...]) -> str:
    return "/".join(path) or "logits"


def _forward(backend: Backend, setup: Setup, extent: inputs.Extent) -> Parts:
    args = (abstract_params(backend, setup), inputs.abstract_batch(extent))
    return Parts(backend.forward(setup.model), args, _prefixed("params", "batch/0"), _plain)


def _intermediates(backend: Backend, setup: Setup, extent: inputs.Extent) -> Parts:
    args = (abstract_params(backend, setup), inputs.abstract_batch(extent))
    step = backend.intermediates(setup.model)
    return Parts(step, args, _prefixed("params", "batch/0"), lambda path: "/".join(path[1:]) or "logits")


def _loss_and_grads(backend: Backend, setup: Setup, extent: inputs.Extent) -> Parts:
    step = backend.loss_and_grads(setup.model, setup.train)
    args: tuple[typing.Any, ...] = (abstract_params(backend, setup), inputs.abstract_batch(extent))
    if not setup.model.dropout_rate:
        return Parts(lambda params, batch: step(params, batch, None), args, _prefixed("params", "batch/0"), _grads_name)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return Parts(step, (*args, key), _prefixed("params", "batch/0", "key"), _grads_name)


def _grads_name(path: tuple[str, ...]) -> str:
    return "/".join(["loss" if path[0] == "0" else "grads", *path[1:]])


def _train_step(backend: Backend, setup: Setup, extent: inputs.Extent) -> Parts:
    return _train_steps(backend, setup, extent, count=1)


def _train_steps(backend: Backend, setup: Setup, extent: inputs.Extent, *, count: int) -> Parts:
    """`count` steps on as many batches, one after the other in one program."""
    step = backend.train_step(setup.model, setup.train)

    def run(state: typing.Any, batches: tuple[typing.Any, ...]) -> tuple[typing.Any, list[typing.Any]]:
        metrics = []
        for batch in batches:
            state, measured = step(state, batch)
            metrics.append(measured)
        return state, metrics

    layout = LAYOUTS[backend.name]

    def name_input(path: tuple[str, ...]) -> names.NAMED:
        return names.state_name(layout, path[1:]) if path[0] == "0" else "/".join(["batch", *path[1:]])

    def name_output(path: tuple[str, ...]) -> names.NAMED:
        return names.state_name(layout, path[1:]) if path[0] == "0" else "/".join(["metrics", *path[1:]])

    batches = tuple(inputs.abstract_batch(extent) for _ in range(count))
    return Parts(run, (backend.abstract_state(setup.model, setup.train), batches), name_input, name_output)


def _eval_step(backend: Backend, setup: Setup, extent: inputs.Extent) -> Parts:
    layout = LAYOUTS[backend.name]

    def name_input(path: tuple[str, ...]) -> names.NAMED:
        return names.state_name(layout, path[1:]) if path[0] == "0" else "/".join(["batch/0", *path[1:]])

    args = (backend.abstract_state(setup.model, setup.train), inputs.abstract_batch(extent))
    return Parts(
        backend.eval_step(setup.model, setup.train), args, name_input, lambda path: "/".join(["metrics", *path])
    )


def _cache(backend: Backend, setup: Setup, extent: inputs.Extent) -> typing.Any:
    return jax.eval_shape(lambda: backend.init_cache(setup.model, extent.batch, extent.cache))


def _decode_name(path: tuple[str, ...]) -> str:
    return "logits" if path[0] == "0" else "/".join(["cache", *path[1:]])


def _prefill(backend: Backend, setup: Setup, extent: inputs.Extent) -> Parts:
    tokens = jax.ShapeDtypeStruct((extent.batch, extent.prompt), jnp.int32)
    args = (abstract_params(backend, setup), _cache(backend, setup, extent), tokens, tokens, tokens)
    prefixes = ("params", "cache", "prompt/0/tokens", "prompt/0/positions", "prompt/0/segment_ids")
    return Parts(backend.prefill(setup.model), args, _prefixed(*prefixes), _decode_name)


def _generate(backend: Backend, setup: Setup, extent: inputs.Extent) -> Parts:
    token = jax.ShapeDtypeStruct((extent.batch, 1), jnp.int32)
    args = (abstract_params(backend, setup), _cache(backend, setup, extent), token, token)
    prefixes = ("params", "cache", "prompt/0/next_tokens", "prompt/0/next_positions")
    return Parts(backend.generate(setup.model), args, _prefixed(*prefixes), _decode_name)


STEPS: dict[str, Callable[[Backend, Setup, inputs.Extent], Parts]] = {
    "forward": _forward,
    "intermediates": _intermediates,
    "loss_and_grads": _loss_and_grads,
    "train_step": _train_step,
    "train_steps_3": functools.partial(_train_steps, count=3),
    "eval_step": _eval_step,
    "prefill": _prefill,
    "generate": _generate,
}
