"""The two standard ResNets that DPResNet is compared with."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.models.dpresnet import group_norm

Norm = Callable[[int], nn.Module]
NORMS: dict[str, Norm] = {"group": group_norm, "batch": nn.BatchNorm2d}


def conv_norm(inputs: int, outputs: int, norm: Norm, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """A convolution without bias and its norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False), norm(outputs)
    )


class BasicBlock(nn.Module):
    """He et al. 2016 (arXiv 1512.03385): two 3x3 convolutions, a skip (1x1 where the shape changes), ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.first = conv_norm(inputs, outputs, norm, stride)
        self.second = conv_norm(outputs, outputs, norm)
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else conv_norm(inputs, outputs, norm, stride, kernel=1)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, inputs, height, width) -> (batch, outputs, height / stride, width / stride)."""
        return functional.relu(self.second(functional.relu(self.first(features))) + self.skip(features))


class ResNet18(nn.Module):
    """ResNet-18 with the 3x3 stem that is usual for small images; width 64 has 11.2 M parameters."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 64, norm: str = "group") -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm(in_channels, width, NORMS[norm]), nn.ReLU()]
        inputs = width
        for outputs, stride in ((width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)):
            layers += [
                BasicBlock(inputs, outputs, stride, NORMS[norm]),
                BasicBlock(outputs, outputs, 1, NORMS[norm]),
            ]
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) -> logits (batch, classes)."""
        logits: Tensor = self.layers(images)
        return logits


class ResidualPair(nn.Module):
    """Two convolutions with norm and ReLU each, added to their input."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_norm(channels, channels, norm), nn.ReLU(), conv_norm(channels, channels, norm), nn.ReLU()
        )

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, height, width) -> the same shape."""
        output: Tensor = self.layers(features) + features
        return output


class ResNet9(nn.Module):
    """The nine-layer ResNet known from DAWNBench, with max-pooling; width 64 has 6.6 M parameters."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 64, norm: str = "group") -> None:
        super().__init__()
        make = NORMS[norm]

        def pooled(inputs: int, outputs: int) -> list[nn.Module]:
            return [conv_norm(inputs, outputs, make), nn.ReLU(), nn.MaxPool2d(2)]

        self.layers = nn.Sequential(
            conv_norm(in_channels, width, make),
            nn.ReLU(),
            *pooled(width, 2 * width),
            ResidualPair(2 * width, make),
            *pooled(2 * width, 4 * width),
            *pooled(4 * width, 8 * width),
            ResidualPair(8 * width, make),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(8 * width, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) -> logits (batch, classes)."""
        logits: Tensor = self.layers(images)
        return logits
