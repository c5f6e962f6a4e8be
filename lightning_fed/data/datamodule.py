"""A hospital's LightningDataModule: indexed uint8 pixels, no PIL and no copy of the set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_fed.data.images import ImageSet, Indices, Pixels
from lightning_fed.experiment import Training
from lightning_fed.seeds import stream


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

    def batches(self) -> Iterator[tuple[int, Indices]]:
        """Pairs of step and positions (batch,), a new permutation for each pass."""
        order = stream(self.seed, "order", self.hospital, self.round)
        step = 0
        while step < self.length:
            deal = order.permutation(self.images)
            for start in range(0, self.images, self.batch_size):
                if step < self.length:
                    yield step, deal[start : start + self.batch_size]
                    step += 1


class PlanSampler(Sampler[tuple[int, Indices]]):
    """The plan's batches as a torch sampler."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __iter__(self) -> Iterator[tuple[int, Indices]]:
        return self.plan.batches()

    def __len__(self) -> int:
        return self.plan.length


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

    def __init__(self, shared: ImageSet, owned: Indices, plan: Plan, augment: bool) -> None:
        self.shared, self.owned, self.plan, self.augment = shared, owned, plan, augment

    def __getitem__(self, batch: tuple[int, Indices]) -> tuple[Tensor, Tensor]:
        """(step, positions) -> images uint8 (batch, height, width, channels), labels int64 (batch,)."""
        step, positions = batch
        rows = self.owned[positions]
        images = self.shared.images[rows]
        if self.augment:
            choices = stream(self.plan.seed, "augment", self.plan.hospital, self.plan.round, step)
            images = flip_and_turn(images, choices.integers(0, 8, len(rows)))
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
        self.plan: Plan | None = None

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Batches of the round whose plan was set.

        Raises:
            RuntimeError: no plan was set.
        """
        if self.plan is None:
            raise RuntimeError("set the round's plan before training")
        batches = PlannedBatches(self.shared, self.train, self.plan, self.training.augment)
        return DataLoader(batches, batch_size=None, sampler=PlanSampler(self.plan))

    def held_out(self) -> ImageSet:
        """This hospital's validation images, copied out of the shared set."""
        return ImageSet(self.shared.images[self.validation], self.shared.labels[self.validation])
