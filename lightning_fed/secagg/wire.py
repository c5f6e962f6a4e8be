"""Integers of 16 to 32 bits on the wire: packed to the next half byte, in planes.

First the lower 16 bits of all integers, little-endian, then the next 8 bits of all, then the half bytes that are
left, two in one byte. Planes are what NumPy packs at the speed of memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightning_fed.secagg.masks import CHUNK, Words

Packed = NDArray[np.uint8]

LOW = 16  # bits of the first plane


def wire_bits(ring_bits: int) -> int:
    """Bits of one integer on the wire: those of the ring, rounded up to 16, 20, 24, 28 or 32."""
    return max(LOW, -(-ring_bits // 4) * 4)


def packed_bytes(length: int, ring_bits: int) -> int:
    """Bytes of a packed vector."""
    bits = wire_bits(ring_bits)
    return length * (bits // 8) + (-(-length // 2) if bits % 8 else 0)


def pack(vector: Words, ring_bits: int) -> Packed:
    """The lower bits of a uint32 (n,) vector."""
    bits, length = wire_bits(ring_bits), len(vector)
    if bits == 32:
        return np.ascontiguousarray(vector, dtype="<u4").view(np.uint8)
    packed = np.empty(packed_bytes(length, ring_bits), dtype=np.uint8)
    low, high, halves = _planes(packed, length, bits)
    for start in range(0, length, CHUNK):
        part = vector[start : start + CHUNK]
        stop = start + len(part)
        low[start:stop] = part
        shift = LOW
        if len(high):
            high[start:stop] = part >> np.uint32(shift)
            shift += 8
        if len(halves):
            nibbles = np.zeros(len(part) + len(part) % 2, dtype=np.uint8)
            nibbles[: len(part)] = part >> np.uint32(shift)
            nibbles &= 0xF
            halves[start // 2 : (stop + 1) // 2] = nibbles[::2] | nibbles[1::2] << 4
    return packed


def add_packed(total: Words, packed: Packed, ring_bits: int) -> None:
    """Add a vector that `pack` packed to a uint32 (n,) vector in place, modulo 2^32.

    Raises:
        ValueError: the packed vector is not as long as it must be.
    """
    bits, length = wire_bits(ring_bits), len(total)
    if len(packed) != packed_bytes(length, ring_bits):
        raise ValueError(f"a packed vector has {len(packed)} bytes instead of {packed_bytes(length, ring_bits)}")
    if bits == 32:
        total += packed.view("<u4")
        return
    low, high, halves = _planes(packed, length, bits)
    for start in range(0, length, CHUNK):
        part = total[start : start + CHUNK]
        stop = start + len(part)
        part += low[start:stop]
        shift = LOW
        if len(high):
            part += high[start:stop].astype(np.uint32) << np.uint32(shift)
            shift += 8
        if len(halves):
            nibbles = halves[start // 2 : (stop + 1) // 2]
            both = np.stack([nibbles & 0xF, nibbles >> 4], axis=1).reshape(-1)[: len(part)]
            part += both.astype(np.uint32) << np.uint32(shift)


def unpack(packed: Packed, length: int, ring_bits: int) -> Words:
    """The uint32 (length,) vector that `pack` packed, its upper bits zero."""
    vector = np.zeros(length, dtype=np.uint32)
    add_packed(vector, packed, ring_bits)
    return vector


def _planes(packed: Packed, length: int, bits: int) -> tuple[NDArray[np.uint16], Packed, Packed]:
    """Views of the planes of 16, 8 and 4 bits; empty where the width has none."""
    edge = 2 * length
    end = edge + (length if bits >= LOW + 8 else 0)
    return packed[:edge].view("<u2"), packed[edge:end], packed[end:]
