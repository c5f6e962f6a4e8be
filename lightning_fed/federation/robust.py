"""Aggregation that a few poisoned hospitals cannot move far, and bounded updates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_fed.models.vector import Vector

AT_ONCE = 2**18
"""Coordinates that are sorted at the same time."""


def bound(update: Vector, norm: float | None) -> Vector:
    """The update (parameters,), shortened to a Euclidean norm where it is longer.

    Args:
        norm: None leaves it as it is. What is not finite stays so, for others to refuse.
    """
    if norm is None:
        return update
    length = float(np.linalg.norm(update.astype(np.float64)))
    return update if not length > norm else (update * (norm / length)).astype(np.float32)


def trimmed_mean(updates: Sequence[Vector], trim: float, asked: int = 0) -> Vector:
    """Coordinate-wise mean without the `floor(trim * n)` least and greatest (Yin et al. 2018, arXiv 1803.01498).

    Args:
        updates: n of float32 (parameters,). trim: below one half. asked: hospitals that were, of whom fewer may
            have sent: as many are left out as of all, since it may be the poisoned ones that did send.

    Returns:
        float32 (parameters,). With all but one left out, or two of an even number, it is the median.

    Raises:
        ValueError: none is left.
    """
    cut = int(trim * max(asked, len(updates)) + 1e-9)
    if len(updates) <= 2 * cut:
        raise ValueError(f"{len(updates)} updates, of which {cut} are left out at each end")
    found = np.empty_like(updates[0])
    for start in range(0, len(found), AT_ONCE):
        part = np.sort([update[start : start + AT_ONCE] for update in updates], axis=0)
        kept = part[cut : len(updates) - cut]
        found[start : start + AT_ONCE] = kept.mean(0, dtype=np.float64)
    return found


def median(updates: Sequence[Vector]) -> Vector:
    """Coordinate-wise median float32 (parameters,) of updates; see `trimmed_mean`."""
    return trimmed_mean(updates, (len(updates) - 1) // 2 / len(updates))
