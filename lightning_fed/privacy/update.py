"""Update-level privacy: a hospital's whole update is clipped and noised (the paper's local DP)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightning_fed.privacy.streams import Stream

Vector = NDArray[np.float32]
SAFE = 1 - 2.0**-22  # keeps float32's own roundings of a clipped update below the bound


def clip(update: Vector, max_norm: float) -> tuple[Vector, float]:
    """An update (parameters,) scaled down to a norm of at most `max_norm`, and the norm that it had."""
    norm = float(np.linalg.norm(update.astype(np.float64)))
    if norm <= max_norm:
        return update, norm
    return (update * (max_norm / norm * SAFE)).astype(np.float32), norm


def add_noise(update: Vector, deviation: float, stream: Stream) -> Vector:
    """An update with independent Gaussian noise of standard deviation `deviation` on each coordinate."""
    return (update + deviation * stream.normal(len(update)).numpy()).astype(np.float32)
