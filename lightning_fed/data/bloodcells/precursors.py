"""Precursors that appear in blood in disease or pregnancy: immature granulocytes and erythroblasts.

Each entry cites `sources.SOURCES`.
"""

from lightning_fed.data.bloodcells.morphology import Granules, Morphology, Nucleus

PROMYELOCYTE = Morphology(
    cell_type="immature granulocytes",
    form="promyelocyte",
    share=0.25,
    source="Stages: 15-21 um, round or oval nucleus with nucleoli, deep-blue cytoplasm, large "
    "reddish-purple granules. Virginia: 10-20 um. Bain: granules may overlie the nucleus, "
    "Golgi zone pale, nucleus eccentric.",
    diameter_um=(14.0, 20.0),
    irregularity_um=(0.15, 0.6),
    cytoplasm=((166, 158, 214), (132, 122, 190)),
    hof=(0.0, 0.6),
    nucleus=Nucleus(
        lobe_radius=(0.60, 0.76),
        lobe_length=(0.0, 0.12),
        eccentricity=(0.05, 0.25),
        clumping=(0.1, 0.35),
        nucleoli=(0.5, 3.4),
        shades=((150, 96, 172), (118, 70, 152)),
    ),
    granules=Granules(
        number=(30, 120),
        diameter_um=(0.4, 0.75),
        opacity=(0.3, 0.75),
        over_nucleus=(0.3, 0.9),
        shades=((140, 62, 138), (108, 44, 128)),
    ),
)

MYELOCYTE = Morphology(
    cell_type="immature granulocytes",
    form="myelocyte",
    share=0.4,
    source="Stages: 12-18 um, round to oval nucleus, more condensed chromatin, light-blue cytoplasm "
    "turning tan to pink, small pinkish-red granules. Virginia: 10-18 um, nucleus eccentric, "
    "often flattened along one side.",
    diameter_um=(12.0, 18.0),
    cytoplasm=((194, 180, 218), (220, 188, 208)),
    hof=(0.0, 0.6),
    nucleus=Nucleus(
        lobe_radius=(0.50, 0.66),
        lobe_length=(0.0, 0.2),
        eccentricity=(0.1, 0.35),
        rim_um=(0.1, 0.5),
        clumping=(0.2, 0.45),
        shades=((136, 84, 162), (98, 56, 134)),
    ),
    granules=Granules(
        number=(40, 150),
        diameter_um=(0.25, 0.6),
        opacity=(0.2, 0.65),
        over_nucleus=(0.0, 0.5),
        shades=((182, 112, 160), (140, 72, 146)),
    ),
)

METAMYELOCYTE = Morphology(
    cell_type="immature granulocytes",
    form="metamyelocyte",
    share=0.35,
    source="Stages: 10-18 um, kidney-bean nucleus of condensed dark-purple chromatin, pinkish-tan "
    "cytoplasm, small pinkish-lavender granules. Outlines: indented by less than half, "
    "perinuclear clearing common.",
    diameter_um=(11.0, 17.0),
    cytoplasm=((226, 194, 210), (200, 178, 212)),
    hof=(0.0, 0.5),
    nucleus=Nucleus(
        lobes=(3, 3),
        lobe_radius=(0.32, 0.44),
        lobe_length=(0.05, 0.15),
        arc_radius=(0.30, 0.42),
        sweep=(80, 150),
        link=(0.9, 1.0),
        eccentricity=(0.05, 0.25),
        clumping=(0.2, 0.5),
        shades=((126, 76, 154), (88, 48, 124)),
    ),
    granules=Granules(
        number=(40, 150),
        diameter_um=(0.25, 0.5),
        opacity=(0.15, 0.6),
        over_nucleus=(0.0, 0.3),
        shades=((190, 128, 174), (156, 94, 158)),
    ),
)

POLYCHROMATIC_ERYTHROBLAST = Morphology(
    cell_type="erythroblast",
    form="polychromatic erythroblast",
    share=0.5,
    source="Stages: 12-15 um, abundant grey-blue cytoplasm, coarsely clumped chromatin. HemoSurf: "
    "10-12 um, cytoplasm between basophilic and acidophilic. ASH: from grey-blue to "
    "grey-pink.",
    diameter_um=(9.5, 14.0),
    elongation=(1.0, 1.25),
    irregularity_um=(0.1, 0.5),
    cytoplasm=((164, 152, 194), (194, 170, 188)),
    nucleus=Nucleus(
        lobe_radius=(0.50, 0.70),
        lobe_length=(0.0, 0.05),
        eccentricity=(0.0, 0.35),
        rim_um=(0.0, 0.4),
        clumping=(0.4, 0.9),
        shades=((92, 50, 116), (60, 30, 88)),
    ),
)

ORTHOCHROMATIC_ERYTHROBLAST = Morphology(
    cell_type="erythroblast",
    form="orthochromatic erythroblast",
    share=0.5,
    source="Stages: 10-15 um, nucleus small, dense, pyknotic, round or bizarre, pink-salmon "
    "cytoplasm with varying basophilia. ASH: slightly larger than a red cell. Rodak: 8-10 um.",
    diameter_um=(8.0, 12.5),
    elongation=(1.0, 1.35),
    irregularity_um=(0.1, 0.5),
    cytoplasm=((214, 176, 180), (182, 164, 190)),
    mottling=(0.02, 0.1),
    nucleus=Nucleus(
        lobe_radius=(0.38, 0.58),
        lobe_length=(0.0, 0.05),
        eccentricity=(0.0, 0.5),
        rim_um=(-0.3, 0.3),
        clumping=(0.05, 0.35),
        shades=((78, 40, 102), (48, 24, 76)),
    ),
)
