"""How a hospital trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lightning_fed.checks import in_range, literals, not_negative, positive


@dataclass(frozen=True)
class Training:
    """How a hospital trains in its rounds.

    Args:
        optimizer: any class of `torch.optim` by name.
        lr: learning rate at its greatest.
        batch_size: images in a step.
        momentum: for optimizers that have one (SGD, RMSprop).
        weight_decay: the optimizer's own.
        optimizer_options: its further keyword arguments, such as `{betas: [0.5, 0.99]}`.
        augment: flips and quarter turns, drawn anew for each image and step.
        distort: strength, 0 to 2, of further changes of position, size, colour and sharpness, drawn likewise.
        precision: `32-true` or `bf16-mixed`.
        threads: torch threads of one hospital; part of the result (more threads round otherwise).
        schedule: learning rate over the whole federation: `constant` or `cosine` (down to zero).
        warmup_rounds: rounds, fractions too, of linear growth before the schedule.
        reset_optimizer_state: forget the moments at the start of every round, as the paper's code does.
        views: of each image in each step, each augmented on its own; their gradients are averaged before an
            image's gradient is clipped (augmentation multiplicity: De et al. 2022, arXiv 2204.13650).
    """

    optimizer: str = "AdamW"
    lr: float = 3e-3
    batch_size: int = 16
    momentum: float = 0.0
    weight_decay: float = 0.0
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    augment: bool = True
    distort: float = 0.0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: int = 1
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_rounds: float = 1.0
    reset_optimizer_state: bool = False
    views: int = 1

    def __post_init__(self) -> None:
        literals("training", self)
        positive("training", lr=self.lr, batch_size=self.batch_size, threads=self.threads, views=self.views)
        not_negative("training", weight_decay=self.weight_decay, warmup_rounds=self.warmup_rounds)
        in_range("training", 0, 1, momentum=self.momentum)
        in_range("training", 0, 2, distort=self.distort)
