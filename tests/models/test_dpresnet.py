import pytest
import torch
from torch import nn

from lightning_fed.models.dpresnet import Block, DPResNet
from lightning_fed.models.layers import group_norm


def multiply_adds(network: nn.Module, images: torch.Tensor) -> int:
    """Multiply-adds of all convolutions and linear layers for one image, counted by forward hooks."""
    counted = []

    def count(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        per_output = layer.in_channels * 9 if isinstance(layer, nn.Conv2d) else layer.in_features
        counted.append(per_output * output[0].numel())

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    network(images)
    return sum(counted)


def test_the_papers_width_costs_about_640_million_multiply_adds_an_image() -> None:
    assert multiply_adds(DPResNet(3, 8, 64), torch.zeros(1, 3, 28, 28)) == pytest.approx(640e6, rel=0.01)


def test_the_papers_width_has_4_802_120_parameters() -> None:
    assert sum(parameter.numel() for parameter in DPResNet(3, 8, 64).parameters()) == 4_802_120


def test_the_layers_are_the_papers() -> None:
    network = DPResNet(3, 8, 64)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    shapes = [(layer.in_channels, layer.out_channels, layer.stride[0]) for layer in convolutions]
    assert shapes == [
        (3, 64, 1),
        (64, 128, 1),
        *[(128, 128, 1), (128, 128, 1)],
        *[(128, 256, 2), (256, 256, 1)],
        *[(256, 512, 2), (512, 512, 1)],
    ]
    assert {layer.kernel_size for layer in convolutions} == {(3, 3)}
    assert all(layer.bias is None for layer in convolutions)
    assert sum(isinstance(layer, nn.ReLU) for layer in network.modules()) == 5
    assert not any(isinstance(layer, nn.MaxPool2d | nn.BatchNorm2d) for layer in network.modules())


@pytest.mark.parametrize(("width", "groups"), [(64, {32}), (16, {8, 16, 32}), (2, {1, 2, 4, 8})])
def test_groups_are_the_lesser_of_32_and_half_the_channels(width: int, groups: set[int]) -> None:
    norms = [layer for layer in DPResNet(3, 8, width).modules() if isinstance(layer, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == groups
    assert all(norm.num_groups == min(32, norm.num_channels // 2) for norm in norms)


@pytest.mark.parametrize("width", range(2, 130, 2))
def test_where_the_rule_does_not_divide_the_channels_the_next_smaller_number_does(width: int) -> None:
    for channels in (width, 2 * width, 4 * width, 8 * width):
        groups = group_norm(channels).num_groups
        most = min(32, channels // 2)
        assert groups == max(number for number in range(1, most + 1) if channels % number == 0)


def silenced(block: Block) -> torch.Tensor:
    """The block's output on random features where its own layers give zero."""
    for parameter in block.layers[1].parameters():
        nn.init.zeros_(parameter)
    return block(features_for(block))


def features_for(block: Block) -> torch.Tensor:
    channels = block.layers[0][0].in_channels
    return torch.rand(2, channels, 6, 6, generator=torch.Generator().manual_seed(0)) - 0.5


def test_only_the_first_block_has_a_skip_and_it_is_the_identity_without_a_relu_after() -> None:
    first, second, third = (layer for layer in DPResNet(3, 8, 8).modules() if isinstance(layer, Block))
    assert torch.equal(silenced(first), features_for(first))
    assert silenced(second).abs().max() == 0
    assert silenced(third).abs().max() == 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 28, 65])
@pytest.mark.parametrize("width", [2, 6, 16])
def test_logits_have_one_row_an_image_and_one_column_a_class(channels: int, size: int, width: int) -> None:
    assert DPResNet(channels, 5, width)(torch.zeros(2, channels, size, size)).shape == (2, 5)
