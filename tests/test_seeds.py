import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.seeds import derive, stream


@given(st.integers(0, 2**63 - 1), st.lists(st.text("abc /é") | st.integers(), max_size=4))
def test_a_derived_seed_is_63_bits_of_a_hash_of_its_name(seed: int, purpose: list[str | int]) -> None:
    text = "/".join(map(str, [seed, *purpose]))
    assert derive(seed, *purpose) == int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) // 2


def test_a_stream_depends_on_its_name_alone() -> None:
    first = stream(1, "order", 2, 3).integers(0, 2**60, 5)
    stream(9, "other").random(100)
    np.random.seed(0)
    assert np.array_equal(stream(1, "order", 2, 3).integers(0, 2**60, 5), first)


def test_streams_of_different_names_differ() -> None:
    names = [(seed, purpose, hospital) for seed in range(3) for purpose in ("a", "b") for hospital in range(20)]
    assert len({int(stream(*name).integers(0, 2**62)) for name in names}) == len(names)
