"""Per-example gradients of a convolution's weight: kept, or only their norms, whichever is cheaper.

Three ways, for T output positions, fan-in d and fan-out p of one example:

- *kept*: the gradients of several examples by one grouped convolution, where they are no larger than the
  layer's activations. The clipped sum is then a product with the coefficients: no second convolution.
- *Gram*: |G|^2 = <A, B> with A the Gram matrix of the input's patches and B that of the output's gradient, T x T
  each (Goodfellow 2015, arXiv 1510.01799; Rochette et al. 2019, arXiv 1912.06015). A is made from the Gram
  matrix of the input's *pixels*, of which it is a sum of shifted copies: k*k times less work than patches.
- *dropped*: as kept, but only the norm is taken of each block, while it is in cache. The block is in float32
  also under autocast, as the sum is that is made afterwards: norms of gradients that were rounded to bfloat16
  could be .4 % smaller than what is added.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.privacy.clipping.gram import gram_squares
from lightning_fed.privacy.clipping.tally import (
    Tally,
    by_example,
    by_row,
    full_float32,
    squares_of,
    without_erased,
)

KEPT_AT_MOST = 1.5
"""Per-example gradients that are kept, as a multiple of the layer's input and output of that example."""

GRAM_AT_MOST = 1.0
"""Multiplications of the Gram matrices, where these are made, as a multiple of those of the gradients."""

SHIFT = 8
"""Multiplications in the time of one number of a shifted addition, which moves memory where a product computes."""

BLOCK = 2**20
"""Numbers of per-example gradients that one grouped convolution makes: about what stays in a core's cache."""

MOST_IN_BLOCK = 8
"""Examples in one grouped convolution; more make it slower."""

GRAM_BLOCK = 2**19
"""Numbers of Gram matrices that are made at a time."""


@dataclass(frozen=True)
class Geometry:
    """How a convolution walks: `torch.nn.Conv2d`'s own words, padding in pixels."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @staticmethod
    def of(layer: nn.Conv2d) -> Geometry | None:
        """The geometry of a layer; None where its padding is not of equal zeros on both sides."""
        kernel, stride, dilation = (pair(getattr(layer, name)) for name in ("kernel_size", "stride", "dilation"))
        if layer.padding_mode != "zeros":
            return None
        if isinstance(layer.padding, str):
            if layer.padding == "valid":
                return Geometry(kernel, stride, (0, 0), dilation, layer.groups)
            reach = tuple(apart * (size - 1) for apart, size in zip(dilation, kernel, strict=True))
            if any(width % 2 for width in reach):
                return None
            return Geometry(kernel, stride, (reach[0] // 2, reach[1] // 2), dilation, layer.groups)
        return Geometry(kernel, stride, pair(layer.padding), dilation, layer.groups)

    def input_gradient(self, images: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """Gradient of the input (rows, inputs, height, width)."""
        found: Tensor = self._backward(images, weight, gradient, self.groups, (True, False, False))[0]
        return found

    def weight_gradient(self, images: Tensor, weight: Tensor, gradient: Tensor, folded: int = 1) -> Tensor:
        """Gradient of the weight (folded * outputs, inputs / groups, *kernel), summed over rows.

        Args:
            images: (rows, folded * inputs, height, width). weight: its shape is used alone.
            gradient: (rows, folded * outputs, ...). folded: examples that stand beside each other as groups.
        """
        shape = weight.expand(folded, *weight.shape).flatten(0, 1)
        found: Tensor = self._backward(images, shape, gradient, folded * self.groups, (False, True, False))[1]
        return found

    def _backward(
        self, images: Tensor, weight: Tensor, gradient: Tensor, groups: int, wanted: tuple[bool, bool, bool]
    ) -> tuple[Tensor, ...]:
        result: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
            gradient, images, weight, None, self.stride, self.padding, self.dilation, False, (0, 0), groups, wanted
        )
        return result

    def patch_gram(self, images: Tensor, height: int, width: int) -> Tensor:
        """Inner products of the input's patches (examples, positions, positions), positions in row-major order.

        Args:
            images: (examples, inputs, views, height, width). height, width: of the output.
        """
        (down, across), (below, beside) = self.padding, self.stride
        padded = functional.pad(images, (across, across, down, down))
        examples, _, views, tall, wide = padded.shape
        flat = padded.flatten(2)
        pixels = torch.bmm(flat.transpose(1, 2), flat).view(examples, views, tall, wide, views, tall, wide)
        total: Tensor | None = None
        for y in range(0, self.kernel[0] * self.dilation[0], self.dilation[0]):
            for x in range(0, self.kernel[1] * self.dilation[1], self.dilation[1]):
                rows = slice(y, y + below * (height - 1) + 1, below)
                columns = slice(x, x + beside * (width - 1) + 1, beside)
                shifted = pixels[:, :, rows, columns, :, rows, columns]
                total = shifted.clone() if total is None else total.add_(shifted)
        assert total is not None
        positions = views * height * width
        return total.reshape(examples, positions, positions)


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """What `Conv2d` takes as one number or two."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class ConvolutionGradients:
    """The per-example gradients of one use of a convolution.

    Args:
        layer, geometry: which. images: its input (rows, inputs, height, width).
        gradient: of its output (rows, outputs, height', width'). views: rows of one example.
    """

    def __init__(self, layer: nn.Conv2d, geometry: Geometry, images: Tensor, gradient: Tensor, views: int) -> None:
        self.layer, self.geometry, self.views = layer, geometry, views
        self.images, self.gradient = images.contiguous(), gradient.contiguous()
        self.examples = len(images) // views

    @full_float32
    def tell(self, tally: Tally) -> None:
        """Keep the gradients or defer their sum, by what is cheaper."""
        weight = self.layer.weight
        if self.examples == 0:
            tally.keep(weight, weight.new_zeros(0, *weight.shape))
        elif tally.must_keep(weight):
            tally.keep(weight, torch.cat(list(self._blocks(self.images.dtype))))
        elif self._is_small():
            blocks: list[Tensor] = []
            squares = self._squares_of_blocks(blocks)
            tally.defer(weight, squares, functools.partial(sum_of_blocks, blocks))
        else:
            squares = self._squares_by_gram() if self._gram_pays() else self._squares_of_blocks()
            tally.defer(weight, squares, self.weighted_sum, self.images, self.gradient)

    def weighted_sum(self, coefficients: Tensor) -> Tensor:
        """The sum of the gradients times coefficients (examples,), in float32."""
        gradient = by_row(coefficients, self.gradient, self.views)
        weight = self.layer.weight.detach().float()
        images = without_erased(self.images.float(), coefficients, self.views)
        found = self.geometry.weight_gradient(images, weight, gradient)
        return found if effective_weight(self.layer) is None else pull_back(self.layer)(found)

    def _is_small(self) -> bool:
        activations = (self.images[0].numel() + self.gradient[0].numel()) * self.views
        return self.layer.weight.numel() <= KEPT_AT_MOST * activations

    def _gram_pays(self) -> bool:
        """Whether Gram matrices take fewer multiplications than the gradients themselves."""
        if self.geometry.groups > 1 or effective_weight(self.layer) is not None:
            return False
        inputs, outputs = self.images.shape[1], self.gradient.shape[1]
        (tall, wide), (down, across) = self.images.shape[2:], self.geometry.padding
        pixels = (tall + 2 * down) * (wide + 2 * across) * self.views
        positions = self.gradient[0, 0].numel() * self.views
        taps = self.geometry.kernel[0] * self.geometry.kernel[1]
        gram = pixels**2 * inputs + positions**2 * (outputs + SHIFT * taps)
        return gram < GRAM_AT_MOST * positions * self.layer.weight.numel()

    def _squares_by_gram(self) -> Tensor:
        height, width = self.gradient.shape[2:]
        step = max(1, GRAM_BLOCK // (self.views * max(height * width, self.images[0, 0].numel())) ** 2)
        squares = []
        for start in range(0, self.examples, step):
            rows = slice(start * self.views, (start + step) * self.views)
            images = by_example(self.images[rows].float(), self.views).transpose(1, 2)
            gradient = by_example(self.gradient[rows].float(), self.views).transpose(1, 2).flatten(2)
            patches = self.geometry.patch_gram(images, height, width)
            longest = max(math.prod(self.layer.weight.shape[1:]), gradient.shape[1])
            squares.append(gram_squares(patches, torch.bmm(gradient.transpose(1, 2), gradient), longest))
        return torch.cat(squares)

    def _squares_of_blocks(self, kept: list[Tensor] | None = None) -> Tensor:
        """Squared norms (examples,), taken of each block while it is in cache; it is then kept, if at all."""
        squares = []
        for block in self._blocks(torch.float32 if kept is None else self.images.dtype):
            squares.append(squares_of(block))
            if kept is not None:
                kept.append(block)
        return torch.cat(squares)

    def _blocks(self, kind: torch.dtype) -> Iterator[Tensor]:
        """The gradients (some examples, *weight's shape), block by block, each example a group of its own."""
        weight = self.layer.weight.detach().to(kind)
        back = None if effective_weight(self.layer) is None else torch.func.vmap(pull_back(self.layer))
        step = max(1, min(MOST_IN_BLOCK, BLOCK // weight.numel()))
        for start in range(0, self.examples, step):
            rows = slice(start * self.views, (start + step) * self.views)
            images, gradient = (self._beside(own[rows]).to(kind) for own in (self.images, self.gradient))
            folded = images.shape[1] // self.images.shape[1]
            found = self.geometry.weight_gradient(images, weight, gradient, folded)
            found = found.view(folded, *weight.shape)
            yield found if back is None else back(found.float())

    def _beside(self, rows: Tensor) -> Tensor:
        """(examples * views, channels, ...) -> (views, examples * channels, ...)."""
        return by_example(rows, self.views).transpose(0, 1).flatten(1, 2)


def sum_of_blocks(blocks: list[Tensor], coefficients: Tensor) -> Tensor:
    """Blocks (some examples, *shape) times coefficients (examples,), summed in float32 (*shape)."""
    flat = torch.zeros(blocks[0][0].numel(), device=coefficients.device)
    start = 0
    for block in blocks:
        some = coefficients[start : start + len(block)]
        flat.addmv_(without_erased(block.flatten(1).float(), some).T, some)
        start += len(block)
    return flat.view_as(blocks[0][0])


def effective_weight(layer: nn.Conv2d) -> Callable[[Tensor], Tensor] | None:
    """The function of its weight with which a layer convolves, where it is not the weight itself."""
    found: Callable[[Tensor], Tensor] | None = getattr(layer, "effective_weight", None)
    return found


def pull_back(layer: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    """From a gradient of the effective weight to one of the raw weight, on which norm and noise are taken."""
    effective = effective_weight(layer)
    assert effective is not None
    back: Any = torch.func.vjp(effective, layer.weight.detach())[1]

    def to_raw(gradient: Tensor) -> Tensor:
        raw: Tensor = back(gradient)[0]
        return raw

    return to_raw
