from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.secagg.wire import pack, packed_bytes, unpack, wire_bits

RINGS = range(16, 33)


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 100, 101])
def test_what_is_packed_comes_out_again(ring: int, length: int) -> None:
    vector = np.random.default_rng(ring + length).integers(0, 2**ring, length, dtype=np.uint32)
    if length > 1:
        vector[0], vector[-1] = 2**ring - 1, 0
    packed = pack(vector, ring)
    assert packed.dtype == np.uint8
    assert len(packed) == packed_bytes(length, ring)
    assert np.array_equal(unpack(packed, length, ring), vector)


@given(ring=st.sampled_from(RINGS), vector=st.lists(st.integers(0, 2**32 - 1), max_size=40))
def test_of_integers_beyond_the_ring_the_lower_bits_are_kept(ring: int, vector: list[int]) -> None:
    out = unpack(pack(np.array(vector, dtype=np.uint32), ring), len(vector), ring)
    assert out.tolist() == [integer % 2 ** wire_bits(ring) for integer in vector]


@pytest.mark.parametrize("ring", RINGS)
def test_the_wire_takes_the_next_half_byte(ring: int) -> None:
    bits = wire_bits(ring)
    assert bits % 4 == 0
    assert 0 <= bits - ring < 4
    for length in (1, 2, 7, 1000):
        assert 0 <= 8 * packed_bytes(length, ring) - bits * length < 8


def test_the_size_of_a_dpresnet_update() -> None:
    assert packed_bytes(4_802_121, 32) == 19_208_484
    assert packed_bytes(4_802_121, 24) == 14_406_363
    vector = np.zeros(4_802_121, dtype=np.uint32)
    assert pack(vector, 32).nbytes <= 19.3e6
    assert pack(vector, 24).nbytes <= 14.5e6


@pytest.mark.parametrize("ring", [16, 20, 24, 28, 32])
@pytest.mark.parametrize("length", [9, 10])
def test_a_packed_vector_of_another_length_is_refused(ring: int, length: int) -> None:
    packed = pack(np.zeros(length, dtype=np.uint32), ring)
    for wrong in (packed[:-1], np.append(packed, np.uint8(0)), packed[:0]):
        with pytest.raises(ValueError, match=r"a packed vector has \d+ bytes instead of \d+"):
            unpack(wrong, length, ring)


@pytest.mark.parametrize("ring", [20, 24, 32])
def test_read_only_bytes_are_unpacked_and_can_be_added(ring: int) -> None:
    packed = np.frombuffer(pack(np.arange(11, dtype=np.uint32), ring).tobytes(), dtype=np.uint8)
    total = np.ones(11, dtype=np.uint32)
    total += unpack(packed, 11, ring)
    assert total.tolist() == list(range(1, 12))
