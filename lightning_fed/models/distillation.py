"""Mutual distillation in a hospital: a student that travels and a teacher that stays learn from each other.

FedMIC's dual knowledge distillation (Ren et al. 2024, arXiv 2407.02261) after what is known of it, with the losses
of FedKD (Wu et al. 2022, Nature Communications 13, 2032; without its attention term): FedMIC's own weights of the
terms were not found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.checks import one_of
from lightning_fed.errors import InputError
from lightning_fed.experiment import Model, Training
from lightning_fed.models.classifier import Batch, Classifier, normalise
from lightning_fed.models.optimizer import build_optimizer
from lightning_fed.models.registry import NETWORKS

LONGEST_GRADIENT = 1.0
"""To which the gradients of student, teacher and projection are each clipped (Euclidean norm).

Once a hospital knows its images by heart, what the two say to each other is divided by next to nothing, and
training falls back by a hundred times its loss (measured); FedKD's public implementations clip too.
"""


class Observed:
    """A network with what went into its last linear layer: representations float (batch, features).

    Args:
        network: whose. classes: that it tells apart. key: of the experiment that names it.

    Raises:
        InputError: no linear layer gives the network's answer.
    """

    def __init__(self, network: nn.Module, classes: int, key: str) -> None:
        self.network, self.key = network, key
        layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
        if not layers or layers[-1].out_features != classes:
            raise InputError(
                f"{key}: federation.strategy fedmic distils what goes into the last layer, a linear one that "
                f"gives the {classes} classes; end the network so"
            )
        self.head = layers[-1]
        self._seen: Tensor | None = None

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images float32 (batch, channels, height, width) -> representations, logits (batch, classes).

        Raises:
            InputError: the last linear layer was not used, or not on one vector for each image.
        """
        hook = self.head.register_forward_pre_hook(self._see)
        try:
            logits = self.network(images)
        finally:
            hook.remove()
        seen, self._seen = self._seen, None
        if seen is None or seen.shape != (len(images), self.head.in_features):
            raise InputError(
                f"{self.key}: its last linear layer is not used on one vector of features for each image, which "
                "federation.strategy fedmic distils; end the network so"
            )
        return seen, logits

    def _see(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._seen = inputs[0]


class Distilling(Classifier):
    """A student, `network`, with the teacher and the projection that stay with it.

    Each learns from the labels, from the other's answers (decision level) and from the other's representation of
    the image (representation level, the student's projected to the teacher's). The worse both still do, the less
    they listen to each other: the two terms are divided by the sum of both cross-entropies.

    Args:
        model, training: of the student. teacher: which network. teacher_seed: of its first weights and of the
            projection's. images: further arguments of `Classifier`.

    Raises:
        InputError: a network that there is not, or that cannot be distilled.
    """

    def __init__(
        self,
        model: Model | Mapping[str, Any],
        training: Training | Mapping[str, Any],
        teacher: Model,
        teacher_seed: int,
        **images: Any,
    ) -> None:
        super().__init__(model, training, **images)
        in_channels, num_classes = int(self.hparams["in_channels"]), int(self.hparams["num_classes"])
        one_of("federation.distillation", NETWORKS, teacher=teacher.name)
        self.teacher = Classifier(teacher, self.training_settings, in_channels, num_classes, teacher_seed)
        self._student_seen = Observed(self.network, num_classes, "model")
        self._teacher_seen = Observed(self.teacher.network, num_classes, "federation.distillation.teacher")
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

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Lightning's hook: clip each part's gradient."""
        for part in (self.network, self.teacher, self.projection):
            nn.utils.clip_grad_norm_(part.parameters(), LONGEST_GRADIENT)

    def refuse_unfit(self, size: int) -> None:
        """Raise unless both networks can be distilled.

        Args:
            size: of an image, in pixels.

        Raises:
            InputError: they cannot.
        """
        images = torch.zeros(2, int(self.hparams["in_channels"]), size, size)
        with torch.no_grad():
            self._student_seen(images)
            self._teacher_seen(images)

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
