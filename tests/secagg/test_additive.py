from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.secagg.additive import add_up, additive_shares
from tests.secagg.statistics import uniform_bytes


@given(vector=st.lists(st.integers(0, 2**32 - 1), max_size=50), parties=st.integers(1, 12))
def test_the_shares_of_a_vector_add_up_to_it(vector: list[int], parties: int) -> None:
    shares = additive_shares(np.array(vector, dtype=np.uint32), parties)
    assert len(shares) == parties
    assert add_up(shares, len(vector)).tolist() == vector


@given(parties=st.integers(2, 8), length=st.integers(1, 20), seed=st.integers(0, 999))
def test_parties_that_add_what_they_were_given_add_up_all_vectors(parties: int, length: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).integers(0, 2**32, (parties, length), dtype=np.uint32)
    dealt = [additive_shares(vector, parties) for vector in vectors]
    sums = [add_up((shares[party] for shares in dealt), length) for party in range(parties)]
    assert add_up(sums, length).tolist() == [sum(column) % 2**32 for column in vectors.T.tolist()]


def test_each_share_and_all_sums_of_some_but_not_all_are_uniform() -> None:
    vector = np.full(20_000, 12_345, dtype=np.uint32)
    shares = additive_shares(vector, 4)
    for place in range(4):
        assert uniform_bytes(shares[place].view(np.uint8)) > 1e-6
        without = [share for other, share in enumerate(shares) if other != place]
        assert uniform_bytes(add_up(without, len(vector)).view(np.uint8)) > 1e-6
    assert uniform_bytes(add_up(shares, len(vector)).view(np.uint8)) < 1e-6


def test_the_same_vector_is_never_shared_the_same_way_twice() -> None:
    vector = np.zeros(8, dtype=np.uint32)
    first, second = additive_shares(vector, 3), additive_shares(vector, 3)
    assert not any(np.array_equal(one, other) for one in first for other in second)


def test_the_vector_itself_is_left_alone() -> None:
    vector = np.arange(8, dtype=np.uint32)
    additive_shares(vector, 3)
    assert vector.tolist() == list(range(8))
