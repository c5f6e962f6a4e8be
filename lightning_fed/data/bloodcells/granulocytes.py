"""Granulocytes of normal blood: basophil, eosinophil, neutrophil. Each entry cites `sources.SOURCES`."""

from lightning_fed.data.bloodcells.morphology import Granules, Morphology, Nucleus

BASOPHIL = Morphology(
    cell_type="basophil",
    form="basophil",
    share=1.0,
    source="WHO: 11-13 um, round, nucleus hard to see under very large deep-purple granules, less "
    "densely packed than an eosinophil's, sometimes small vacuoles. Bain, Rodak: 10-14 um, "
    "two or three lobes, granules purple-black and partly washed out by water.",
    diameter_um=(10.0, 14.0),
    cytoplasm=((214, 186, 214), (178, 150, 200)),
    vacuoles=(0, 2),
    nucleus=Nucleus(
        lobes=(1.5, 3.5),
        lobe_radius=(0.34, 0.48),
        lobe_length=(0.05, 0.25),
        arc_radius=(0.25, 0.42),
        sweep=(90, 230),
        link=(0.5, 1.0),
        clumping=(0.15, 0.4),
        shades=((134, 96, 166), (104, 66, 142)),
    ),
    granules=Granules(
        number=(25, 110),
        diameter_um=(0.7, 1.3),
        opacity=(0.45, 0.95),
        over_nucleus=(0.65, 1.0),
        shades=((84, 40, 112), (50, 22, 84)),
    ),
)

EOSINOPHIL = Morphology(
    cell_type="eosinophil",
    form="eosinophil",
    share=1.0,
    source="WHO: 12-15 um, usually two lobes, numerous large round densely packed orange-red "
    "granules. Bain, Rodak: up to 17 um, sometimes three lobes.",
    diameter_um=(12.0, 17.0),
    cytoplasm=((226, 172, 180), (206, 160, 186)),
    nucleus=Nucleus(
        lobes=(1.6, 3.0),
        lobe_radius=(0.30, 0.40),
        lobe_length=(0.05, 0.25),
        arc_radius=(0.42, 0.56),
        sweep=(90, 190),
        link=(0.1, 0.6),
        eccentricity=(0.0, 0.2),
        clumping=(0.2, 0.5),
        shades=((112, 68, 142), (78, 42, 114)),
    ),
    granules=Granules(
        number=(100, 160),
        diameter_um=(0.6, 1.1),
        opacity=(0.35, 0.9),
        over_nucleus=(0.0, 0.25),
        shades=((226, 132, 112), (196, 108, 136)),
    ),
)

SEGMENTED_NEUTROPHIL = Morphology(
    cell_type="neutrophil",
    form="segmented neutrophil",
    share=0.7,
    source="WHO: 12-15 um, two to five lobes linked by strands of chromatin, abundant pinkish "
    "cytoplasm, very small mauve granules. Review Cards: 10-16 um. Stages: deep purple to "
    "black, pink or tan to clear.",
    diameter_um=(10.0, 16.0),
    cytoplasm=((236, 208, 212), (212, 186, 212)),
    nucleus=Nucleus(
        lobes=(2.3, 5.4),
        lobe_radius=(0.20, 0.32),
        lobe_length=(0.03, 0.2),
        arc_radius=(0.44, 0.60),
        sweep=(140, 260),
        twist=(0.35, 0.35),
        link=(0.1, 0.5),
        eccentricity=(0.0, 0.15),
        clumping=(0.25, 0.6),
        shades=((110, 64, 140), (70, 36, 106)),
    ),
    granules=Granules(
        number=(40, 150),
        diameter_um=(0.25, 0.45),
        opacity=(0.15, 0.6),
        shades=((196, 140, 184), (168, 112, 166)),
    ),
)

BAND_NEUTROPHIL = Morphology(
    cell_type="neutrophil",
    form="band neutrophil",
    share=0.3,
    source="Review Cards: 10-16 um, indented by more than half. Stages: horseshoe with chromatin "
    "condensed at its ends, dark purple, pink to tan to clear, small pinkish-lavender "
    "granules. Bain: C, U or S shape.",
    diameter_um=(10.0, 16.0),
    cytoplasm=((236, 208, 212), (208, 184, 212)),
    nucleus=Nucleus(
        lobes=(3, 5.4),
        lobe_radius=(0.20, 0.29),
        lobe_length=(0.1, 0.2),
        arc_radius=(0.42, 0.56),
        sweep=(140, 250),
        twist=(0.2, 0.2),
        link=(0.75, 1.0),
        eccentricity=(0.0, 0.15),
        clumping=(0.2, 0.5),
        shades=((118, 72, 148), (80, 44, 116)),
    ),
    granules=SEGMENTED_NEUTROPHIL.granules,
)
