"""Updates as each layer's largest singular values: what FedMIC's hospitals send (arXiv 2407.02261)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

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
        with one_thread():
            return np.concatenate([_whole(part).ravel() for part in self.parts])


def shapes_of(network: nn.Module) -> list[Shape]:
    """The shapes of the parts of the network's weight vector, in their order."""
    return [tuple(tensor.shape) for tensor in travelling(network)]


def decompose(update: Vector, shapes: Sequence[Shape], energy: float) -> LowRankUpdate:
    """Keep of each layer the fewest singular values whose squares make the share `energy` of all.

    A convolution (outputs, inputs, height, width) is a matrix (outputs, inputs * height * width). What has one
    dimension, and a layer whose factors would be no smaller than it is, stays whole.

    Args:
        update: float32 (parameters,), finite. shapes: of its layers. energy: above 0, up to 1.
    """
    with one_thread():
        return LowRankUpdate(tuple(_factors(layer, energy) for layer in _layers(update, shapes)))


@contextmanager
def one_thread() -> Iterator[None]:
    """More threads add up in another order, so that the result would depend on the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _whole(part: Part) -> NDArray[np.float32]:
    if len(part) == 1:
        return part[0]
    left, right = (torch.from_numpy(factor.copy()) for factor in part)  # Ray's arrays may not be written to
    product: NDArray[np.float32] = (left @ right).numpy()
    return product


def _layers(update: Vector, shapes: Sequence[Shape]) -> Iterator[NDArray[np.float32]]:
    start = 0
    for shape in shapes:
        size = int(np.prod(shape))
        yield update[start : start + size].reshape(shape)
        start += size


def _factors(layer: NDArray[np.float32], energy: float) -> Part:
    if layer.ndim < 2 or layer.size == 0:
        return (layer.copy(),)
    matrix = torch.from_numpy(layer.reshape(len(layer), -1).copy())
    left, values, right = _singular(matrix)
    squares = np.cumsum(values.numpy().astype(np.float64) ** 2)
    rank = min(int(np.searchsorted(squares, energy * squares[-1])) + 1, len(values)) if squares[-1] > 0 else 1
    if rank * sum(matrix.shape) >= layer.size:
        return (layer.copy(),)
    return (left[:, :rank] * values[:rank]).numpy(), right[:rank].numpy().copy()


def _singular(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Factors float32; once more in double precision where single did not converge."""
    try:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    except RuntimeError:  # torch.linalg.LinAlgError
        left, values, right = (part.float() for part in torch.linalg.svd(matrix.double(), full_matrices=False))
    return left, values, right
