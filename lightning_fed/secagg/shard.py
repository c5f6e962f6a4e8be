"""One slice of the sum: masked slices come in, the sum of the survivors' vectors goes out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from lightning_fed.secagg.masks import WORDS, Mask, Words, apply_masks
from lightning_fed.secagg.wire import Packed, add_packed


def slices(length: int, shards: int) -> list[tuple[int, int]]:
    """(start, stop) of each shard's slice of a vector; starts fall on whole AES blocks."""
    blocks = -(-length // WORDS)
    edges = [min(WORDS * (blocks * shard // shards), length) for shard in range(shards + 1)]
    return list(pairwise(edges))


class ShardSum:
    """Adds masked slices of one round as they come; holds the accumulator and the slice in hand.

    Args:
        start, stop: of the slice in the whole vector. ring_bits: of the ring.
    """

    def __init__(self, start: int, stop: int, ring_bits: int) -> None:
        self.start, self.ring_bits = start, ring_bits
        self.total: Words = np.zeros(stop - start, dtype=np.uint32)

    def add(self, packed: Packed) -> None:
        """Add one hospital's masked slice.

        Raises:
            ValueError: it is not as long as this shard's slices are.
        """
        add_packed(self.total, packed, self.ring_bits)

    def open(self, masks: Sequence[Mask]) -> Words:
        """Take the masks that are left from the sum: uint32 (stop - start,) modulo 2^ring_bits."""
        apply_masks(self.total, masks, self.start)
        self.total &= np.uint32(2**self.ring_bits - 1)
        return self.total
