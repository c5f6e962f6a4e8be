"""The network that every hospital trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lightning_fed.checks import in_range, literals
from lightning_fed.errors import InputError


@dataclass(frozen=True)
class Model:
    """The network that every hospital trains.

    Args:
        name: `dpresnet`, `resnet9`, `resnet18`; `scatternet_linear`, `scatternet_cnn`: a linear layer or a small
            CNN on fixed wavelet features (Tramer and Boneh 2021, arXiv 2011.11660). Ignored when `class_path` is
            set.
        width: channels of the first convolution (the paper's DPResNet: 64); `scatternet_linear` has none.
        norm: `group` or `batch`, for the two comparison ResNets; the other networks always use groups.
        stem: of `resnet18`: `small`, a 3x3 convolution that keeps the size, or a 7x7 with stride 2 and a pooling,
            `max_pool` (He et al. 2016) or `average_pool` (PriMIA: Kaissis et al. 2021).
        standardise_weights: convolve with each filter at mean 0 and variance 1 (Qiao et al. 2019,
            arXiv 1903.10520).
        norm_after_sum: a group norm after each residual sum (Klause et al. 2022, arXiv 2203.00324).
        test_time_augmentation: once trained, answer with the mean of the logits over an image's eight flips and
            quarter turns (Krizhevsky et al. 2012 did so over crops and flips); it sees no other image, so it
            costs no privacy, and eight times the time of an answer.
        class_path: your own `torch.nn.Module`, as `package.module.Class`; built with
            `in_channels` and `num_classes` and `init_args`.
        init_args: further keyword arguments of that class.
        start: another run's `model.ckpt` of the same network, from whose weights the federation starts; under a
            guarantee they must come from public images, such as procedural cells.
        pretrained: `bloodcells` trains the network on procedural cells before the first round, once for each
            network and `seed`; no image of a hospital is used, so that it costs no privacy (Tang et al. 2023,
            arXiv 2306.06076).
    """

    name: str = "dpresnet"
    width: int = 8
    norm: Literal["group", "batch"] = "group"
    stem: Literal["small", "max_pool", "average_pool"] = "small"
    standardise_weights: bool = False
    norm_after_sum: bool = False
    test_time_augmentation: bool = False
    class_path: str | None = None
    init_args: dict[str, Any] = field(default_factory=dict)
    start: str | None = None
    pretrained: Literal["bloodcells"] | None = None

    def __post_init__(self) -> None:
        literals("model", self)
        in_range("model", 2, 4096, width=self.width)
        if self.width % 2:
            raise InputError(f"model.width is {self.width}: it must be even, for the group norms")
        if self.stem != "small" and (self.class_path is not None or self.name != "resnet18"):
            raise InputError(f"model.stem is '{self.stem}': only resnet18 has one to choose; leave it out")
        if self.pretrained is not None and self.start is not None:
            raise InputError("model.start: model.pretrained gives weights to start from too; leave one out")
