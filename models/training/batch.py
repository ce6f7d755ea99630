"""One batch of packed rows. Where the rows come from is `data.py`."""

import dataclasses
import typing

import jax
from jaxtyping import Array, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Int32 arrays `[b, t]`. Segment 0 is padding; a target counts where its segment is not 0.

    `positions` count from 0 in each document of a packed row.
    """

    inputs: Int[Array, "b t"]
    targets: Int[Array, "b t"]
    positions: Int[Array, "b t"]
    segment_ids: Int[Array, "b t"]
    target_segment_ids: Int[Array, "b t"]


FIELDS: typing.Final = tuple(field.name for field in dataclasses.fields(Batch))
