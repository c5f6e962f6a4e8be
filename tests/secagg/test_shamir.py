from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.secagg import shamir
from lightning_fed.secagg.shamir import PRIME, SHARE_BYTES, combine, disagree, lagrange_at_zero, split
from tests.secagg.make_vectors import VECTORS
from tests.secagg.statistics import uniform_bytes

KNOWN = json.loads(VECTORS.read_text())
X = sympy.symbols("x")
SECRETS = st.binary(min_size=32, max_size=32) | st.sampled_from([bytes(32), b"\xff" * 32, bytes(31) + b"\x01"])


@st.composite
def sharings(draw: st.DrawFn) -> tuple[bytes, int, list[int]]:
    """A secret, a threshold and holders."""
    holders = draw(st.lists(st.integers(0, 2000), min_size=1, max_size=12, unique=True))
    return draw(SECRETS), draw(st.integers(1, len(holders))), holders


def exact_value_at_zero(shares: dict[int, int]) -> int:
    """By sympy's interpolation over the rationals, then modulo the prime."""
    value = sympy.interpolate([(holder + 1, share) for holder, share in shares.items()], 0)
    value = sympy.Rational(value)
    return int(value.p) * int(sympy.mod_inverse(int(value.q), PRIME)) % PRIME


def test_the_prime_is_prime_and_above_every_secret() -> None:
    assert sympy.isprime(PRIME)
    assert 2**256 < PRIME < 2 ** (8 * SHARE_BYTES)


@pytest.mark.parametrize("known", KNOWN["shamir"], ids=lambda known: f"{known['threshold']}")
def test_shares_are_those_of_the_committed_vectors(known: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: Iterator[int] = iter([int(number, 16) for number in known["coefficients"]])
    monkeypatch.setattr(shamir.secrets, "randbelow", lambda below: next(drawn))
    holders = [int(holder) for holder in known["shares"]]
    shares = split(bytes.fromhex(known["secret"]), known["threshold"], holders)
    assert {str(holder): f"{share:066x}" for holder, share in shares.items()} == known["shares"]


@pytest.mark.parametrize("known", KNOWN["shamir"], ids=lambda known: f"{known['threshold']}")
def test_the_committed_shares_give_the_committed_secret_from_either_end(known: dict[str, Any]) -> None:
    shares = [(int(holder), int(share, 16)) for holder, share in known["shares"].items()]
    for chosen in (shares[: known["threshold"]], shares[-known["threshold"] :], shares):
        secret = combine(dict(chosen))
        assert secret is not None
        assert secret.hex() == known["secret"]


@pytest.mark.parametrize("known", KNOWN["lagrange"], ids=lambda known: f"{len(known['holders'])}")
def test_lagrange_weights_are_those_of_the_committed_vectors(known: dict[str, Any]) -> None:
    weights = lagrange_at_zero(tuple(known["holders"]))
    assert [f"{weight:066x}" for weight in weights] == known["weights"]


@given(sharing=sharings(), data=st.data())
def test_any_threshold_of_the_shares_give_the_secret_back_and_agree_with_exact_interpolation(
    sharing: tuple[bytes, int, list[int]], data: st.DataObject
) -> None:
    secret, threshold, holders = sharing
    shares = split(secret, threshold, holders)
    assert all(0 <= share < PRIME for share in shares.values())
    number = data.draw(st.integers(threshold, len(holders)))
    chosen = {holder: shares[holder] for holder in data.draw(st.permutations(holders))[:number]}
    assert combine(chosen) == secret
    assert exact_value_at_zero(chosen) == int.from_bytes(secret, "big")


@given(holders=st.sets(st.integers(0, 300), min_size=1, max_size=20), data=st.data())
def test_combining_any_numbers_is_exact_interpolation(holders: set[int], data: st.DataObject) -> None:
    shares = {holder: data.draw(st.integers(0, PRIME - 1)) for holder in holders}
    value = exact_value_at_zero(shares)
    assert combine(shares) == (value.to_bytes(32, "big") if value < 2**256 else None)


def test_a_value_above_every_secret_is_none() -> None:
    assert combine({0: 2**256 + 5, 1: 2**256 + 5}) is None
    assert combine({0: 2**256 - 1}) == b"\xff" * 32


def value_at(point: int, points: dict[int, int]) -> int:
    """Interpolation modulo the prime."""
    return (
        sum(
            value * prod((point - other) * pow(here - other, -1, PRIME) for other in points if other != here)
            for here, value in points.items()
        )
        % PRIME
    )


@given(sharing=sharings(), data=st.data())
def test_one_share_too_few_fits_every_secret_equally(
    sharing: tuple[bytes, int, list[int]], data: st.DataObject
) -> None:
    secret, threshold, holders = sharing
    holders = sorted({*holders, 2001})
    threshold = max(threshold, 2)
    shares = split(secret, threshold, holders)
    *known, missing = data.draw(st.permutations(holders))[:threshold]
    other = data.draw(SECRETS)
    points = {holder + 1: shares[holder] for holder in known} | {0: int.from_bytes(other, "big")}
    last = value_at(missing + 1, points)
    assert combine({holder: shares[holder] for holder in known} | {missing: last}) == other
    assert (last == shares[missing]) == (other == secret)
    assert combine({holder: shares[holder] for holder in known}) != secret


def test_no_share_of_a_fixed_secret_is_more_likely_than_another() -> None:
    for secret in (bytes(32), b"\xff" * 32):
        sharings = [split(secret, 3, range(5)) for _ in range(2000)]
        for holder in range(5):
            shares = np.array(
                [list(shares[holder].to_bytes(33, "big")[1:]) for shares in sharings], dtype=np.uint8
            )
            assert uniform_bytes(shares.tobytes()) > 1e-6
            assert min(uniform_bytes(shares[:, 0].tobytes()), uniform_bytes(shares[:, -1].tobytes())) > 1e-6
        differences = [((shares[0] - shares[1]) % PRIME).to_bytes(33, "big")[1:] for shares in sharings]
        assert uniform_bytes(b"".join(differences)) > 1e-6


def test_the_polynomial_has_the_degree_that_the_threshold_says() -> None:
    for threshold in range(1, 7):
        shares = split(bytes(range(32)), threshold, range(8))
        highest = _differences(list(shares.values()), threshold - 1)
        assert len(set(highest)) == 1
        assert threshold == 1 or highest[0] != 0
        assert set(_differences(list(shares.values()), threshold)) == {0}


def _differences(values: list[int], order: int) -> list[int]:
    """Finite differences modulo the prime: constant at a polynomial's degree, zero beyond."""
    for _ in range(order):
        values = [(after - before) % PRIME for before, after in pairwise(values)]
    return values


@given(sharing=sharings(), change=st.integers(1, PRIME - 1), data=st.data())
def test_a_corrupted_share_gives_another_secret(
    sharing: tuple[bytes, int, list[int]], change: int, data: st.DataObject
) -> None:
    secret, threshold, holders = sharing
    shares = split(secret, threshold, holders)
    chosen = {holder: shares[holder] for holder in holders[:threshold]}
    liar = data.draw(st.sampled_from(sorted(chosen)))
    chosen[liar] = (chosen[liar] + change) % PRIME
    assert combine(chosen) != secret


@pytest.mark.parametrize(
    ("secret", "threshold", "holders"),
    [(bytes(31), 2, [0, 1]), (bytes(33), 2, [0, 1]), (bytes(32), 3, [0, 1]), (bytes(32), 0, [0, 1])],
)
def test_a_sharing_that_cannot_work_is_refused(secret: bytes, threshold: int, holders: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot be split"):
        split(secret, threshold, holders)


@given(sharing=sharings(), change=st.integers(1, PRIME - 1), data=st.data())
def test_shares_off_the_polynomial_are_told_from_those_on_it(
    sharing: tuple[bytes, int, list[int]], change: int, data: st.DataObject
) -> None:
    secret, threshold, holders = sharing
    shares = split(secret, threshold, holders)
    right = data.draw(st.permutations(holders))[:threshold]
    liars = data.draw(st.sets(st.sampled_from(holders))) - set(right)
    told = {holder: (share + change * (holder in liars)) % PRIME for holder, share in shares.items()}
    assert set(disagree(told, right)) == liars


def test_lagrange_weights_are_computed_once_for_all_secrets_of_the_same_holders() -> None:
    lagrange_at_zero.cache_clear()
    for _ in range(5):
        shares = split(bytes(range(32)), 4, range(6))
        assert combine({holder: shares[holder] for holder in (5, 1, 3, 0)}) == bytes(range(32))
    assert lagrange_at_zero.cache_info().misses == 1
