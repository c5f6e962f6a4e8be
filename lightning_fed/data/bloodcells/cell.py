"""The cell in the centre of the image: every random choice, made before a pixel is drawn."""

from dataclasses import dataclass

import numpy as np

from lightning_fed.data.bloodcells.anatomy import (
    MAX_GRANULES,
    MAX_PALE_SPOTS,
    LobeChain,
    Spots,
    centred_cells,
    lobe_chains,
    scatter,
)
from lightning_fed.data.bloodcells.forms import FormSampler
from lightning_fed.data.bloodcells.shapes import Array, Ellipse

OUTLINE_NODES, LOBE_NODES, CHROMATIN_NODES = 9, 14, 30
"""Nodes of random texture across the field: features of about 4, 2 and 0.9 um."""


@dataclass(frozen=True)
class Cell:
    """The choices behind a block of cells: arrays (cells,), inks (3, cells), noise (cells, nodes, nodes)."""

    outline: Ellipse
    irregularity: Array
    cytoplasm: Array
    mottling: Array
    nucleus: LobeChain
    rim: Array
    chromatin: Array
    clumping: Array
    nucleoli: Spots
    pale: Spots
    hof: Spots
    granules: Spots
    granule_ink: Array
    opacity: Array
    over_nucleus: Array
    outline_noise: Array
    lobe_noise: Array
    texture: Array


def sample_cell(draw: FormSampler) -> Cell:
    """Choose every property of each cell from the ranges of its form."""
    outline = centred_cells(draw)
    noise = [_noise(draw, nodes) for nodes in (OUTLINE_NODES, LOBE_NODES, CHROMATIN_NODES)]
    return Cell(
        outline=outline,
        irregularity=draw.uniform("irregularity_um"),
        cytoplasm=draw.ink("cytoplasm"),
        mottling=draw.uniform("mottling"),
        nucleus=lobe_chains(draw, outline),
        rim=draw.uniform("nucleus.rim_um"),
        chromatin=draw.ink("nucleus.shades"),
        clumping=draw.uniform("nucleus.clumping"),
        nucleoli=_pale_spots(draw, outline, "nucleus.nucleoli", 0.4, (1.2, 2.2)),
        pale=_pale_spots(draw, outline, "vacuoles", 0.9, (0.6, 1.3)),
        hof=_hof(draw, outline),
        granules=_granules(draw, outline),
        granule_ink=draw.ink("granules.shades"),
        opacity=draw.uniform("granules.opacity"),
        over_nucleus=draw.uniform("granules.over_nucleus"),
        outline_noise=noise[0],
        lobe_noise=noise[1],
        texture=noise[2],
    )


def _noise(draw: FormSampler, nodes: int) -> Array:
    return draw.rng.standard_normal((len(draw.forms), nodes, nodes))


def _granules(draw: FormSampler, outline: Ellipse) -> Spots:
    number, reach = draw.count("granules.number"), draw.uniform("granules.spread")
    return scatter(draw.rng, outline, number, MAX_GRANULES, reach, draw.uniform("granules.diameter_um"))


def _pale_spots(
    draw: FormSampler, outline: Ellipse, number: str, reach: float, diameter: tuple[float, float]
) -> Spots:
    cells = len(draw.forms)
    width, far = draw.rng.uniform(*diameter, cells), np.full(cells, reach)
    return scatter(draw.rng, outline, draw.count(number), MAX_PALE_SPOTS, far, width)


def _hof(draw: FormSampler, outline: Ellipse) -> Spots:
    cells = len(draw.forms)
    one, reach = np.ones(cells, dtype=np.int64), np.full(cells, 0.7)
    zone = scatter(draw.rng, outline, one, 1, reach, 0.6 * outline.radius)
    return Spots(zone.x, zone.y, zone.diameter, draw.uniform("hof")[:, None])
