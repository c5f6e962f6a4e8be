"""The aggregator: shards that each own a slice of the vector and add up what hospitals send to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from lightning_fed.errors import FederationError
from lightning_fed.secagg.masks import Mask, Words
from lightning_fed.secagg.shard import ShardSum, slices
from lightning_fed.secagg.wire import Packed


class ShardsLostError(FederationError):
    """The aggregator's processes were lost, again and again, and with them a round's sum."""


class Shard:
    """One slice of one vector, round after round. A plain class: a Ray actor is a thin shell around it."""

    def __init__(self) -> None:
        self._sum: ShardSum | None = None

    def begin(self, start: int, stop: int, ring_bits: int) -> None:
        """Start a round's sum of the slice start..stop."""
        self._sum = ShardSum(start, stop, ring_bits)

    def answer(self) -> None:
        """Nothing, to whoever asks whether it is there."""

    def add(self, packed: Packed) -> None:
        """Add one hospital's masked slice, uint8."""
        assert self._sum is not None
        self._sum.add(packed)

    def open(self, masks: Sequence[Mask]) -> Words:
        """The sum of the survivors' slices; the round is over."""
        assert self._sum is not None
        opened, self._sum = self._sum.open(masks), None
        return opened


class Shards(Protocol):
    """All shards of the aggregator; each method raises `ShardsLostError` where they cannot be mended."""

    count: int

    def begin(self, length: int, ring_bits: int) -> None:
        """Start a round's sum of vectors of a length."""
        ...

    def add(self, hospital: int, parts: Sequence[Any]) -> None:
        """Give each shard its part of one hospital's masked vector, as the crew's work left them."""
        ...

    def added(self) -> list[int]:
        """The hospitals whose vectors are in the sum, in the order in which they came."""
        ...

    def open(self, masks: Sequence[Mask]) -> Words:
        """Take the masks away: uint32 (length,), the sum of the vectors of `added`."""
        ...


class LocalShards:
    """Shards in this process."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._shards = [Shard() for _ in range(count)]
        self._added: list[int] = []

    def begin(self, length: int, ring_bits: int) -> None:
        """Start a round's sum of vectors of a length."""
        self._added = []
        for shard, (start, stop) in zip(self._shards, slices(length, self.count), strict=True):
            shard.begin(start, stop, ring_bits)

    def add(self, hospital: int, parts: Sequence[Any]) -> None:
        """Add at once."""
        for shard, part in zip(self._shards, parts, strict=True):
            shard.add(part)
        self._added.append(hospital)

    def added(self) -> list[int]:
        """All."""
        return self._added

    def open(self, masks: Sequence[Mask]) -> Words:
        """Take the masks away."""
        return np.concatenate([shard.open(masks) for shard in self._shards])
