"""Images from a gradient, after Geiping, Bauermeister, Dröge & Moeller 2020 (arXiv 2003.14053).

As there, images are sought whose gradient points where the observed one does, and that are smooth. Three things
make this attacker stronger. It looks among combinations of the principal components of public images, and begins
at those whose gradient is nearest. It weighs the layers, or the last ones would count for nearly all. And it sees
where a pixel switches a unit on: ReLU's second derivative is zero but for a peak of no width, to which it gives
one. Without that, the search ends in the first of many minima.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode

RELUS = (torch.relu, functional.relu, Tensor.relu)
START = 0.7
"""Of a public image's way from their mean, where a search begins."""
SMALLEST = 1e-12


@dataclass(frozen=True)
class Attack:
    """How hard is tried.

    Args:
        restarts: from other public images; of what they end with, the one with the least loss counts.
        steps: of Adam in each, at a rate that falls from `rate` to 0 as a cosine.
        components: of public images, among whose combinations is sought. starts: of public images that are
            compared before the first step.
        levelling: power of the root of a tensor's mean square by which it is divided before the cosine.
        smoothness: weight of the total variation. prior: of the components' squares. size: of the difference
            between an image's norm and that of public ones, which a network with group norms hardly sees.
        peak: slope of the sigmoid whose derivative stands for ReLU's second, at first and at last.
    """

    restarts: int = 2
    steps: int = 800
    rate: float = 0.1
    components: int = 600
    starts: int = 300
    levelling: float = 0.75
    smoothness: float = 0.03
    prior: float = 0.01
    size: float = 0.1
    peak: tuple[float, float] = (1.0, 10.0)


@dataclass(frozen=True)
class Inverted:
    """What was found.

    Args:
        images: float32 (batch, channels, height, width) in [-1, 1]. loss: at the end.
    """

    images: Tensor
    loss: float


class Public:
    """What an attacker knows of such images beforehand.

    Args:
        images: public ones, float32 (images, channels, height, width) in [-1, 1]. labels: theirs (images,).
        components: how many directions to keep, the most varied first.
    """

    def __init__(self, images: Tensor, labels: Tensor, components: int) -> None:
        rows = images.flatten(1)
        self.shape, self.labels = images.shape[1:], labels
        self.mean, self.norm = rows.mean(0), rows.norm(dim=1).mean()
        turned, sizes, directions = torch.linalg.svd(rows - self.mean, full_matrices=False)
        deviations = sizes[:components] / len(rows) ** 0.5
        self.directions = deviations[:, None] * directions[:components]
        self.coefficients = turned[:, :components] * len(rows) ** 0.5

    def images(self, coefficients: Tensor) -> Tensor:
        """(batch, components), of variance 1 over public images -> (batch, channels, height, width)."""
        rows: Tensor = self.mean + coefficients @ self.directions
        return rows.view(-1, *self.shape)

    def like(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Coefficients of a public image for each label, drawn (batch, components); of any where it has none."""
        drawn = []
        for label in labels:
            own = torch.nonzero(self.labels == label).flatten()
            own = own if len(own) else torch.arange(len(self.labels))
            drawn.append(self.coefficients[own[torch.randint(len(own), (), generator=generator)]])
        return torch.stack(drawn)


def gradient(network: nn.Module, images: Tensor, labels: Tensor, differentiable: bool = False) -> Tensor:
    """Of the mean cross-entropy by all trainable weights, in their order (parameters,)."""
    weights = [one for one in network.parameters() if one.requires_grad]
    loss = functional.cross_entropy(network(images), labels)
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, weights, create_graph=differentiable)])


def invert(
    network: nn.Module, observed: Tensor, labels: Tensor, public: Public, attack: Attack, seed: int
) -> Inverted:
    """Images whose gradient points where the observed one does.

    Args:
        network: at the weights of the step. observed: gradient, or what is taken for it (parameters,), of any
            length. labels: of the images (batch,), which a strong attacker knows. public: what it knows beside.
        seed: of its draws.
    """
    generator = torch.Generator().manual_seed(seed)
    compass = Compass(network, observed, labels, attack.levelling)
    drawn = [public.like(labels, generator) for _ in range(max(attack.starts, attack.restarts))]
    far = [compass.distance(public.images(one)).item() for one in drawn]
    nearest = sorted(range(len(drawn)), key=far.__getitem__)[: attack.restarts]
    found = [_descend(compass, public, attack, drawn[start]) for start in nearest]
    return min(found, key=lambda one: one.loss)


class Compass:
    """How far the gradient of some images points from the observed one.

    Args:
        network, observed, labels: see `invert`. levelling: see `Attack`.
    """

    def __init__(self, network: nn.Module, observed: Tensor, labels: Tensor, levelling: float) -> None:
        self.network, self.labels = network, labels
        sizes = [one.numel() for one in network.parameters() if one.requires_grad]
        roots = [part.square().mean().sqrt().clamp(min=SMALLEST) for part in torch.split(observed, sizes)]
        scales = [root.pow(-levelling).expand(size) for root, size in zip(roots, sizes, strict=True)]
        self.scale = torch.cat(scales)
        self.target = observed * self.scale

    def distance(self, images: Tensor) -> Tensor:
        """1 - cosine."""
        own = gradient(self.network, images, self.labels, differentiable=images.requires_grad)
        cosine: Tensor = functional.cosine_similarity(own * self.scale, self.target, dim=0)
        return 1 - cosine


def _descend(compass: Compass, public: Public, attack: Attack, start: Tensor) -> Inverted:
    coefficients = (start * START).requires_grad_()
    optimizer = torch.optim.Adam([coefficients], lr=attack.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, attack.steps)
    first, last = attack.peak
    for step in range(attack.steps):
        with _Peaked(first * (last / first) ** (step / attack.steps)):
            loss = _loss(compass, public, attack, coefficients)
            (coefficients.grad,) = torch.autograd.grad(loss, [coefficients])
        optimizer.step()
        schedule.step()
    found = coefficients.detach()
    return Inverted(public.images(found).clamp(-1, 1), _loss(compass, public, attack, found).item())


def _loss(compass: Compass, public: Public, attack: Attack, coefficients: Tensor) -> Tensor:
    images = public.images(coefficients)
    sizes = images.flatten(1).norm(dim=1) / public.norm
    loss: Tensor = (
        compass.distance(images)
        + attack.smoothness * total_variation(images)
        + attack.prior * (coefficients**2).mean()
        + attack.size * ((sizes - 1) ** 2).mean()
        + (images.abs() - 1).clamp(min=0).mean()
    )
    return loss


def total_variation(images: Tensor) -> Tensor:
    """Mean difference of neighbouring pixels, down and across (batch, channels, height, width)."""
    down, across = images[..., 1:, :] - images[..., :-1, :], images[..., 1:] - images[..., :-1]
    return down.abs().mean() + across.abs().mean()


class _Peaked(TorchFunctionMode):
    """Gives each ReLU a second derivative."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def __torch_function__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), options: Any = None
    ) -> Any:
        if function in RELUS:
            return _ReLU.apply(arguments[0], self.slope)
        return function(*arguments, **(options or {}))


class _ReLU(Function):
    """Its value and first derivative are ReLU's own."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(features)
        ctx.slope = slope
        return features.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        (features,) = ctx.saved_tensors
        return outer[0] * _Step.apply(features, ctx.slope), None


class _Step(Function):
    """Whether a unit is on, with a sigmoid's derivative."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(features)
        ctx.slope = slope
        return (features > 0).to(features.dtype)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        (features,) = ctx.saved_tensors
        on = torch.sigmoid(ctx.slope * features)
        return outer[0] * ctx.slope * on * (1 - on), None
