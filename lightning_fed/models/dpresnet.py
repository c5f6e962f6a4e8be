"""DPResNet, the paper's modified ResNet (Haj Fares & Emam Saad, arXiv 2412.00687)."""

from __future__ import annotations

from torch import Tensor, nn


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with min(32, channels / 2) groups: 32 everywhere at the paper's width of 64.

    Where that does not divide the channels (80 at width 10), the next smaller number that does.
    """
    most = min(32, channels // 2)
    return nn.GroupNorm(next(groups for groups in range(most, 0, -1) if channels % groups == 0), channels)


class ConvNorm(nn.Sequential):
    """A 3x3 convolution without bias, its group norm and, unless it ends a block, a ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, relu: bool = True) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            group_norm(outputs),
            *([nn.ReLU()] if relu else []),
        )


class Block(nn.Module):
    """Two convolutions; an identity skip where the shape stays, none where the stride is 2; no ReLU after."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(ConvNorm(inputs, outputs, stride), ConvNorm(outputs, outputs, relu=False))
        self.skip = stride == 1

    def forward(self, features: Tensor) -> Tensor:
        """(batch, inputs, height, width) -> (batch, outputs, height / stride, width / stride)."""
        output: Tensor = self.layers(features)
        return output + features if self.skip else output


class DPResNet(nn.Module):
    """The paper's network: 4,802,120 parameters at width 64 with 3 input channels and 8 classes.

    Two convolutions, three blocks, global average pooling and a linear layer: no max-pooling, no
    convolution bias, group norms only, so that every layer has a per-example gradient.
    """

    def __init__(self, in_channels: int, num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(in_channels, width),
            ConvNorm(width, 2 * width),
            Block(2 * width, 2 * width, stride=1),
            Block(2 * width, 4 * width, stride=2),
            Block(4 * width, 8 * width, stride=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8 * width, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) -> logits (batch, classes)."""
        logits: Tensor = self.layers(images)
        return logits
