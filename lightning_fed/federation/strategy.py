"""From hospitals' updates to the next global weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment, Federation, Training
from lightning_fed.models.optimizer import build_optimizer, optimizer_class
from lightning_fed.models.schedule import Schedule
from lightning_fed.models.vector import Vector, to_vector, trainable_entries


def mean_update(updates: Iterable[tuple[int, Vector]]) -> Vector:
    """FedAvg (McMahan et al. 2017, arXiv 1602.05629): the mean of updates weighted by images.

    Args:
        updates: pairs of images and update (parameters,), in the order of hospitals: floating-point sums
            depend on it, so it must not be the order of arrival.

    Returns:
        float32 (parameters,), summed in float64.
    """
    total: NDArray[np.float64] | None = None
    images = 0
    for count, update in updates:
        total = np.zeros(update.shape) if total is None else total
        total += np.float64(count) * update
        images += count
    if total is None:
        raise ValueError("there is no update to average")
    return (total / images).astype(np.float32)


class Server(Protocol):
    """Moves the global weights by what the hospitals' sum gave."""

    def apply(self, weights: Vector, mean: Vector, round: int) -> Vector:
        """Global weights (parameters,) and the mean of a round (parameters,) -> new global weights."""
        ...

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        ...


class GradientServer:
    """Takes a round's mean gradient for one step of the experiment's own optimizer at its learning rate.

    Args:
        training: optimizer and schedule. rounds: of the run. parameters: length of a gradient.
    """

    def __init__(self, training: Training, rounds: int, parameters: int) -> None:
        self.parameters = torch.nn.Parameter(torch.zeros(parameters))
        self.optimizer = build_optimizer([self.parameters], training)
        self.schedule = Schedule(training, rounds)

    def apply(self, weights: Vector, mean: Vector, round: int) -> Vector:
        """Global weights (parameters,) and mean gradient (parameters,) -> new global weights."""
        self.parameters.data = torch.from_numpy(weights.copy())
        self.parameters.grad = torch.from_numpy(mean)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(round - 0.5)  # its middle: see FollowSchedule
        self.optimizer.step()
        return self.parameters.detach().numpy().copy()

    def state(self) -> dict[str, Any]:
        """The optimizer's."""
        return self.optimizer.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        self.optimizer.load_state_dict(state)


class UpdateServer:
    """Applies the mean update to the global weights.

    Without a server optimizer the mean is added as it is. With one (Reddi et al. 2021, arXiv 2003.00295) its
    negative is the gradient of any optimizer of `torch.optim`. Running statistics are not optimized: their
    mean is taken as it is.

    Args:
        federation: strategy and server optimizer. trainable: bool (parameters,), False for running statistics.

    Raises:
        InputError: an optimizer or an option that torch does not have.
    """

    def __init__(self, federation: Federation, trainable: NDArray[np.bool_]) -> None:
        self.trainable = torch.from_numpy(trainable)
        self.optimizer: torch.optim.Optimizer | None = None
        if federation.server_optimizer is not None:
            self.parameters = torch.nn.Parameter(torch.zeros(int(trainable.sum())))
            self.optimizer = self._optimizer(federation, federation.server_optimizer)

    def _optimizer(self, federation: Federation, name: str) -> torch.optim.Optimizer:
        kind = optimizer_class(name, "federation.server_optimizer")
        options = {"lr": federation.server_lr, **federation.server_options}
        try:
            return kind([self.parameters], **options)
        except (TypeError, ValueError) as error:
            raise InputError(f"federation.server_options do not fit {name}: {error}") from error

    def apply(self, weights: Vector, mean: Vector, round: int) -> Vector:
        """Global weights (parameters,) and mean update (parameters,) -> new global weights."""
        new = torch.from_numpy(weights + mean)
        if self.optimizer is not None:
            trainable = self.trainable
            self.parameters.data = torch.from_numpy(weights.copy())[trainable]
            self.parameters.grad = -torch.from_numpy(mean)[trainable]
            self.optimizer.step()
            new[trainable] = self.parameters.detach()
        return new.numpy()

    def state(self) -> dict[str, Any]:
        """The server optimizer's state, empty without one."""
        return {} if self.optimizer is None else self.optimizer.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state)


@dataclass
class GlobalModel:
    """The weights that every hospital receives, and the server that moves them.

    Args:
        weights: float32 (parameters,), from which hospitals train. server: applies mean updates.
        ema: share of the old in the average of the rounds' weights, None for no average.
        average: that average; None before the first round or without `ema`. rounds: that are in it.
    """

    weights: Vector
    server: Server
    ema: float | None = None
    average: Vector | None = None
    rounds: int = 0

    @property
    def released(self) -> Vector:
        """What is measured and given away: the average where there is one, else the weights."""
        return self.weights if self.average is None else self.average

    @staticmethod
    def first(experiment: Experiment, network: nn.Module) -> GlobalModel:
        """The model before the first round.

        Raises:
            InputError: a server optimizer or an option that torch does not have.
        """
        weights, federation = to_vector(network), experiment.federation
        server: Server
        if experiment.privacy.mechanism == "distributed":
            server = GradientServer(experiment.training, federation.rounds, len(weights))
        else:
            server = UpdateServer(federation, trainable_entries(network))
        return GlobalModel(weights, server, federation.ema)

    def advance(self, mean: Vector, round: int) -> None:
        """Move by what a round gave (parameters,), its mean update or gradient, and the average after it.

        Early rounds weigh less than `ema` would have it: the share of the old is (1 + t) / (10 + t) at most.
        """
        self.weights = self.server.apply(self.weights, mean, round)
        if self.ema is None:
            return
        share = min(self.ema, (1 + self.rounds) / (10 + self.rounds)) if self.rounds else 0.0
        old = self.weights if self.average is None else self.average
        self.average = (share * old + (1 - share) * self.weights).astype(np.float32)
        self.rounds += 1


def choose_cohort(
    federation: Federation, generator: np.random.Generator, able: Iterable[int] | None = None
) -> list[int]:
    """The hospitals of one round, ascending: a uniform sample of `participation` of all, from those able to."""
    there = range(federation.hospitals) if able is None else sorted(able)
    chosen = generator.choice(there, min(federation.cohort_size, len(there)), replace=False)
    return sorted(int(hospital) for hospital in chosen)
