"""Per-example gradients the slow ways, to hold one-pass clipping against."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.privacy.clipping import convolution
from lightning_fed.privacy.clipping.one_pass import OnePassHooks

Loss = Callable[[Tensor], Tensor]
Gradients = dict[str, Tensor]
"""By name: (examples, *shape)."""


FORCED: dict[str, dict[str, float]] = {
    "kept": {"KEPT_AT_MOST": math.inf},
    "Gram": {"KEPT_AT_MOST": 0, "GRAM_AT_MOST": math.inf},
    "dropped": {"KEPT_AT_MOST": 0, "GRAM_AT_MOST": 0},
    "one at a time": {"KEPT_AT_MOST": 0, "GRAM_AT_MOST": 0, "BLOCK": 1},
    "one Gram matrix at a time": {"KEPT_AT_MOST": 0, "GRAM_AT_MOST": math.inf, "GRAM_BLOCK": 1},
    "as it pays": {},
}


@contextlib.contextmanager
def forced(way: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name, value in FORCED[way].items():
            stack.enter_context(mock.patch.object(convolution, name, value))
        yield


@dataclass(frozen=True)
class Clipped:
    """Norms (examples,), and by name the sums of clipped gradients."""

    norms: Tensor
    sums: Gradients


def squares(output: Tensor) -> Tensor:
    """A loss (rows,) whose gradient differs from row to row and from place to place."""
    flat = output.float().flatten(1)
    weights = torch.linspace(0.5, 1.5, flat.shape[1]).to(flat)
    return (0.5 * flat.square() * weights + flat * weights.square()).sum(1)


@contextlib.contextmanager
def autocast(on: bool) -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16, enabled=on):
        yield


@contextlib.contextmanager
def norms_in_float32(on: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name in ("group_norm", "layer_norm") if on else ():
            own = getattr(functional, name)
            exact = lambda rows, *rest, own=own: own(rows.float(), *rest)  # noqa: E731
            stack.enter_context(mock.patch.object(functional, name, exact))
        yield


def trained(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name: own for name, own in network.named_parameters() if own.requires_grad}


def one_pass(network: nn.Module, rows: Tensor, most: float, views: int = 1, bf16: bool = False) -> Clipped:
    """By `OnePassHooks`, on the network itself, which is given back."""
    hooks = OnePassHooks(network, most, views)
    try:
        with autocast(bf16):
            loss = squares(network(rows)).sum() / views
        loss.backward()
        norms = hooks.get_norm_sample()
        sums = {id(parameter): total for parameter, total in hooks.clipped_sums()}
    finally:
        hooks.cleanup()
    assert all(own.grad is None for own in network.parameters())
    return Clipped(norms, {name: sums[id(own)] for name, own in trained(network).items()})


def brute_force(network: nn.Module, rows: Tensor, views: int = 1, bf16: bool = False) -> Gradients:
    """Plain autograd on the raw parameters, one example at a time.

    In float64, or under autocast with norm layers in float32: on the CPU torch leaves them in bfloat16.
    """
    network = copy.deepcopy(network).train()
    if not bf16:
        network, rows = network.double(), rows.double()
    own = trained(network)
    found: dict[str, list[Tensor]] = {name: [] for name in own}
    for example in rows.split(views) if len(rows) else ():
        with autocast(bf16), norms_in_float32(bf16):
            output = network(example)
        flat = output.flatten(1) if not bf16 else output.float().flatten(1)
        weights = torch.linspace(0.5, 1.5, flat.shape[1]).to(flat)
        loss = (0.5 * flat.square() * weights + flat * weights.square()).sum() / views
        for name, gradient in zip(
            own, torch.autograd.grad(loss, list(own.values()), allow_unused=True), strict=True
        ):
            found[name].append(torch.zeros_like(own[name]) if gradient is None else gradient)
    empty = {name: parameter.new_zeros(0, *parameter.shape) for name, parameter in own.items()}
    return {name: torch.stack(parts) if parts else empty[name] for name, parts in found.items()}


def by_opacus(network: nn.Module, rows: Tensor) -> Gradients:
    """Opacus's own hooks."""
    wrapped = GradSampleModule(copy.deepcopy(network).train(), loss_reduction="sum")
    squares(wrapped(rows)).sum().backward()
    return {name: own.grad_sample for name, own in trained(wrapped._module).items()}


def clip(gradients: Gradients, most: float) -> Clipped:
    """Norms over all parameters, and sums with each example's gradient scaled to at most `most`."""
    gradients = {name: own.detach() for name, own in gradients.items()}
    norms = torch.stack([own.flatten(1).norm(dim=1) for own in gradients.values()]).norm(dim=0)
    scale = (most / norms.clamp(min=1e-12)).clamp(max=1.0)
    return Clipped(norms, {name: torch.einsum("i,i...->...", scale, own) for name, own in gradients.items()})


def distance(one: Gradients, other: Gradients) -> float:
    """Euclidean, over all parameters."""
    return float(torch.stack([(one[name].double() - other[name].double()).norm() for name in other]).norm())


def length(gradients: Gradients) -> float:
    return float(torch.stack([own.double().norm() for own in gradients.values()]).norm())


def assert_equal(found: Clipped, expected: Clipped, relative: float) -> None:
    """Norms, each parameter's sum, and all of them, to `relative` and some rounding of what may cancel."""
    assert found.norms.dtype == torch.float32
    assert not found.norms.requires_grad
    scale = float(expected.norms.max()) if len(expected.norms) else 0.0
    scale = max(scale, 1e-6)
    torch.testing.assert_close(found.norms.double(), expected.norms.double(), rtol=relative, atol=1e-6 * scale)
    whole, smallest = length(expected.sums), 5e-6 * scale * max(len(expected.norms), 1)
    assert found.sums.keys() == expected.sums.keys()
    assert distance(found.sums, expected.sums) <= relative * whole + smallest
    for name, total in expected.sums.items():
        assert found.sums[name].dtype == torch.float32
        assert found.sums[name].shape == total.shape
        assert not found.sums[name].requires_grad
        near = float((found.sums[name].double() - total.double()).norm())
        assert near <= relative * float(total.norm()) + smallest, name
