"""Where the parts of each cell lie, chosen at random within its form. Micrometres and radians."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_fed.data.bloodcells.forms import FormSampler
from lightning_fed.data.bloodcells.shapes import Array, Capsule, Ellipse, Indices

MAX_LOBES = 5
MAX_GRANULES = 160
MAX_PALE_SPOTS = 4
TURN = 2.0 * np.pi


def centred_cells(draw: FormSampler) -> Ellipse:
    """One cell near the centre of each image: jitter of up to 1.2 um along each axis."""
    cells = len(draw.forms)
    x, y = draw.rng.uniform(-1.2, 1.2, size=(2, cells))
    radius = draw.uniform("diameter_um") / 2.0
    return Ellipse(x, y, radius, draw.uniform("elongation"), draw.rng.uniform(0.0, TURN, cells))


@dataclass(frozen=True)
class LobeChain:
    """The nucleus as capsules: the lobes, then the bridges from each lobe to the next.

    Attributes:
        parts: `2 * MAX_LOBES - 1` pairs of (images in which it is present, the capsule in those images).
    """

    parts: tuple[tuple[Indices, Capsule], ...]


def lobe_chains(draw: FormSampler, cell: Ellipse) -> LobeChain:
    """The nucleus of each cell: lobes along a curve of random direction, centred up to its eccentricity."""
    lobes = draw.count("nucleus.lobes")
    heading, x, y = _lobe_centres(draw, cell, lobes)
    jitter = np.where(lobes > 1, 1.0, 0.0)[:, None] * draw.rng.uniform(-0.18, 0.18, (len(lobes), MAX_LOBES))
    radius = (draw.uniform("nucleus.lobe_radius") * cell.radius)[:, None] * (1.0 + jitter)
    length = (draw.uniform("nucleus.lobe_length") * cell.radius)[:, None]
    across, down = np.cos(heading) * length, np.sin(heading) * length
    ends = np.stack([x - across, y - down, x + across, y + down, radius])
    bridge = draw.uniform("nucleus.link")[:, None] * np.minimum(radius[:, :-1], radius[:, 1:])
    bridges = np.stack([x[:, :-1], y[:, :-1], x[:, 1:], y[:, 1:], bridge])
    found = [_part(ends[:, :, k], lobes > k) for k in range(MAX_LOBES)]
    return LobeChain(tuple(found + [_part(bridges[:, :, k], lobes > k + 1) for k in range(MAX_LOBES - 1)]))


def _part(capsule: Array, present: NDArray[np.bool_]) -> tuple[Indices, Capsule]:
    images = np.flatnonzero(present)
    return images, Capsule(*capsule[:, images])


def _lobe_centres(draw: FormSampler, cell: Ellipse, lobes: Indices) -> tuple[Array, ...]:
    """-> heading, x and y of each lobe, (cells, MAX_LOBES)."""
    heading, x, y = _walk(draw, cell, lobes)
    present = (np.arange(MAX_LOBES) < lobes[:, None]) / np.maximum(lobes, 1)[:, None]
    shift = draw.uniform("nucleus.eccentricity") * cell.radius
    aside = draw.rng.uniform(0.0, TURN, len(lobes))
    x += (cell.x + shift * np.cos(aside) - 0.8 * (x * present).sum(axis=1))[:, None]
    y += (cell.y + shift * np.sin(aside) - 0.8 * (y * present).sum(axis=1))[:, None]
    return heading, x, y


def _walk(draw: FormSampler, cell: Ellipse, lobes: Indices) -> tuple[Array, ...]:
    """-> heading, x and y after each of MAX_LOBES steps along the chord of an arc, (cells, MAX_LOBES)."""
    cells = len(lobes)
    turn = np.radians(draw.uniform("nucleus.sweep")) / np.maximum(lobes - 1, 1)
    chord = 2.0 * draw.uniform("nucleus.arc_radius") * cell.radius * np.sin(np.minimum(turn, np.pi) / 2.0)
    twisted = draw.rng.random(cells) < draw.uniform("nucleus.twist")
    back = twisted[:, None] & (2 * np.arange(MAX_LOBES) >= lobes[:, None])
    turns = turn[:, None] * (np.where(back, -1.0, 1.0) + draw.rng.uniform(-0.2, 0.2, back.shape))
    heading = draw.rng.uniform(0.0, TURN, cells)[:, None] + turns.cumsum(axis=1)
    step = chord[:, None] * draw.rng.uniform(0.85, 1.15, back.shape)
    x, y = (step * np.cos(heading)).cumsum(axis=1), (step * np.sin(heading)).cumsum(axis=1)
    return heading, x, y


@dataclass(frozen=True)
class Spots:
    """Round spots in each image: x, y, weight (images, spots), diameter (images,); see `shapes.spots`."""

    x: Array
    y: Array
    diameter: Array
    weight: Array


def scatter(
    rng: np.random.Generator,
    cell: Ellipse,
    number: Indices,
    most: int,
    reach: Array,
    diameter: Array,
) -> Spots:
    """`number` (images,) spots of at most `most`, uniform over a disc of `reach` times the cell's radius."""
    shape = (len(number), most)
    away = np.sqrt(rng.random(shape)) * (reach * cell.radius)[:, None]
    angle = rng.uniform(0.0, TURN, shape)
    weight = rng.uniform(0.6, 1.4, shape) * (np.arange(most) < number[:, None])
    return Spots(cell.x[:, None] + away * np.cos(angle), cell.y[:, None] + away * np.sin(angle), diameter, weight)
