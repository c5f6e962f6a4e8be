"""Which images there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightning_fed.checks import in_range, literals, positive


@dataclass(frozen=True)
class Data:
    """Which images there are and how the hospitals share them out.

    Args:
        name: `bloodcells` (procedural), any 2-D single-label MedMNIST set such as `bloodmnist`, or `path`.
        root: folder of MedMNIST files (null: MedMNIST's own); for `path`, an npz file or a folder of pictures.
        size: height and width in pixels.
        images: training images to draw, for `bloodcells` only.
        download: fetch a MedMNIST file that is not in `root`.
        partition: `iid`, `quantity` (the paper's), `dirichlet` or `shards`.
        alpha: concentration of `dirichlet`; smaller is more unequal.
        classes_per_hospital: shards that each hospital receives under `shards`.
        min_images: the fewest images that a hospital may hold.
        partition_seed: the split's own seed, so that `seed` changes the training and not the hospitals.
        validation: share that each hospital holds out to tell its own accuracy.
    """

    name: str = "bloodcells"
    root: str | None = None
    size: int = 28
    images: int = 4000
    download: bool = True
    partition: Literal["iid", "quantity", "dirichlet", "shards"] = "dirichlet"
    alpha: float = 5.0
    classes_per_hospital: int = 2
    min_images: int = 20
    partition_seed: int = 42
    validation: float = 0.2

    def __post_init__(self) -> None:
        literals("data", self)
        positive("data", images=self.images, alpha=self.alpha, min_images=self.min_images)
        positive("data", classes_per_hospital=self.classes_per_hospital)
        in_range("data", 8, 1024, size=self.size)
        in_range("data", 0, 2**32 - 1, partition_seed=self.partition_seed)
        in_range("data", 0, 0.9, validation=self.validation)
