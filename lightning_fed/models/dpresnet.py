"""DPResNet, the paper's modified ResNet (Haj Fares & Emam Saad, arXiv 2412.00687)."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_fed.models.layers import convolution, group_norm


class ConvNorm(nn.Sequential):
    """A 3x3 convolution without bias, its group norm and, unless it ends a block, a ReLU."""

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, relu: bool = True, standardise: bool = False
    ) -> None:
        super().__init__(
            convolution(inputs, outputs, 3, stride, standardise),
            group_norm(outputs),
            *([nn.ReLU()] if relu else []),
        )


class Block(nn.Module):
    """Two convolutions; an identity skip where the shape stays, none where the stride is 2; no ReLU after.

    Args:
        norm_after_sum: a group norm on the sum with the skip (Klause et al. 2022, arXiv 2203.00324).
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, standardise: bool = False, norm_after_sum: bool = False
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(inputs, outputs, stride, standardise=standardise),
            ConvNorm(outputs, outputs, relu=False, standardise=standardise),
        )
        self.skip = stride == 1
        self.after = group_norm(outputs) if norm_after_sum and self.skip else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """(batch, inputs, height, width) -> (batch, outputs, height / stride, width / stride)."""
        output: Tensor = self.layers(features)
        summed: Tensor = self.after(output + features) if self.skip else output
        return summed


class DPResNet(nn.Module):
    """The paper's network: 4,802,120 parameters at width 64 with 3 input channels and 8 classes.

    Two convolutions, three blocks, global average pooling and a linear layer: no max-pooling, no
    convolution bias, group norms only, so that every layer has a per-example gradient.

    Args:
        in_channels, num_classes: of the images. width: channels of the first convolution.
        standardise, norm_after_sum: see `Model`; neither is the paper's.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        width: int = 64,
        standardise: bool = False,
        norm_after_sum: bool = False,
    ) -> None:
        super().__init__()
        options = {"standardise": standardise, "norm_after_sum": norm_after_sum}
        self.layers = nn.Sequential(
            ConvNorm(in_channels, width, standardise=standardise),
            ConvNorm(width, 2 * width, standardise=standardise),
            Block(2 * width, 2 * width, stride=1, **options),
            Block(2 * width, 4 * width, stride=2, **options),
            Block(4 * width, 8 * width, stride=2, **options),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8 * width, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) -> logits (batch, classes)."""
        logits: Tensor = self.layers(images)
        return logits
