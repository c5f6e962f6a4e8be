"""Smooth random planes: uneven outlines, clouded cytoplasm, clumped chromatin."""

from functools import cache

import numpy as np

from lightning_fed.data.bloodcells.shapes import Array


@cache
def _spline(nodes: int, size: int) -> Array:
    """-> (size, nodes): cubic B-spline weights from nodes to pixel centres, each row of unit length."""
    position = 1.0 + (np.arange(size) + 0.5) / size * (nodes - 3)
    away = np.abs(position[:, None] - np.arange(nodes)[None, :])
    near = 2.0 / 3.0 - away**2 + away**3 / 2.0
    far = np.maximum(2.0 - away, 0.0) ** 3 / 6.0
    weights: Array = np.where(away < 1.0, near, far)
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    return weights


def smooth_noise(values: Array, size: int) -> Array:
    """Standard normal values at nodes (images, nodes, nodes) -> a smooth plane of unit variance."""
    weights = _spline(values.shape[-1], size)
    return weights @ values @ weights.T
