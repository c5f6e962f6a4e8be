"""What a haematologist is told about one form of a cell, as numbers: the types of the tables.

Where two sources differ, a range spans both. A colour's numbers are our rendering of the source's word for
it, and fractions for which a source has no number (the thickness of a lobe, say) are our rendering of its
description.
"""

from dataclasses import dataclass

Range = tuple[float, float]
Colour = tuple[int, int, int]
Shades = tuple[Colour, Colour]

CELL_TYPES: tuple[str, ...] = (
    "basophil",
    "eosinophil",
    "erythroblast",
    "immature granulocytes",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "platelet",
)
"""The classes in BloodMNIST's order; a label is an index into this tuple."""


@dataclass(frozen=True, kw_only=True)
class Nucleus:
    """A chain of lobes along an arc. Lengths are fractions of the cell's radius; every range is uniform.

    Attributes:
        lobes: number of lobes, drawn from the range and rounded; (0, 0) for an anucleate cell.
        lobe_radius: half the thickness of a lobe.
        lobe_length: how far a lobe stretches along the arc to each side of its centre.
        arc_radius: radius of the arc on which the lobes' centres lie; 0 for a single central lobe.
        sweep: angle in degrees from the first lobe to the last.
        twist: probability that the curve turns the other way half-way, an S or Z instead of a C.
        link: thickness of the bridge between two lobes relative to a lobe (1: a band, 0.1: a filament).
        eccentricity: offset of the nucleus from the cell's centre.
        rim_um: the least width of cytoplasm around the nucleus, in micrometres.
        clumping: contrast of chromatin (0: smooth, 1: coarse clumps beside clear parachromatin).
        nucleoli: number of pale nucleoli.
        shades: the two colours between which the stained chromatin lies.
    """

    lobes: Range = (1, 1)
    lobe_radius: Range
    lobe_length: Range = (0.0, 0.1)
    arc_radius: Range = (0.0, 0.0)
    sweep: Range = (0.0, 0.0)
    twist: Range = (0.0, 0.0)
    link: Range = (1.0, 1.0)
    eccentricity: Range = (0.0, 0.1)
    rim_um: Range = (0.3, 0.6)
    clumping: Range
    nucleoli: Range = (0, 0)
    shades: Shades


@dataclass(frozen=True, kw_only=True)
class Granules:
    """Granules that the film shows in a cell.

    Attributes:
        number: how many are visible.
        diameter_um: diameter of one granule in micrometres.
        opacity: how much of what lies under a granule it hides.
        over_nucleus: 0 where they lie in the cytoplasm only, 1 where they hide the nucleus too.
        spread: the fraction of the cell's radius within which they lie.
        shades: the two colours between which they lie.
    """

    number: Range = (0, 0)
    diameter_um: Range = (0.3, 0.5)
    opacity: Range = (0.0, 0.0)
    over_nucleus: Range = (0.0, 0.0)
    spread: Range = (0.9, 0.97)
    shades: Shades = ((150, 90, 150), (120, 60, 140))


@dataclass(frozen=True, kw_only=True)
class Morphology:
    """One form of a cell type on a stained film.

    Attributes:
        cell_type: an entry of `CELL_TYPES`.
        form: the haematological name of the form or stage.
        share: the probability of this form among the cells of its type.
        source: what the works in `sources.SOURCES` say of it.
        diameter_um: diameter on the film in micrometres.
        elongation: long axis divided by short axis.
        irregularity_um: standard deviation of the outline from an ellipse, in micrometres.
        cytoplasm: the two colours between which the cytoplasm lies.
        mottling: relative standard deviation of the cytoplasm's stain.
        vacuoles: number of pale vacuoles.
        hof: strength of a pale Golgi zone in the cytoplasm.
        nucleus: see `Nucleus`.
        granules: see `Granules`.
    """

    cell_type: str
    form: str
    share: float
    source: str
    diameter_um: Range
    elongation: Range = (1.0, 1.15)
    irregularity_um: Range = (0.1, 0.35)
    cytoplasm: Shades
    mottling: Range = (0.05, 0.2)
    vacuoles: Range = (0, 0)
    hof: Range = (0.0, 0.0)
    nucleus: Nucleus
    granules: Granules = Granules()
