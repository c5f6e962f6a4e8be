"""Mutual distillation in a hospital: a student that travels and a teacher that stays learn from each other.

FedMIC's dual knowledge distillation (Ren et al. 2024, arXiv 2407.02261) after what is known of it, with the losses
of FedKD (Wu et al. 2022, Nature Communications 13, 2032; without its attention term): FedMIC's own weights of the
terms were not found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.errors import InputError
from lightning_fed.experiment import Model, Training
from lightning_fed.models.classifier import Batch, Classifier, normalise
from lightning_fed.models.optimizer import build_optimizer


def head_of(network: nn.Module, key: str) -> nn.Linear:
    """The last linear layer, whose input is the network's representation of an image.

    Args:
        key: of the experiment that names the network.

    Raises:
        InputError: there is none.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise InputError(f"{key}: federation.strategy fedmic distils what goes into a last linear layer; add one")
    return layers[-1]


class Observed:
    """A network with what went into its last linear layer: representations float (batch, features).

    Args:
        network: whose. key: of the experiment that names it.
    """

    def __init__(self, network: nn.Module, key: str) -> None:
        self.network, self.head = network, head_of(network, key)
        self._seen: Tensor | None = None

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images float32 (batch, channels, height, width) -> representations, logits (batch, classes)."""
        hook = self.head.register_forward_pre_hook(self._see)
        try:
            logits = self.network(images)
        finally:
            hook.remove()
        seen, self._seen = self._seen, None
        assert seen is not None, "the last linear layer was not used"
        return seen, logits

    def _see(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._seen = inputs[0]


class Distilling(Classifier):
    """A student, `network`, with the teacher and the projection that stay with it.

    Each learns from the labels, from the other's answers (decision level) and from the other's representation of
    the image (representation level, the student's projected to the teacher's). The worse both still do, the less
    they listen to each other: the two terms are divided by the sum of both cross-entropies.

    Args:
        model, training, in_channels, num_classes, seed, class_names, size: of the student; see `Classifier`.
        teacher: which network. teacher_seed: of its first weights and of the projection's.
    """

    def __init__(
        self,
        model: Model | Mapping[str, Any],
        training: Training | Mapping[str, Any],
        teacher: Model,
        teacher_seed: int,
        in_channels: int = 3,
        num_classes: int = 8,
        seed: int = 0,
        class_names: Sequence[str] = (),
        size: int | None = None,
    ) -> None:
        super().__init__(model, training, in_channels, num_classes, seed, class_names, size)
        self.teacher = Classifier(teacher, self.training_settings, in_channels, num_classes, teacher_seed)
        self._student_seen = Observed(self.network, "model")
        self._teacher_seen = Observed(self.teacher.network, "federation.distillation.teacher")
        features = self._student_seen.head.in_features, self._teacher_seen.head.in_features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(teacher_seed)
            self.projection = nn.Linear(*features, bias=False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimizer of student, teacher and projection; their gradients do not mix."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.parameters(), self.training_settings)
        return self.optimizer

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The sum of both sides' losses on one batch; what one takes from the other is held fixed."""
        images, labels = batch
        pixels = normalise(images)
        own, logits = self._student_seen(pixels)
        others, answers = self._teacher_seen(pixels)
        student = functional.cross_entropy(logits, labels)
        teacher = functional.cross_entropy(answers, labels)
        trust = 1 / (student + teacher).detach().clamp(min=1e-6)
        projected = self.projection(own)
        student_hears = _divergence(logits, answers) + functional.mse_loss(projected, others.detach())
        teacher_hears = _divergence(answers, logits) + functional.mse_loss(others, projected.detach())
        self.loss_sum += student.detach().double() * len(labels)
        self.examples += len(labels)
        return student + teacher + trust * (student_hears + teacher_hears)

    def at_home(self) -> dict[str, Any]:
        """The student's counters, the whole teacher and the projection."""
        return super().at_home() | {
            "teacher": self.teacher.network.state_dict(),
            "projection": self.projection.state_dict(),
        }

    def take_home(self, kept: dict[str, Any]) -> None:
        """Take up what `at_home` gave."""
        super().take_home(kept)
        self.teacher.network.load_state_dict(kept["teacher"])
        self.projection.load_state_dict(kept["projection"])


def _divergence(learner: Tensor, other: Tensor) -> Tensor:
    """Kullback-Leibler divergence in nats of the learner's answers from the other's, which are held fixed.

    Args:
        learner, other: logits (batch, classes).
    """
    wanted = functional.log_softmax(other.detach().float(), 1)
    return functional.kl_div(
        functional.log_softmax(learner.float(), 1), wanted, reduction="batchmean", log_target=True
    )
