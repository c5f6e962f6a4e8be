"""Stain, lamp and camera: from optical density on the slide to bytes.

Light is absorbed as Beer and Lambert say: what passes is exp(-density) in each colour channel. Stain strength
and hue, illumination, white balance, flare, focus and sensor noise vary from image to image.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_fed.data.bloodcells.shapes import Array, Field, column

FIELD_UM = 22.0
"""Width of the field in micrometres: three red cells, so that the largest cell (20 um) fits."""


@dataclass(frozen=True)
class Conditions:
    """One value for each image (images,), or one for each channel and image (3, images).

    Attributes:
        zoom: magnification relative to the nominal field.
        defocus_um: blur added to every edge, in micrometres.
        stain: gain on optical density, (3, images).
        light: what the camera records of an empty slide, in [0, 1], (3, images).
        slope: relative fall of the light from the centre to the edge along x and y, (2, images).
        flare: share of light that is scattered evenly over the image.
        noise: standard deviation of the sensor's noise, relative to full scale.
    """

    zoom: Array
    defocus_um: Array
    stain: Array
    light: Array
    slope: Array
    flare: Array
    noise: Array


def conditions(rng: np.random.Generator, images: int) -> Conditions:
    """Draw the conditions of each image."""
    return Conditions(
        zoom=rng.uniform(0.88, 1.12, images),
        defocus_um=rng.uniform(0.0, 0.9, images),
        stain=rng.uniform(0.7, 1.3, images) * rng.uniform(0.92, 1.08, (3, images)),
        light=rng.uniform(0.86, 1.0, images) * _white_balance(rng, images),
        slope=rng.uniform(-0.06, 0.06, (2, images)),
        flare=rng.uniform(0.0, 0.08, images),
        noise=rng.uniform(0.002, 0.012, images),
    )


def _white_balance(rng: np.random.Generator, images: int) -> Array:
    """-> gains (3, images): warm to cool by the lamp's temperature, and a slight tint of green or magenta."""
    warmth, tint = rng.uniform(-0.045, 0.045, images), rng.uniform(-0.012, 0.012, images)
    return 1.0 + np.stack([warmth, tint, -warmth])


def field_of_view(seen: Conditions, size: int) -> Field:
    """-> the slide coordinates of the pixels, with the centre of the image at the origin."""
    axis = ((np.arange(size) + 0.5) / size - 0.5) * FIELD_UM
    across = axis / seen.zoom[:, None]
    pixel = FIELD_UM / size / seen.zoom
    return Field(across[:, None, :], across[:, :, None], column(pixel + seen.defocus_um))


def expose(density: Array, seen: Conditions, grain: Array) -> NDArray[np.uint8]:
    """Photograph the slide.

    Args:
        density: optical density, (3, images, size, size); overwritten.
        seen: the conditions.
        grain: standard normal noise, (images, size, size).

    Returns:
        uint8 (images, size, size, 3).
    """
    size = density.shape[-1]
    ramp = np.linspace(-1.0, 1.0, size)
    lamp = 1.0 + column(seen.slope[0]) * ramp[None, None, :] + column(seen.slope[1]) * ramp[None, :, None]
    grain *= column(255.0 * seen.noise)
    grain += 0.5
    picture = np.empty((*density.shape[1:], 3), dtype=np.uint8)
    for channel, plane in enumerate(density):
        plane *= column(-seen.stain[channel])
        np.exp(plane, out=plane)
        plane *= lamp
        plane *= column(255.0 * seen.light[channel] * (1.0 - seen.flare))
        plane += grain
        plane += column(255.0 * seen.light[channel] * seen.flare)
        np.maximum(plane, 0.0, out=plane)
        picture[..., channel] = np.minimum(plane, 255.0, out=plane)
    return picture
