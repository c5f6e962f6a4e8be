"""Small networks, each with one thing that clipping must get right."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class StandardConv2d(nn.Conv2d):
    """Weight standardisation (Qiao et al. 2019, arXiv 1903.10520)."""

    def effective_weight(self, weight: Tensor) -> Tensor:
        mean = weight.mean((1, 2, 3), keepdim=True)
        variance = weight.var((1, 2, 3), keepdim=True, unbiased=False)
        return (weight - mean) / (variance + 1e-5).sqrt() * (weight[0].numel() ** -0.5)

    def forward(self, input: Tensor) -> Tensor:
        return functional.conv2d(
            input,
            self.effective_weight(self.weight),
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )


class NormAfterSum(nn.Module):
    """A residual block whose sum is normalised (ScaleNorm: Klause et al. 2022, arXiv 2203.00324)."""

    def __init__(self, convolution: type[nn.Conv2d] = nn.Conv2d) -> None:
        super().__init__()
        self.stem = convolution(2, 4, 3, padding=1)
        self.conv = convolution(4, 4, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(2, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.stem(images))
        features = self.norm(self.conv(features) + features)
        return self.head(features.mean((2, 3)))


class UsedTwice(nn.Module):
    """Every kind of layer, each used twice in one pass."""

    def __init__(self, convolution: type[nn.Conv2d] = nn.Conv2d) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.conv = convolution(4, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.layer_norm = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        for _ in range(2):
            features = functional.relu(self.norm(self.conv(features)))
        flat = features.mean((2, 3))
        for _ in range(2):
            flat = torch.tanh(self.linear(self.layer_norm(flat)))
        return flat


class SharedWeight(nn.Module):
    """Two modules with one weight, at different resolutions and with biases of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 2, 3, padding=1)
        self.second = nn.Conv2d(2, 2, 3, stride=2)
        self.second.weight = self.first.weight
        self.head = nn.Linear(2, 2)
        self.tail = nn.Linear(2, 2, bias=False)
        self.tail.weight = self.head.weight

    def forward(self, images: Tensor) -> Tensor:
        features = self.second(functional.relu(self.first(images)))
        return self.tail(torch.tanh(self.head(features.mean((2, 3)))))


class BareParameter(nn.Module):
    """A parameter that no layer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(4, 3)

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(rows) * self.scale
