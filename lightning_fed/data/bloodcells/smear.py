"""What surrounds the cell on the film: plasma, red cells, stray platelets.

Red cells are 7 to 8 um across (Stages, Penn State; 6 to 8.5 here, as films vary) with a pale centre of 1 to
3 um (Guide), and overlap as in the thicker part of a film. The names are keys of `sources.SOURCES`.
"""

from dataclasses import dataclass

import numpy as np

from lightning_fed.data.bloodcells.anatomy import TURN, Spots
from lightning_fed.data.bloodcells.forms import between
from lightning_fed.data.bloodcells.shapes import (
    Array,
    Ellipse,
    Field,
    Indices,
    column,
    coverage,
    lay_over,
    spots,
)

RED_CELLS = 7
"""Places for red cells around the cell; each image fills a random part of them."""

PLASMA = np.array([(252, 244, 228), (240, 234, 240)], dtype=np.float64)
RED = np.array([(226, 178, 168), (194, 160, 168)], dtype=np.float64)
PLATELET = np.array([(170, 118, 184), (120, 72, 150)], dtype=np.float64)


@dataclass(frozen=True)
class RedCell:
    """One place for a red cell: in which images it is filled, and with what.

    Attributes:
        images: indices, (found,).
        outline: arrays (found,).
        pallor: radius of the pale centre relative to the red cell's, then its depth in [0, 1]; (2, found).
    """

    images: Indices
    outline: Ellipse
    pallor: Array


@dataclass(frozen=True)
class Smear:
    """What surrounds each cell; inks are optical densities (3, images)."""

    red_cells: list[RedCell]
    platelets: Spots
    plasma: Array
    red: Array
    platelet: Array


def sample_smear(rng: np.random.Generator, cell: Ellipse) -> Smear:
    """Choose the surroundings of each cell."""
    shades = (np.repeat(pair[:, :, None], len(cell.x), axis=2) for pair in (PLASMA, RED, PLATELET))
    inks = [between(rng, first, second) for first, second in shades]
    return Smear(_red_cells(rng, cell), _stray_platelets(rng, cell), *inks)


def paint_smear(field: Field, smear: Smear) -> Array:
    """-> optical density of the slide without the cell, (3, images, size, size)."""
    thickness = _haemoglobin(field, smear.red_cells)
    density = np.stack([column(red) * thickness for red in smear.red - smear.plasma])
    density += smear.plasma[:, :, None, None]
    found = smear.platelets
    lay_over(density, spots(field, found.x, found.y, found.diameter, found.weight), smear.platelet)
    return density


def _red_cells(rng: np.random.Generator, cell: Ellipse) -> list[RedCell]:
    images = len(cell.x)
    crowding, first = rng.uniform(0.15, 0.95, images), rng.uniform(0.0, TURN, images)
    return [_red_cell(rng, cell, crowding, first + TURN * slot / RED_CELLS) for slot in range(RED_CELLS)]


def _red_cell(rng: np.random.Generator, cell: Ellipse, crowding: Array, direction: Array) -> RedCell:
    images = len(direction)
    radius, elongation = rng.uniform(3.0, 4.25, images), 1.0 + 0.45 * rng.random(images) ** 2
    away = cell.radius + radius * rng.uniform(0.75, 1.1, images) + 5.5 * rng.random(images)
    angle, tilt = direction + rng.uniform(-0.4, 0.4, images), rng.uniform(0.0, TURN, images)
    pallor = np.stack([rng.uniform(0.2, 0.55, images), rng.uniform(0.0, 0.9, images)])
    x, y = cell.x + away * np.cos(angle), cell.y + away * np.sin(angle)
    in_view = np.maximum(np.abs(x), np.abs(y)) < 16.0
    found = np.flatnonzero((rng.random(images) < crowding) & in_view)
    outline = Ellipse(x[found], y[found], radius[found], elongation[found], tilt[found])
    return RedCell(found, outline, pallor[:, found])


def _haemoglobin(field: Field, cells: list[RedCell]) -> Array:
    """-> thickness of haemoglobin as a plane: 1 in a red cell, less in its pallor, up to 1.6 in overlaps."""
    plane = np.zeros(np.broadcast_shapes(field.x.shape, field.y.shape))
    for cell in cells:
        part, radius = field.rows(cell.images), column(cell.outline.radius)
        radial = cell.outline.radial(part)
        body = coverage((radial - 1.0) * radius, part.softness)
        centre = coverage((radial - column(cell.pallor[0])) * radius, part.softness + 1.4)
        centre *= column(-cell.pallor[1])
        centre += 1.0
        body *= centre
        plane[cell.images] += body
    return np.minimum(plane, 1.6, out=plane)


def _stray_platelets(rng: np.random.Generator, cell: Ellipse) -> Spots:
    """Up to two platelets of 1.5 to 3 um outside the cell, in about one image of three."""
    images = len(cell.x)
    angle = rng.uniform(0.0, TURN, (images, 2))
    away = cell.radius[:, None] * 1.1 + 1.5 + 9.0 * rng.random((images, 2))
    weight = np.where(rng.random((images, 2)) < 0.2, 2.5, 0.0)
    x, y = cell.x[:, None] + away * np.cos(angle), cell.y[:, None] + away * np.sin(angle)
    return Spots(x, y, rng.uniform(1.0, 2.0, images), weight)
