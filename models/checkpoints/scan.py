"""The same weights for scanned and for unscanned layers: whole stacks split along axis 1, or put together again.

With dense layers first there are two stacks (`dense_layers`, `moe_layers`), each split by its own length. Leaves go by
name, a train state's as well as bare parameters; no file is touched and no number changes. What no stack repeats
(the remainder, the embedding, the final norm, counters) passes through.
"""

import typing
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ..config import ModelConfig, Stack
from .errors import CheckpointError

SCAN_AXIS = 1
DECODER = "decoder"


def rescan(
    config: ModelConfig, leaves: Mapping[str, typing.Any], *, scan_layers: bool
) -> tuple[ModelConfig, dict[str, typing.Any]]:
    """The config with this `scan_layers`, and the leaves as its model holds them. NumPy arrays stay NumPy's.

    `leaves` are those of `config`: parameters by canonical name, or any part of a train state by canonical name
    (`opt_state/0/mu/decoder/layers/...`).

    Raises:
        CheckpointError: naming the first leaf that is missing, of another config, or of another number of blocks.
    """
    target = config.replace(scan_layers=scan_layers)
    changed = dict(leaves)
    for old, new in zip(config.stacks, target.stacks, strict=True):
        if old.scanned and not new.scanned:
            changed = _split(changed, old, new)
        elif new.scanned and not old.scanned:
            changed = _stack(changed, old, new)
    return target, changed


def _split(leaves: Mapping[str, typing.Any], scanned: Stack, blocks: Stack) -> dict[str, typing.Any]:
    found: dict[str, typing.Any] = {}
    for name, leaf in leaves.items():
        place = _place(name, scanned.names)
        if place is None:
            found[name] = _foreign(name, leaf, blocks)
            continue
        if leaf.ndim <= SCAN_AXIS or leaf.shape[SCAN_AXIS] != scanned.length:
            rule = f"has shape {list(leaf.shape)}, not {scanned.length} blocks on axis {SCAN_AXIS}"
            raise CheckpointError(name, rule, "pass the config of the model that holds it")
        for index, block in enumerate(blocks.names):
            part = leaf[:, index]
            found[_named(place, block)] = np.ascontiguousarray(part) if isinstance(leaf, np.ndarray) else part
    return found


def _stack(leaves: Mapping[str, typing.Any], blocks: Stack, scanned: Stack) -> dict[str, typing.Any]:
    found: dict[str, typing.Any] = {}
    for name, leaf in leaves.items():
        place = _place(name, blocks.names)
        if place is None:
            found[name] = _foreign(name, leaf, scanned)
            continue
        whole = _named(place, scanned.names[0])
        if whole in found:
            continue
        parts = [_part(leaves, _named(place, block), leaf.shape) for block in blocks.names]
        numpy = all(isinstance(part, np.ndarray) for part in parts)
        found[whole] = np.stack(parts, SCAN_AXIS) if numpy else jnp.stack(parts, SCAN_AXIS)
    return found


def _foreign(name: str, leaf: typing.Any, target: Stack) -> typing.Any:
    """A leaf of no block of this stack, which must not have the name of a new one."""
    if _place(name, target.names) is not None:
        raise CheckpointError(name, "is no leaf of the config", "pass the config of the model that holds the leaves")
    return leaf


def _part(leaves: Mapping[str, typing.Any], name: str, shape: tuple[int, ...]) -> np.ndarray | jax.Array:
    if name not in leaves:
        raise CheckpointError(name, "is missing beside the same leaf of other blocks", "pass every block's leaves")
    if leaves[name].shape != shape:
        rule = f"has shape {list(leaves[name].shape)} where another block's has {list(shape)}"
        raise CheckpointError(name, rule, "pass leaves of one model")
    return leaves[name]


_Place = tuple[tuple[str, ...], tuple[str, ...]]


def _place(name: str, blocks: tuple[str, ...]) -> _Place | None:
    """What stands before and after the block's name, if the leaf lies in one of these blocks of the decoder."""
    words = tuple(name.split("/"))
    at = words.index(DECODER) + 1 if DECODER in words else len(words)
    return (words[:at], words[at + 1 :]) if at < len(words) and words[at] in blocks else None


def _named(place: _Place, block: str) -> str:
    before, after = place
    return "/".join((*before, block, *after))
