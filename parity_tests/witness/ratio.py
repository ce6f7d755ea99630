"""How far a twin is from the Hugging Face truth, in units of how far Hugging Face's own float32 run is."""

import math
import typing
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from harness import Program, Verdict
from harness.measure import truth
from harness.verdict import Certificate, Kind, LeafResult
from models import ModelConfig, TrainConfig, backend, training
from models.checkpoints.huggingface import config_from_hf, params_from_hf, params_to_hf
from models.config import GatedDelta, Rope, YarnScaling, to_json
from models.protocol import Params

from .cases import Batch
from .recordings import Recording

BACKENDS = ("linen", "nnx")
UNIT_ROUNDOFF = 2.0**-24
"""Half the distance from 1 to the next float32."""
LIMIT = 4.0
"""Of a run, one for all models; the evidence is in docs/witness.md. A fault shows as hundreds or more."""
GRADIENT_LIMIT = 8.0
"""Of one tensor's gradient. The largest of a few numbers' errors varies more than the largest of all logits'."""
EXACT_LIMIT = 0.01
"""Of what a twin means, free of rounding: what is left are tables held in two float32 parts, some 1e-8."""
_OF_FORMULAS = (1.702, 0.044715, math.sqrt(2 / math.pi), 1e-6)
"""Numbers of both kinds of GELU and of the gated delta rule."""


def model_of(recording: Recording, *, scan_layers: bool = True) -> tuple[ModelConfig, Params]:
    """Our config and canonical parameters of a recorded model."""
    config = config_from_hf(recording.attributes).replace(scan_layers=scan_layers)
    return config, {name: jnp.asarray(value) for name, value in params_from_hf(config, recording.tensors).items()}


def logits_of(name: str, config: ModelConfig, params: Params, batch: Batch) -> np.ndarray:
    """The twin's logits at the valid positions `[valid positions, vocabulary]`; padding has segment 0."""
    with jax.default_matmul_precision("highest"):  # an accelerator's default would measure its short mantissa
        logits = _forward(name, config)(*_arguments(params, batch))
    return np.asarray(logits, np.float64)[batch.valid]


def logits_by_params(name: str, config: ModelConfig, batch: Batch) -> Callable[[Params], np.ndarray]:
    """`logits_of` for many parameters, compiled once."""
    forward = jax.jit(_forward(name, config))
    return lambda params: np.asarray(forward(*_arguments(params, batch)), np.float64)[batch.valid]


def float64_logits_of(name: str, config: ModelConfig, params: Params, batch: Batch) -> np.ndarray:
    """The same from the twin's own trace, every operation in float64: what the twin means, free of rounding.

    Free of that of its literals, too: one that is the rounding of a number of the model is read as that number.
    """
    arguments = _arguments(params, batch)
    return truth(Program(_forward(name, config), arguments), arguments, _numbers(config))[0][batch.valid]


def _numbers(config: ModelConfig) -> frozenset[float]:
    """Every number of the model's description, and what its formulas make of them."""
    parts = [(config.attention_of(layer), config.positions_of(layer)) for layer in config.cycle]
    found = {*_floats(to_json(config)), *_OF_FORMULAS, config.embed_dim**0.5, config.embed_dim**-0.5}
    for attention, rope in parts:
        found.add(attention.key_dim**-0.5 if isinstance(attention, GatedDelta) else attention.scale)
        if isinstance(rope, Rope) and isinstance(rope.scaling, YarnScaling):
            found.add(0.1 * math.log(rope.scaling.factor) + 1.0)
    return frozenset(found)


def _floats(value: typing.Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _floats(part)


def gradients_of(name: str, config: ModelConfig, params: Params, batch: Batch) -> dict[str, np.ndarray]:
    """The twin's gradient of the mean next-token loss, by the tensors' Hugging Face names."""
    step = backend(name).loss_and_grads(config, TrainConfig())
    with jax.default_matmul_precision("highest"):
        _, grads = jax.jit(step)(params, _training_batch(batch), None)
    return params_to_hf(config, grads)


def _training_batch(batch: Batch) -> training.Batch:
    """Each valid token's target is the one that follows it; a row's last token has none."""
    segments = batch.valid.astype(np.int32)
    targets, counted = np.roll(batch.tokens, -1, axis=1), np.roll(segments, -1, axis=1)
    counted[:, -1] = 0
    positions = np.broadcast_to(np.arange(batch.tokens.shape[1], dtype=np.int32), batch.tokens.shape)
    return training.Batch(*map(jnp.asarray, (batch.tokens, targets, positions, segments, counted)))


def _forward(name: str, config: ModelConfig) -> Callable[[Params, Array, Array], Array]:
    return lambda params, tokens, segment_ids: backend(name).apply(config, params, tokens, segment_ids=segment_ids)


def _arguments(params: Params, batch: Batch) -> tuple[Params, Array, Array]:
    return params, jnp.asarray(batch.tokens), jnp.asarray(batch.valid, jnp.int32)


def ratio(logits: np.ndarray, recording: Recording) -> float:
    """`err(ours) / max(err(their float32 run), u * max|truth|)`, each the largest distance from the float64 truth."""
    floor = UNIT_ROUNDOFF * np.abs(recording.truth).max()
    error = np.abs(logits - recording.truth).max()
    return float(error / max(recording.float32_error, floor)) if np.isfinite(error) else np.inf


def gradient_ratios(gradients: dict[str, np.ndarray], recording: Recording) -> dict[str, float]:
    """`ratio` for every tensor's gradient."""
    found, sizes = {}, {name: float(np.abs(wanted).max()) for name, wanted in recording.gradients.items()}
    for name, wanted in recording.gradients.items():
        error = float(np.abs(gradients[name].astype(np.float64) - wanted).max())
        unit = max(recording.gradient_errors[name], UNIT_ROUNDOFF * sizes[name])
        # A gradient that is nothing to them (a query that sees one key) must be nothing here.
        found[name] = 0.0 if error == 0 else error / unit if np.isfinite(error) and unit else np.inf
    return found


def verdict(logits: np.ndarray, recording: Recording, *, name: str) -> Verdict:
    """Whether these logits of `name` are close to what Hugging Face said."""
    found = ratio(logits, recording)
    kind = Kind.CLOSE if found <= LIMIT else Kind.DIVERGED
    reason = f"{found:.1f} times as far from the float64 truth as Hugging Face's float32 run, the limit is {LIMIT}"
    return Verdict(
        kind,
        leaves=(LeafResult("logits", kind, found),),
        certificate=Certificate(num_leaves=1, num_elements=recording.truth.size),
        reason="" if kind.agrees else reason,
        programs=("hugging_face", name),
    )


def unheard(error: ValueError) -> Verdict:
    """The verdict about a recording that cannot be read: no parity, never a gap."""
    return Verdict(Kind.DIVERGED, reason=str(error), programs=("hugging_face", "recording"))
