"""Changes of an image that leave its class as it is: of position, size, colour and sharpness.

A photograph of the same cell by another microscope, another stain and another hand differs in these. Images that
are drawn differ from photographs by more, so that a network that learns from drawn ones gains most (domain
randomisation, Tobin et al. 2017, arXiv 1703.06907).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lightning_fed.data.images import Pixels

Dice = NDArray[np.float64]

TURN, ZOOM, ASPECT, SHIFT = math.pi / 4, 0.25, 0.12, 0.15
"""Greatest at strength 1: angle in radians, logarithms of size and of width by height, share of half the side."""
MIX, BRIGHTNESS, CONTRAST, GAMMA = 0.12, 0.075, 0.3, 0.3
"""Deviations at strength 1: of the matrix between channels, of each channel's offset, and of two logarithms."""
SHARPEN, BLUR = 0.8, 1.0
"""Greatest share of the difference to the mean of nine neighbours that is added, or taken away."""


def dice_for(channels: int) -> int:
    """How many random numbers one image takes."""
    return 5 + channels * channels + channels + 3


def distort(images: Pixels, dice: Dice, strength: float) -> Pixels:
    """Each image moved, scaled, stained and blurred or sharpened in its own way.

    Args:
        images: uint8 (batch, height, width, channels). dice: float64 in [0, 1) (batch, `dice_for(channels)`), so
            that what happens to an image depends on its own numbers alone. strength: 0 changes nothing.

    Returns:
        A new array like images.
    """
    if len(images) == 0 or strength == 0:
        return images.copy()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
    places, stains, lens = np.split(2 * dice - 1, [5, dice.shape[1] - 1], axis=1)
    pixels = _moved(pixels, torch.from_numpy(places).float() * strength)
    pixels = _stained(pixels, torch.from_numpy(stains).float() * (math.sqrt(3) * strength))
    pixels = _focused(pixels, torch.from_numpy(lens).float().view(-1, 1, 1, 1), strength)
    out: Pixels = pixels.clamp_(0, 1).mul_(255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return out


def _moved(pixels: Tensor, by: Tensor) -> Tensor:
    """Turned, zoomed, stretched and shifted by (batch, 5) in [-strength, strength]; edges are mirrored."""
    angle, zoom, aspect = TURN * by[:, 0], torch.exp(ZOOM * by[:, 1]), torch.exp(ASPECT * by[:, 2])
    across, along = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    shift = SHIFT * by[:, 3:5]
    rows = (
        torch.stack([across * aspect, -along * aspect, shift[:, 0]], 1),
        torch.stack([along / aspect, across / aspect, shift[:, 1]], 1),
    )
    grid = functional.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def _stained(pixels: Tensor, by: Tensor) -> Tensor:
    """Channels mixed, shifted, their contrast and gamma changed, by numbers of deviation `strength`."""
    count, channels = pixels.shape[:2]
    mixing, offset, contrast, gamma = torch.split(by, [channels**2, channels, 1, 1], 1)
    matrix = torch.eye(channels) + MIX * mixing.view(count, channels, channels)
    mean = pixels.mean((1, 2, 3), keepdim=True)
    shape = (-1, 1, 1, 1)
    centred = (pixels - mean) * torch.exp(CONTRAST * contrast).view(shape)
    mixed = torch.einsum("bij,bjhw->bihw", matrix, centred) + mean
    lit = mixed + BRIGHTNESS * offset.view(count, channels, 1, 1)
    return torch.pow(lit.clamp(1e-3, 1), torch.exp(GAMMA * gamma).view(shape))


def _focused(pixels: Tensor, by: Tensor, strength: float) -> Tensor:
    """Blurred where `by` (batch, 1, 1, 1) in [-1, 1] is positive, sharpened where it is negative."""
    smooth = functional.avg_pool2d(functional.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = torch.where(by > 0, by * min(BLUR * strength, 1), by * SHARPEN * strength)
    return pixels + (smooth - pixels) * share
