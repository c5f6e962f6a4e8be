import pytest
import torch
from torch import nn

from lightning_fed.models.resnet import BasicBlock, ResNet9, ResNet18, Style


def conv(inputs: int, outputs: int, kernel: int = 3) -> int:
    """Weights of a convolution without bias and of its norm."""
    return inputs * outputs * kernel**2 + 2 * outputs


def resnet9_parameters(width: int, channels: int, classes: int) -> int:
    w = width
    return (
        conv(channels, w)
        + conv(w, 2 * w)
        + 2 * conv(2 * w, 2 * w)
        + conv(2 * w, 4 * w)
        + conv(4 * w, 8 * w)
        + 2 * conv(8 * w, 8 * w)
        + (8 * w + 1) * classes
    )


def resnet18_parameters(width: int, channels: int, classes: int) -> int:
    total = conv(channels, width) + 4 * conv(width, width)
    for inputs in (width, 2 * width, 4 * width):
        total += conv(inputs, 2 * inputs) + 3 * conv(2 * inputs, 2 * inputs) + conv(inputs, 2 * inputs, 1)
    return total + (8 * width + 1) * classes


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_resnet9_has_the_parameters_of_its_layers(norm: str) -> None:
    assert parameters(ResNet9(3, 8, 64, Style(norm))) == resnet9_parameters(64, 3, 8) == 6_572_104
    assert parameters(ResNet9(1, 5, 10, Style(norm))) == resnet9_parameters(10, 1, 5)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_resnet18_has_the_parameters_of_its_layers(norm: str) -> None:
    assert parameters(ResNet18(3, 8, 64, Style(norm))) == resnet18_parameters(64, 3, 8) == 11_172_936
    assert parameters(ResNet18(1, 5, 10, Style(norm))) == resnet18_parameters(10, 1, 5)


@pytest.mark.parametrize("kind", [ResNet9, ResNet18])
def test_the_norm_is_the_one_that_was_asked_for_and_no_other(kind: type[nn.Module]) -> None:
    for norm, wanted, other in (("group", nn.GroupNorm, nn.BatchNorm2d), ("batch", nn.BatchNorm2d, nn.GroupNorm)):
        modules = list(kind(3, 8, 4, Style(norm)).modules())
        assert any(isinstance(module, wanted) for module in modules)
        assert not any(isinstance(module, other) for module in modules)


@pytest.mark.parametrize("kind", [ResNet9, ResNet18])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 28, 65])
@pytest.mark.parametrize("width", [2, 6, 16])
def test_logits_have_one_row_an_image_and_one_column_a_class(
    kind: type[nn.Module], channels: int, size: int, width: int
) -> None:
    assert kind(channels, 5, width)(torch.zeros(2, channels, size, size)).shape == (2, 5)


def test_a_basic_block_skips_by_identity_where_the_shape_stays_and_by_1x1_elsewhere() -> None:
    same = BasicBlock(4, 4, 1, Style("batch"))
    down = BasicBlock(4, 8, 2, Style("batch"))
    assert isinstance(same.skip, nn.Identity)
    assert down.skip[0].kernel_size == (1, 1)
    for parameter in same.second.parameters():
        nn.init.zeros_(parameter)
    features = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(same(features), features.relu())


@pytest.mark.parametrize("kind", ["max_pool", "average_pool"])
@pytest.mark.parametrize("size", [8, 28, 65])
def test_the_other_stems_take_a_7x7_and_a_pooling_and_no_more_weights_than_that(kind: str, size: int) -> None:
    small, other = ResNet18(3, 5, 4), ResNet18(3, 5, 4, kind=kind)
    assert parameters(other) - parameters(small) == 3 * 4 * (49 - 9)
    assert other(torch.zeros(2, 3, size, size)).shape == (2, 5)
    pools = [nn.AvgPool2d, nn.MaxPool2d]
    wanted = pools[kind == "max_pool"]
    assert [type(layer) for layer in other.layers if type(layer) in pools] == [wanted]
