"""Networks by name, or a user's own by class path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

import torch
from torch import nn

from lightning_fed.checks import one_of
from lightning_fed.errors import InputError
from lightning_fed.experiment import Model
from lightning_fed.models.dpresnet import DPResNet
from lightning_fed.models.resnet import ResNet9, ResNet18, Style
from lightning_fed.models.scatternet import ScatterNetCNN, ScatterNetLinear

Builder = Callable[[Model, int, int], nn.Module]

NETWORKS: dict[str, Builder] = {
    "dpresnet": lambda model, channels, classes: DPResNet(
        channels, classes, model.width, model.standardise_weights, model.norm_after_sum
    ),
    "resnet9": lambda model, channels, classes: ResNet9(channels, classes, model.width, _style(model)),
    "resnet18": lambda model, channels, classes: ResNet18(
        channels, classes, model.width, _style(model), model.stem
    ),
    "scatternet_linear": lambda model, channels, classes: ScatterNetLinear(channels, classes),
    "scatternet_cnn": lambda model, channels, classes: ScatterNetCNN(
        channels, classes, model.width, model.standardise_weights
    ),
}


def _style(model: Model) -> Style:
    return Style(model.norm, model.standardise_weights, model.norm_after_sum)


def build_network(model: Model, in_channels: int, num_classes: int, seed: int) -> nn.Module:
    """The network of `model` with weights drawn from `seed`; the global torch generator is left as it was.

    Raises:
        InputError: an unknown `model.name`, or a `model.class_path` that cannot be imported or built.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if model.class_path is not None:
            return _build_own(model, model.class_path, in_channels, num_classes)
        one_of("model", NETWORKS, name=model.name)
        return NETWORKS[model.name](model, in_channels, num_classes)


def _build_own(model: Model, class_path: str, in_channels: int, num_classes: int) -> nn.Module:
    module_name, _, class_name = class_path.rpartition(".")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module beside the user's experiment, as `python -m` finds it
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise TypeError("it is not a torch.nn.Module")  # and is not called
        return kind(in_channels=in_channels, num_classes=num_classes, **model.init_args)
    except Exception as error:  # the user's own code may raise anything
        raise InputError(
            f"model.class_path '{class_path}' cannot be built ({error}): name an importable torch module "
            "whose constructor takes in_channels, num_classes and model.init_args"
        ) from error
