"""Lightning callbacks of a hospital's round: the federation's learning rate and FedProx's local term."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lightning_fed.models.schedule import Schedule


class FollowSchedule(pl.Callback):
    """Sets the learning rate of each step by its place in the whole federation.

    Args:
        schedule: of the run. round: counted from 1. steps: of this hospital in this round.
    """

    def __init__(self, schedule: Schedule, round: int, steps: int) -> None:
        self.schedule, self.round, self.steps = schedule, round, steps

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Before each step."""
        # The step's middle: neither the first step of a warm-up nor the last of a cosine has a rate of 0.
        rate = self.schedule.rate(self.round - 1 + (batch_idx + 0.5) / self.steps)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate


class ProximalPull(pl.Callback):
    """FedProx (Li et al. 2020, arXiv 1812.06127): the gradient of mu/2 * |w - w_global|^2.

    Added to the gradient itself, which is what differentiating the term would give.
    """

    def __init__(self, mu: float) -> None:
        self.mu = mu
        self.anchors: list[Tensor] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the global weights."""
        self.anchors = [parameter.detach().clone() for parameter in pl_module.parameters()]

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Before each step."""
        for parameter, anchor in zip(pl_module.parameters(), self.anchors, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - anchor, alpha=self.mu)
