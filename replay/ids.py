"""Ids of windows: generation, shard and slot in one number of 63 bits.

A slot is used again when its window has left; the generation counts its tenants, so an id never means two windows, and
one that outlived its window is recognised.
"""

import numpy as np

SLOT_BITS, SHARD_BITS = 28, 10
MOST_SLOTS = 1 << SLOT_BITS
"""Windows that a shard can hold of one table."""


def ids_of(slots: np.ndarray, generations: np.ndarray, shard: int) -> np.ndarray:
    """The ids (n,) of windows in these slots of a shard."""
    return ((generations << SHARD_BITS | shard) << SLOT_BITS) | slots


def slot_of(ids: np.ndarray) -> np.ndarray:
    """The slot of each window."""
    return ids & ((1 << SLOT_BITS) - 1)


def shard_of(ids: np.ndarray) -> np.ndarray:
    """The shard that holds each window."""
    return (ids >> SLOT_BITS) & ((1 << SHARD_BITS) - 1)


def generation_of(ids: np.ndarray) -> np.ndarray:
    """Which tenant of its slot each window is."""
    return ids >> (SLOT_BITS + SHARD_BITS)
