"""Lymphocytes, monocytes and platelets. Each entry cites `sources.SOURCES`."""

from lightning_fed.data.bloodcells.morphology import Granules, Morphology, Nucleus

SMALL_LYMPHOCYTE = Morphology(
    cell_type="lymphocyte",
    form="small lymphocyte",
    share=0.6,
    source="WHO: 7-10 um, round, nucleus occupies most of the cell, densely packed dark-purple "
    "chromatin, very little blue cytoplasm without granules. CellaVision: narrow light or "
    "dark blue band.",
    diameter_um=(7.5, 10.5),
    elongation=(1.0, 1.2),
    cytoplasm=((176, 184, 226), (140, 146, 206)),
    nucleus=Nucleus(
        lobe_radius=(0.78, 0.96),
        lobe_length=(0.0, 0.1),
        eccentricity=(0.0, 0.2),
        rim_um=(0.1, 0.5),
        clumping=(0.2, 0.55),
        shades=((108, 66, 146), (70, 40, 112)),
    ),
)

LARGE_LYMPHOCYTE = Morphology(
    cell_type="lymphocyte",
    form="large lymphocyte",
    share=0.4,
    source="CellaVision: 9-15 um, oval or bulging nucleus of somewhat looser chromatin, plentiful "
    "colourless to light-blue cytoplasm, few bright violet granules. Penn State: 9-15 um.",
    diameter_um=(9.5, 15.0),
    elongation=(1.0, 1.3),
    irregularity_um=(0.2, 0.8),
    cytoplasm=((200, 208, 236), (164, 172, 220)),
    nucleus=Nucleus(
        lobe_radius=(0.56, 0.78),
        lobe_length=(0.0, 0.2),
        eccentricity=(0.0, 0.35),
        rim_um=(0.0, 0.5),
        clumping=(0.15, 0.4),
        shades=((128, 82, 162), (90, 54, 130)),
    ),
    granules=Granules(number=(0, 8), diameter_um=(0.4, 0.6), opacity=(0.4, 0.8), shades=((150, 70, 160),) * 2),
)

KIDNEY_MONOCYTE = Morphology(
    cell_type="monocyte",
    form="monocyte with kidney-shaped nucleus",
    share=0.6,
    source="Penn State: 12-20 um, kidney-shaped or notched nucleus of raked chromatin, bluish-grey "
    "cytoplasm. CellaVision: very loose chromatin, powder-fine violet granules, vacuoles "
    "often. Bain: irregular outline.",
    diameter_um=(12.5, 19.0),
    elongation=(1.0, 1.3),
    irregularity_um=(0.2, 0.9),
    cytoplasm=((198, 196, 214), (166, 164, 192)),
    mottling=(0.1, 0.3),
    vacuoles=(0, 4),
    nucleus=Nucleus(
        lobes=(2.6, 4.4),
        lobe_radius=(0.26, 0.38),
        lobe_length=(0.05, 0.2),
        arc_radius=(0.34, 0.50),
        sweep=(90, 200),
        link=(0.8, 1.0),
        eccentricity=(0.0, 0.2),
        clumping=(0.15, 0.45),
        shades=((150, 104, 176), (112, 72, 150)),
    ),
    granules=Granules(
        number=(0, 110),
        diameter_um=(0.2, 0.35),
        opacity=(0.1, 0.45),
        over_nucleus=(0.0, 0.2),
        shades=((166, 112, 172), (140, 88, 156)),
    ),
)

OVAL_MONOCYTE = Morphology(
    cell_type="monocyte",
    form="monocyte with oval or folded nucleus",
    share=0.4,
    source="CellaVision: 12-24 um, nucleus kidney-shaped, bulging or segmented, very loose "
    "chromatin. Rodak: folded nucleus, cytoplasm like ground glass.",
    diameter_um=(12.5, 19.0),
    elongation=(1.0, 1.3),
    irregularity_um=(0.2, 0.9),
    cytoplasm=KIDNEY_MONOCYTE.cytoplasm,
    mottling=(0.1, 0.3),
    vacuoles=(0, 4),
    nucleus=Nucleus(
        lobes=(1.0, 3.4),
        lobe_radius=(0.40, 0.54),
        lobe_length=(0.1, 0.3),
        arc_radius=(0.1, 0.3),
        sweep=(60, 180),
        link=(0.8, 1.0),
        eccentricity=(0.0, 0.2),
        clumping=(0.15, 0.45),
        shades=KIDNEY_MONOCYTE.nucleus.shades,
    ),
    granules=KIDNEY_MONOCYTE.granules,
)

PLATELET = Morphology(
    cell_type="platelet",
    form="platelet",
    share=0.75,
    source="ASH: 1.5-3 um, anucleate, pale-blue cytoplasm, fine purple granules. LabCE: 1-4 um, "
    "round, oval or rod-shaped, granules gathered at the centre (chromomere) inside a clear "
    "blue rim (hyalomere).",
    diameter_um=(2.0, 4.0),
    elongation=(1.0, 1.6),
    irregularity_um=(0.05, 0.4),
    cytoplasm=((206, 198, 226), (170, 160, 206)),
    nucleus=Nucleus(lobes=(0, 0), lobe_radius=(0.1, 0.1), clumping=(0.0, 0.0), shades=((110, 60, 140),) * 2),
    granules=Granules(
        number=(5, 20),
        diameter_um=(0.4, 0.7),
        opacity=(0.4, 0.9),
        spread=(0.5, 0.9),
        shades=((146, 84, 162), (104, 52, 136)),
    ),
)

LARGE_PLATELET = Morphology(
    cell_type="platelet",
    form="large platelet",
    share=0.25,
    source="CellaVision: up to 15 um, light-blue to colourless with scattered red granules. Bain: "
    "large platelets exceed 4 um, giant ones are as large as a red cell or larger.",
    diameter_um=(4.0, 7.5),
    elongation=(1.0, 1.6),
    irregularity_um=(0.2, 0.8),
    cytoplasm=PLATELET.cytoplasm,
    nucleus=PLATELET.nucleus,
    granules=Granules(
        number=(15, 60),
        diameter_um=(0.4, 0.75),
        opacity=(0.35, 0.85),
        spread=(0.5, 0.95),
        shades=PLATELET.granules.shades,
    ),
)
