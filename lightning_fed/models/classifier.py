"""The LightningModule that a hospital trains and that anybody can load from `model.ckpt`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lightning_fed.experiment import Model, Training
from lightning_fed.models.metrics import Scores, score
from lightning_fed.models.optimizer import build_optimizer
from lightning_fed.models.registry import build_network

Batch = tuple[Tensor, Tensor]


class ExampleWise(Protocol):
    """Training that tells the images of a batch apart."""

    def before_batch(self, rows: int, last: bool) -> None:
        """The next batch has so many rows; the step is taken after it, or not yet."""
        ...

    def reduce(self, losses: Tensor) -> Tensor:
        """Losses (rows,) -> the loss to go backward from."""
        ...

    def backward(self, loss: Tensor) -> None:
        """The backward pass."""
        ...


def normalise(images: Tensor) -> Tensor:
    """uint8 (batch, height, width, channels) -> float32 (batch, channels, height, width) in [-1, 1].

    The scale is fixed and not taken from the images: no statistic of private images is ever used.
    """
    return images.permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)


def symmetries(images: Tensor) -> Iterator[Tensor]:
    """The eight flips and quarter turns of square images (batch, size, size, channels), themselves first."""
    for turns in range(4):
        turned = torch.rot90(images, turns, (1, 2))
        yield turned
        yield turned.flip(2)


class Classifier(pl.LightningModule):
    """A network with cross-entropy and this project's metrics.

    Batches are (images uint8 (batch, height, width, channels), labels int64 (batch,)).

    Args:
        model: which network, as `Model` or its plain values.
        training: how it trains, as `Training` or its plain values.
        in_channels: channels of an image. num_classes: classes. seed: of the first weights.
        class_names: by label, and size: pixels of a side, of the images that it learns from; kept for whoever
            loads `model.ckpt`, none where nobody says.
    """

    def __init__(
        self,
        model: Model | Mapping[str, Any],
        training: Training | Mapping[str, Any],
        in_channels: int = 3,
        num_classes: int = 8,
        seed: int = 0,
        class_names: Sequence[str] = (),
        size: int | None = None,
    ) -> None:
        super().__init__()
        model = model if isinstance(model, Model) else Model(**model)
        self.training_settings = training if isinstance(training, Training) else Training(**training)
        # Plain values only, so that the checkpoint loads with weights_only=True.
        self.save_hyperparameters(
            {
                "model": asdict(model),
                "training": asdict(self.training_settings),
                "in_channels": in_channels,
                "num_classes": num_classes,
                "seed": seed,
                "class_names": list(class_names),
                "size": size,
            }
        )
        self.test_time_augmentation = model.test_time_augmentation
        self.network = build_network(model, in_channels, num_classes, seed)
        self.optimizer: torch.optim.Optimizer | None = None
        self.example_wise: ExampleWise | None = None
        self.loss_sum = torch.zeros((), dtype=torch.float64)  # on the device: reading it each step would wait
        self.examples = 0
        self._outputs: list[tuple[Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (batch, height, width, channels) -> logits (batch, classes).

        In evaluation mode they are the mean over each image's symmetries, if the model asks for it.
        """
        if self.training or not self.test_time_augmentation:
            logits: Tensor = self.network(normalise(images))
            return logits
        return torch.stack([self.network(normalise(view)) for view in symmetries(images)]).mean(0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The one optimizer of this module's whole life: a new Trainer finds the moments of the last."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.network.parameters(), self.training_settings)
        return self.optimizer

    def at_home(self) -> dict[str, Any]:
        """What of the module does not travel: the network's integer buffers (BatchNorm's counters)."""
        state = self.network.state_dict()
        return {"counters": {name: kept for name, kept in state.items() if not kept.is_floating_point()}}

    def take_home(self, kept: dict[str, Any]) -> None:
        """Take up what `at_home` gave."""
        own = self.network.state_dict()
        for name, counter in kept["counters"].items():
            own[name].copy_(counter)

    def on_train_start(self) -> None:
        """Forget the last round's sums."""
        self.loss_sum, self.examples = torch.zeros((), dtype=torch.float64, device=self.device), 0

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Mean cross-entropy of one batch, or what `example_wise` makes of the images' own.

        Sum and count are kept apart for an exact mean over batches of unequal size.
        """
        images, labels = batch
        self.examples += len(labels)
        if self.example_wise is None:
            loss = functional.cross_entropy(self(images), labels)
            self.loss_sum += loss.detach().double() * len(labels)
            return loss
        if len(labels) == 0:
            return torch.zeros((), device=self.device, requires_grad=True)  # a step of noise alone
        losses = functional.cross_entropy(self(images), labels, reduction="none")
        self.loss_sum += losses.detach().double().sum()
        return self.example_wise.reduce(losses)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Lightning's hook: the backward pass of a step."""
        if self.example_wise is None:
            loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]
        else:
            self.example_wise.backward(loss)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Keep one batch's probabilities for the epoch's scores."""
        images, labels = batch
        self._outputs.append((functional.softmax(self(images).float(), 1).cpu(), labels.cpu()))

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log accuracy, balanced accuracy, AUROC and loss of the validation set."""
        self._log_scores("validation")

    def on_test_epoch_end(self) -> None:
        """Log accuracy, balanced accuracy, AUROC and loss of the test set."""
        self._log_scores("test")

    def _log_scores(self, split: str) -> None:
        probabilities, labels = (torch.cat(parts) for parts in zip(*self._outputs, strict=True))
        self._outputs.clear()
        for name, value in asdict(score(probabilities, labels)).items():
            if isinstance(value, float):
                self.log(f"{split}/{name}", value)

    @torch.inference_mode()
    def logits(self, images: np.ndarray[Any, Any], batch_size: int) -> Tensor:
        """Float32 (images, classes) of uint8 images (images, height, width, channels).

        Batches start at multiples of `batch_size`, so a shard that does too repeats the whole to the bit.
        """
        self.eval()
        parts = []
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(images[start : start + batch_size].copy()).to(self.device)
            parts.append(self(batch).float().cpu())
        return torch.cat(parts)

    def probabilities(self, images: np.ndarray[Any, Any], batch_size: int) -> Tensor:
        """Class probabilities, as `logits`."""
        return functional.softmax(self.logits(images, batch_size), 1)

    def evaluate(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], batch_size: int) -> Scores:
        """Scores of the present weights on uint8 images and int64 labels."""
        return score(self.probabilities(images, batch_size), torch.from_numpy(labels.copy()))
