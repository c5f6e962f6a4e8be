"""ScatterNet: features of an image that were learned from no image, so that they cost no privacy.

Oyallon and Mallat 2015 (arXiv 1412.8659) as Tramer and Boneh 2021 (arXiv 2011.11660) put it before a private
classifier: order 2, two scales, eight angles, Morlet wavelets.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.errors import InputError

ANGLES = 8
PATHS = 1 + 2 * ANGLES + ANGLES**2
"""Maps of one channel: the image, the wavelets of two scales, the coarse ones of the fine ones' moduli."""
STRIDE = 4
"""Pixels between features: 2 to the number of scales."""
MARGIN = 6
"""Pixels of reflection at least: the Fourier transform joins opposite borders."""
SMALLEST = 8
"""Pixels: what is smaller does not reflect so far."""
SIGMA, FREQUENCY, SLANT = 0.8, 0.75 * math.pi, 4 / ANGLES
"""Of the fine wavelets: width along the wave in pixels, radians a pixel, width along over width across.

With these the squared spectra of all filters add up to 1 at most: the features have no more energy than the image.
"""
MEMO_BYTES = 2**28


def morlet(height: int, width: int, scale: int, angle: int) -> NDArray[np.complex128]:
    """A wavelet (height, width) on a torus, at the distances between a point of its scale's map and the pixels.

    s / (2 pi sigma^2) exp(-(v^2 + s^2 w^2) / (2 sigma^2)) (exp(i xi v) - kappa), v along the wave and w across it;
    sigma and 1 / xi double from scale to scale, and kappa makes the sum 0.

    Args:
        height, width: pixels. scale: 0 or 1. angle: 0 to 7, in units of pi / 8.
    """
    sigma, frequency, turn = SIGMA * 2**scale, FREQUENCY / 2**scale, angle * math.pi / ANGLES
    # The torus and two copies of it to each side; a point stands in the middle of its 2^scale pixels.
    down, across = (np.arange(-2 * size, 3 * size) + (2**scale - 1) / 2 for size in (height, width))
    v = across * math.cos(turn) + down[:, None] * math.sin(turn)
    w = down[:, None] * math.cos(turn) - across * math.sin(turn)
    bell = SLANT / (2 * math.pi * sigma**2) * np.exp(-(v**2 + (SLANT * w) ** 2) / (2 * sigma**2))
    wave, bell = (
        whole.reshape(5, height, 5, width).sum((0, 2)) for whole in (bell * np.exp(1j * frequency * v), bell)
    )
    wavelet: NDArray[np.complex128] = wave - bell * (wave.sum() / bell.sum())
    return wavelet


def low_pass(padded: int, scale: int) -> NDArray[np.float64]:
    """Gaussian averages (features, points) along one side, of sigma 1.6 pixels; each row's sum is 1.

    A feature stands in the middle of its 4 pixels, as a point does of its 2^scale, so that a flip or a quarter
    turn of the image is one of its features.

    Args:
        padded: pixels of the side. scale: of the map that is averaged.
    """
    features = np.arange(MARGIN, padded - MARGIN, STRIDE) + (STRIDE - 1) / 2
    points = np.arange(0, padded, 2**scale) + (2**scale - 1) / 2
    apart = np.abs(features[:, None] - points)
    weights = np.exp(-(np.minimum(apart, padded - apart) ** 2) / (2 * (2 * SIGMA) ** 2))
    averages: NDArray[np.float64] = weights / weights.sum(1, keepdims=True)
    return averages


def padding(size: int) -> tuple[int, int]:
    """Pixels before and after a side, so that it becomes a multiple of 4 with the margin at least."""
    missing = -(-size // STRIDE) * STRIDE + 2 * MARGIN - size
    return missing // 2, missing - missing // 2


@dataclass(frozen=True)
class Filters:
    """What images of one size are filtered with.

    Args:
        fine, coarse: spectra complex64 (angles, height, width) of the padded image.
        rows, columns: averages float32 (features, points) down and across, by scale.
    """

    fine: Tensor
    coarse: Tensor
    rows: tuple[Tensor, ...]
    columns: tuple[Tensor, ...]

    @staticmethod
    @lru_cache(maxsize=8)
    def of(height: int, width: int, device: torch.device) -> Filters:
        """Those for padded images of so many pixels, made once for each device."""

        def spectra(scale: int) -> Tensor:
            waves = np.stack([morlet(height, width, scale, angle) for angle in range(ANGLES)])
            return torch.from_numpy(np.fft.fft2(waves)).to(device, torch.complex64)

        def averages(size: int) -> tuple[Tensor, ...]:
            return tuple(torch.from_numpy(low_pass(size, scale)).to(device, torch.float32) for scale in (0, 1))

        return Filters(spectra(0), spectra(1), averages(height), averages(width))

    def average(self, maps: Tensor, scale: int) -> Tensor:
        """(..., points down, points across) -> (..., features down, features across)."""
        averaged: Tensor = self.rows[scale] @ maps @ self.columns[scale].T
        return averaged


def scatter(image: Tensor) -> Tensor:
    """Features of one image: float32 (channels, height, width) -> (channels, 81, height / 4, width / 4).

    One alone, since its features would depend on the batch in their last bits otherwise. In order: the image, the
    fine and the coarse wavelets by angle, the coarse ones of each fine one by its angle.
    """
    (above, below), (left, right) = (padding(size) for size in image.shape[-2:])
    padded = functional.pad(image[None], (left, right, above, below), mode="reflect")[0]
    filters = Filters.of(*padded.shape[-2:], image.device)
    spectrum = torch.fft.fft2(padded)[:, None]
    fine = torch.fft.ifft2(spectrum * filters.fine).abs()
    coarse = _thinned(spectrum * filters.coarse)
    second = _thinned(torch.fft.fft2(fine)[:, :, None] * filters.coarse)
    return torch.cat(
        [
            filters.average(padded[:, None], 0),
            filters.average(fine, 0),
            filters.average(coarse, 1),
            filters.average(second, 1).flatten(1, 2),
        ],
        1,
    )


def _thinned(spectrum: Tensor) -> Tensor:
    """The modulus at every second point: (..., height, width) of a spectrum -> (..., height / 2, width / 2)."""
    upper, lower = spectrum.chunk(2, -2)
    left, right = (upper + lower).chunk(2, -1)
    modulus: Tensor = torch.fft.ifft2((left + right) / 4).abs()
    return modulus


class Memo:
    """Features by the bytes of their image, kept in the CPU's memory up to a bound; what is beyond is made anew.

    A copy, and a pickle, starts empty.

    Args:
        limit: bytes of features.
    """

    def __init__(self, limit: int = MEMO_BYTES) -> None:
        self.limit, self.bytes = limit, 0
        self._kept: dict[bytes, Tensor] = {}

    def __reduce__(self) -> tuple[type[Memo], tuple[int]]:
        return Memo, (self.limit,)

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> Tensor | None:
        """The features of an image, None where they are not kept."""
        return self._kept.get(key)

    def keep(self, key: bytes, features: Tensor) -> None:
        """Keep the features of an image, if there is room."""
        if self.bytes + features.nbytes <= self.limit:
            self._kept[key] = features.cpu()
            self.bytes += features.nbytes


def key_of(image: NDArray[Any]) -> bytes:
    """What an image's features are kept under: a digest of its bytes and its shape."""
    return hashlib.blake2b(image.tobytes(), digest_size=16, key=str(image.shape).encode()).digest()


class ScatterNet(nn.Module):
    """Images float32 (batch, channels, height, width) -> features (batch, channels * 81, height / 4, width / 4).

    Fixed: it has no parameters and no buffers, so that nothing of it is in `state_dict`, and no gradient goes
    through it. An image's features are computed once, wherever they fit into 256 MB for each copy of the module
    (5,600 images of 3 x 28 x 28, a flipped or turned one counted as another).

    Raises:
        InputError: the images are smaller than 8 pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.memo = Memo()

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        height, width = images.shape[-2:]
        if min(height, width) < SMALLEST:
            raise InputError(f"model: ScatterNet takes images of {SMALLEST} pixels or more; set data.size")
        # Not in inference mode: what it makes cannot serve a later training.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self._features(images.detach().float().contiguous())

    def _features(self, images: Tensor) -> Tensor:
        rows = []
        for image, pixels in zip(images, images.cpu().numpy(), strict=True):
            key = key_of(pixels)
            found = self.memo.get(key)
            if found is None:
                found = scatter(image)
                self.memo.keep(key, found)
            rows.append(found.to(images.device))
        channels, *sides = images.shape[1:]
        shape = (len(images), channels * PATHS, *(-(-side // STRIDE) for side in sides))
        return torch.stack(rows).view(shape) if rows else torch.zeros(shape, device=images.device)
