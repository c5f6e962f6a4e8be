"""How a cell is laid on the smear: cytoplasm, nucleus, granules, from bottom to top."""

import numpy as np

from lightning_fed.data.bloodcells.anatomy import Spots
from lightning_fed.data.bloodcells.cell import Cell
from lightning_fed.data.bloodcells.shapes import Array, Field, column, coverage, lay_over, spots
from lightning_fed.data.bloodcells.texture import smooth_noise

LOBE_ROUGHNESS_UM = 0.2
"""Standard deviation of a nucleus's outline from its capsules."""

CLUMP_CONTRAST, CLUMP_UM = 0.6, 0.9
"""Relative standard deviation of density at clumping 1, seen sharply; a blur of a clump's width halves it."""

VACUOLE_DEPTH, NUCLEOLUS_DEPTH = 0.7, 0.35
"""The share of the stain that is missing in the centre of a vacuole or Golgi zone, and of a nucleolus."""


def paint_cell(density: Array, field: Field, cell: Cell) -> None:
    """Lay each cell over the smear.

    Args:
        density: optical density of the smear, (3, cells, size, size); changed in place.
        field: the pixels.
        cell: the cells.
    """
    size = density.shape[-1]
    edge = _outline_distance(field, cell, size)
    body = coverage(edge, field.softness)
    lobes = smooth_noise(cell.lobe_noise, size)
    lay_over(density, body, cell.cytoplasm, _cytoplasm_strength(field, cell, lobes))
    nucleus = _nucleus_coverage(field, cell, edge, lobes)
    lay_over(density, nucleus, cell.chromatin, _chromatin_strength(field, cell, size))
    nucleus *= column(cell.over_nucleus - 1.0)
    nucleus += 1.0
    nucleus *= body
    nucleus *= _spots(field, cell.granules)
    nucleus *= column(cell.opacity)
    lay_over(density, nucleus, cell.granule_ink)


def _spots(field: Field, found: Spots) -> Array:
    return spots(field, found.x, found.y, found.diameter, found.weight)


def _outline_distance(field: Field, cell: Cell, size: int) -> Array:
    distance = cell.outline.radial(field)
    distance -= 1.0
    distance *= column(cell.outline.radius)
    rough = smooth_noise(cell.outline_noise, size)
    rough *= column(cell.irregularity)
    distance += rough
    return distance


def _cytoplasm_strength(field: Field, cell: Cell, clouds: Array) -> Array:
    strength = clouds * column(cell.mottling)
    strength += 1.0
    for pale in (cell.pale, cell.hof):
        zone = _spots(field, pale)
        zone *= -VACUOLE_DEPTH
        zone += 1.0
        strength *= zone
    return np.maximum(strength, 0.1, out=strength)


def _nucleus_coverage(field: Field, cell: Cell, edge: Array, rough: Array) -> Array:
    distance = np.full_like(edge, 99.0)
    for images, capsule in cell.nucleus.parts:
        if len(images):
            distance[images] = np.minimum(distance[images], capsule.distance(field.rows(images)))
    distance += LOBE_ROUGHNESS_UM * rough
    np.maximum(distance, edge + column(cell.rim), out=distance)
    return coverage(distance, field.softness)


def _chromatin_strength(field: Field, cell: Cell, size: int) -> Array:
    strength = smooth_noise(cell.texture, size)
    strength *= column(CLUMP_CONTRAST * cell.clumping) / (1.0 + (field.softness / CLUMP_UM) ** 2)
    nucleoli = _spots(field, cell.nucleoli)
    nucleoli *= NUCLEOLUS_DEPTH
    strength -= nucleoli
    strength += 1.0
    return np.maximum(strength, 0.2, out=strength)
