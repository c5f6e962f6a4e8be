"""How likely an observation is if it comes from chance alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats


def uniform_counts(counts: NDArray[np.int64]) -> float:
    """The chi-square p-value of counts that should be equal but for chance."""
    return float(stats.chisquare(counts).pvalue)


def uniform_bytes(data: bytes | NDArray[np.uint8]) -> float:
    """The p-value of bytes that should be uniform."""
    return uniform_counts(np.bincount(np.frombuffer(data, dtype=np.uint8), minlength=256))


def by_chance(right: int, of: int) -> float:
    """The two-sided p-value of so many right guesses between two."""
    return float(stats.binomtest(right, of).pvalue)
