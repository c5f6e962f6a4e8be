"""n-of-n additive secret sharing: what PriMIA (Kaissis et al. 2021) does. One hospital missing, nothing opens."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np

from lightning_fed.secagg.masks import KEY_BYTES, Words, keystream


def additive_shares(vector: Words, parties: int) -> list[Words]:
    """uint32 (n,) shares of a vector that add up to it modulo 2^32; any fewer are uniform.

    Args:
        vector: uint32 (n,). parties: how many shares.
    """
    drawn = [keystream(os.urandom(KEY_BYTES), 0, len(vector)) for _ in range(parties - 1)]
    return [vector - add_up(drawn, len(vector)), *drawn]


def add_up(shares: Iterable[Words], length: int) -> Words:
    """The sum of shares modulo 2^32."""
    total = np.zeros(length, dtype=np.uint32)
    for share in shares:
        total += share
    return total
