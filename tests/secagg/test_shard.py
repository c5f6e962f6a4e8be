from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.secagg.masks import WORDS, Mask, apply_masks
from lightning_fed.secagg.shard import ShardSum, slices
from lightning_fed.secagg.wire import pack


@given(length=st.integers(1, 5000), shards=st.integers(1, 40))
def test_slices_cover_a_vector_once_and_start_on_whole_blocks(length: int, shards: int) -> None:
    found = slices(length, shards)
    assert len(found) == shards
    assert [place for start, stop in found for place in range(start, stop)] == list(range(length))
    assert all(start % WORDS == 0 for start, stop in found if start < stop)
    sizes = [stop - start for start, stop in found]
    assert max(sizes) - min(sizes) < 2 * WORDS


@given(
    length=st.integers(1, 60),
    shards=st.integers(1, 7),
    ring=st.integers(16, 32),
    hospitals=st.integers(1, 5),
    seed=st.integers(0, 999),
)
def test_shards_together_open_the_sum(length: int, shards: int, ring: int, hospitals: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    vectors = generator.integers(0, 2**32, (hospitals, length), dtype=np.uint32)
    masks = [Mask(generator.bytes(16), bool(place % 2)) for place in range(hospitals)]
    masked = vectors.copy()
    for vector, mask in zip(masked, masks, strict=True):
        apply_masks(vector, [mask])
    opened = []
    for start, stop in slices(length, shards):
        shard = ShardSum(start, stop, ring)
        for vector in masked:
            shard.add(pack(vector[start:stop], ring))
        opened += shard.open([mask.opposite() for mask in masks]).tolist()
    assert opened == [sum(column) % 2**ring for column in vectors.T.tolist()]


def test_a_slice_of_another_length_is_refused_and_leaves_the_sum() -> None:
    shard = ShardSum(4, 9, 32)
    with pytest.raises(ValueError, match="a packed vector has 24 bytes instead of 20"):
        shard.add(pack(np.ones(6, dtype=np.uint32), 32))
    assert not shard.open([]).any()


def test_a_shard_holds_its_accumulator_alone() -> None:
    shard = ShardSum(0, 1000, 32)
    before = shard.total
    for _ in range(3):
        shard.add(pack(np.ones(1000, dtype=np.uint32), 32))
    assert shard.total is before
    assert {type(value) for value in vars(shard).values()} == {int, np.ndarray}
    assert shard.total.nbytes == 4000
