"""A network, its engine, and images to train it on step by step, as Lightning would."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.experiment import Privacy
from lightning_fed.models.dpresnet import DPResNet
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.engine import RecordEngine
from lightning_fed.privacy.streams import Secret, Stream

C = 0.7
CLASSES = 4


def images(count: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images float32 (count, 3, 8, 8) in [-1, 1] and labels (count,)."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(count, 3, 8, 8, generator=generator) * 2 - 1
    return pixels, torch.randint(0, CLASSES, (count,), generator=generator)


def network(standardise: bool = False, norm_after_sum: bool = False) -> nn.Module:
    torch.manual_seed(1)
    return DPResNet(3, CLASSES, 2, standardise, norm_after_sum)


def dose(multiplier: float = 1.3, steps: int = 3, batch: float = 5.0) -> Dose:
    return Dose("image", 0.25, multiplier, steps, None, None, 1e-5, batch)


def privacy(clipping: str = "one_pass", norm: float = C) -> Privacy:
    return Privacy(mechanism="record", noise_multiplier=1.0, clipping=clipping, max_grad_norm=norm)  # type: ignore[arg-type]


def noise(name: int = 0) -> Stream:
    return Secret.of_seed(name, 0).stream("noise")


@dataclass
class Trainee:
    """Steps of SGD at rate 1.

    Args:
        network: which is trained. engine: around it.
    """

    network: nn.Module
    engine: RecordEngine
    clipped: list[Tensor] = field(default_factory=list)
    noised: list[Tensor] = field(default_factory=list)

    @staticmethod
    def of(
        network: nn.Module, clipping: str = "one_pass", views: int = 1, dose: Dose | None = None, norm: float = C
    ) -> Trainee:
        settled = dose if dose is not None else globals()["dose"]()
        optimizer = torch.optim.SGD(network.parameters(), 1.0)
        engine = RecordEngine(network.train(), optimizer, privacy(clipping, norm), settled, views)
        engine.begin_round(noise(), 0)
        trainee = Trainee(network, engine)
        trainee._watch()
        return trainee

    def _watch(self) -> None:
        """Note each step's sum of clipped gradients, and what the weights are moved by."""
        optimizer = self.engine.optimizer
        add_noise = optimizer.add_noise

        def noted() -> None:
            sums = [
                torch.zeros_like(own) if own.summed_grad is None else own.summed_grad for own in optimizer.params
            ]
            self.clipped.append(flat(sums))
            add_noise()

        optimizer.add_noise = noted  # type: ignore[method-assign]
        optimizer.after_noise = lambda: self.noised.append(flat([own.grad for own in optimizer.params]))

    def step(self, *loads: tuple[Tensor, Tensor]) -> Tensor:
        """One step over microbatches, in the order of Lightning's calls; the sum of clipped gradients."""
        for place, (pixels, labels) in enumerate(loads):
            self.engine.before_batch(len(labels), place == len(loads) - 1)
            self.engine.optimizer.step(lambda pixels=pixels, labels=labels: self._closure(pixels, labels))
        return self.clipped[-1]

    def _closure(self, pixels: Tensor, labels: Tensor) -> float:
        if len(labels) == 0:
            loss = torch.zeros((), requires_grad=True)
        else:
            losses = functional.cross_entropy(self.network(pixels), labels, reduction="none")
            loss = self.engine.reduce(losses)
        self.engine.optimizer.zero_grad()
        self.engine.backward(loss)
        return float(loss.detach())


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def one_by_one(network: nn.Module, pixels: Tensor, labels: Tensor, views: int = 1, most: float = C) -> Tensor:
    """Each example's clipped gradient float64 (examples, parameters) by plain autograd on the raw parameters."""
    plain = copy.deepcopy(network).double().train()
    found = []
    for rows, wanted in zip(pixels.double().split(views), labels.split(views), strict=True):
        loss = functional.cross_entropy(plain(rows), wanted)
        own = [parameter for parameter in plain.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(loss, own, allow_unused=True)
        gradient = flat(
            [torch.zeros_like(one) if got is None else got for one, got in zip(own, gradients, strict=True)]
        )
        found.append(gradient * min(1.0, most / float(gradient.norm())))
    return torch.stack(found)
