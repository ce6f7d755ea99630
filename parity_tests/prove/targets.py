"""What is attacked: the small specimens, and the steps of both twins of every family with inputs that break things.

A model's inputs are valid tokens, masks and weights, since NaN everywhere hides differences; then the same with zeros
of either sign, subnormals and large numbers among the weights; then with NaN, infinities and tokens out of range.
"""

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness import Program, settings
from harness.subjects.compact import SUBJECT
from harness.subjects.compact.setup import Setup
from models.config import Remat

from .eager import Interpreter, Memo, Noise, awkward
from .specimens import SPECIMENS

STEPS = ("forward", "loss_and_grads", "train_step", "prefill", "generate", "eval_step")
MESH = "fsdp-tensor-256"
SMOOTH = np.array([0.0, -0.0, 1e-40, -1e-40, 1.0, -1.0, 1e-8, 300.0])
ROUGH = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, -0.0])
INTEGERS = np.array([-1, -(2**31), 2**31 - 1, 10**6])
NUM_INPUTS = 4
Arrays = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Target:
    """Programs that are one function, by side; what is executed is remembered while the target lives."""

    name: str
    programs: tuple[Program, ...]
    valid: bool

    @functools.cached_property
    def memos(self) -> dict[bool, Memo]:
        """Remembered results, without and with the draws replaced."""
        closed = [program.trace().jaxpr for program in self.programs]
        return {draws: Memo(closed, draws=draws) for draws in (False, True)}

    @functools.cached_property
    def inputs(self) -> list[Arrays]:
        """Named input arrays, several sets."""
        with settings.tracing():
            return [self._inputs(number) for number in range(NUM_INPUTS)]

    def _inputs(self, number: int) -> Arrays:
        if not self.valid:
            leaves = [leaf for program in self.programs for leaf in program.inputs]
            plain = number == 0
            return {leaf.name: _awkward(leaf, number, plain=plain) for leaf in leaves}
        values = {}
        for program in self.programs:
            drawn = jax.tree.leaves(program.draw(jax.random.key(number)))
            for leaf, value in zip(program.inputs, drawn, strict=True):
                rng = np.random.default_rng([number, zlib.crc32(leaf.name.encode())])
                values.setdefault(leaf.name, _roughened(value, rng, number))
        return values

    def outputs(self, program: Program, number: int, *, draws: bool) -> Arrays:
        """A program's outputs op by op, in the dtypes they are compared in; `draws` replaces the random bits."""
        traced, values = program.trace(), self.inputs[number]
        args = [_as(values[leaf.name], leaf.dtype) for leaf in traced.inputs]
        interpreter = Interpreter(memo=self.memos[draws], noise=Noise() if draws else None)
        with settings.tracing(), np.errstate(all="ignore"):
            results = interpreter.closed(traced.jaxpr, args)
        return {
            leaf.name: _as(value, leaf.compared_dtype)
            for leaf, value in zip(traced.outputs, results, strict=True)
            if leaf.one_sided is None
        }


def _as(value, dtype) -> Any:
    return value if value.dtype == dtype else np.asarray(value).astype(dtype)


def _awkward(leaf, number: int, *, plain: bool) -> Any:
    seed = zlib.crc32(f"{leaf.name} {number}".encode())
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        keys = jax.random.split(jax.random.key(seed), max(1, leaf.num_elements))
        return keys.reshape(leaf.shape)
    if plain and jnp.issubdtype(leaf.dtype, jnp.floating):
        return np.random.default_rng(seed).standard_normal(leaf.shape).astype(leaf.dtype)
    return awkward(leaf.shape, leaf.dtype, seed)


def _roughened(value, rng, number: int) -> Any:
    """The value itself in the first set of inputs; then a few elements exchanged, more and worse ones later."""
    if number == 0 or jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value
    array = np.array(value)
    rough = number == NUM_INPUTS - 1
    if jnp.issubdtype(array.dtype, jnp.floating):
        chosen = rng.random(array.shape) < (0.02 if rough else 0.05)
        special = rng.choice(ROUGH if rough else SMOOTH, array.shape)
        return np.where(chosen & (rng.random() < 0.4 or not rough), special.astype(array.dtype), array)
    if rough and array.ndim and array.dtype.kind in "iu":
        return np.where(rng.random(array.shape) < 0.05, rng.choice(INTEGERS, array.shape).astype(array.dtype), array)
    return array


def _cases() -> dict[str, tuple[Setup, str, str | None]]:
    tiny, variants = SUBJECT.tiny_setups(), SUBJECT.variants()
    cases = {f"{label}/{step}": (setup, step, None) for label, setup in tiny.items() for step in STEPS}
    cases |= {f"{label}/train_step": (setup, "train_step", None) for label, setup in variants.items()
              if "11-layers" not in label}  # fmt: skip
    for family, scan in itertools.product(("llama", "gpt3", "gemma2"), ("scanned", "unscanned")):
        setup = tiny[f"{family}-{scan}"]
        remat = Remat.FULL if scan == "scanned" else Remat.SAVE_DOTS
        changed = dataclasses.replace(setup, model=setup.model.replace(remat=remat))
        cases[f"{family}-{scan}-remat/train_step"] = (changed, "train_step", None)
    for family in ("llama", "gpt3", "gemma2"):
        cases[f"{family}-scanned-mesh/train_step"] = (tiny[f"{family}-scanned"], "train_step", MESH)
    return cases


CASES = _cases()
NAMES = (*CASES, *SPECIMENS)


def target(name: str) -> Target:
    """The target of that name: both twins' programs of a case, or a specimen."""
    if name in CASES:
        setup, step, mesh = CASES[name]
        return Target(name, SUBJECT.programs(SUBJECT.case(setup, step, mesh=mesh)), valid=True)
    fn, args = SPECIMENS[name]
    return Target(name, (Program(fn, args, name=name),), valid=False)
