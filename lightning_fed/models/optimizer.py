"""Optimizers of torch.optim by name, with the arguments that each of them takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch

from lightning_fed.checks import suggestion
from lightning_fed.errors import InputError
from lightning_fed.experiment import Training

UNFIT = {"Optimizer", "LBFGS", "SparseAdam"}  # no optimizer, wants a closure, wants sparse gradients


def optimizer_class(name: str, key: str) -> type[torch.optim.Optimizer]:
    """The class of `torch.optim` called `name`; `key` names the experiment's key in the error."""
    classes = {
        found: value
        for found, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)
    }
    known = classes.keys() - UNFIT
    if name not in known:
        raise InputError(f"{key} is '{name}': {suggestion(name, known)}")
    return classes[name]


def build_optimizer(parameters: Iterable[torch.nn.Parameter], training: Training) -> torch.optim.Optimizer:
    """The hospital's optimizer.

    Raises:
        InputError: an unknown name, a momentum or weight decay for an optimizer that has none, or an
            optimizer that does not take this network.
    """
    kind = optimizer_class(training.optimizer, "training.optimizer")
    accepted = inspect.signature(kind.__init__).parameters
    for name in training.optimizer_options:
        if name in ("lr", "momentum", "weight_decay"):
            raise InputError(f"training.optimizer_options: '{name}' is a key of its own; set training.{name}")
    options: dict[str, Any] = {"lr": training.lr, **training.optimizer_options}
    for name in ("momentum", "weight_decay"):
        if name in accepted:
            options[name] = getattr(training, name)
        elif getattr(training, name):
            raise InputError(f"training.{name}: {training.optimizer} has none; set it to 0 or use SGD")
    try:
        return kind(parameters, **options)
    except TypeError as error:
        raise InputError(f"training.optimizer_options do not fit {training.optimizer}: {error}") from error
    except ValueError as error:
        raise InputError(f"training.optimizer {training.optimizer} does not fit: {error}; use another") from error
