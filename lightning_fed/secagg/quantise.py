"""Updates as integers that add up: clip, weigh, round at random, and back from the sum.

What is summed is q(u * n / W) for each coordinate u of an update, and n itself, the hospital's weight, as one
more coordinate: the server divides one sum by the other, and no message carries a weight in clear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from lightning_fed.secagg.errors import RoundAbortedError
from lightning_fed.secagg.masks import BLOCK_BYTES, CHUNK, Words

LEAST_RING, GREATEST_RING = 16, 32
SAFE = 1 - 2.0**-22  # keeps float32's own roundings of a clipped coordinate below the greatest integer


@dataclass(frozen=True)
class Encoding:
    """How an update becomes integers; the same for every hospital of a run.

    Args:
        hospitals: the most whose vectors are added up. clip: greatest magnitude of an update's coordinate.
        bits: of a quantised coordinate, sign included. max_weight: W, the greatest weight of one hospital.

    Raises:
        ValueError: the sum of all hospitals would not fit in 32 bits; three remedies are named.
    """

    hospitals: int
    clip: float
    bits: int
    max_weight: int

    def __post_init__(self) -> None:
        if self.ring_bits <= GREATEST_RING:
            return
        room = 2 ** (GREATEST_RING - 1) - 1
        fewer = min(self.bits, math.floor(math.log2(room / self.hospitals + 1)) + 1)
        lighter = 2**GREATEST_RING // self.hospitals - 1
        raise ValueError(
            f"the sum of {self.hospitals} hospitals with secagg.bits {self.bits} and secagg.max_weight "
            f"{self.max_weight} needs {self.ring_bits} bits and could wrap in {GREATEST_RING}: "
            f"set secagg.bits to {fewer} or less, keep secagg.max_weight at {lighter} or less, "
            "or let fewer hospitals take part in a round by federation.participation"
        )

    @property
    def levels(self) -> int:
        """The greatest integer of one coordinate; the smallest is its negative."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def step(self) -> float:
        """The width of one integer, in units of u * n / W."""
        return self.clip / (self.levels * SAFE)

    @property
    def ring_bits(self) -> int:
        """The smallest b from 16 on for which neither sum wraps modulo 2^b."""
        for_updates = (self.hospitals * self.levels).bit_length() + 1
        for_weights = (self.hospitals * self.max_weight).bit_length()
        return max(for_updates, for_weights, LEAST_RING)

    @property
    def agreed(self) -> tuple[str | int, ...]:
        """What every party must mean alike."""
        return repr(self.clip), self.bits, self.max_weight

    def length(self, parameters: int) -> int:
        """Integers of an encoded update: its coordinates and the weight."""
        return parameters + 1

    def mean_step(self, hospitals: int, weight: int) -> float:
        """The most by which the mean of some hospitals' updates differs from the exact weighted mean, where
        nothing was clipped: each hospital's rounding is off by less than one step of u * n / W.

        Args:
            hospitals: how many were summed. weight: the sum of their weights.
        """
        return hospitals * self.step * self.max_weight / weight

    def encode(self, update: NDArray[np.float32], weight: int, rounding_key: bytes) -> tuple[Words, int]:
        """An update and a weight as integers modulo 2^32, of which a ring takes the lower bits.

        Stochastic rounding: up with a probability equal to the fraction, from an AES-128-CTR stream.

        Args:
            update: (parameters,). weight: from 0 to `max_weight`. rounding_key: 16 bytes, used once.

        Returns:
            uint32 (parameters + 1,) and how many coordinates were clipped.

        Raises:
            ValueError: the weight is out of range, or a coordinate is not finite.
        """
        if not 0 <= weight <= self.max_weight:
            raise ValueError(f"a weight of {weight} is above secagg.max_weight {self.max_weight}; raise that")
        encoded = np.empty(self.length(len(update)), dtype=np.uint32)
        encoded[-1] = weight
        scale = np.float32(weight / self.max_weight / self.step)
        greatest = np.float32(self.clip)
        saturated = 0
        dice = _Dice(rounding_key)
        for start in range(0, len(update), CHUNK):
            part = update[start : start + CHUNK]
            size = np.abs(part).max()
            if not np.isfinite(size):
                raise ValueError("the update is not finite")
            if size > greatest:
                saturated += int((np.abs(part) > greatest).sum())
                part = np.clip(part, -greatest, greatest)
            scaled = part * scale
            floor = np.floor(scaled)
            np.subtract(scaled, floor, out=scaled)
            integers = floor.astype(np.int32)
            integers += dice.roll(len(part)) < scaled
            encoded[start : start + len(part)] = integers.view(np.uint32)
        return encoded, saturated

    def decode(self, total: Words, hospitals: int | None = None) -> tuple[NDArray[np.float32], int]:
        """The weighted mean update and the sum of weights, from a sum modulo 2^ring_bits.

        Args:
            total: uint32 (parameters + 1,). hospitals: how many were summed; None: as many as can be.

        Returns:
            float32 (parameters,) and the sum of the weights; a mean of zeros where that is 0.

        Raises:
            RoundAbortedError: no so many hospitals can have sent this: one of them masked or sent something
                else than it agreed to. A sum that is still masked passes with a chance of nothing at all.
        """
        hospitals = self.hospitals if hospitals is None else hospitals
        unused = np.uint32(32 - self.ring_bits)
        weight = int(total[-1] & np.uint32(2**self.ring_bits - 1))
        factor = self.step * self.max_weight / weight if weight else 0.0
        greatest = np.int32(hospitals * self.levels)
        fits = weight <= hospitals * self.max_weight
        mean = np.empty(len(total) - 1, dtype=np.float32)
        for start in range(0, len(mean), CHUNK):
            part = total[start : start + CHUNK][: len(mean) - start]
            signed = (part << unused).view(np.int32) >> np.int32(unused)
            fits = fits and -greatest <= signed.min() <= signed.max() <= greatest
            np.multiply(signed, factor, out=mean[start : start + len(part)], casting="same_kind")
        if not fits:
            raise RoundAbortedError(f"the sum is none of {hospitals} hospitals' vectors; one sent something else")
        return mean, weight


class _Dice:
    """Uniform float32 numbers in [0, 1) in steps of 2^-24, from a cipher's stream."""

    def __init__(self, key: bytes) -> None:
        self._cipher = Cipher(AES128(key), CTR(bytes(BLOCK_BYTES))).encryptor()
        self._zeros = bytes(4 * CHUNK)
        self._words = np.empty(CHUNK + BLOCK_BYTES // 4, dtype="<u4")

    def roll(self, count: int) -> NDArray[np.float32]:
        self._cipher.update_into(memoryview(self._zeros)[: 4 * count], self._words.data.cast("B"))
        words = self._words[:count]
        words >>= np.uint32(8)
        return words.astype(np.float32) * np.float32(2**-24)
