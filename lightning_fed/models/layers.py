"""Layers that the networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SMALL = 1e-5
"""Added to a filter's variance, in units of 1 over the fan-in."""


class StandardisedConv2d(nn.Conv2d):
    """A convolution with each filter at mean 0 and variance 1 over the fan-in.

    Weight standardisation (Qiao et al. 2019, arXiv 1903.10520), scaled so that activations keep their size
    (Brock et al. 2021, arXiv 2101.08692). Gradients, norms and noise are of the raw weight: `effective_weight`.
    """

    def effective_weight(self, weight: Tensor) -> Tensor:
        """Raw weight (outputs, inputs / groups, *kernel) -> the weight that is convolved with."""
        variance, mean = torch.var_mean(weight, dim=(1, 2, 3), keepdim=True, correction=0)
        return (weight - mean) * torch.rsqrt(variance * weight[0].numel() + SMALL)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, inputs, height, width) -> (batch, outputs, height', width')."""
        weight = self.effective_weight(self.weight)
        return functional.conv2d(images, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, standardise: bool = False) -> nn.Conv2d:
    """A convolution without bias that keeps height and width, but for its stride."""
    kind = StandardisedConv2d if standardise else nn.Conv2d
    return kind(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with min(32, channels / 2) groups: 32 everywhere at the paper's width of 64.

    Where that does not divide the channels (80 at width 10), the next smaller number that does.
    """
    most = min(32, channels // 2)
    return nn.GroupNorm(next(groups for groups in range(most, 0, -1) if channels % groups == 0), channels)
