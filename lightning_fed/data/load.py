"""`data.name` -> images."""

from __future__ import annotations

from lightning_fed.data.images import ImageData, ImageSet
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data


def load_images(data: Data) -> ImageData:
    """Read or draw the images of an experiment, once, as uint8.

    Raises:
        InputError: the set is unknown, cannot be had, or is not what it should be.
    """
    if data.name == "bloodcells":
        return _bloodcells(data)
    if data.name == "path":
        from lightning_fed.data.own import load_own

        return load_own(data)
    from lightning_fed.data.medmnist import load_medmnist

    return load_medmnist(data)


def _bloodcells(data: Data) -> ImageData:
    """`data.images` procedural cells to train on; a quarter as many to validate, and as many to test.

    The drawing's seed is the split's, so that `seed` changes the training and not the data.
    """
    from lightning_fed.data.bloodcells import CELL_TYPES, draw
    from lightning_fed.data.bloodcells.generator import LARGEST, SMALLEST

    if not SMALLEST <= data.size <= LARGEST:
        raise InputError(f"data.size is {data.size}: procedural cells have {SMALLEST} to {LARGEST} pixels")
    held_out = max(data.images // 4, 1)
    train, validation, test = (
        ImageSet(*draw(count, seed=data.partition_seed, size=data.size, stream=stream))
        for stream, count in (("train", data.images), ("validation", held_out), ("test", held_out))
    )
    return ImageData("bloodcells", "procedural blood cells", False, CELL_TYPES, train, validation, test)
