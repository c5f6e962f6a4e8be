"""The two standard ResNets that DPResNet is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.models.layers import convolution, group_norm

NORMS: dict[str, Callable[[int], nn.Module]] = {"group": group_norm, "batch": nn.BatchNorm2d}


@dataclass(frozen=True)
class Style:
    """What a residual network is made of.

    Args:
        norm: `group` or `batch`. standardise: see `StandardisedConv2d`. norm_after_sum: on each residual sum.
    """

    norm: str = "group"
    standardise: bool = False
    norm_after_sum: bool = False

    def conv_norm(self, inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
        """A convolution without bias and its norm."""
        layer = convolution(inputs, outputs, kernel, stride, self.standardise)
        return nn.Sequential(layer, NORMS[self.norm](outputs))

    def after(self, channels: int) -> nn.Module:
        """What follows a residual sum."""
        return NORMS[self.norm](channels) if self.norm_after_sum else nn.Identity()


PLAIN = Style()


class BasicBlock(nn.Module):
    """He et al. 2016 (arXiv 1512.03385): two 3x3 convolutions, a skip (1x1 where the shape changes), ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, style: Style) -> None:
        super().__init__()
        self.first = style.conv_norm(inputs, outputs, stride)
        self.second = style.conv_norm(outputs, outputs)
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else style.conv_norm(inputs, outputs, stride, kernel=1)
        self.after = style.after(outputs)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, inputs, height, width) -> (batch, outputs, height / stride, width / stride)."""
        summed = self.second(functional.relu(self.first(features))) + self.skip(features)
        return functional.relu(self.after(summed))


def stem(kind: str, in_channels: int, width: int, style: Style) -> list[nn.Module]:
    """ResNet-18's first layers by the names of `Model.stem`.

    `small` keeps the image's size; the others are He et al.'s 7x7 with stride 2 and a pooling with stride 2.
    """
    if kind == "small":
        return [style.conv_norm(in_channels, width), nn.ReLU()]
    pool = nn.AvgPool2d if kind == "average_pool" else nn.MaxPool2d
    return [style.conv_norm(in_channels, width, stride=2, kernel=7), nn.ReLU(), pool(3, stride=2, padding=1)]


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016, arXiv 1512.03385); width 64 has 11.2 M parameters.

    Args:
        in_channels, num_classes: of the images. width: channels of the first convolution. style: of its layers.
        kind: of the first layers; see `stem`.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        width: int = 64,
        style: Style = PLAIN,
        kind: str = "small",
    ) -> None:
        super().__init__()
        layers = stem(kind, in_channels, width, style)
        inputs = width
        for outputs, stride in ((width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)):
            layers += [BasicBlock(inputs, outputs, stride, style), BasicBlock(outputs, outputs, 1, style)]
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) -> logits (batch, classes)."""
        logits: Tensor = self.layers(images)
        return logits


class ResidualPair(nn.Module):
    """Two convolutions with norm and ReLU each, added to their input."""

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            style.conv_norm(channels, channels), nn.ReLU(), style.conv_norm(channels, channels), nn.ReLU()
        )
        self.after = style.after(channels)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, height, width) -> the same shape."""
        output: Tensor = self.after(self.layers(features) + features)
        return output


class ResNet9(nn.Module):
    """The nine-layer ResNet known from DAWNBench, with max-pooling; width 64 has 6.6 M parameters."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 64, style: Style = PLAIN) -> None:
        super().__init__()

        def pooled(inputs: int, outputs: int) -> list[nn.Module]:
            return [style.conv_norm(inputs, outputs), nn.ReLU(), nn.MaxPool2d(2)]

        self.layers = nn.Sequential(
            style.conv_norm(in_channels, width),
            nn.ReLU(),
            *pooled(width, 2 * width),
            ResidualPair(2 * width, style),
            *pooled(2 * width, 4 * width),
            *pooled(4 * width, 8 * width),
            ResidualPair(8 * width, style),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(8 * width, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) -> logits (batch, classes)."""
        logits: Tensor = self.layers(images)
        return logits
