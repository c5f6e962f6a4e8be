"""How alike two images are, and which of some found ones is meant for which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

RANGE = 2.0
"""From the darkest to the brightest pixel: images are in [-1, 1]."""


@dataclass(frozen=True)
class Likeness:
    """Of one image with what was found for it.

    Args:
        ssim: structural similarity, 1 for equal ones. psnr: decibels. found: which one it was.
    """

    ssim: float
    psnr: float
    found: int


def similarities(true: Tensor, found: Tensor) -> NDArray[np.float64]:
    """SSIM of every image with every found one (images, found); both (images, channels, height, width)."""
    first = true.repeat_interleave(len(found), 0)
    second = found.repeat(len(true), 1, 1, 1)
    scores = structural_similarity_index_measure(first, second, data_range=RANGE, reduction="none")
    assert isinstance(scores, Tensor)
    return np.asarray(scores.view(len(true), len(found)).double().numpy())


def match(true: Tensor, found: Tensor) -> list[Likeness]:
    """Each image with one found one of its own, as that is best for all: a gradient tells no order.

    Args:
        true, found: (images, channels, height, width) in [-1, 1], as many of both.
    """
    scores = similarities(true, found)
    rows, columns = linear_sum_assignment(-scores)
    return [
        Likeness(float(scores[row, column]), psnr(true[row], found[column]), int(column))
        for row, column in zip(rows, columns, strict=True)
    ]


def psnr(true: Tensor, found: Tensor) -> float:
    """Peak signal-to-noise ratio in decibels."""
    error = torch.mean((true - found) ** 2).item()
    return float(10 * np.log10(RANGE**2 / max(error, 1e-12)))
