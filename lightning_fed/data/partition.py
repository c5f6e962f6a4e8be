"""How the training images are shared out: one small class for each way, each a seeded function of labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lightning_fed.data.images import Indices, Labels
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data
from lightning_fed.seeds import stream

DRAWS = 200


class Partition(Protocol):
    """Shares out images: every image goes to exactly one hospital."""

    def __call__(self, labels: Labels, hospitals: int) -> list[Indices]:
        """Labels (images,) -> for each hospital, the indices of its images."""
        ...


@dataclass(frozen=True)
class Iid:
    """A random deal: sizes differ by one image at most."""

    seed: int

    def __call__(self, labels: Labels, hospitals: int) -> list[Indices]:
        """Labels (images,) -> for each hospital, sorted indices."""
        deal = stream(self.seed, "partition", "iid").permutation(len(labels))
        return [np.sort(part) for part in np.array_split(deal, hospitals)]


@dataclass(frozen=True)
class Quantity:
    """The paper's split: hospitals of unequal size that hold contiguous ranges of the training images.

    Everybody starts with floor(n/K), the last n mod K with one more; then a random number below half of
    floor(n/K) moves from the first to the second of each pair. Seed 42 of NumPy's legacy generator is the
    authors' (github mohres/federated-dp-sec_agg-flower).
    """

    seed: int = 42

    def __call__(self, labels: Labels, hospitals: int) -> list[Indices]:
        """Labels (images,) -> for each hospital, a contiguous range."""
        base, rest = divmod(len(labels), hospitals)
        sizes = np.full(hospitals, base)
        sizes[hospitals - rest :] += 1
        generator = np.random.RandomState(self.seed)
        for first in range(0, hospitals - 1, 2):
            moved = generator.randint(0, int(0.5 * base)) if base > 1 else 0
            sizes[first] -= moved
            sizes[first + 1] += moved
        return np.split(np.arange(len(labels)), np.cumsum(sizes)[:-1])


@dataclass(frozen=True)
class Dirichlet:
    """Each class is shared out by a draw from Dirichlet(alpha, ..., alpha) (Hsu et al. 2019, arXiv 1909.06335).

    Drawn again, up to 200 times, until every hospital holds `min_images`.
    """

    seed: int
    alpha: float
    min_images: int

    def __call__(self, labels: Labels, hospitals: int) -> list[Indices]:
        """Labels (images,) -> for each hospital, sorted indices.

        Raises:
            InputError: no draw gave every hospital `min_images`.
        """
        generator = stream(self.seed, "partition", "dirichlet")
        for _ in range(DRAWS):
            owners = self._owners(labels, hospitals, generator)
            if np.bincount(owners, minlength=hospitals).min() >= self.min_images:
                return [np.flatnonzero(owners == hospital) for hospital in range(hospitals)]
        raise InputError(
            f"data.alpha is {self.alpha:g}: in {DRAWS} draws no split left every hospital "
            f"data.min_images = {self.min_images} images; raise alpha or lower min_images"
        )

    def _owners(self, labels: Labels, hospitals: int, generator: np.random.Generator) -> Indices:
        owners = np.empty(len(labels), np.int64)
        for label in np.unique(labels):
            members = generator.permutation(np.flatnonzero(labels == label))
            shares = generator.dirichlet(np.full(hospitals, self.alpha))
            ends = np.round(np.cumsum(shares) * len(members)).astype(int)[:-1]
            for hospital, part in enumerate(np.split(members, ends)):
                owners[part] = hospital
        return owners


@dataclass(frozen=True)
class Shards:
    """Images sorted by class and cut into equal shards, a few for each hospital (McMahan et al. 2017)."""

    seed: int
    classes_per_hospital: int

    def __call__(self, labels: Labels, hospitals: int) -> list[Indices]:
        """Labels (images,) -> for each hospital, sorted indices of its shards."""
        generator = stream(self.seed, "partition", "shards")
        by_class = generator.permutation(len(labels))
        by_class = by_class[np.argsort(labels[by_class], kind="stable")]
        shards = np.array_split(by_class, hospitals * self.classes_per_hospital)
        deal = generator.permutation(len(shards)).reshape(hospitals, -1)
        return [np.sort(np.concatenate([shards[shard] for shard in row])) for row in deal]


PARTITIONS: dict[str, Callable[[Data], Partition]] = {
    "iid": lambda data: Iid(data.partition_seed),
    "quantity": lambda data: Quantity(data.partition_seed),
    "dirichlet": lambda data: Dirichlet(data.partition_seed, data.alpha, data.min_images),
    "shards": lambda data: Shards(data.partition_seed, data.classes_per_hospital),
}


def share_out(data: Data, labels: Labels, hospitals: int) -> list[Indices]:
    """The images of each hospital under `data.partition`.

    Raises:
        InputError: more hospitals than images, or a hospital left with fewer than `data.min_images`.
    """
    if hospitals > len(labels):
        raise InputError(f"federation.hospitals is {hospitals}: there are only {len(labels)} training images")
    classes = len(np.unique(labels))
    if data.partition == "shards" and data.classes_per_hospital > classes:
        raise InputError(f"data.classes_per_hospital is {data.classes_per_hospital}: there are {classes} classes")
    shares = PARTITIONS[data.partition](data)(labels, hospitals)
    smallest = min(range(hospitals), key=lambda hospital: len(shares[hospital]))
    if len(shares[smallest]) < data.min_images:
        raise InputError(
            f"data.min_images is {data.min_images}, but hospital {smallest} would hold "
            f"{len(shares[smallest])} of {len(labels)} images; lower it or federation.hospitals"
        )
    return shares


def hold_out(share: Indices, validation: float, seed: int, hospital: int) -> tuple[Indices, Indices]:
    """A hospital's training and validation indices; both sorted, at least one image to train on."""
    held = min(round(validation * len(share)), len(share) - 1)
    deal = stream(seed, "partition", "hold out", hospital).permutation(share)
    return np.sort(deal[held:]), np.sort(deal[:held])
