"""The forms that the generator draws, and uniform draws from their ranges for many cells at once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from operator import attrgetter

import numpy as np

from lightning_fed.data.bloodcells.agranulocytes import (
    KIDNEY_MONOCYTE,
    LARGE_LYMPHOCYTE,
    LARGE_PLATELET,
    OVAL_MONOCYTE,
    PLATELET,
    SMALL_LYMPHOCYTE,
)
from lightning_fed.data.bloodcells.granulocytes import (
    BAND_NEUTROPHIL,
    BASOPHIL,
    EOSINOPHIL,
    SEGMENTED_NEUTROPHIL,
)
from lightning_fed.data.bloodcells.morphology import CELL_TYPES, Morphology
from lightning_fed.data.bloodcells.precursors import (
    METAMYELOCYTE,
    MYELOCYTE,
    ORTHOCHROMATIC_ERYTHROBLAST,
    POLYCHROMATIC_ERYTHROBLAST,
    PROMYELOCYTE,
)
from lightning_fed.data.bloodcells.shapes import Array, Indices

FORMS: tuple[Morphology, ...] = (
    BASOPHIL,
    EOSINOPHIL,
    POLYCHROMATIC_ERYTHROBLAST,
    ORTHOCHROMATIC_ERYTHROBLAST,
    PROMYELOCYTE,
    MYELOCYTE,
    METAMYELOCYTE,
    SMALL_LYMPHOCYTE,
    LARGE_LYMPHOCYTE,
    KIDNEY_MONOCYTE,
    OVAL_MONOCYTE,
    SEGMENTED_NEUTROPHIL,
    BAND_NEUTROPHIL,
    PLATELET,
    LARGE_PLATELET,
)


@cache
def _column(attribute: str) -> Array:
    """-> (forms, 2) for a range, (forms, 2, 3) for shades."""
    read: Callable[[Morphology], object] = attrgetter(attribute)
    return np.array([read(form) for form in FORMS], dtype=np.float64)


@cache
def _shares() -> Array:
    """-> (cell types, forms): cumulative probability of each form given the type."""
    shares = np.array([[form.share * (form.cell_type == cell_type) for form in FORMS] for cell_type in CELL_TYPES])
    cumulative: Array = shares.cumsum(axis=1)
    return cumulative / cumulative[:, -1:]


def choose_forms(rng: np.random.Generator, labels: Indices) -> Indices:
    """Labels (cells,) -> indices into `FORMS` (cells,), drawn by each form's share of its type."""
    threshold = rng.random(len(labels))[:, None]
    return np.asarray((_shares()[labels] <= threshold).sum(axis=1), dtype=np.int64)


def between(rng: np.random.Generator, first: Array, second: Array) -> Array:
    """Colours (3, cells) in [1, 255] -> optical densities (3, cells) of a shade between the two."""
    mixed = first + (second - first) * rng.random(first.shape[1])
    return -np.log(mixed / 255.0)


@dataclass(frozen=True)
class FormSampler:
    """Draws a value for each cell, uniformly from the range of that cell's form.

    Attributes:
        rng: the block's generator.
        forms: indices into `FORMS`, shape (cells,).
    """

    rng: np.random.Generator
    forms: Indices

    def uniform(self, attribute: str) -> Array:
        """A dotted attribute of `Morphology` that is a range -> (cells,)."""
        low, high = _column(attribute)[self.forms].T
        return np.asarray(low + (high - low) * self.rng.random(len(self.forms)))

    def count(self, attribute: str) -> Indices:
        """The same, rounded to whole numbers -> int64 (cells,)."""
        return np.rint(self.uniform(attribute)).astype(np.int64)

    def ink(self, attribute: str) -> Array:
        """A dotted attribute that is a pair of shades -> optical densities (3, cells)."""
        first, second = _column(attribute)[self.forms].transpose(1, 2, 0)
        return between(self.rng, first, second)
