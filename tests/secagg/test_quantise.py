from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lightning_fed.secagg.errors import RoundAbortedError
from lightning_fed.secagg.masks import CHUNK
from lightning_fed.secagg.quantise import GREATEST_RING, LEAST_RING, Encoding

KEY = bytes(range(16))
CLIPS = st.sampled_from([1.0, 4.0, 0.1, 1e-6, 3e4, math.pi, 0.7, 2**-20])


@st.composite
def encodings(draw: st.DrawFn) -> Encoding:
    """Any that fits the ring."""
    bits = draw(st.integers(4, 31))
    hospitals = draw(st.integers(1, min((2**31 - 1) // (2 ** (bits - 1) - 1), 1000)))
    weight = draw(st.integers(1, min((2**32 - 1) // hospitals, 10**6)))
    return Encoding(hospitals, draw(CLIPS), bits, weight)


def signed(words: np.ndarray) -> np.ndarray:
    return words.view(np.int32)


def added(vectors: list[np.ndarray], ring: int) -> np.ndarray:
    """The sum in the ring, as a shard gives it."""
    columns = zip(*(vector.tolist() for vector in vectors), strict=True)
    return np.array([sum(column) % 2**ring for column in columns], dtype=np.uint32)


@given(encoding=encodings(), data=st.data())
def test_one_update_comes_back_within_a_step(encoding: Encoding, data: st.DataObject) -> None:
    weight = data.draw(st.integers(1, encoding.max_weight))
    parts = data.draw(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30))
    clip = np.float32(encoding.clip)
    update = np.clip(np.array(parts, dtype=np.float32) * clip, -clip, clip)
    words, saturated = encoding.encode(update, weight, data.draw(st.binary(min_size=16, max_size=16)))
    assert saturated == 0
    assert words[-1] == weight
    exact = update.astype(np.float64) * weight / encoding.max_weight / encoding.step
    single = np.abs(exact) * 2.0**-23  # two float32 roundings on the way
    assert (np.abs(signed(words[:-1]) - exact) < 1 + single).all()
    decoded, total = encoding.decode(added([words], encoding.ring_bits))
    assert total == weight
    of_a_mean = encoding.mean_step(1, weight) * (1 + single) + np.abs(update) * 2.0**-23
    assert (np.abs(decoded - update) <= of_a_mean).all()


@given(encoding=encodings(), data=st.data())
def test_the_mean_of_several_is_within_a_step_of_the_exact_weighted_mean(
    encoding: Encoding, data: st.DataObject
) -> None:
    assume(encoding.bits <= 20)
    hospitals = data.draw(st.integers(1, min(encoding.hospitals, 8)))
    generator = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    updates = (generator.uniform(-1, 1, (hospitals, 40)) * encoding.clip * 0.999).astype(np.float32)
    weights = [data.draw(st.integers(0, encoding.max_weight)) for _ in range(hospitals)]
    assume(sum(weights))
    vectors = [encoding.encode(u, n, generator.bytes(16))[0] for u, n in zip(updates, weights, strict=True)]
    mean, total = encoding.decode(added(vectors, encoding.ring_bits))
    assert total == sum(weights)
    exact = np.average(updates.astype(np.float64), axis=0, weights=weights)
    bound = encoding.mean_step(hospitals, total) * 1.01 + encoding.clip * 2.0**-22
    assert (np.abs(mean - exact) < bound).all()


@given(encoding=encodings(), weight=st.integers(0, 10**6))
@example(Encoding(1, 1.0, 31, 1), 1)
@example(Encoding(2, 0.1, 31, 3), 3)
def test_coordinates_at_the_clip_never_leave_the_levels(encoding: Encoding, weight: int) -> None:
    weight = min(weight, encoding.max_weight)
    clip = np.float32(encoding.clip)
    inside = np.nextafter(clip, np.float32(0))
    update = np.array([clip, -clip, inside, -inside] * 50, dtype=np.float32)
    for number in range(4):
        words, _ = encoding.encode(update, weight, bytes([number]) * 16)
        assert np.abs(signed(words[:-1]).astype(np.int64)).max() <= encoding.levels


@given(encoding=encodings(), negative=st.booleans())
def test_the_sum_of_all_hospitals_extremes_never_wraps(encoding: Encoding, negative: bool) -> None:
    level = -encoding.levels if negative else encoding.levels
    total = level * encoding.hospitals
    ring = encoding.ring_bits
    assert -(2 ** (ring - 1)) <= total < 2 ** (ring - 1)
    assert encoding.hospitals * encoding.max_weight < 2**ring
    in_ring = np.array([total % 2**ring, encoding.hospitals * encoding.max_weight], dtype=np.uint32)
    mean, weight = encoding.decode(in_ring)
    assert weight == encoding.hospitals * encoding.max_weight
    assert mean[0] == pytest.approx(level * encoding.step, rel=1e-6)


@pytest.mark.parametrize("bits", range(4, 32))
def test_vectors_at_the_clip_of_as_many_hospitals_as_fit_add_up_to_the_clip(bits: int) -> None:
    hospitals = min((2**31 - 1) // (2 ** (bits - 1) - 1), 50)
    encoding = Encoding(hospitals, 2.0, bits, 7)
    update = np.array([2.0, -2.0, 5.0, -5.0, 0.0], dtype=np.float32)
    vectors = [encoding.encode(update, 7, bytes([number]) * 16)[0] for number in range(hospitals)]
    mean, weight = encoding.decode(added(vectors, encoding.ring_bits))
    assert weight == 7 * hospitals
    assert mean == pytest.approx([2.0, -2.0, 2.0, -2.0, 0.0], abs=1.01 * encoding.step)


@given(encoding=encodings())
def test_the_ring_is_the_smallest_that_holds_both_sums(encoding: Encoding) -> None:
    def holds(ring: int) -> bool:
        return (
            encoding.hospitals * encoding.levels < 2 ** (ring - 1)
            and encoding.hospitals * encoding.max_weight < 2**ring
        )

    assert encoding.ring_bits == next(ring for ring in range(LEAST_RING, GREATEST_RING + 1) if holds(ring))


@pytest.mark.parametrize(
    ("hospitals", "bits", "weight", "ring"),
    [
        (10, 20, 10_000, 24),
        (10, 12, 6553, 16),
        (10, 12, 6554, 17),
        (16, 12, 1, 16),
        (17, 12, 1, 17),
        (2, 31, 1, 32),
    ],
)
def test_some_rings(hospitals: int, bits: int, weight: int, ring: int) -> None:
    assert Encoding(hospitals, 1.0, bits, weight).ring_bits == ring


def refusal(hospitals: int, bits: int, weight: int) -> str | None:
    try:
        Encoding(hospitals, 1.0, bits, weight)
    except ValueError as error:
        return str(error)
    return None


@given(hospitals=st.integers(2, 10**6), bits=st.integers(4, 31), weight=st.integers(1, 10**8))
@example(2, 31, 2**31 - 1)
@example(3, 31, 1)
@example(4, 30, 2**30)
def test_an_overflow_is_refused_exactly_where_a_sum_could_wrap_and_each_remedy_helps(
    hospitals: int, bits: int, weight: int
) -> None:
    updates_wrap = hospitals * (2 ** (bits - 1) - 1) > 2**31 - 1
    weights_wrap = hospitals * weight > 2**32 - 1
    said = refusal(hospitals, bits, weight)
    assert (said is not None) == (updates_wrap or weights_wrap)
    if said is None:
        return
    found = re.search(r"secagg\.bits to (\d+) or less, \D*secagg\.max_weight\D+(\d+) or less", said)
    assert found, said
    assert "federation.participation" in said
    fewer, lighter = (int(number) for number in found.groups())
    if fewer >= 2 and lighter >= 1:
        assert refusal(hospitals, min(bits, fewer), min(weight, lighter)) is None
        assert fewer == 31 or refusal(hospitals, fewer + 1, 1) is not None or fewer == bits


def spread(value: float, draws: int = 200_000) -> np.ndarray:
    """What one value becomes, in steps, over many draws with one fixed key."""
    encoding = Encoding(1, 8.0, 8, 1)
    update = np.full(draws, value * encoding.step, dtype=np.float32)
    return signed(encoding.encode(update, 1, KEY)[0][:-1])


@pytest.mark.parametrize("value", [0.0, 0.25, 0.5, 0.9, 3.1, -0.25, -0.5, -7.75, -100.01])
def test_rounding_goes_to_either_neighbour_and_is_right_on_average(value: float) -> None:
    drawn = spread(value)
    assert set(drawn.tolist()) <= {math.floor(value), math.ceil(value)} | {math.floor(value + 1e-5)}
    fraction = value - math.floor(value)
    deviation = math.sqrt(fraction * (1 - fraction) / len(drawn))
    assert abs(float(drawn.mean()) - value) < 5 * deviation + 1e-4


def test_rounding_at_one_coordinate_says_nothing_of_the_next() -> None:
    drawn = spread(0.5)
    pairs = np.bincount(2 * drawn[::2] + drawn[1::2], minlength=4) / (len(drawn) // 2)
    assert pairs == pytest.approx([0.25] * 4, abs=0.01)
    assert np.corrcoef(drawn[:-CHUNK], drawn[CHUNK:])[0, 1] == pytest.approx(0, abs=0.02)


def test_the_rounding_key_alone_decides_the_rounding() -> None:
    encoding = Encoding(3, 1.0, 16, 10)
    update = np.random.default_rng(0).uniform(-1, 1, 3 * CHUNK + 5).astype(np.float32)
    first, again, other = (encoding.encode(update, 9, key)[0] for key in (KEY, KEY, bytes(16)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.abs(signed(first - other)).max() == 1


@pytest.mark.parametrize("length", [1, CHUNK, 2 * CHUNK + 3])
def test_saturated_coordinates_are_counted_and_cut(length: int) -> None:
    encoding = Encoding(2, 1.0, 16, 1)
    update = np.zeros(length, dtype=np.float32)
    beyond = sorted({0, length // 2, length - 1})
    update[beyond] = [(-1) ** place * 1.5 for place in range(len(beyond))]
    words, saturated = encoding.encode(update, 1, KEY)
    assert saturated == len(beyond)
    assert np.abs(signed(words[:-1])[beyond]).min() >= encoding.levels - 1
    assert np.count_nonzero(words[:-1]) == len(beyond)
    at_the_clip = np.full(length, 1.0, dtype=np.float32)
    assert encoding.encode(at_the_clip, 1, KEY)[1] == 0


def test_the_update_itself_is_left_alone() -> None:
    update = np.array([3.0, -3.0, 0.5], dtype=np.float32)
    update.flags.writeable = False
    Encoding(2, 1.0, 16, 1).encode(update, 1, KEY)
    assert update.tolist() == [3.0, -3.0, 0.5]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, CHUNK, CHUNK + 9])
def test_an_update_that_is_not_finite_is_refused(value: float, place: int) -> None:
    update = np.zeros(CHUNK + 10, dtype=np.float32)
    update[place] = value
    with pytest.raises(ValueError, match="not finite"):
        Encoding(2, 1.0, 16, 1).encode(update, 1, KEY)


@pytest.mark.parametrize("weight", [-1, 11, 10**9])
def test_a_weight_beyond_the_greatest_is_refused(weight: int) -> None:
    with pytest.raises(ValueError, match=rf"a weight of {weight} is above secagg\.max_weight 10"):
        Encoding(2, 1.0, 16, 10).encode(np.zeros(3, dtype=np.float32), weight, KEY)


def test_nobodys_weight_gives_a_mean_of_zeros() -> None:
    encoding = Encoding(2, 1.0, 16, 10)
    words, _ = encoding.encode(np.ones(3, dtype=np.float32), 0, KEY)
    assert not words.any()
    mean, weight = encoding.decode(words)
    assert (mean.tolist(), weight) == ([0.0] * 3, 0)


@pytest.mark.parametrize("hospitals", [1, 3, 5])
def test_a_sum_that_so_many_hospitals_cannot_have_sent_is_refused(hospitals: int) -> None:
    encoding = Encoding(5, 1.0, 12, 1000)
    top, ring = hospitals * encoding.levels, 2**encoding.ring_bits
    for coordinate, weight in [(top, 1), (-top, 1), (0, 1000 * hospitals)]:
        encoding.decode(np.array([0, coordinate % ring, 0, weight], dtype=np.uint32), hospitals)
    for coordinate, weight in [(top + 1, 1), (-top - 1, 1), (0, 1000 * hospitals + 1), (ring // 2, 1)]:
        with pytest.raises(RoundAbortedError, match=f"the sum is none of {hospitals} hospitals' vectors"):
            encoding.decode(np.array([0, coordinate % ring, 0, weight], dtype=np.uint32), hospitals)


def test_a_sum_that_is_still_masked_is_refused() -> None:
    encoding = Encoding(5, 1.0, 12, 1000)
    noise = np.random.default_rng(0).integers(0, 2**encoding.ring_bits, CHUNK + 100, dtype=np.uint32)
    noise[-1] = 5
    with pytest.raises(RoundAbortedError, match="one sent something else"):
        encoding.decode(noise)


def test_upper_bits_beyond_the_ring_do_not_matter() -> None:
    encoding = Encoding(2, 1.0, 12, 10)
    words, _ = encoding.encode(np.linspace(-1, 1, 9, dtype=np.float32), 10, KEY)
    in_ring = words & np.uint32(2**encoding.ring_bits - 1)
    noisy: Any = in_ring | np.uint32(0xABC0_0000)
    assert encoding.ring_bits == 16
    assert np.array_equal(encoding.decode(in_ring)[0], encoding.decode(noisy)[0])
    assert encoding.decode(noisy)[1] == 10
