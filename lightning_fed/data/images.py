"""The plain containers that travel: uint8 pixels and labels, whole and by split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_fed.errors import InputError

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Indices = NDArray[np.int64]

MOST_CLASSES = 2**16


@dataclass(frozen=True)
class ImageSet:
    """Images uint8 (images, height, width, channels) and labels int64 (images,)."""

    images: Pixels
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def without_pixels(self) -> ImageSet:
        """The same labels and shape with black images that take no memory."""
        return replace(self, images=np.broadcast_to(np.uint8(0), self.images.shape))


@dataclass(frozen=True)
class ImageData:
    """A data set of three splits.

    Args:
        name: as in `data.name`. title: how reports call it. rebuilt: MedMNIST's name, but not its official file.
        class_names: by label.
    """

    name: str
    title: str
    rebuilt: bool
    class_names: tuple[str, ...]
    train: ImageSet
    validation: ImageSet
    test: ImageSet

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return int(self.train.images.shape[1])

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return int(self.train.images.shape[3])

    def without_pixels(self) -> ImageData:
        """The same set with black images that take no memory."""
        return replace(
            self,
            train=self.train.without_pixels(),
            validation=self.validation.without_pixels(),
            test=self.test.without_pixels(),
        )

    def split(self, name: str) -> ImageSet:
        """The split called `train`, `validation` or `test`."""
        found: ImageSet = getattr(self, name)
        return found


def image_set(images: Any, labels: Any, where: str) -> ImageSet:
    """Checked arrays: images uint8 (n, size, size[, channels]), labels of integers (n,) or (n, 1).

    Raises:
        InputError: a wrong type or shape, or counts that differ; `where` names the file and the split.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8:
        raise InputError(f"{where}: the images are {images.dtype}, save them as uint8")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] not in (1, 3):
        raise InputError(f"{where}: images of shape {images.shape}, save (n, size, size) or (n, size, size, 3)")
    if labels.shape not in ((len(images),), (len(images), 1)) or labels.dtype.kind not in "iu":
        raise InputError(
            f"{where}: labels {labels.dtype} of shape {labels.shape}, "
            f"save one integer for each of the {len(images)} images"
        )
    if len(images) == 0:
        raise InputError(f"{where}: there are no images in it, give at least one")
    if int(labels.min()) < 0:
        raise InputError(f"{where}: label {int(labels.min())} is negative, count classes from 0")
    if int(labels.max()) >= MOST_CLASSES:
        raise InputError(f"{where}: label {int(labels.max())} is too great, count classes from 0 without gaps")
    return ImageSet(np.ascontiguousarray(images), labels.reshape(-1).astype(np.int64))
