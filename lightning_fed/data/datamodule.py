"""A hospital's LightningDataModule: indexed uint8 pixels, no PIL and no copy of the set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_fed.data.distortion import Dice, dice_for, distort
from lightning_fed.data.images import ImageSet, Indices, Pixels
from lightning_fed.experiment import Training
from lightning_fed.seeds import stream


@dataclass(frozen=True)
class PlannedBatch:
    """Images that go through the network together.

    Args:
        step: the optimizer's step that they belong to. positions: among the hospital's images (batch,).
        last: whether the step is taken after them.
    """

    step: int
    positions: Indices
    last: bool = True


class Batches(Protocol):
    """The batches of one hospital in one round."""

    @property
    def length(self) -> int:
        """Optimizer steps."""
        ...

    @property
    def loads(self) -> int:
        """Batches, of which a step may have several."""
        ...

    def batches(self) -> Iterator[PlannedBatch]:
        """The batches in order, the same each time."""
        ...

    def step_of(self, load: int) -> int:
        """The step that the batch of that number belongs to."""
        ...

    def turns(self, batch: PlannedBatch) -> Indices:
        """How each image of a batch is turned and flipped, 0 to 7 (batch * views,), views of an image together."""
        ...

    def dice(self, batch: PlannedBatch, count: int) -> Dice:
        """So many random numbers in [0, 1) for each view of each image (batch * views, count)."""
        ...


@dataclass(frozen=True)
class Plan:
    """A hospital's batches in one round, the same whoever asks: a function of (seed, hospital, round).

    Args:
        images: how many the hospital trains on. batch_size: images in a step.
        epochs: passes. steps: number of steps instead, or None.
        seed: the experiment's. hospital, round: whose batches.
    """

    images: int
    batch_size: int
    epochs: int
    steps: int | None
    seed: int
    hospital: int
    round: int

    @property
    def length(self) -> int:
        """Optimizer steps of the round."""
        return self.steps if self.steps is not None else self.epochs * -(-self.images // self.batch_size)

    @property
    def loads(self) -> int:
        """One batch for each step."""
        return self.length

    def step_of(self, load: int) -> int:
        """The batch's own number."""
        return load

    def turns(self, batch: PlannedBatch) -> Indices:
        """Drawn anew for each image and step."""
        choices = stream(self.seed, "augment", self.hospital, self.round, batch.step)
        return choices.integers(0, 8, len(batch.positions))

    def dice(self, batch: PlannedBatch, count: int) -> Dice:
        """Drawn anew for each image and step."""
        choices = stream(self.seed, "distort", self.hospital, self.round, batch.step)
        return choices.random((len(batch.positions), count))

    def batches(self) -> Iterator[PlannedBatch]:
        """A new permutation for each pass."""
        order = stream(self.seed, "order", self.hospital, self.round)
        step = 0
        while step < self.length:
            deal = order.permutation(self.images)
            for start in range(0, self.images, self.batch_size):
                if step < self.length:
                    yield PlannedBatch(step, deal[start : start + self.batch_size])
                    step += 1


@dataclass(frozen=True)
class DrawnPlan:
    """Batches that were drawn elsewhere, image by image, and may be empty or too large for one load.

    What happens to an image depends on its own number alone and not on which others were drawn: a neighbouring
    data set would otherwise change the views of all. A step's loads differ by an image at most: in float32 an
    image's gradient is not the same in a load of one as in one of several.

    Args:
        draws: positions (batch,) of each step. images: how many the hospital has. load: images at once, at most.
        views: of each image. seed: of the augmentation. hospital, round: whose batches.
    """

    draws: tuple[Indices, ...]
    images: int
    load: int
    views: int
    seed: int
    hospital: int
    round: int

    @property
    def length(self) -> int:
        """Optimizer steps, with those whose batch is empty."""
        return len(self.draws)

    @property
    def loads(self) -> int:
        """Batches, at least one for each step."""
        return len(self._batches)

    @cached_property
    def _batches(self) -> list[PlannedBatch]:
        found = list[PlannedBatch]()
        for step, drawn in enumerate(self.draws):
            loads = np.array_split(drawn, max(1, -(-len(drawn) // self.load)))
            found += [PlannedBatch(step, one, last=place == len(loads)) for place, one in enumerate(loads, 1)]
        return found

    def step_of(self, load: int) -> int:
        """The step that the batch of that number belongs to."""
        return self._batches[load].step

    def batches(self) -> Iterator[PlannedBatch]:
        """The steps' batches in loads of at most `load`."""
        return iter(self._batches)

    def turns(self, batch: PlannedBatch) -> Indices:
        """Drawn for every image of the hospital, sampled or not."""
        choices = stream(self.seed, "augment", self.hospital, self.round, batch.step)
        return choices.integers(0, 8, (self.images, self.views))[batch.positions].reshape(-1)

    def dice(self, batch: PlannedBatch, count: int) -> Dice:
        """Drawn for every image of the hospital, sampled or not."""
        choices = stream(self.seed, "distort", self.hospital, self.round, batch.step)
        return choices.random((self.images, self.views, count))[batch.positions].reshape(-1, count)


class PlanSampler(Sampler[PlannedBatch]):
    """The plan's batches as a torch sampler."""

    def __init__(self, plan: Batches) -> None:
        self.plan = plan

    def __iter__(self) -> Iterator[PlannedBatch]:
        return self.plan.batches()

    def __len__(self) -> int:
        return self.plan.loads


def flip_and_turn(images: Pixels, choices: Indices) -> Pixels:
    """Each image by one of the square's eight symmetries: choice % 4 quarter turns, from 4 on also a flip.

    Images uint8 (batch, size, size, channels) and choices 0..7 (batch,) -> a new array like images.
    """
    turned = np.empty_like(images)
    for choice in range(8):
        chosen = choices == choice
        part = np.rot90(images[chosen], choice % 4, axes=(1, 2))
        turned[chosen] = part[:, :, ::-1] if choice >= 4 else part
    return turned


class PlannedBatches(Dataset[tuple[Tensor, Tensor]]):
    """Indexed by whole batches of the plan; `owned` are the hospital's rows of the shared pixels."""

    def __init__(self, shared: ImageSet, owned: Indices, plan: Batches, training: Training) -> None:
        self.shared, self.owned, self.plan, self.training = shared, owned, plan, training

    def __getitem__(self, batch: PlannedBatch) -> tuple[Tensor, Tensor]:
        """Images uint8 (batch * views, height, width, channels), labels int64 (batch * views,), views together."""
        training = self.training
        rows = self.owned[batch.positions].repeat(training.views)
        images = self.shared.images[rows]
        if training.augment:
            images = flip_and_turn(images, self.plan.turns(batch))
        if training.distort:
            dice = self.plan.dice(batch, dice_for(images.shape[3]))
            images = distort(images, dice, training.distort)
        return torch.from_numpy(images), torch.from_numpy(self.shared.labels[rows])


class HospitalData(pl.LightningDataModule):
    """One hospital's images: training rows and held-out rows of the shared set.

    Args:
        shared: pixels of all hospitals, read-only and in shared memory under Ray.
        train, validation: this hospital's rows.
        training: batch size and augmentation.
    """

    def __init__(self, shared: ImageSet, train: Indices, validation: Indices, training: Training) -> None:
        super().__init__()
        self.shared, self.train, self.validation = shared, train, validation
        self.training = training
        self.plan: Batches | None = None

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Batches of the round whose plan was set.

        Raises:
            RuntimeError: no plan was set.
        """
        if self.plan is None:
            raise RuntimeError("set the round's plan before training")
        batches = PlannedBatches(self.shared, self.train, self.plan, self.training)
        return DataLoader(batches, batch_size=None, sampler=PlanSampler(self.plan))

    def held_out(self) -> ImageSet:
        """This hospital's validation images, copied out of the shared set."""
        return ImageSet(self.shared.images[self.validation], self.shared.labels[self.validation])
