"""Soft-edged shapes, drawn for a block of images at once. Lengths are in micrometres.

A plane has shape (images, size, size).
An edge is a ramp of the signed distance to the outline, as wide as a pixel plus the blur of the focus, which
is anti-aliasing without supersampling.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def column(values: Array) -> Array:
    """(images,) -> (images, 1, 1), to combine with planes."""
    return values[:, None, None]


@dataclass(frozen=True)
class Field:
    """Where the pixels of each image lie on the slide.

    Attributes:
        x: (images, 1, size), from the left.
        y: (images, size, 1), from the top.
        softness: (images, 1, 1), width of an edge: one pixel plus defocus.
    """

    x: Array
    y: Array
    softness: Array

    def rows(self, images: Indices) -> "Field":
        """The field of the images with these indices."""
        return Field(self.x[images], self.y[images], self.softness[images])


def coverage(distance: Array, softness: Array) -> Array:
    """Signed distance (negative inside) -> how much of each pixel the shape covers, in [0, 1]."""
    ramp = distance * (-1.0 / softness)
    ramp += 0.5
    np.maximum(ramp, 0.0, out=ramp)
    return np.minimum(ramp, 1.0, out=ramp)


@dataclass(frozen=True)
class Ellipse:
    """One ellipse for each image: every attribute has shape (images,), angles in radians."""

    x: Array
    y: Array
    radius: Array
    elongation: Array
    angle: Array

    def radial(self, field: Field) -> Array:
        """-> the distance from the centre relative to the outline (1 on it), as a plane."""
        dx, dy = field.x - column(self.x), field.y - column(self.y)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        long, short = self.elongation / self.radius**2, 1.0 / (self.elongation * self.radius**2)
        square = column(short * cos**2 + long * sin**2) * dx**2 + column(short * sin**2 + long * cos**2) * dy**2
        square += (column(2.0 * cos * sin * (short - long)) * dx) * dy
        np.maximum(square, 0.0, out=square)
        return np.sqrt(square, out=square)


@dataclass(frozen=True)
class Capsule:
    """All points within `radius` of a segment, one for each image: every attribute has shape (images,)."""

    x0: Array
    y0: Array
    x1: Array
    y1: Array
    radius: Array

    def distance(self, field: Field) -> Array:
        """-> signed distance as a plane."""
        px, py = field.x - column(self.x0), field.y - column(self.y0)
        run, rise = column(self.x1 - self.x0), column(self.y1 - self.y0)
        length2 = np.maximum(run**2 + rise**2, 1e-12)
        along = px * run + py * rise
        share = along * (1.0 / length2)
        np.maximum(share, 0.0, out=share)
        np.minimum(share, 1.0, out=share)
        along *= 2.0
        along -= share * length2
        along *= share
        square = px**2 + py**2 - along
        np.maximum(square, 0.0, out=square)
        np.sqrt(square, out=square)
        square -= column(self.radius)
        return square


def spots(field: Field, x: Array, y: Array, diameter: Array, weight: Array) -> Array:
    """Round soft spots -> their coverage in [0, 1] as a plane.

    A Gaussian is the product of one along x and one along y, so all spots of an image are one matrix product.

    Args:
        field: the pixels.
        x: centres, (images, spots).
        y: centres, (images, spots).
        diameter: width at half of the height, (images,).
        weight: the height of each spot, (images, spots); 0 for one that is not there.
    """
    own = (diameter / 2.355) ** 2
    variance = own + (field.softness[:, 0, 0] / 2.355) ** 2
    scale = column(-0.5 / variance)
    along_x = np.exp(scale * (x[:, :, None] - field.x) ** 2)
    along_y = np.exp(scale * (field.y - y[:, None, :]) ** 2)
    along_x *= (weight * (own / variance)[:, None])[:, :, None]
    total: Array = along_y @ along_x
    return np.minimum(total, 1.0, out=total)


def lay_over(density: Array, cover: Array, ink: Array, strength: Array | None = None) -> None:
    """Replace what lies under a shape by its own stain, in place.

    Args:
        density: optical density, (3, images, size, size).
        cover: how much of each pixel the shape covers, (images, size, size).
        ink: the shape's optical density, (3, images).
        strength: a plane that multiplies the ink, or None for an even stain.
    """
    for plane, depth in zip(density, ink, strict=True):
        change = column(depth) - plane if strength is None else column(depth) * strength - plane
        change *= cover
        plane += change
