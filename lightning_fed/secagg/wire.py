"""Integers of 16 to 32 bits on the wire: packed to the next half byte."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightning_fed.secagg.masks import Words

Packed = NDArray[np.uint8]


def wire_bits(ring_bits: int) -> int:
    """Bits of one integer on the wire: those of the ring, rounded up to 16, 20, 24, 28 or 32."""
    return max(16, -(-ring_bits // 4) * 4)


def packed_bytes(length: int, ring_bits: int) -> int:
    """Bytes of a packed vector."""
    bits = wire_bits(ring_bits)
    halves = length + length % 2 if bits % 8 else 0
    return length * (bits // 8) + halves // 2


def pack(vector: Words, ring_bits: int) -> Packed:
    """The lower bits of a uint32 (n,) vector: whole bytes first, then the half bytes, two in one."""
    bits = wire_bits(ring_bits)
    whole = bits // 8
    parts = np.ascontiguousarray(vector, dtype="<u4").view(np.uint8).reshape(-1, 4)
    if whole == 4:
        return parts.reshape(-1)
    packed = np.empty(packed_bytes(len(vector), ring_bits), dtype=np.uint8)
    packed[: whole * len(vector)].reshape(-1, whole)[:] = parts[:, :whole]
    if bits % 8:
        halves = np.zeros(len(vector) + len(vector) % 2, dtype=np.uint8)
        halves[: len(vector)] = parts[:, whole] & 0xF
        packed[whole * len(vector) :] = halves[::2] | halves[1::2] << 4
    return packed


def unpack(packed: Packed, length: int, ring_bits: int) -> Words:
    """The uint32 (length,) vector that `pack` packed, its upper bits zero.

    Raises:
        ValueError: the packed vector is not as long as it must be.
    """
    if len(packed) != packed_bytes(length, ring_bits):
        raise ValueError(f"a packed vector has {len(packed)} bytes instead of {packed_bytes(length, ring_bits)}")
    bits = wire_bits(ring_bits)
    whole = bits // 8
    if whole == 4:
        return packed.view("<u4").astype(np.uint32, copy=False)
    parts = np.zeros((length, 4), dtype=np.uint8)
    parts[:, :whole] = packed[: whole * length].reshape(-1, whole)
    if bits % 8:
        halves = packed[whole * length :]
        parts[::2, whole] = halves[: len(parts[::2])] & 0xF
        parts[1::2, whole] = halves[: len(parts[1::2])] >> 4
    return parts.view("<u4").reshape(-1).astype(np.uint32, copy=False)
