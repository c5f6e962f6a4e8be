"""Classifiers on ScatterNet features, in the manner of Tramer and Boneh 2021 (arXiv 2011.11660)."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_fed.models.dpresnet import ConvNorm
from lightning_fed.models.scattering import PATHS, ScatterNet

PLACES = 7
"""Features along a side: those of 28 pixels as they are, others averaged to as many."""
GROUP = 9
"""Channels that are normalised together, all of one colour: 27 groups of 3 x 81."""


class Features(nn.Sequential):
    """ScatterNet and a group norm without scale or shift, so that nothing of it is learned."""

    def __init__(self, in_channels: int) -> None:
        channels = in_channels * PATHS
        norm = nn.GroupNorm(channels // GROUP, channels, affine=False)
        super().__init__(ScatterNet(), nn.AdaptiveAvgPool2d(PLACES), norm)


class ScatterNetLinear(nn.Module):
    """A linear layer on the features: 95,264 parameters for 3 channels and 8 classes.

    Args:
        in_channels, num_classes: of the images.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.features = Features(in_channels)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * PATHS * PLACES**2, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) -> logits (batch, classes)."""
        logits: Tensor = self.head(self.features(images))
        return logits


class ScatterNetCNN(nn.Module):
    """Two convolutions with group norms on the features, pooled to 2 x 2, and a linear layer.

    Args:
        in_channels, num_classes: of the images. width: channels of both convolutions. standardise: see `Model`.
    """

    def __init__(self, in_channels: int, num_classes: int, width: int = 64, standardise: bool = False) -> None:
        super().__init__()
        self.features = Features(in_channels)
        self.head = nn.Sequential(
            ConvNorm(in_channels * PATHS, width, standardise=standardise),
            ConvNorm(width, width, standardise=standardise),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * width, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) -> logits (batch, classes)."""
        logits: Tensor = self.head(self.features(images))
        return logits
