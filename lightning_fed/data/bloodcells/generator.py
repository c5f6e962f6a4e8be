"""Procedural blood cells: the eight classes of BloodMNIST, drawn from haematology textbooks.

Nothing here was fitted to real images. Shapes, sizes and colours follow the works that the tables cite
(`sources.SOURCES`). While this was written, three validation images of each class of BloodMNIST were looked
at, to see that a drawing is not absurd; that look also guided, by eye, the width of the field and the tint of
the plasma. No statistic of real images was computed, no model was trained on or tested against real images,
and no training or test image was looked at.

Each image shows one cell near the centre of a field as on a May-Gruenwald-Giemsa stained film under a 100x
objective: red cells around it, plasma behind it, and a stain, lamp, focus and white balance of its own.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from lightning_fed.data.bloodcells.camera import conditions, expose, field_of_view
from lightning_fed.data.bloodcells.cell import sample_cell
from lightning_fed.data.bloodcells.forms import FormSampler, choose_forms
from lightning_fed.data.bloodcells.morphology import CELL_TYPES
from lightning_fed.data.bloodcells.paint import paint_cell
from lightning_fed.data.bloodcells.smear import paint_smear, sample_smear

BLOCK = 32
"""Images drawn together. Each block has its own seed and holds every cell type equally often."""

SMALLEST, LARGEST = 28, 224


def draw(
    count: int, *, seed: int, size: int = 28, stream: str = "train"
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw labelled images of blood cells.

    Image i depends on seed, stream, size and i alone, so a longer run starts with a shorter one. Each 32
    consecutive images from a multiple of 32 hold four of every cell type, in random order, so classes are
    balanced. The same seed shows the same cells at every size.

    Args:
        count: how many images.
        seed: a non-negative integer.
        size: height and width in pixels, 28 to 224; the field is 22 um wide at every size.
        stream: a name such as "train", "validation" or "test"; streams are independent.

    Returns:
        images uint8 (count, size, size, 3) in RGB, labels int64 (count,) as indices into `CELL_TYPES`.

    Raises:
        ValueError: count or seed is negative, size is out of range, or stream is empty.
    """
    _check(count, seed, size, stream)
    blocks = [_draw_block(child, size) for child in _block_seeds(count, seed, stream)]
    empty = np.empty((0, size, size, 3), dtype=np.uint8), np.empty(0, dtype=np.int64)
    images, labels = zip(empty, *blocks, strict=True)
    return np.concatenate(images)[:count], np.concatenate(labels)[:count]


def _check(count: int, seed: int, size: int, stream: str) -> None:
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(f"size must lie in [{SMALLEST}, {LARGEST}], got {size}")
    if not stream:
        raise ValueError("stream must not be empty")


def _block_seeds(count: int, seed: int, stream: str) -> list[np.random.SeedSequence]:
    digest = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:16], "big")
    return np.random.SeedSequence([seed, digest]).spawn(-(-count // BLOCK))


def _draw_block(seed: np.random.SeedSequence, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    rng = np.random.Generator(np.random.PCG64(seed))
    labels = rng.permutation(np.arange(BLOCK, dtype=np.int64) % len(CELL_TYPES))
    seen = conditions(rng, BLOCK)
    cell = sample_cell(FormSampler(rng, choose_forms(rng, labels)))
    smear = sample_smear(rng, cell.outline)
    field = field_of_view(seen, size)
    density = paint_smear(field, smear)
    paint_cell(density, field, cell)
    return expose(density, seen, rng.standard_normal((BLOCK, size, size))), labels
