"""Optimizers of torch.optim by name, with the arguments that each of them takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch

from lightning_fed.checks import suggestion
from lightning_fed.errors import InputError
from lightning_fed.experiment import Training


def optimizer_class(name: str, key: str) -> type[torch.optim.Optimizer]:
    """The class of `torch.optim` called `name`; `key` names the experiment's key in the error."""
    classes = {
        found: value
        for found, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)
    }
    if name not in classes or name in ("Optimizer", "LBFGS"):
        known = classes.keys() - {"Optimizer", "LBFGS"}
        raise InputError(f"{key} is '{name}': {suggestion(name, known)}")
    return classes[name]


def build_optimizer(parameters: Iterable[torch.nn.Parameter], training: Training) -> torch.optim.Optimizer:
    """The hospital's optimizer.

    Raises:
        InputError: an unknown name, or a momentum for an optimizer that has none.
    """
    kind = optimizer_class(training.optimizer, "training.optimizer")
    options: dict[str, Any] = {"lr": training.lr, "weight_decay": training.weight_decay}
    accepted = inspect.signature(kind.__init__).parameters
    if training.momentum:
        if "momentum" not in accepted:
            raise InputError(f"training.momentum: {training.optimizer} has none; set it to 0 or use SGD")
        options["momentum"] = training.momentum
    return kind(parameters, **{name: value for name, value in options.items() if name in accepted})
