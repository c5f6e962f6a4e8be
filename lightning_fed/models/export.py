"""The trained model as a Lightning checkpoint."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

import torch

from lightning_fed.errors import InputError
from lightning_fed.models.classifier import Classifier


def load_weights(classifier: Classifier, path: Path) -> None:
    """Start from the weights of a `model.ckpt`; no code in the file is run.

    Raises:
        InputError: it is missing, damaged, or of another network.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        classifier.load_state_dict(content["state_dict"])
    except Exception as error:  # torch's reader meets damaged bytes with errors of any kind
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"model.start: {path} does not start this network ({reason}); name a model.ckpt of the same model"
        ) from error


def save_model(classifier: Classifier, path: Path) -> None:
    """Write `model.ckpt`; `Classifier.load_from_checkpoint(path, weights_only=True)` reads it back."""
    part = path.with_suffix(".part")
    torch.save(
        {
            "pytorch-lightning_version": version("lightning"),
            "state_dict": classifier.state_dict(),
            "hyper_parameters": dict(classifier.hparams),
            "epoch": 0,
            "global_step": 0,
        },
        part,
    )
    os.replace(part, path)
