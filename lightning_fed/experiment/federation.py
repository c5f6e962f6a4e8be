"""Who takes part, and how updates become the next model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from lightning_fed.checks import in_range, literals, not_negative, positive
from lightning_fed.errors import InputError


@dataclass(frozen=True)
class Distillation:
    """FedMIC's teachers, and how much of a student's update travels (Ren et al. 2024, arXiv 2407.02261).

    Args:
        teacher, teacher_width: each hospital's own network, which stays there; `model` is the student.
        energy_first, energy_last: share of each layer's squared singular values that is sent in the first and in
            the last round; it grows in between.
    """

    teacher: str = "resnet18"
    teacher_width: int = 16
    energy_first: float = 0.9
    energy_last: float = 0.98

    def __post_init__(self) -> None:
        name = "federation.distillation"
        in_range(name, 2, 4096, teacher_width=self.teacher_width)
        if self.teacher_width % 2:
            raise InputError(f"{name}.teacher_width is {self.teacher_width}: it must be even, for the group norms")
        in_range(name, 0.01, 1, energy_first=self.energy_first, energy_last=self.energy_last)
        if self.energy_last < self.energy_first:
            raise InputError(f"{name}.energy_last is below energy_first; let it be that or more")

    def energy(self, round: int, rounds: int) -> float:
        """Of a round, counted from 1."""
        return self.energy_first + (self.energy_last - self.energy_first) * (round - 1) / max(rounds - 1, 1)


@dataclass(frozen=True)
class Federation:
    """Who takes part and how their updates become the next global model.

    Args:
        hospitals: how many there are.
        rounds: rounds of the whole run.
        local_epochs: passes over a hospital's images in one round.
        local_steps: optimizer steps in one round instead of `local_epochs`.
        participation: share of the hospitals in each round, drawn from `seed`; at least one.
        over_selection: so many times as many are asked, and the round closes when its share has come in (Bonawitz
            et al. 2019, arXiv 1902.01046); 1 waits for all that are asked.
        round_timeout: seconds after which a round no longer waits for hospitals that train, simulated ones under
            `faults.stragglers`; null waits.
        strategy: `fedavg` (McMahan et al. 2017), `fedprox` (Li et al. 2020) or `fedmic` (Ren et al. 2024), which
            keeps a teacher in each hospital and sends low-rank updates.
        proximal_mu: weight of FedProx's local term.
        distillation: of `fedmic`.
        server_optimizer: any class of `torch.optim`, applied to the mean update as a gradient
            (Reddi et al. 2021: Adam is FedAdam; SGD with momentum is FedAvgM); null takes the mean itself.
        server_lr: its learning rate.
        server_options: its further keyword arguments, such as `{betas: [0.9, 0.99], eps: 0.001}`.
        weighting: of a hospital in the mean, by its `images` or `equal`.
        weights: a whole number for each hospital instead, made public by being here; empty goes by `weighting`.
        aggregator: of the updates: `mean`, or, coordinate by coordinate and each hospital alike, `median` or
            `trimmed_mean` (Yin et al. 2018, arXiv 1803.01498), which a few poisoned updates cannot move far; only
            where the server sees each update (`secagg.protocol: plain`).
        trim: share of the hospitals that `trimmed_mean` leaves out at each end.
        norm_bound: Euclidean norm to which each update is clipped (Sun et al. 2019, arXiv 1911.07963); null clips
            none. The server sees to it under `plain`; under masks a hospital does so itself, or lies.
        ema: share of the old in an exponential moving average of the global models, which is then what is
            measured and released, such as 0.9; null releases the last one (Polyak and Juditsky 1992).
    """

    hospitals: int = 10
    rounds: int = 8
    local_epochs: int = 3
    local_steps: int | None = None
    participation: float = 1.0
    over_selection: float = 1.0
    round_timeout: float | None = None
    strategy: Literal["fedavg", "fedprox", "fedmic"] = "fedavg"
    proximal_mu: float = 0.01
    distillation: Distillation = field(default_factory=Distillation)
    server_optimizer: str | None = None
    server_lr: float = 1.0
    server_options: dict[str, Any] = field(default_factory=dict)
    weighting: Literal["images", "equal"] = "images"
    weights: list[int] = field(default_factory=list)
    aggregator: Literal["mean", "median", "trimmed_mean"] = "mean"
    trim: float = 0.2
    norm_bound: float | None = None
    ema: float | None = None

    def __post_init__(self) -> None:
        literals("federation", self)
        positive("federation", hospitals=self.hospitals, rounds=self.rounds, local_epochs=self.local_epochs)
        positive("federation", local_steps=self.local_steps, participation=self.participation)
        positive("federation", server_lr=self.server_lr)
        if self.server_options and self.server_optimizer is None:
            raise InputError("federation.server_options: there is no federation.server_optimizer to take them")
        in_range("federation", 0, 1, participation=self.participation)
        in_range("federation", 1, 10, over_selection=self.over_selection)
        positive("federation", round_timeout=self.round_timeout)
        not_negative("federation", proximal_mu=self.proximal_mu)
        in_range("federation", 0, 0.49, trim=self.trim)
        positive("federation", norm_bound=self.norm_bound)
        if self.aggregator != "mean" and self.weights:
            raise InputError(
                f"federation.weights: aggregator '{self.aggregator}' counts hospitals alike; leave them out"
            )
        positive("federation", ema=self.ema)
        if self.ema is not None:
            in_range("federation", 0, 0.9999, ema=self.ema)
        if self.weights and len(self.weights) != self.hospitals:
            raise InputError(
                f"federation.weights: {len(self.weights)} for {self.hospitals} hospitals; "
                "give one for each, or none"
            )
        if any(weight < 1 for weight in self.weights):
            raise InputError("federation.weights: each must be 1 or greater")

    @property
    def enough(self) -> int:
        """Hospitals that a round waits for."""
        return max(1, round(self.participation * self.hospitals))

    @property
    def cohort_size(self) -> int:
        """Hospitals that are asked in each round."""
        return min(math.ceil(self.over_selection * self.enough - 1e-9), self.hospitals)

    def weight(self, hospital: int, images: int) -> int:
        """What a hospital of so many images counts in the mean."""
        if self.weights:
            return self.weights[hospital]
        return images if self.weighting == "images" else 1
