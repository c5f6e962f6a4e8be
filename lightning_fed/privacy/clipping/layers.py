"""Layers whose backward pass tells per-example gradients apart, at hardly more than the plain one's cost.

Each is an autograd function around PyTorch's own kernels: the forward pass is the layer's, the backward pass
gives the gradient of the input and tells a `Tally` of the parameters' per-example gradients. The clipped sum is
made afterwards, so that there is one backward pass (book-keeping: Bu et al. 2022, arXiv 2210.00038).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lightning_fed.privacy.clipping.convolution import ConvolutionGradients, Geometry, effective_weight
from lightning_fed.privacy.clipping.gram import gram_squares
from lightning_fed.privacy.clipping.tally import (
    Tally,
    by_example,
    by_row,
    full_float32,
    over_views,
    without_erased,
)

Gradients = tuple[Tensor | None, None, None, None, None]


def without_autocast(backward: Callable[[Any, Tensor], Tensor | None]) -> Callable[[Any, Tensor], Gradients]:
    """A backward pass in the types of its tensors, wherever it is called; the gradient is the input's alone."""

    @functools.wraps(backward)
    def exact(ctx: Any, gradient: Tensor) -> Gradients:
        with torch.autocast(gradient.device.type, enabled=False):
            return backward(ctx, gradient), None, None, None, None

    return exact


def autocast_type(tensor: Tensor) -> torch.dtype:
    """The type in which autocast, where it is on, wants convolutions and products; else the tensor's own."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


def in_float32(tensor: Tensor) -> Tensor:
    """A tensor in float32 where autocast is on, which wants norms in it."""
    return tensor.float() if torch.is_autocast_enabled(tensor.device.type) else tensor


def wanted(parameter: Tensor | None) -> TypeGuard[Tensor]:
    """Whether a layer has this parameter and trains it."""
    return parameter is not None and parameter.requires_grad


def saved(ctx: Any) -> tuple[Tensor, ...]:
    """What a forward pass saved, without its history: a tally that held it would hold the graph, and that it."""
    return tuple(tensor.detach() for tensor in ctx.saved_tensors)


class Convolution(torch.autograd.Function):
    """`torch.nn.Conv2d`, also of an effective weight."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, layer: nn.Conv2d, tally: Tally
    ) -> Tensor:
        """(rows, inputs, height, width) -> (rows, outputs, height', width')."""
        kind, geometry, effective = autocast_type(images), Geometry.of(layer), effective_weight(layer)
        assert geometry is not None
        cast, used = images.to(kind), (weight if effective is None else effective(weight)).to(kind)
        ctx.save_for_backward(cast, used)
        ctx.layer, ctx.tally, ctx.kind, ctx.geometry = layer, tally, images.dtype, geometry
        shift = None if bias is None else bias.to(kind)
        return functional.conv2d(
            cast, used, shift, geometry.stride, geometry.padding, geometry.dilation, geometry.groups
        )

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, gradient: Tensor) -> Tensor | None:
        """The gradient of the input."""
        images, used = saved(ctx)
        layer, tally, geometry = ctx.layer, ctx.tally, ctx.geometry
        if wanted(layer.weight):
            ConvolutionGradients(layer, geometry, images, gradient, tally.views).tell(tally)
        if wanted(layer.bias):
            tally.keep(layer.bias, over_views(gradient.sum((2, 3), dtype=torch.float32), tally.views))
        if not ctx.needs_input_grad[0]:
            return None
        found: Tensor = geometry.input_gradient(images, used, gradient).to(ctx.kind)
        return found


class Linear(torch.autograd.Function):
    """`torch.nn.Linear` over the last dimension."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, layer: nn.Linear, tally: Tally
    ) -> Tensor:
        """(rows, ..., inputs) -> (rows, ..., outputs)."""
        kind = autocast_type(rows)
        cast, used = rows.to(kind), weight.to(kind)
        ctx.save_for_backward(cast, used)
        ctx.layer, ctx.tally, ctx.kind = layer, tally, rows.dtype
        return functional.linear(cast, used, None if bias is None else bias.to(kind))

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, gradient: Tensor) -> Tensor | None:
        """The gradient of the input."""
        rows, weight = saved(ctx)
        layer, tally = ctx.layer, ctx.tally
        inputs, outputs = _by_position(rows, tally), _by_position(gradient, tally)
        if wanted(layer.weight):
            _tell_linear(layer, tally, inputs, outputs)
        if wanted(layer.bias):
            tally.keep(layer.bias, outputs.sum(1))
        return (gradient @ weight).to(ctx.kind) if ctx.needs_input_grad[0] else None


def _by_position(rows: Tensor, tally: Tally) -> Tensor:
    """(rows, ..., size) -> float32 (examples, positions, size)."""
    return by_example(rows.float(), tally.views).flatten(1, -2)


@full_float32
def _tell_linear(layer: nn.Linear, tally: Tally, inputs: Tensor, outputs: Tensor) -> None:
    """Norms by Gram matrices where an example has few positions, else the gradients themselves.

    Args:
        inputs: (examples, positions, inputs). outputs: the gradient (examples, positions, outputs).
    """
    positions = inputs.shape[1]
    few = positions * (inputs.shape[2] + outputs.shape[2]) < layer.weight.numel()
    if tally.must_keep(layer.weight) or not few:
        tally.keep(layer.weight, torch.bmm(outputs.transpose(1, 2), inputs))
        return

    def weighted_sum(coefficients: Tensor) -> Tensor:
        weighted = by_row(coefficients, outputs, 1)
        return weighted.flatten(0, 1).T @ without_erased(inputs, coefficients).flatten(0, 1)

    longest = max(layer.weight.shape)
    squares = gram_squares(inputs @ inputs.mT, outputs @ outputs.mT, longest)
    tally.defer(layer.weight, squares, weighted_sum, inputs, outputs)


class GroupNorm(torch.autograd.Function):
    """`torch.nn.GroupNorm` with scale, and shift if it has one.

    Its backward kernel gives the gradients of scale and shift summed over rows; here rows stand beside each
    other as channels of one, with groups of their own, so that the same kernel tells them apart.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, layer: nn.GroupNorm, tally: Tally
    ) -> Tensor:
        """(rows, channels, ...) -> the same."""
        values = in_float32(images).contiguous()
        rows, channels = values.shape[:2]
        output, mean, rstd = torch.native_group_norm(
            values, weight, bias, rows, channels, math.prod(values.shape[2:]), layer.num_groups, layer.eps
        )
        ctx.save_for_backward(values, weight, mean, rstd)
        ctx.layer, ctx.tally, ctx.kind = layer, tally, images.dtype
        return output

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, gradient: Tensor) -> Tensor | None:
        """The gradient of the input."""
        values, weight, mean, rstd = saved(ctx)
        layer, tally = ctx.layer, ctx.tally
        rows, channels = values.shape[:2]
        positions = math.prod(values.shape[2:])
        if rows == 0:
            for parameter in filter(wanted, (layer.weight, layer.bias)):
                tally.keep(parameter, gradient.new_zeros(0, channels))
            return torch.zeros_like(values, dtype=ctx.kind)
        images, scales, shifts = torch.ops.aten.native_group_norm_backward(
            gradient.to(values.dtype).contiguous().view(1, rows * channels, positions),
            values.view(1, rows * channels, positions),
            mean.view(1, -1),
            rstd.view(1, -1),
            weight.repeat(rows),
            1,
            rows * channels,
            positions,
            rows * layer.num_groups,
            (ctx.needs_input_grad[0], True, True),
        )
        for parameter, found in ((layer.weight, scales), (layer.bias, shifts)):
            if wanted(parameter):
                tally.keep(parameter, over_views(found.view(rows, channels), tally.views))
        return images.view_as(values).to(ctx.kind) if ctx.needs_input_grad[0] else None


class LayerNorm(torch.autograd.Function):
    """`torch.nn.LayerNorm` with scale, and shift if it has one."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, layer: nn.LayerNorm, tally: Tally
    ) -> Tensor:
        """(rows, ..., *shape) -> the same."""
        values = in_float32(rows).contiguous()
        output, mean, rstd = torch.native_layer_norm(values, layer.normalized_shape, weight, bias, layer.eps)
        ctx.save_for_backward(values, weight, mean, rstd)
        ctx.layer, ctx.tally, ctx.kind = layer, tally, rows.dtype
        return output

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, gradient: Tensor) -> Tensor | None:
        """The gradient of the input."""
        values, weight, mean, rstd = saved(ctx)
        layer, tally = ctx.layer, ctx.tally
        gradient = gradient.to(values.dtype).contiguous()
        if wanted(layer.weight):
            tally.keep(layer.weight, _over_positions(gradient * (values - mean) * rstd, tally, weight.dim()))
        if wanted(layer.bias):
            tally.keep(layer.bias, _over_positions(gradient, tally, weight.dim()))
        if not ctx.needs_input_grad[0]:
            return None
        rows: Tensor = torch.ops.aten.native_layer_norm_backward(
            gradient, values, layer.normalized_shape, mean, rstd, weight, None, (True, False, False)
        )[0]
        return rows.to(ctx.kind)


def _over_positions(values: Tensor, tally: Tally, dimensions: int) -> Tensor:
    """(rows, ..., *shape of `dimensions`) -> (examples, *shape), the rest added up."""
    return by_example(values, tally.views).flatten(1, -1 - dimensions).sum(1)


FUNCTIONS: dict[type[nn.Module], type[torch.autograd.Function]] = {
    nn.Linear: Linear,
    nn.GroupNorm: GroupNorm,
    nn.LayerNorm: LayerNorm,
}


def function_of(layer: nn.Module) -> type[torch.autograd.Function] | None:
    """The function that stands for a layer's own parameters, None where there is none.

    A subclass may compute anything, so that only the classes themselves are known; a convolution of a function
    of its weight says so by a method `effective_weight(weight) -> weight`, and is otherwise `Conv2d`. Parameters
    of other names, as `torch.nn.utils.weight_norm` makes them, are not known either.
    """
    if {name for name, own in layer.named_parameters(recurse=False) if own.requires_grad} - {"weight", "bias"}:
        return None
    if isinstance(layer, nn.Conv2d) and (type(layer) is nn.Conv2d or effective_weight(layer) is not None):
        return None if Geometry.of(layer) is None else Convolution
    return FUNCTIONS.get(type(layer))
