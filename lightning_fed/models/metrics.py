"""Scores of class probabilities, by torchmetrics."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """How well probabilities meet labels; shares lie in [0, 1], the loss is in nats.

    `per_class_accuracy` (recall) is None for a class without images; means run over classes that have some.
    """

    accuracy: float
    balanced_accuracy: float
    auroc: float | None
    loss: float
    per_class_accuracy: tuple[float | None, ...]


def score(probabilities: Tensor, labels: Tensor) -> Scores:
    """Scores of probabilities (images, classes) against labels (images,).

    AUROC is the mean over classes of one against the rest, None where only one class is present.
    """
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_auroc

    classes = probabilities.shape[1]
    present = torch.bincount(labels, minlength=classes) > 0
    recall = multiclass_accuracy(probabilities, labels, classes, average="none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without images, which `present` leaves out
        areas = multiclass_auroc(probabilities, labels, classes, average="none")
    several = int(present.sum()) > 1
    return Scores(
        accuracy=float((probabilities.argmax(1) == labels).double().mean()),
        balanced_accuracy=float(recall[present].mean()),
        auroc=float(areas[present].mean()) if several else None,
        loss=float(torch.nn.functional.nll_loss(probabilities.clamp_min(1e-12).log(), labels)),
        per_class_accuracy=tuple(float(r) if p else None for r, p in zip(recall, present, strict=True)),
    )
