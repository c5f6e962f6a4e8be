"""The learning rate as a function of the whole federation's progress, not of one round's."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_fed.experiment import Training


@dataclass(frozen=True)
class Schedule:
    """Learning rate at a moment of the run, the same for a hospital whether or not it met every round."""

    training: Training
    rounds: int

    def rate(self, rounds_done: float) -> float:
        """Learning rate when `rounds_done` of all rounds are over (2.5: in the middle of the third)."""
        warmup = self.training.warmup_rounds
        if rounds_done < warmup:
            return self.training.lr * rounds_done / warmup
        if self.training.schedule == "constant":
            return self.training.lr
        share = (rounds_done - warmup) / max(self.rounds - warmup, 1e-9)
        return self.training.lr * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
