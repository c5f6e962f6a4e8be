"""Updates as each layer's largest singular values: what FedMIC's hospitals send (arXiv 2407.02261)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lightning_fed.models.vector import Vector, travelling

Shape = tuple[int, ...]
Part = tuple[NDArray[np.float32], ...]
"""A layer's update as it is, or two factors of it: (rows, rank) and (rank, columns)."""


@dataclass(frozen=True)
class LowRankUpdate:
    """An update, layer by layer, of which most layers are products of two thin matrices.

    Args:
        parts: in the order of the network's weights.
    """

    parts: tuple[Part, ...]

    @property
    def bytes(self) -> int:
        """Of all factors."""
        return sum(factor.nbytes for part in self.parts for factor in part)

    def expand(self) -> Vector:
        """The update float32 (parameters,)."""
        layers = (part[0] if len(part) == 1 else part[0] @ part[1] for part in self.parts)
        return np.concatenate([layer.ravel() for layer in layers])


def shapes_of(network: nn.Module) -> list[Shape]:
    """The shapes of the parts of the network's weight vector, in their order."""
    return [tuple(tensor.shape) for tensor in travelling(network)]


def decompose(update: Vector, shapes: Sequence[Shape], energy: float) -> LowRankUpdate:
    """Keep of each layer the fewest singular values whose squares make the share `energy` of all.

    A convolution (outputs, inputs, height, width) is a matrix (outputs, inputs * height * width). What has one
    dimension, and a layer whose factors would be no smaller than it is, stays whole.

    Args:
        update: float32 (parameters,). shapes: of its layers. energy: above 0, up to 1.
    """
    return LowRankUpdate(tuple(_factors(layer, energy) for layer in _layers(update, shapes)))


def _layers(update: Vector, shapes: Sequence[Shape]) -> Iterator[NDArray[np.float32]]:
    start = 0
    for shape in shapes:
        size = int(np.prod(shape))
        yield update[start : start + size].reshape(shape)
        start += size


def _factors(layer: NDArray[np.float32], energy: float) -> Part:
    if layer.ndim < 2:
        return (layer.copy(),)
    matrix = layer.reshape(len(layer), -1)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    squares = np.cumsum(values.astype(np.float64) ** 2)
    rank = min(int(np.searchsorted(squares, energy * squares[-1])) + 1, len(values)) if squares[-1] > 0 else 1
    if rank * sum(matrix.shape) >= matrix.size:
        return (layer.copy(),)
    return (left[:, :rank] * values[:rank]).astype(np.float32), right[:rank].astype(np.float32)
