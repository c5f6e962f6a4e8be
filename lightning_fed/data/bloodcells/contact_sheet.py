"""A labelled sheet of procedural cells, one row for each cell type.

python -m lightning_fed.data.bloodcells.contact_sheet --size 64 --columns 8 --seed 1 --output sheet.png
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from lightning_fed.data.bloodcells.generator import BLOCK, draw
from lightning_fed.data.bloodcells.morphology import CELL_TYPES


def write_contact_sheet(output: Path, *, size: int = 64, columns: int = 8, seed: int = 1) -> None:
    """Draw `columns` cells of each type and write them as one picture.

    Args:
        output: the file; its ending decides the format.
        size: height and width of a cell's image in pixels.
        columns: cells of each type.
        seed: see `draw`.

    Raises:
        ValueError: columns is not positive, or `draw` refuses size or seed.
    """
    if columns < 1:
        raise ValueError(f"columns must be positive, got {columns}")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    images, labels = draw(-(-columns * len(CELL_TYPES) // BLOCK) * BLOCK, seed=seed, size=size)
    figure, axes = pyplot.subplots(
        len(CELL_TYPES), columns, figsize=(1.2 * columns + 1.6, 9.6), squeeze=False, layout="compressed"
    )
    for label, (name, row) in enumerate(zip(CELL_TYPES, axes, strict=True)):
        _fill_row(row, name, images[labels == label])
    figure.savefig(output, dpi=120)
    pyplot.close(figure)


def _fill_row(row: Any, name: str, images: NDArray[np.uint8]) -> None:
    for axis, image in zip(row, images, strict=False):
        axis.imshow(image, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name.replace(" ", "\n"), rotation=0, ha="right", va="center")


def main() -> None:
    """Read the command line and write the sheet."""
    parser = argparse.ArgumentParser(description="Write a labelled sheet of procedural blood cells.")
    parser.add_argument("--size", type=int, default=64, help="pixels of a side (28 to 224)")
    parser.add_argument("--columns", type=int, default=8, help="cells of each type")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="picture to write, for example sheet.png")
    given = parser.parse_args()
    write_contact_sheet(given.output, size=given.size, columns=given.columns, seed=given.seed)


if __name__ == "__main__":
    main()
