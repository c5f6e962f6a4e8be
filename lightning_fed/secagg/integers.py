"""Vectors that are whole numbers already: what a ring must hold of their sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_fed.secagg.errors import RoundAbortedError
from lightning_fed.secagg.masks import Words
from lightning_fed.secagg.quantise import GREATEST_RING, LEAST_RING

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class IntegerSum:
    """How whole numbers become numbers of a ring and their sum comes back; the same for every hospital of a run.

    Args:
        hospitals: the most whose vectors are added up. greatest: magnitude of a coordinate of the sum that is
            never passed, or so seldom that the one who chose it has said how seldom.

    Raises:
        ValueError: the sum would not fit in 32 bits.
    """

    hospitals: int
    greatest: int

    def __post_init__(self) -> None:
        if self.ring_bits > GREATEST_RING:
            raise ValueError(f"a sum of up to {self.greatest} needs {self.ring_bits} bits, not {GREATEST_RING}")

    @property
    def ring_bits(self) -> int:
        """The smallest b from 16 on that tells every sum from -greatest to greatest apart."""
        return max(self.greatest.bit_length() + 1, LEAST_RING)

    @property
    def agreed(self) -> tuple[str | int, ...]:
        """What every party must mean alike."""
        return "integers", self.hospitals, self.greatest

    def length(self, parameters: int) -> int:
        """Integers of a vector: its coordinates."""
        return parameters

    def encode(self, vector: Integers) -> Words:
        """Whole numbers modulo 2^32, of which a ring takes the lower bits: uint32 like the vector."""
        return vector.astype(np.uint64).astype(np.uint32)

    def decode(self, total: Words) -> Integers:
        """The sum, from what it is modulo 2^ring_bits.

        Raises:
            RoundAbortedError: it is greater than any that hospitals can have sent, but with the chance that was
                accepted: one of them masked or sent something else. A sum that is still masked passes with a
                chance of nothing at all.
        """
        unused = np.uint32(32 - self.ring_bits)
        signed = (total << unused).view(np.int32) >> np.int32(unused)
        if len(signed) and not -self.greatest <= int(signed.min()) <= int(signed.max()) <= self.greatest:
            raise RoundAbortedError("the sum is none of these hospitals' vectors; one sent something else")
        return signed.astype(np.int64)
