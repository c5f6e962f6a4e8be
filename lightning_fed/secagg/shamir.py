"""Shamir's secret sharing (CACM 1979) of 32-byte secrets over the prime 2^256 + 297.

The prime lies above every 32-byte secret, so that a secret is one number. A hospital's share is the polynomial
at its number plus one.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33  # a share may be as large as the prime, just above 32 bytes


def split(secret: bytes, threshold: int, holders: Sequence[int]) -> dict[int, int]:
    """A share for each holder; any `threshold` of them give the secret back, fewer say nothing of it.

    Args:
        secret: 32 bytes. threshold: from 1 to the number of holders. holders: distinct, from 0.
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= len(holders):
        raise ValueError(f"a secret of {len(secret)} bytes cannot be split {threshold} of {len(holders)}")
    drawn = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    return {holder: _evaluate([int.from_bytes(secret, "big"), *drawn], holder + 1) for holder in holders}


def _evaluate(coefficients: Sequence[int], point: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % PRIME
    return value


def combine(shares: Mapping[int, int]) -> bytes | None:
    """The secret that goes through all these shares, by holder; None if that is no 32-byte secret.

    Wrong or too few shares give another secret: whoever calls this compares it with what was promised.
    """
    holders = tuple(sorted(shares))
    total = sum(weight * shares[holder] for weight, holder in zip(lagrange_at_zero(holders), holders, strict=True))
    value = total % PRIME
    return value.to_bytes(SECRET_BYTES, "big") if value < 1 << (8 * SECRET_BYTES) else None


def disagree(shares: Mapping[int, int], right: Sequence[int]) -> list[int]:
    """The holders whose shares do not lie on the polynomial through the right ones.

    Args:
        shares: by holder. right: holders of as many right shares as the threshold.
    """
    holders = tuple(sorted(right))
    wrong = []
    for holder in shares.keys() - set(holders):
        weights = _lagrange(holders, holder + 1)
        value = sum(weight * shares[one] for weight, one in zip(weights, holders, strict=True))
        if (value - shares[holder]) % PRIME:
            wrong.append(holder)
    return wrong


@lru_cache(maxsize=4096)
def lagrange_at_zero(holders: tuple[int, ...]) -> tuple[int, ...]:
    """The weights that take the shares of these holders to the secret; the same for all of their secrets."""
    return _lagrange(holders, 0)


def _lagrange(holders: tuple[int, ...], at: int) -> tuple[int, ...]:
    """The weights that take shares of these holders to their polynomial's value at a point of nobody's."""
    points = [holder + 1 for holder in holders]
    product = math.prod(point - at for point in points)
    weights = []
    for point in points:
        differences = math.prod(other - point for other in points if other != point)
        weights.append(product // (point - at) * pow(differences, -1, PRIME) % PRIME)
    return tuple(weights)
