"""Which key a query may read: causality, documents of a packed row, padding, sliding window."""

from jaxtyping import Array, Bool, Int


def attention_mask(
    query_positions_BT: Int[Array, "b t"],
    key_positions_BS: Int[Array, "b s"],
    query_segments_BT: Int[Array, "b t"],
    key_segments_BS: Int[Array, "b s"],
    *,
    window: int | None,
) -> Bool[Array, "b t s"]:
    """True where the key is not later than the query, both lie in the same document, and the window reaches it.

    Segment 0 is padding: it neither reads nor is read. A window of `w` shows a query itself and `w - 1` keys before.
    """
    distance_BTS = query_positions_BT[:, :, None] - key_positions_BS[:, None, :]
    query_segments_BT1 = query_segments_BT[:, :, None]
    mask_BTS = (distance_BTS >= 0) & (query_segments_BT1 == key_segments_BS[:, None, :]) & (query_segments_BT1 != 0)
    if window is not None:
        mask_BTS &= distance_BTS < window
    return mask_BTS
