"""Which key a query may read: causality, documents of a packed row, padding, sliding window, chunks of a document."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int


def attention_mask(
    query_positions_BT: Int[Array, "b t"],
    key_positions_BS: Int[Array, "b s"],
    query_segments_BT: Int[Array, "b t"],
    key_segments_BS: Int[Array, "b s"],
    *,
    window: int | None,
    chunk: int | None = None,
) -> Bool[Array, "b t s"]:
    """True where the key is not later than the query, both lie in the same document, and the window reaches it.

    Segment 0 is padding: it neither reads nor is read. A window of `w` shows a query itself and `w - 1` keys before.
    With a chunk of `c`, a key's position divided by `c` rounds down to the same number as the query's.
    """
    distance_BTS = query_positions_BT[:, :, None] - key_positions_BS[:, None, :]
    query_segments_BT1 = query_segments_BT[:, :, None]
    mask_BTS = (distance_BTS >= 0) & (query_segments_BT1 == key_segments_BS[:, None, :]) & (query_segments_BT1 != 0)
    if window is not None:
        mask_BTS &= distance_BTS < window
    if chunk is not None:
        mask_BTS &= (query_positions_BT // chunk)[:, :, None] == (key_positions_BS // chunk)[:, None, :]
    return mask_BTS


def documents(segments_BT: Int[Array, "b t"]) -> Int[Array, "b t"]:
    """The number of each token's document in its row, from 0 on; segment 0 is padding.

    A document begins where a valid token's segment is not that of the valid token before it. Padding belongs to the
    document before it: neither padding nor the segment's number changes the count.
    """
    order_T = jnp.arange(segments_BT.shape[1], dtype=jnp.int32)
    valid_BT = segments_BT != 0
    # The last valid place up to each; before the first one, the row's start.
    last_BT = lax.cummax(jnp.where(valid_BT, order_T[None], 0), axis=1)
    held_BT = jnp.take_along_axis(segments_BT, last_BT, axis=1)
    before_BT = jnp.pad(held_BT, ((0, 0), (1, 0)))[:, :-1]
    begins_BT = valid_BT & (before_BT != 0) & (segments_BT != before_BT)
    return jnp.cumsum(begins_BT, axis=1, dtype=jnp.int32)
