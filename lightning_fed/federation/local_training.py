"""Lightning callbacks of a hospital's round: the federation's learning rate and FedProx's local term."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import Parameter

from lightning_fed.data.datamodule import Batches
from lightning_fed.models.classifier import ExampleWise
from lightning_fed.models.schedule import Schedule


class FollowSchedule(pl.Callback):
    """Sets the learning rate of each step by its place in the whole federation.

    Args:
        schedule: of the run. round: counted from 1. plan: this hospital's batches in this round.
    """

    def __init__(self, schedule: Schedule, round: int, plan: Batches) -> None:
        self.schedule, self.round, self.plan = schedule, round, plan

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Before each step."""
        # The step's middle: neither the first step of a warm-up nor the last of a cosine has a rate of 0.
        step = self.plan.step_of(batch_idx)
        rate = self.schedule.rate(self.round - 1 + (step + 0.5) / self.plan.length)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate


class TellEngine(pl.Callback):
    """Tells a privacy engine of each batch before it comes: how many rows, and whether the step is due after it.

    Args:
        engine: of the hospital. plan: its batches in this round.
    """

    def __init__(self, engine: ExampleWise, plan: Batches) -> None:
        self.engine = engine
        self._batches = plan.batches()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Before each batch."""
        planned = next(self._batches)
        self.engine.before_batch(len(batch[1]), planned.last)


class ProximalPull(pl.Callback):
    """FedProx (Li et al. 2020, arXiv 1812.06127): the gradient of mu/2 * |w - w_global|^2.

    Added to the gradient itself, which is what differentiating the term would give; under differential privacy to
    the noised one, since the term knows nothing of the images.
    """

    def __init__(self, mu: float) -> None:
        self.mu = mu
        self.anchors: list[Tensor] = []
        self.parameters: list[Parameter] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the global weights."""
        self.parameters = list(pl_module.parameters())
        self.anchors = [parameter.detach().clone() for parameter in self.parameters]
        for optimizer in trainer.optimizers:
            if hasattr(optimizer, "after_noise"):
                optimizer.after_noise = self.pull

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Before each step."""
        if not hasattr(optimizer, "after_noise"):
            self.pull()

    def pull(self) -> None:
        """Add the term to the gradients."""
        for parameter, anchor in zip(self.parameters, self.anchors, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - anchor, alpha=self.mu)
