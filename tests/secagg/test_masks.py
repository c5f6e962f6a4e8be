from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.secagg.masks import CHUNK, KEY_BYTES, Context, Mask, apply_masks, keystream, pair_mask
from tests.secagg.make_vectors import VECTORS

KNOWN = json.loads(VECTORS.read_text())
KEYS = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)
WHOLE = 2 * CHUNK + 37


def test_a_keystream_is_that_of_nist_sp_800_38a_f_5_1() -> None:
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    counter = int("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 16)
    plain = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    expected = (
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
        "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
    )
    stream = keystream(key, 4 * counter, 16)
    assert (np.frombuffer(plain, dtype="<u4") ^ stream).astype("<u4").tobytes().hex() == expected


@pytest.mark.parametrize("known", KNOWN["keystream"]["stretches"], ids=lambda known: f"from {known['start']}")
def test_keystreams_are_those_of_the_committed_vectors(known: dict[str, Any]) -> None:
    key = bytes.fromhex(KNOWN["keystream"]["key"])
    assert keystream(key, known["start"], len(known["words"])).tolist() == known["words"]


@pytest.mark.parametrize(
    "known", KNOWN["mask_keys"], ids=lambda known: f"round {known['round']} of {known['session'][:4]}"
)
def test_mask_keys_are_those_of_the_committed_vectors(known: dict[str, Any]) -> None:
    context = Context(bytes.fromhex(known["session"]), known["round"], known["attempt"], known["vector"])
    secret, (one, other) = bytes.fromhex(known["secret"]), known["hospitals"]
    assert context.pair_key(secret, one, other).hex() == known["pair_key"]
    assert context.pair_key(secret, other, one).hex() == known["pair_key"]
    assert context.self_key(secret, one).hex() == known["self_key"]


def test_mask_keys_differ_in_each_thing_that_they_are_bound_to() -> None:
    secret, start = bytes(range(32)), {"session": b"a" * 32, "round": 1, "attempt": 1, "vector": 0}
    contexts = [
        Context(**{**start, **change})
        for change in ({}, {"session": b"b" * 32}, {"round": 2}, {"attempt": 2}, {"vector": 1}, {"round": 11})
    ]
    keys = [context.self_key(secret, hospital) for context in contexts for hospital in (0, 1, 2, 12)]
    keys += [context.pair_key(secret, *pair) for context in contexts for pair in ((0, 1), (0, 2), (1, 2), (1, 12))]
    keys += [Context(**start).self_key(bytes(32), 0), Context(**start).pair_key(bytes(32), 0, 1)]
    assert len(set(keys)) == len(keys) == 50
    assert {len(key) for key in keys} == {KEY_BYTES}


@given(st.lists(st.tuples(*[st.integers(1, 200)] * 5), min_size=2, max_size=40, unique=True))
def test_no_two_contexts_run_together(numbers: list[tuple[int, ...]]) -> None:
    secret = bytes(range(32))
    keys = {
        Context(b"a" * 32, round, attempt, vector).pair_key(secret, one, 1000 + other)
        for round, attempt, vector, one, other in numbers
    }
    assert len(keys) == len(numbers)


@given(key=KEYS, start=st.integers(0, WHOLE), length=st.integers(0, 300))
def test_any_stretch_of_a_stream_can_be_made_on_its_own(key: bytes, start: int, length: int) -> None:
    whole = keystream(key, 0, start + length)
    assert np.array_equal(keystream(key, start, length), whole[start:])


@pytest.mark.parametrize("start", [0, 1, 2, 3, CHUNK - 1, CHUNK, CHUNK + 2])
@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
def test_long_stretches_are_parts_of_the_whole_stream_too(start: int, length: int) -> None:
    key = bytes(range(16))
    assert np.array_equal(keystream(key, start, length), keystream(key, 0, start + length)[start:])


@given(
    masks=st.lists(st.builds(Mask, KEYS, st.booleans()), max_size=6),
    start=st.integers(0, 100),
    length=st.integers(0, 80) | st.sampled_from([CHUNK, CHUNK + 5]),
    seed=st.integers(0, 99),
)
def test_masks_add_their_streams_modulo_two_to_the_thirty_two(
    masks: list[Mask], start: int, length: int, seed: int
) -> None:
    before = np.random.default_rng(seed).integers(0, 2**32, length, dtype=np.uint32)
    expected = before.astype(object)
    for mask in masks:
        expected = expected + (-1 if mask.negative else 1) * keystream(mask.key, start, length).astype(object)
    after = before.copy()
    apply_masks(after, masks, start)
    assert after.tolist() == [int(value) % 2**32 for value in expected]


@given(
    masks=st.lists(st.builds(Mask, KEYS, st.booleans()), min_size=1, max_size=6, unique_by=lambda mask: mask.key),
    start=st.integers(0, 100),
    cut=st.integers(0, 200),
)
def test_masks_taken_away_shard_by_shard_leave_the_vector(masks: list[Mask], start: int, cut: int) -> None:
    before = np.arange(200, dtype=np.uint32) * np.uint32(2**25 + 1)
    vector = before.copy()
    apply_masks(vector, masks, start)
    assert not np.array_equal(vector, before)
    opposite = [mask.opposite() for mask in reversed(masks)]
    apply_masks(vector[:cut], opposite, start)
    apply_masks(vector[cut:], opposite, start + cut)
    assert np.array_equal(vector, before)


@given(key=KEYS, one=st.integers(0, 99), other=st.integers(0, 99))
def test_the_masks_of_a_pair_cancel(key: bytes, one: int, other: int) -> None:
    if one == other:
        other += 1
    vector = np.zeros(9, dtype=np.uint32)
    apply_masks(vector, [pair_mask(key, one, other)])
    assert vector.any()
    apply_masks(vector, [pair_mask(key, other, one)])
    assert not vector.any()


def test_a_masks_key_stays_out_of_its_words() -> None:
    assert repr(Mask(b"sixteen secrets!")) == "Mask(negative=False)"
