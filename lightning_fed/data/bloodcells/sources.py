"""The works behind the tables of cell forms.

Bain and Rodak are cited for what is common knowledge in the field, from memory and therefore without a page.
Of the others, the open pages or excerpts of them were read.
"""

from collections.abc import Mapping
from types import MappingProxyType

SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "WHO": "Manual of Basic Techniques for a Health Laboratory, 2nd ed., World Health Organization, "
        "chapter 9, Haematology, p. 311",
        "Stages": "textbook table 7.3, Characteristics of Cells in the Maturation Stages of the Neutrophil "
        "(scribd.com/document/658256164), and table 5.1, Morphologic Characteristics of Erythroid Precursors "
        "(scribd.com/document/658255048)",
        "CellaVision": "Cell Atlas: cellavision.com/en/cellavision-cellatlas/hematopoiesis-cellatlas",
        "Virginia": "Innes, Basic Hematology, University of Virginia: med-ed.virginia.edu/courses/path/innes",
        "Penn State": "Brelje and Sorenson, blood smear, histology.pennstatehealth.net, slide MH-033hr",
        "Review Cards": "Quick Review Cards for Medical Laboratory Science, Hematology Review, p. 314",
        "Outlines": "hematologyoutlines.com, atlas topic 135, Metamyelocyte",
        "ASH": "American Society of Hematology Image Bank, T. Scordino, images 60932, 60293 and 60294",
        "HemoSurf": "HemoSurf, University of Bern: e-learning.studmed.unibe.ch/hemosurf_demo",
        "LabCE": "LabCE, Normal Peripheral Blood Cells, Platelet Appearance",
        "Guide": "basic principles, erythrocyte maturation: guwsmedical.info/bone-marrow/ascp.html",
        "Bain": "B. J. Bain, Blood Cells: A Practical Guide, Wiley",
        "Rodak": "E. M. Keohane et al., Rodak's Hematology: Clinical Principles and Applications, Elsevier",
    }
)
"""The key by which an entry cites a work, and the work."""
