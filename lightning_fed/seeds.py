"""Independent random streams from one seed, named by what they are for.

A stream depends on its name alone and not on what was drawn before it, so that a run gives the same
result on any number of workers, packed or not, resumed or not.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose: the head of SHA-256 over the seed and the purpose's parts."""
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy generator for one purpose, such as `stream(42, "order", hospital, round)`."""
    return np.random.default_rng(derive(seed, *purpose))
