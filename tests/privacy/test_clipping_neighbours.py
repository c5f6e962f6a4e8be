"""Neighbouring data sets: what one example can do to the clipped sum, by autograd on the raw parameters."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from lightning_fed.privacy.clipping.convolution import ConvolutionGradients
from lightning_fed.privacy.clipping.one_pass import OnePassHooks
from tests.privacy.clipping_networks import (
    BareParameter,
    NormAfterSum,
    SharedWeight,
    StandardConv2d,
    UsedTwice,
)
from tests.privacy.clipping_reference import Clipped, brute_force, clip, forced, length, one_pass, squares

EXAMPLES = 6
EXACT = 2e-6
"""Share of C by which float32 rounding may carry a move past C."""
PAST_IN_BF16 = 1e-6
"""The same under bf16 autocast: norm and sum are of the same gradients, rounded alike."""
OFF_IN_BF16 = 0.01
"""Share of C between a move and the gradient by autograd, whose kernels round otherwise. Measured: 0.0065."""

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "weight standardisation": lambda: NormAfterSum(StandardConv2d),
    "norm after sum": NormAfterSum,
    "used twice": UsedTwice,
    "used twice, standardised": lambda: UsedTwice(StandardConv2d),
    "shared weight": SharedWeight,
}


def make(name: str) -> nn.Module:
    """Filters are small, so that a gradient of the standardised weight is much the smaller one."""
    torch.manual_seed(1)
    network = NETWORKS[name]()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, StandardConv2d):
                module.weight.mul_(0.05)
    return network


def images(views: int) -> Tensor:
    return torch.randn(EXAMPLES * views, 2, 7, 7, generator=torch.Generator().manual_seed(2))


def moves(network: nn.Module, views: int, bf16: bool, most: float) -> list[dict[str, Tensor]]:
    """Clipped sum of all examples less that without example i, for each i, by name."""
    rows = images(views)
    whole = one_pass(network, rows, most, views, bf16).sums
    found = []
    for one in range(EXAMPLES):
        others = torch.cat([rows[: one * views], rows[(one + 1) * views :]])
        without = one_pass(network, others, most, views, bf16).sums
        found.append({name: whole[name].double() - without[name].double() for name in whole})
    return found


def each_clipped(network: nn.Module, views: int, bf16: bool, most: float) -> list[dict[str, Tensor]]:
    """The clipped gradient of each example by brute force."""
    gradients = brute_force(network, images(views), views, bf16)
    return [
        clip({name: own[one : one + 1] for name, own in gradients.items()}, most).sums for one in range(EXAMPLES)
    ]


def threshold(network: nn.Module, views: int) -> float:
    """A norm that half of the examples exceed."""
    return float(clip(brute_force(network, images(views), views), 1.0).norms.median())


def worst(network: nn.Module, views: int, bf16: bool) -> tuple[float, float]:
    """By how much a move exceeds C, and how far it lies from brute force, as shares of C; the greatest."""
    most = threshold(network, views)
    found = moves(network, views, bf16, most)
    expected = each_clipped(network, views, bf16, most)
    off = [
        length({name: move[name] - true[name].double() for name in move})
        for move, true in zip(found, expected, strict=True)
    ]
    return max(length(move) for move in found) / most - 1, max(off) / most


@pytest.mark.parametrize("way", ["as it pays", "dropped", "Gram"])
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_an_example_moves_the_sum_by_its_clipped_gradient(name: str, views: int, way: str) -> None:
    with forced(way):
        further, off = worst(make(name), views, bf16=False)
    assert further <= EXACT
    assert off <= (1e-4 if way == "Gram" else 10 * EXACT)


@pytest.mark.parametrize("way", ["as it pays", "dropped", "Gram"])
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_under_autocast_it_moves_the_sum_by_no_more_than_rounding_adds(name: str, views: int, way: str) -> None:
    with forced(way):
        further, off = worst(make(name), views, bf16=True)
    assert further <= PAST_IN_BF16
    assert off <= OFF_IN_BF16


@pytest.mark.parametrize("scale", [1.0, 1 + 1 / 128, 1 + 37 / 128])
def test_under_autocast_no_image_of_one_colour_is_rounded_past_the_bound(scale: float) -> None:
    """Every product rounds alike: a norm of gradients rounded to bf16 let such an image add up to 1.0037 C."""
    network = nn.Sequential(nn.Conv2d(24, 24, 3, bias=False)).train()
    most = 1e-3
    with forced("dropped"):
        for step in range(0, 128, 5):
            hooks = OnePassHooks(network, most)
            with torch.autocast("cpu", torch.bfloat16):
                output = network(torch.full((1, 24, 9, 9), 1 + step / 128))
            (scale * output.float()).sum().backward()
            moved = torch.cat([total.flatten().double() for _, total in hooks.clipped_sums()]).norm()
            hooks.cleanup()
            assert float(moved) <= most * (1 + PAST_IN_BF16)


def test_half_of_the_examples_are_clipped() -> None:
    for name in NETWORKS:
        network = make(name)
        norms = one_pass(network, images(1), 1.0).norms
        assert 2 <= int((norms > threshold(network, 1)).sum()) <= EXAMPLES - 2


def test_a_norm_taken_on_the_standardised_weight_would_be_found_out() -> None:
    def of_the_effective_weight(self: ConvolutionGradients, kept: None = None) -> Tensor:
        with mock.patch("lightning_fed.privacy.clipping.convolution.effective_weight", return_value=None):
            return torch.cat([block.flatten(1).square().sum(1) for block in self._blocks(torch.float32)])

    network = make("weight standardisation")
    with forced("dropped"):
        assert worst(network, 1, bf16=False)[0] <= EXACT
        with mock.patch.object(ConvolutionGradients, "_squares_of_blocks", of_the_effective_weight):
            assert worst(network, 1, bf16=False)[0] > 0.2


def test_norms_are_those_of_the_raw_weight() -> None:
    network = make("weight standardisation")
    true = clip(brute_force(network, images(1)), 1.0).norms
    found: Clipped = one_pass(network, images(1), 1.0)
    torch.testing.assert_close(found.norms.double(), true, rtol=1e-5, atol=0)


def test_a_bare_parameter_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="BareParameter"):
        OnePassHooks(BareParameter(), 1.0)


def test_several_views_are_one_example() -> None:
    """K views of an example move the sum by C at most, not by K times C."""
    network = make("norm after sum")
    most = threshold(network, 3)
    single = one_pass(network, images(3), most, views=1)
    together = one_pass(network, images(3), most, views=3)
    assert len(single.norms) == 3 * len(together.norms)
    assert max(length(move) for move in moves(network, 3, False, most)) <= most * (1 + EXACT)
    rows = images(3)[:3]
    mean = squares(network(rows)).mean()
    gradients = torch.autograd.grad(mean, list(network.parameters()))
    norm = torch.stack([own.norm() for own in gradients]).norm()
    torch.testing.assert_close(together.norms[0], norm, rtol=1e-5, atol=0)
