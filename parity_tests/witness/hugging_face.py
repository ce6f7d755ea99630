"""The Hugging Face side: a model from a config, weights drawn anew, logits and gradients in float32 and in float64.

Needs torch.

Even a model cast to float64 computes its norms, rotary angles and softmax in float32, because their code says so. The
truth is the same code under `Float64`, which reads every float32 in it as float64 and checks every result.
"""

import dataclasses
import typing

import numpy as np
import torch
import transformers
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from .cases import Batch

GAIN = 1.2
"""Standard deviation of a projection's output for a normed input: attention logits then spread over several units."""
RANK_1_SPREAD = 0.3
"""How far norm scales and biases are moved from the ones and zeros they start as."""
CHOICE_SPREAD = 0.1
"""Of the bias on a choice among scores between 0 and 1: enough to change it, too little to make it."""
DECAYS = (0.01, 4.0)
"""Of a gated delta rule's heads, evenly in the logarithm: some forget within a token, some hold on to a hundred."""
NUDGE = 2.0**-16
"""How far a weight is moved for one more float32 run of the same model in all but its roundings."""
ROW_SCALES = (0.03, 1.0)
"""Embedding rows differ in length this much, so that some inputs of the first norm are small enough to feel epsilon."""


class Float64(TorchFunctionMode):
    """Reads float32 as float64 in every call of torch, and refuses a call that still returns float32."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """One intercepted call."""
        if function is torch.Tensor.float:
            function = torch.Tensor.double
        args, kwargs = tree_map(_lift, (args, kwargs or {}))
        result = function(*args, **kwargs)
        if any(isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float32 for leaf in tree_leaves(result)):
            raise AssertionError(f"{function.__name__} returned float32 inside the float64 truth")
        return result


def _lift(value: typing.Any) -> typing.Any:
    return torch.float64 if value is torch.float32 else value


@dataclasses.dataclass(frozen=True)
class Run:
    """Weights by their names in Hugging Face's files, and logits `[valid positions, vocabulary]` of three runs.

    `plain64` is the model merely cast to float64; it shows what the float32 left inside is worth. `gradients` are the
    loss's by every weight in float64, `gradients32` those of the float32 run.
    """

    tensors: dict[str, np.ndarray]
    truth: np.ndarray
    float32: np.ndarray
    plain64: np.ndarray
    gradients: dict[str, np.ndarray]
    gradients32: dict[str, np.ndarray]


def run(attributes: dict[str, typing.Any], batch: Batch, *, seed: int) -> Run:
    """Draws every parameter anew and runs the model, eager attention, with the batch's right padding masked."""
    model = _build(attributes)
    tensors = _redraw(model, np.random.default_rng(seed))
    float32, gradients32 = _logits(model, batch), _as_in_files(model, _gradients(model, batch))
    plain64 = _logits(model.double(), batch)
    truth, gradients = _in_float64(attributes, tensors, batch)
    return Run(_as_in_files(model, tensors), truth, float32, plain64, _as_in_files(model, gradients), gradients32)


def nudged_errors(
    attributes: dict[str, typing.Any], batch: Batch, *, seed: int, times: int
) -> tuple[float, dict[str, float]]:
    """The largest float32 error of logits, and of each tensor's gradient, over `times` models like that of `run`.

    Their weights are all but the same. Each is held to its own truth, so what differs are the roundings: more samples
    of one error.
    """
    model, found, of_logits = _build(attributes), {}, 0.0
    tensors = _redraw(model, np.random.default_rng(seed))
    for time in range(times):
        rng = np.random.default_rng([seed, time])
        moved = {
            name: (value * (1 + NUDGE * rng.standard_normal(value.shape))).astype(np.float32)
            for name, value in tensors.items()
        }
        _assign(model, moved)
        gradients32 = _as_in_files(model, _gradients(model, batch))
        truth, gradients = _in_float64(attributes, moved, batch)
        of_logits = max(of_logits, float(np.abs(_logits(model, batch) - truth).max()))
        for name, value in _as_in_files(model, gradients).items():
            found[name] = max(found.get(name, 0.0), float(np.abs(gradients32[name] - value).max()))
    return of_logits, found


def _in_float64(
    attributes: dict[str, typing.Any], tensors: dict[str, np.ndarray], batch: Batch
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The true logits and gradients of a model with these weights."""
    torch.set_default_dtype(torch.float64)
    try:
        with Float64():
            lifted = _build(attributes).double()
            _assign(lifted, tensors)
            return _logits(lifted, batch), _gradients(lifted, batch)
    finally:
        torch.set_default_dtype(torch.float32)


def versions() -> dict[str, str]:
    """What the numbers came from."""
    return {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__}


def filed(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Every weight of a model by its name in the files."""
    return _as_in_files(model, {name: value.detach().numpy() for name, value in _weights(model).items()})


def _build(attributes: dict[str, typing.Any]) -> torch.nn.Module:
    config = transformers.AutoConfig.for_model(**{key: value for key, value in attributes.items() if key != "dtype"})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.set_experts_implementation("eager")  # the default's kernel knows no float64
    return model.eval()


def _redraw(model: torch.nn.Module, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """New values for every weight the model owns; a tied head is one parameter under its first name."""
    tensors, weights = {}, _weights(model)
    for module_name, module in model.named_modules():
        owned = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        for name, value in owned:
            full_name = f"{module_name}.{name}"
            if full_name in weights:
                tensors[full_name] = _draw(module, name, value.detach().numpy(), rng).astype(np.float32)
    _assign(model, tensors)
    return tensors


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All that the model stores: its parameters, and buffers (Gemma 4's layer scalars, DeepSeek-V3's choice bias)."""
    stored = {name: value for name, value in model.named_buffers() if name in model.state_dict()}
    return {**dict(model.named_parameters()), **stored}


def _draw(module: torch.nn.Module, name: str, start: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    normal = rng.standard_normal(start.shape)
    if name == "e_score_correction_bias":
        return CHOICE_SPREAD * normal
    if name == "A_log":  # starts at random
        return rng.uniform(*np.log(DECAYS), size=start.shape)
    if start.ndim == 1 or name.endswith("_bias"):
        return np.round(start) + RANK_1_SPREAD * normal  # sinks start as small random numbers
    if isinstance(module, torch.nn.Embedding):
        low, high = np.log(ROW_SCALES)
        return normal * np.exp(rng.uniform(low, high, size=(start.shape[0], 1)))
    return GAIN * normal / np.sqrt(start.shape[_contracted(module, start.ndim)])


def _contracted(module: torch.nn.Module, rank: int) -> int:
    """The axis that a kernel sums over: the last, but for GPT-2's and for GPT-OSS's and Llama 4's experts."""
    if isinstance(module, transformers.pytorch_utils.Conv1D):
        return 0
    if isinstance(module, transformers.models.llama4.modeling_llama4.Llama4TextExperts):
        return 1
    return 1 if getattr(module, "is_transposed", False) else rank - 1


def _as_in_files(model: torch.nn.Module, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By the names, and cut up as, the class writes them to files: it fuses experts only in memory."""
    loaded = {name: torch.from_numpy(value) for name, value in tensors.items()}
    written = transformers.core_model_loading.revert_weight_conversion(model, loaded)
    return {name: np.ascontiguousarray(value.numpy()) for name, value in written.items()}


def _assign(model: torch.nn.Module, tensors: dict[str, np.ndarray]) -> None:
    parameters = _weights(model)
    if set(parameters) != set(tensors):
        raise AssertionError(f"parameters left as they were: {sorted(set(parameters) ^ set(tensors))}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(tensors[name].astype(np.float64)))


def _logits(model: torch.nn.Module, batch: Batch) -> np.ndarray:
    tokens = torch.from_numpy(batch.tokens.astype(np.int64))
    mask = torch.from_numpy(batch.valid.astype(np.int64))
    with torch.no_grad():
        logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    return logits.numpy()[batch.valid]


def _gradients(model: torch.nn.Module, batch: Batch) -> dict[str, np.ndarray]:
    """Of the class's own loss: the mean over every valid token that follows another one."""
    tokens = torch.from_numpy(batch.tokens.astype(np.int64))
    mask = torch.from_numpy(batch.valid.astype(np.int64))
    labels = torch.where(mask.bool(), tokens, -100)
    weights = _weights(model)
    for value in weights.values():  # a buffer's gradient, too
        value.requires_grad_(True).grad = None
    model(input_ids=tokens, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
    found = {name: torch.zeros_like(value) if value.grad is None else value.grad for name, value in weights.items()}
    for name in weights.keys() - dict(model.named_parameters()).keys():
        weights[name].requires_grad_(False).grad = None  # or a cast would not be a leaf
    return {name: value.detach().numpy().copy() for name, value in found.items()}
