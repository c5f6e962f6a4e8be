from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lightning_fed.secagg.errors import RoundAbortedError
from lightning_fed.secagg.integers import IntegerSum
from lightning_fed.secagg.quantise import GREATEST_RING, LEAST_RING

GREATEST = 2**31 - 1
greatest_sums = st.one_of(
    st.integers(1, GREATEST),
    st.integers(14, 30).flatmap(lambda bits: st.sampled_from([2**bits - 1, 2**bits, 2**bits + 1])),
)


def in_ring(vectors: list[NDArray[np.uint32]], ring: int) -> NDArray[np.uint32]:
    """Their sum modulo 2^ring, by whole numbers."""
    total = np.sum([vector.astype(object) for vector in vectors], axis=0) % 2**ring
    return np.array(total.tolist(), dtype=np.uint32)


@given(greatest=greatest_sums, hospitals=st.integers(1, 20), data=st.data())
def test_the_sum_of_what_hospitals_encode_comes_back(greatest: int, hospitals: int, data: st.DataObject) -> None:
    """Single vectors may leave the ring as far as they like, as their noise does; only the sum must fit."""
    encoding = IntegerSum(hospitals, greatest)
    sums = data.draw(st.lists(st.integers(-greatest, greatest), min_size=1, max_size=8))
    far = st.lists(st.integers(-(2**40), 2**40), min_size=len(sums), max_size=len(sums))
    vectors = [np.array(data.draw(far)) for _ in range(hospitals - 1)]
    vectors.append(np.array(sums) - sum(vectors))
    total = in_ring([encoding.encode(vector) for vector in vectors], encoding.ring_bits)
    decoded = encoding.decode(total)
    assert decoded.dtype == np.int64
    assert decoded.tolist() == sums


@given(greatest=greatest_sums)
@example(1)
@example(GREATEST)
@example(2**15 - 1)
@example(2**15)
def test_the_edges_come_back_and_one_beyond_is_refused_or_wraps(greatest: int) -> None:
    encoding = IntegerSum(3, greatest)
    ring = encoding.ring_bits
    edges = np.array([-greatest, greatest, 0, -1, 1])
    assert encoding.decode(in_ring([encoding.encode(edges)], ring)).tolist() == edges.tolist()
    half = 2 ** (ring - 1)
    for beyond in {greatest + 1, -greatest - 1, half - 1, -half} - {greatest, -greatest}:
        wrapped = (beyond + half) % 2**ring - half
        one = in_ring([encoding.encode(np.array([0, beyond, 0]))], ring)
        assert abs(wrapped) > greatest
        with pytest.raises(RoundAbortedError, match="none of these hospitals' vectors"):
            encoding.decode(one)


@given(greatest=greatest_sums)
@example(2**15 - 1)
@example(2**15)
@example(2**30)
def test_the_ring_is_the_smallest_that_tells_all_sums_apart(greatest: int) -> None:
    ring = IntegerSum(1, greatest).ring_bits
    assert 2 * greatest + 1 <= 2**ring
    assert ring == LEAST_RING or 2 * greatest + 1 > 2 ** (ring - 1)


@pytest.mark.parametrize("greatest", [2**31, 2**31 + 5, 2**40])
def test_a_sum_that_no_ring_holds_is_refused(greatest: int) -> None:
    bits = greatest.bit_length() + 1
    refusal = f"a sum of up to {greatest} needs {bits} bits, not {GREATEST_RING}"
    with pytest.raises(ValueError, match=re.escape(refusal)):
        IntegerSum(10, greatest)
    assert IntegerSum(10, GREATEST).ring_bits == GREATEST_RING


def test_bits_above_the_ring_are_no_part_of_the_sum() -> None:
    encoding = IntegerSum(2, 30_000)
    assert encoding.ring_bits == 16
    total = np.array([0xABCD_0005, 0x1234_FFFB], dtype=np.uint32)
    assert encoding.decode(total).tolist() == [5, -5]


def test_whole_numbers_of_any_sign_are_encoded_modulo_two_to_the_thirty_second() -> None:
    vector = np.array([0, 1, -1, 2**31, -(2**31), 2**32 + 7, -(2**32) - 7, 2**62, -(2**62)])
    words = IntegerSum(2, 9).encode(vector)
    assert words.dtype == np.uint32
    assert words.tolist() == [value % 2**32 for value in vector.tolist()]


def test_an_empty_vector_is_its_own_sum() -> None:
    encoding = IntegerSum(2, 9)
    assert encoding.decode(encoding.encode(np.zeros(0, np.int64))).shape == (0,)
    assert encoding.length(17) == 17


def test_a_sum_that_is_still_masked_is_refused() -> None:
    """Each coordinate is a uniform number of the ring; with room left in it, some are too great."""
    masked = np.random.default_rng(3).integers(0, 2**32, 5000, dtype=np.uint32)
    for greatest in (1, 40_000, 2**24 + 1, 2**30 - 2**24):
        with pytest.raises(RoundAbortedError):
            IntegerSum(4, greatest).decode(masked)


def test_parties_must_mean_the_same_sum() -> None:
    assert IntegerSum(4, 100).agreed == ("integers", 4, 100)
    assert len({IntegerSum(4, 100).agreed, IntegerSum(5, 100).agreed, IntegerSum(4, 101).agreed}) == 3
