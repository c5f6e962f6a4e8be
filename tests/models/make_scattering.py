"""Writes `scattering.json`: ScatterNet features of a small image by sums over pixels, in float64.

Nothing is taken from the package and no Fourier transform is used: a wavelet is evaluated at each distance between
a point and a pixel, and the image goes on as its mirror images do. `python -m tests.models.make_scattering`
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TARGET = Path(__file__).with_name("scattering.json")
HEIGHT, WIDTH, MARGIN = 9, 8, 6
Map = NDArray[np.float64]


def mirrored(image: Map) -> Map:
    """The image with its reflections around it, 24 x 20: 7 rows above and 8 below, 6 columns to each side."""
    rows, columns = (
        [(size - 1) - abs((size - 1) - abs(place)) for place in range(-before, size + after)]
        for size, before, after in ((HEIGHT, 7, 8), (WIDTH, 6, 6))
    )
    return image[np.ix_(rows, columns)]


def wavelet(scale: int, angle: int, down: Map, across: Map) -> NDArray[np.complex128]:
    """The Morlet wavelet without its correction, and the bell beside it, at distances in pixels."""
    sigma, xi, turn, slant = 0.8 * 2**scale, 3 * np.pi / 4 / 2**scale, np.pi * angle / 8, 0.5
    v = np.cos(turn) * across + np.sin(turn) * down
    w = np.cos(turn) * down - np.sin(turn) * across
    bell = np.exp(-0.5 * (v / sigma) ** 2 - 0.5 * (slant * w / sigma) ** 2) * slant / (2 * np.pi * sigma**2)
    return np.stack([bell * np.exp(1j * xi * v), bell.astype(np.complex128)])


def modulus(pixels: Map, scale: int, angle: int) -> Map:
    """|x * psi| at the middles of squares of 2^scale pixels; the map of pixels is a torus."""
    height, width = pixels.shape
    step, shift = 2**scale, (2**scale - 1) / 2
    places = [(row, column) for row in range(0, height, step) for column in range(0, width, step)]
    found = np.empty(len(places))
    for number, (row, column) in enumerate(places):
        wave = np.zeros((2, height, width), dtype=np.complex128)
        for turns_down in (-2, -1, 0, 1, 2):
            for turns_across in (-2, -1, 0, 1, 2):
                down = row + shift - np.arange(height)[:, None] + turns_down * height
                across = column + shift - np.arange(width)[None, :] + turns_across * width
                wave += wavelet(scale, angle, down, across)
        psi = wave[0] - wave[1] * wave[0].sum() / wave[1].sum()
        found[number] = abs((psi * pixels).sum())
    return found.reshape(height // step, width // step)


def averages(points: Map, step: int) -> Map:
    """Gaussian means of sigma 1.6 pixels around the middles of squares of 4 pixels inside the margin."""
    height, width = (side * step for side in points.shape)
    rows, columns = (np.arange(side) * step + (step - 1) / 2 for side in points.shape)
    found = []
    for row in np.arange(MARGIN, height - MARGIN, 4) + 1.5:
        for column in np.arange(MARGIN, width - MARGIN, 4) + 1.5:
            down = np.minimum(abs(rows - row), height - abs(rows - row))[:, None]
            across = np.minimum(abs(columns - column), width - abs(columns - column))[None, :]
            bell = np.exp(-(down**2 + across**2) / (2 * 1.6**2))
            found.append((bell * points).sum() / bell.sum())
    return np.array(found).reshape((height - 2 * MARGIN) // 4, -1)


def features(image: Map) -> Map:
    """(9, 8) -> (81, 3, 2)."""
    pixels = mirrored(image)
    fine = [modulus(pixels, 0, angle) for angle in range(8)]
    maps = [(pixels, 1), *((one, 1) for one in fine), *((modulus(pixels, 1, angle), 2) for angle in range(8))]
    maps += [(modulus(one, 1, angle), 2) for one in fine for angle in range(8)]
    return np.stack([averages(one, step) for one, step in maps])


def main() -> None:
    """Write the vectors."""
    image = np.random.default_rng(7).uniform(-1, 1, (HEIGHT, WIDTH)).round(3)
    found = features(image)
    TARGET.write_text(json.dumps({"image": image.tolist(), "features": found.round(7).tolist()}) + "\n")


if __name__ == "__main__":
    main()
