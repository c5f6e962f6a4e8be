"""The trained model as a Lightning checkpoint."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

import torch

from lightning_fed.models.classifier import Classifier


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
