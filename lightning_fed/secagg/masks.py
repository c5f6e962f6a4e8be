"""Masks: AES-128-CTR keystreams (NIST SP 800-38A) added to uint32 vectors in place.

A stream's key is derived for one (session, round, attempt, vector, pair), so its counter starts at zero and
any stretch of it can be made on its own: a shard of a vector is masked and unmasked without the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from lightning_fed.secagg.keys import derive_key

KEY_BYTES = 16
BLOCK_BYTES = 16  # of AES
WORDS = BLOCK_BYTES // 4  # uint32 in one AES block
CHUNK = 32768  # uint32 handled at a time: vector, keystream and zeros of that size stay in the cache

Words = NDArray[np.uint32]


@dataclass(frozen=True)
class Context:
    """What a keystream is bound to.

    Args:
        session: its identifier. round: counted from 1. attempt: at this round, from 1.
        vector: which of several in a round.
    """

    session: bytes
    round: int
    attempt: int = 1
    vector: int = 0

    def _info(self, purpose: str, *hospitals: int) -> bytes:
        numbers = "/".join(str(number) for number in (self.round, self.attempt, self.vector, *hospitals))
        return f"lightning-fed secagg {purpose} {numbers}".encode()

    def pair_key(self, secret: bytes, one: int, other: int) -> bytes:
        """The key of the mask that two hospitals share, from their agreed secret."""
        return derive_key(secret, self.session, self._info("pair mask", *sorted((one, other))), KEY_BYTES)

    def self_key(self, seed: bytes, hospital: int) -> bytes:
        """The key of a hospital's own mask, from its seed."""
        return derive_key(seed, self.session, self._info("self mask", hospital), KEY_BYTES)


@dataclass(frozen=True)
class Mask:
    """One keystream and whether it is added or subtracted.

    Args:
        key: 16 bytes. negative: subtract it.
    """

    key: bytes = field(repr=False)
    negative: bool = False

    def opposite(self) -> Mask:
        """The mask that takes this one away."""
        return Mask(self.key, not self.negative)


def pair_mask(key: bytes, hospital: int, neighbour: int) -> Mask:
    """The mask that `hospital` applies for a pair: the lower number adds it, the higher subtracts it."""
    return Mask(key, negative=hospital > neighbour)


def keystream(key: bytes, start: int, length: int) -> Words:
    """uint32 (length,) of a key's stream from word `start` on; little-endian words."""
    stream = np.empty(length, dtype="<u4")
    stream[:] = 0
    apply_masks(stream, [Mask(key)], start)
    return stream


def apply_masks(vector: Words, masks: Sequence[Mask], start: int = 0) -> None:
    """Add masks to a stretch of a vector, in place, modulo 2^32.

    Args:
        vector: uint32 (n,), contiguous. masks: in any order. start: of the stretch in the whole vector.
    """
    skipped = start % WORDS
    zeros = np.zeros(min(CHUNK, len(vector)) + skipped, dtype=np.uint32)
    stream = np.empty(len(zeros) + WORDS, dtype="<u4")
    ciphers = [_encryptor(mask.key, start // WORDS) for mask in masks]
    for begin in range(0, len(vector), CHUNK):
        part = vector[begin : begin + CHUNK]
        plain, output = zeros[: len(part) + skipped].data.cast("B"), stream.data.cast("B")
        words = stream[skipped : len(part) + skipped]
        for cipher, mask in zip(ciphers, masks, strict=True):
            cipher.update_into(plain, output)
            if mask.negative:
                np.subtract(part, words, out=part)
            else:
                np.add(part, words, out=part)
        skipped = 0


def _encryptor(key: bytes, block: int):  # type: ignore[no-untyped-def]  # cryptography keeps its context's type to itself
    return Cipher(AES128(key), CTR(block.to_bytes(BLOCK_BYTES, "big"))).encryptor()
