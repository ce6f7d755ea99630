"""Weights between Hugging Face and us: canonical parameters from their tensors and back, byte for byte.

The names and arrangements are `hf_tables.py`; a `config.json` is read by `hf_config.py`. Arrays here are NumPy's and no
arithmetic touches them, so reading and writing are inverse to each other.
"""

import dataclasses
import json
import math
import pathlib
import re
import typing
from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np

from ..config import GatedDelta, LatentAttention, Layer, ModelConfig, Moe
from .atomic import new_directory
from .errors import CheckpointError
from .hf_config import architecture_of, config_from_hf, config_to_hf
from .hf_words import Tensor

__all__ = ["config_from_hf", "config_to_hf", "load_hf", "params_from_hf", "params_to_hf", "save_hf"]

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """One canonical parameter and the tensors it is made of.

    `theirs` has a row for each block (stacked on axis 1 if `stacked`) of one tensor, or of one for each expert
    (`spread`: stacked on axis 0). `part` is the leaf's index in a tensor that holds two leaves. `sizes` are what the
    letters of `arrange` stand for.
    """

    name: str
    theirs: tuple[tuple[str, ...], ...]
    arrange: str
    sizes: Mapping[str, int]
    stacked: bool = False
    spread: bool = False
    part: int | None = None

    @property
    def names(self) -> Iterator[str]:
        """Every tensor that it is made of."""
        return (name for names in self.theirs for name in names)


def params_from_hf(config: ModelConfig, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Canonical parameters, scanned or not as `config.scan_layers` says.

    Raises:
        CheckpointError: naming the first tensor that is missing, too many, or of another shape or dtype.
    """
    leaves = list(_leaves(config))
    unread = architecture_of(config).unread
    expected = {name for leaf in leaves for name in leaf.names}
    for name in sorted(expected - set(tensors)):
        raise CheckpointError(f"tensor {name}", "is missing", "the config asks for it")
    for name in sorted(set(tensors) - expected):
        if unread is None or not name.startswith(unread):
            raise CheckpointError(f"tensor {name}", "is not a parameter of this config", "check head and layers")
    for leaf in leaves:
        for name in leaf.names:
            _check(name, tensors[name], _shape(leaf.arrange, leaf.sizes), config.weight_dtype.value)
    return {leaf.name: _read_leaf(leaf, tensors) for leaf in leaves}


def _read_leaf(leaf: _Leaf, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    def piece(name: str) -> np.ndarray:
        whole = _rearrange(tensors[name], leaf.arrange, leaf.sizes)
        return whole if leaf.part is None else np.ascontiguousarray(whole[leaf.part])

    blocks = [[piece(name) for name in names] for names in leaf.theirs]
    values = [np.stack(pieces) if leaf.spread else pieces[0] for pieces in blocks]
    return np.stack(values, axis=1) if leaf.stacked else values[0]


def params_to_hf(config: ModelConfig, params: Mapping[str, typing.Any]) -> dict[str, np.ndarray]:
    """Their tensors by name, contiguous: the inverse of `params_from_hf`.

    Raises:
        CheckpointError: naming the first parameter that is missing, too many, or of another shape or dtype.
    """
    leaves = list(_leaves(config))
    expected = {leaf.name for leaf in leaves}
    for name in sorted(expected - set(params)):
        raise CheckpointError(f"parameter {name}", "is missing", "the config asks for it")
    for name in sorted(set(params) - expected):
        raise CheckpointError(f"parameter {name}", "has no tensor in the Hugging Face class", "check the config")
    tensors, halves = {}, {}
    for leaf in leaves:
        back = _inverse(leaf.arrange)
        for name, piece in _pieces(leaf, np.asarray(params[leaf.name]), config.weight_dtype.value):
            if leaf.part is not None:
                halves.setdefault(name, {})[leaf.part] = piece
                if len(halves[name]) < leaf.sizes["G"]:
                    continue
                found = halves.pop(name)
                piece = np.stack([found[part] for part in sorted(found)])
            tensors[name] = np.ascontiguousarray(_rearrange(piece, back, leaf.sizes))
    return tensors


def _pieces(leaf: _Leaf, value: np.ndarray, dtype: str) -> Iterator[tuple[str, np.ndarray]]:
    """Each of its tensors' names with what the leaf holds of it."""
    shape = _shape(_inverse(leaf.arrange), leaf.sizes)
    shape = shape if leaf.part is None else shape[1:]
    shape = (leaf.sizes["E"], *shape) if leaf.spread else shape
    _check(leaf.name, value, (shape[0], len(leaf.theirs), *shape[1:]) if leaf.stacked else shape, dtype)
    blocks = np.moveaxis(value, 1, 0) if leaf.stacked else [value]
    for names, block in zip(leaf.theirs, blocks, strict=True):
        yield from zip(names, block if leaf.spread else [block], strict=True)


def load_hf(
    directory: str | pathlib.Path, *, scan_layers: bool = True
) -> tuple[ModelConfig, dict[str, jnp.ndarray]]:
    """Config and canonical parameters of a directory with `config.json` and safetensors, whole or sharded.

    Raises:
        CheckpointError: naming the file or tensor that is missing, damaged or of another shape.
        ConfigError: for a config that is not supported.
    """
    directory = pathlib.Path(directory)
    config = config_from_hf(_read_json(directory / CONFIG)).replace(scan_layers=scan_layers)
    tensors: dict[str, np.ndarray] = {}
    for file, names in _files(directory).items():
        tensors.update(_read_tensors(file, names))
    return config, {name: jnp.asarray(value) for name, value in params_from_hf(config, tensors).items()}


def save_hf(
    config: ModelConfig,
    params: Mapping[str, typing.Any],
    directory: str | pathlib.Path,
    *,
    shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes a directory that `load_hf` and Hugging Face read; it appears whole or not at all.

    Raises:
        CheckpointError: when the directory exists, or the parameters do not fit the config.
        ConfigError: when Hugging Face has no class that computes the same.
    """
    directory = pathlib.Path(directory)
    attributes, tensors = config_to_hf(config), params_to_hf(config, params)
    with new_directory(directory.parent, directory.name) as writing:
        (writing / CONFIG).write_text(json.dumps(attributes, indent=2, sort_keys=True) + "\n")
        _write_tensors(writing, tensors, shard_bytes)


def _leaves(config: ModelConfig) -> Iterator[_Leaf]:
    """Every parameter of the model in the tables' order."""
    for tensor in architecture_of(config).tensors:
        if "{i}" in tensor.theirs:
            yield from _layer_leaves(config, tensor)
        elif tensor.given(config):
            yield _Leaf(tensor.canonical, ((tensor.theirs,),), tensor.arrange, _sizes(config, config.cycle[0]))


def _layer_leaves(config: ModelConfig, tensor: Tensor) -> Iterator[_Leaf]:
    before, spread = 0, "{e}" in tensor.theirs
    for stack in config.stacks:
        period = len(stack.cycle)
        for place, layer in enumerate(stack.cycle):
            if not _held(tensor, config, layer):
                continue
            name = tensor.canonical.format(s=layer.suffix)
            name = f"{layer.name}/{name}" if layer.name else name
            sizes = _sizes(config, layer)
            experts = range(sizes["E"] if spread else 1)
            numbers = (before + block * period + place for block in range(stack.length))
            theirs = tuple(tuple(tensor.theirs.format(i=number, e=e) for e in experts) for number in numbers)
            rows = [theirs] if stack.scanned else [(row,) for row in theirs]
            for block, row in zip(stack.names, rows, strict=True):
                leaf = _Leaf(f"decoder/{block}/{name}", row, tensor.arrange, sizes, stack.scanned, spread, tensor.part)
                yield leaf
        before += period * stack.length


def _held(tensor: Tensor, config: ModelConfig, layer: Layer) -> bool:
    """Whether a layer has such a tensor."""
    if tensor.of is None:
        return tensor.given(config)
    parts = [part for part in (config.mlp_of(layer), config.attention_of(layer)) if isinstance(part, tensor.of)]
    return all(tensor.given(part) for part in parts) and bool(parts)


def _sizes(config: ModelConfig, layer: Layer) -> dict[str, int]:
    """What the letters of the tables stand for in a layer; there is none for what the layer does not have."""
    sizes = {"V": config.vocab_size, "D": config.embed_dim, "C": 3, "G": 2}
    mlp, length = config.mlp_of(layer), getattr(config.positions, "length", None)
    if length is not None:
        sizes["P"] = length
    if isinstance(mlp, Moe):
        shared = {} if mlp.shared_hidden_dim is None else {"S": mlp.shared_hidden_dim}
        return {**sizes, "E": mlp.router.num_experts, "M": mlp.hidden_dim, **shared, **_head_sizes(config, layer)}
    return {**sizes, "F": mlp.hidden_dim, **_head_sizes(config, layer)}


def _head_sizes(config: ModelConfig, layer: Layer) -> dict[str, int]:
    attention = config.attention_of(layer)
    if isinstance(attention, GatedDelta):
        keys = attention.num_key_heads * attention.key_dim
        values = attention.num_value_heads * attention.value_dim
        return {
            "L": attention.num_value_heads, "U": attention.value_dim, "W": attention.conv_width,
            "X": 2 * keys + values, "Z": 2 * keys + 2 * values, "Y": 2 * attention.num_value_heads,
        }  # fmt: skip
    if not isinstance(attention, LatentAttention):
        width = attention.head_dim
        heads = {"N": attention.num_heads, "K": attention.num_kv_heads, "H": width}
        return {**heads, "J": 2 * width if attention.out_gate else width}
    rank, nope, rope, value = attention.kv_rank, attention.nope_dim, attention.rope_dim, attention.value_dim
    return {
        "N": attention.num_heads, "H": nope + rope, "R": rank, "A": rank + rope, "Q": attention.query_rank or 0,
        "U": value, "B": nope + value,
    }  # fmt: skip


def _axes(side: str) -> list[str]:
    """`"D (N H)"` as `["D", "NH"]`: the letters of each axis."""
    return [group.replace(" ", "").strip("()") for group in re.findall(r"\([^)]*\)|\S+", side)]


def _shape(arrange: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of the left side."""
    return tuple(math.prod(sizes[letter] for letter in axis) for axis in _axes(arrange.split("->")[0]))


def _inverse(arrange: str) -> str:
    left, right = arrange.split("->")
    return f"{right.strip()} -> {left.strip()}"


def _rearrange(array: np.ndarray, arrange: str, sizes: Mapping[str, int]) -> np.ndarray:
    left, right = (_axes(side) for side in arrange.split("->"))
    letters = "".join(left)
    split = array.reshape([sizes[letter] for letter in letters])
    moved = split.transpose([letters.index(letter) for letter in "".join(right)])
    return moved.reshape([math.prod(sizes[letter] for letter in axis) for axis in right])


def _check(name: str, value: np.ndarray, shape: tuple[int, ...], dtype: str) -> None:
    if value.shape != shape:
        raise CheckpointError(f"tensor {name}", f"has shape {value.shape}, the config asks for {shape}", "check both")
    if value.dtype.name != dtype:
        found = value.dtype.name
        raise CheckpointError(f"tensor {name}", f"has dtype {found}, the config asks for {dtype}", "check both")


def _read_json(path: pathlib.Path) -> dict[str, typing.Any]:
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(path, "is missing", "name a directory in Hugging Face's layout") from None
    except ValueError as error:
        raise CheckpointError(path, f"is not JSON ({error})", "fetch the file again") from None
    if not isinstance(data, dict):
        raise CheckpointError(path, "is not a JSON object", "fetch the file again")
    return data


def _files(directory: pathlib.Path) -> dict[pathlib.Path, set[str] | None]:
    """Each weights file with the tensors the index promises in it; no promise for a file that stands alone."""
    if not (directory / INDEX).exists():
        return {directory / WEIGHTS: None}
    places = _read_json(directory / INDEX).get("weight_map")
    if not isinstance(places, dict):
        raise CheckpointError(directory / INDEX, "has no weight_map", "fetch the file again")
    files: dict[pathlib.Path, set[str] | None] = {}
    for file in sorted(set(places.values())):
        files[directory / file] = {name for name, place in places.items() if place == file}
    return files


def _read_tensors(file: pathlib.Path, promised: set[str] | None) -> dict[str, np.ndarray]:
    import safetensors
    import safetensors.numpy

    if not file.exists():
        raise CheckpointError(file, "is missing", "fetch the file again")
    try:
        tensors = safetensors.numpy.load_file(file)
    except safetensors.SafetensorError as error:
        raise CheckpointError(file, f"is truncated or damaged ({error})", "fetch the file again") from None
    for name in sorted((promised or set(tensors)) ^ set(tensors)):
        where = "the index" if name in tensors else "the file"
        raise CheckpointError(f"tensor {name}", f"is missing from {where} ({file.name})", "fetch the files again")
    return tensors


def _write_tensors(directory: pathlib.Path, tensors: Mapping[str, np.ndarray], shard_bytes: int) -> None:
    import safetensors.numpy

    shards: list[dict[str, np.ndarray]] = [{}]
    for name, value in tensors.items():
        if shards[-1] and sum(part.nbytes for part in shards[-1].values()) + value.nbytes > shard_bytes:
            shards.append({})
        shards[-1][name] = value
    if len(shards) == 1:
        safetensors.numpy.save_file(shards[0], directory / WEIGHTS, metadata={"format": "pt"})
        return
    places = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        safetensors.numpy.save_file(shard, directory / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, file))
    index = {"metadata": {"total_size": sum(value.nbytes for value in tensors.values())}, "weight_map": places}
    (directory / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
