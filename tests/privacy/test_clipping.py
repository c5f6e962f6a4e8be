"""Norms and clipped sums of one pass are those of Opacus's hooks and of autograd one example at a time."""

from __future__ import annotations

import contextlib
import copy
import gc
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.models.dpresnet import DPResNet
from lightning_fed.models.resnet import ResNet9, ResNet18
from lightning_fed.privacy.clipping import convolution
from lightning_fed.privacy.clipping.gram import gram_squares
from lightning_fed.privacy.clipping.layers import Linear
from lightning_fed.privacy.clipping.one_pass import OnePassHooks, strangers
from lightning_fed.privacy.clipping.tally import squares_of
from lightning_fed.privacy.clipping.ways import WAYS, ClippedSums
from tests.privacy.clipping_networks import (
    BareParameter,
    NormAfterSum,
    SharedWeight,
    StandardConv2d,
    UsedTwice,
)
from tests.privacy.clipping_reference import (
    FORCED,
    Clipped,
    assert_equal,
    autocast,
    brute_force,
    by_opacus,
    clip,
    forced,
    one_pass,
    squares,
    trained,
)

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # Opacus's own

RELATIVE = 1e-4
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "DPResNet 2": (lambda: DPResNet(3, 4, 2), (3, 9, 11)),
    "DPResNet 8": (lambda: DPResNet(1, 8, 8), (1, 12, 12)),
    "ResNet-9": (lambda: ResNet9(3, 4, 4), (3, 16, 17)),
    "ResNet-18": (lambda: ResNet18(3, 4, 4), (3, 12, 13)),
    "norm after sum": (NormAfterSum, (2, 5, 6)),
    "weight standardisation": (lambda: NormAfterSum(StandardConv2d), (2, 5, 6)),
    "used twice": (UsedTwice, (2, 5, 5)),
    "used twice, standardised": (lambda: UsedTwice(StandardConv2d), (2, 5, 5)),
    "shared": (SharedWeight, (2, 7, 6)),
}


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fill(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that differ from everything's defaults."""
    for place, parameter in enumerate(network.parameters()):
        with torch.no_grad():
            parameter.copy_(0.3 * draw(seed + place, *parameter.shape) + (0.7 if parameter.dim() == 1 else 0))
    return network


def all_positive(network: nn.Module, rows: Tensor) -> Tensor:
    """Weights and rows under which no parts of a gradient cancel, where Gram matrices lose digits."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    return rows.abs()


def check(network: nn.Module, rows: Tensor, views: int = 1, with_opacus: bool = True) -> Clipped:
    """Norms and sums at a threshold that clips some examples, against both references."""
    gradients = brute_force(network, rows, views)
    norms = clip(gradients, 1.0).norms
    most = float(norms.median()) if len(norms) else 1.0
    found = one_pass(network, rows, most, views)
    assert_equal(found, clip(gradients, most), RELATIVE)
    if with_opacus and views == 1 and len(rows):
        assert_equal(found, clip(by_opacus(network, rows), most), 2 * RELATIVE)
    return found


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Conv2d, tuple[int, int, int]]:
    """A convolution and the shape of an image that it takes."""
    groups, each = draw(st.integers(1, 3)), st.integers(1, 3)
    kernel, dilation = draw(st.tuples(each, each)), draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    pixels = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding: Any = draw(st.one_of(pixels, st.sampled_from(["same", "valid"])))
    stride = (1, 1) if padding == "same" else draw(st.tuples(each, each))
    reach = [apart * (size - 1) for apart, size in zip(dilation, kernel, strict=True)]
    if padding == "same" and any(width % 2 for width in reach):
        padding = "valid"
    known = {"same": reach, "valid": (0, 0)}
    free = known[padding] if isinstance(padding, str) else [2 * one for one in padding]
    least = [max(1, width + 1 - given) for width, given in zip(reach, free, strict=True)]
    inputs, outputs = groups * draw(each), groups * draw(each)
    enough = inputs // groups * math.prod(kernel) > 3  # of two numbers standardisation makes plus and minus one
    kind = StandardConv2d if enough and draw(st.booleans()) else nn.Conv2d
    layer = kind(inputs, outputs, kernel, stride, padding, dilation, groups, draw(st.booleans()))
    return layer, (inputs, *(size + draw(st.integers(0, 5)) for size in least))


@pytest.mark.parametrize("way", FORCED)
@given(drawn=convolutions(), examples=st.integers(0, 4), views=st.integers(1, 4), seed=st.integers(0, 99))
def test_every_convolution_by_every_way(
    way: str, drawn: tuple[nn.Conv2d, tuple[int, int, int]], examples: int, views: int, seed: int
) -> None:
    layer, shape = drawn
    network = nn.Sequential(fill(layer, seed))
    with forced(way):
        rows = draw(seed, examples * views, *shape)
        if "Gram" in way:
            rows = all_positive(network, rows)
        check(network, rows, views, with_opacus=type(layer) is nn.Conv2d)


@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    positions=st.lists(st.integers(1, 4), max_size=2),
    bias=st.booleans(),
    examples=st.integers(0, 4),
    views=st.integers(1, 4),
)
def test_every_linear_layer(
    sizes: tuple[int, int], positions: list[int], bias: bool, examples: int, views: int
) -> None:
    network = nn.Sequential(fill(nn.Linear(*sizes, bias)))
    check(network, all_positive(network, draw(1, examples * views, *positions, sizes[0])), views)


@pytest.mark.parametrize(("positions", "by_gram"), [(1, True), (2, True), (4, False)])
def test_a_linear_layer_keeps_its_gradients_where_gram_matrices_do_not_pay(positions: int, by_gram: bool) -> None:
    network = nn.Sequential(fill(nn.Linear(6, 6)))
    hooks = OnePassHooks(network, 1.0)
    squares(network(draw(0, 2, positions, 6))).sum().backward()
    assert (network[0].weight in hooks.tally.deferred) is by_gram
    hooks.cleanup()
    check(network, draw(0, 2, positions, 6))


@given(
    groups=st.integers(1, 3),
    each=st.integers(1, 3),
    size=st.lists(st.integers(1, 4), max_size=2),
    bias=st.booleans(),
    examples=st.integers(0, 4),
    views=st.integers(1, 4),
)
def test_every_group_norm(groups: int, each: int, size: list[int], bias: bool, examples: int, views: int) -> None:
    if each * math.prod(size) == 1:
        size = [2]  # of one number a norm makes nothing
    layer = fill(nn.GroupNorm(groups, groups * each))
    if not bias:
        layer.bias = None
    # Opacus takes images alone, with a shift, and torch's own layer no batch of one beside a channel of one.
    opacus = bias and len(size) == 2 and each * math.prod(size) > 1
    check(nn.Sequential(layer), draw(2, examples * views, groups * each, *size), views, with_opacus=opacus)


@given(
    shape=st.lists(st.integers(2, 4), min_size=1, max_size=2),
    positions=st.lists(st.integers(1, 3), max_size=2),
    bias=st.booleans(),
    examples=st.integers(0, 4),
    views=st.integers(1, 4),
)
def test_every_layer_norm(shape: list[int], positions: list[int], bias: bool, examples: int, views: int) -> None:
    network = nn.Sequential(fill(nn.LayerNorm(shape, bias=bias)))
    check(network, draw(3, examples * views, *positions, *shape), views, with_opacus=bias)


@pytest.mark.parametrize("way", FORCED)
@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks_by_every_way(name: str, way: str) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(3)
    with forced(way):
        check(make(), draw(4, 4, *shape), with_opacus="standardi" not in name)


@pytest.mark.parametrize("views", [1, 2, 3, 4])
@pytest.mark.parametrize("examples", [0, 1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks_with_several_views_of_few_examples(name: str, examples: int, views: int) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(5)
    check(make(), draw(6, examples * views, *shape), views, with_opacus=False)


def test_gram_matrices_that_cancel_never_give_a_norm_too_small() -> None:
    """Inputs nearly the same everywhere, under a gradient of mean nearly zero."""
    torch.manual_seed(0)
    worst = 0.0
    for exponent in range(9):
        inputs = 10 + 10.0**-exponent * torch.randn(8, 49, 64)
        outputs = torch.randn(8, 49, 32)
        outputs -= outputs.mean(1, keepdim=True)
        true = (inputs.double().mT @ outputs.double()).square().sum((1, 2))
        found = gram_squares(inputs @ inputs.mT, outputs @ outputs.mT, 64).double()
        bare = ((inputs @ inputs.mT) * (outputs @ outputs.mT)).sum((1, 2)).double()
        worst = max(worst, float(((true - bare) / true).max()))
        assert (found >= true * (1 - 1e-6)).all()
    assert worst > 0.1  # without the bound it would be too small


def test_nor_where_the_inner_products_are_long() -> None:
    """Two positions of 4,096 numbers: with the slack of a short product a norm was up to 1.8 % short."""
    short = 0
    for seed in range(100):
        torch.manual_seed(seed)
        inputs = 10 + 0.01 * torch.randn(8, 2, 4096)
        outputs = torch.randn(8, 2, 512)
        outputs -= outputs.mean(1, keepdim=True)
        true = (inputs.double().mT @ outputs.double()).square().sum((1, 2))
        grams = inputs @ inputs.mT, outputs @ outputs.mT
        assert (gram_squares(*grams, 4096).double() >= true * (1 - 1e-6)).all()
        short += int((gram_squares(*grams, 1).double() < true * (1 - 1e-6)).sum())
    assert short > 0


def test_no_gradient_of_a_weight_is_made_in_tf32() -> None:
    seen = []
    own = convolution.Geometry._backward

    def watched(self: convolution.Geometry, *arguments: Any) -> Any:
        seen.append((arguments[-1], torch.backends.cudnn.conv.fp32_precision))
        return own(self, *arguments)

    network = fill(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3)))
    before = torch.backends.cudnn.conv.fp32_precision
    try:
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        with mock.patch.object(convolution.Geometry, "_backward", watched):
            one_pass(network, draw(6, 3, 2, 8, 8), 1.0)
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    finally:
        torch.backends.cudnn.conv.fp32_precision = before
    of_weights = [precision for (_, weight, _), precision in seen if weight]
    assert set(of_weights) == {"ieee"}


PARTS = ("0", "0.weight", "0.bias", "1", "1.weight", "1.bias", "4", "4.weight", "4.bias")


@pytest.mark.parametrize("shape", [(3,), (5, 3), (512, 4608), (512, 512, 3, 3)])
def test_norms_of_long_gradients_do_not_fall_short(shape: tuple[int, ...]) -> None:
    gradients = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    true = gradients.double().square().flatten(1).sum(1)
    torch.testing.assert_close(squares_of(gradients).double(), true, rtol=2e-6, atol=0)


@pytest.mark.parametrize("frozen", PARTS)
def test_frozen_parameters_are_left_out(frozen: str) -> None:
    layers = (nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    network = fill(nn.Sequential(*layers))
    for name, parameter in network.named_parameters():
        parameter.requires_grad = not name.startswith(frozen)
    found = check(network, draw(7, 3, 2, 4, 4))
    assert not any(name.startswith(frozen) for name in found.sums)
    assert len(found.sums) == 6 - (2 if len(frozen) == 1 else 1)


def test_a_frozen_body_is_never_walked_back_through() -> None:
    network = fill(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 3)))
    network[0].requires_grad_(False)
    assert check(network, draw(8, 3, 2, 4, 4)).sums.keys() == {"2.weight", "2.bias"}


@pytest.mark.parametrize("name", NETWORKS)
def test_output_and_input_gradient_are_those_of_plain_autograd(name: str) -> None:
    make, shape = NETWORKS[name]
    network = make()
    rows = draw(9, 3, *shape).requires_grad_()
    plain = network(rows)
    (expected,) = torch.autograd.grad(squares(plain).sum(), rows)
    hooks = OnePassHooks(network, 1.0)
    output = network(rows)
    torch.testing.assert_close(output, plain)
    (found,) = torch.autograd.grad(squares(output).sum(), rows)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    hooks.cleanup()


@pytest.mark.parametrize("layer", [nn.Conv2d(2, 2, 1), nn.GroupNorm(1, 2), nn.LayerNorm(3), nn.Linear(3, 3)])
def test_an_activation_in_place_after_a_layer_is_right(layer: nn.Module) -> None:
    network = nn.Sequential(fill(layer), nn.ReLU(inplace=True), nn.Conv2d(2, 2, 1), nn.ELU(inplace=True))
    check(network, draw(10, 3, 2, 3, 3), with_opacus=False)


@pytest.mark.parametrize("layer", [nn.Conv2d(2, 2, 1), nn.GroupNorm(1, 2), nn.LayerNorm(3), nn.Linear(3, 3)])
def test_a_change_in_place_of_what_a_layer_took_raises(layer: nn.Module) -> None:
    class Overwritten(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, rows: Tensor) -> Tensor:
            features = rows * 2
            output = self.layer(features)
            features.mul_(3)
            return output

    network = Overwritten()
    hooks = OnePassHooks(network, 1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squares(network(draw(11, 2, 2, 3, 3))).sum().backward()
    hooks.cleanup()


def test_an_input_overwritten_before_the_sums_raises() -> None:
    network = nn.Sequential(nn.Conv2d(8, 64, 3), nn.Flatten(), nn.Linear(64, 3))
    rows = draw(12, 2, 8, 3, 3)
    hooks = OnePassHooks(network, 1.0)
    squares(network(rows)).sum().backward()
    rows.zero_()
    with pytest.raises(RuntimeError, match="changed in place"):
        list(hooks.clipped_sums())
    hooks.cleanup()


def test_the_network_is_given_back_as_it_was() -> None:
    network = DPResNet(3, 4, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rows = draw(13, 2, 3, 8, 8)
    attributes = [set(vars(module)) for module in network.modules()]
    for _ in range(2):
        hooks = OnePassHooks(network, 1.0)
        assert network.state_dict().keys() == before.keys()
        squares(network(rows)).sum().backward()
        first = {id(own): total for own, total in hooks.clipped_sums()}
        assert first.keys() == {id(own) for own in network.parameters()}
        hooks.cleanup()
        assert [set(vars(module)) for module in network.modules()] == attributes
        assert not network._forward_pre_hooks
        assert not any(own._backward_hooks for own in network.parameters())
        assert not any(hasattr(own, "grad_sample") for own in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    squares(network(rows)).sum().backward()
    assert all(own.grad is not None for own in network.parameters())


def test_hooks_twice_are_refused() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    hooks = OnePassHooks(network, 1.0)
    with pytest.raises(ValueError, match="replaced already"):
        OnePassHooks(network, 1.0)
    hooks.cleanup()
    OnePassHooks(network, 1.0).cleanup()


@pytest.mark.parametrize("quiet", ["eval", "no_grad", "disabled"])
def test_outside_training_layers_use_their_own_forward_pass(quiet: str) -> None:
    network = NormAfterSum(StandardConv2d)
    rows = draw(14, 3, 2, 5, 5)
    plain = network(rows)
    hooks = OnePassHooks(network, 1.0)
    watched = mock.patch.object(torch.autograd.Function, "apply", side_effect=AssertionError)
    with watched, contextlib.ExitStack() as stack:
        if quiet == "eval":
            network.eval()
        elif quiet == "no_grad":
            stack.enter_context(torch.no_grad())
        else:
            hooks.disable_hooks()
        assert torch.equal(network(rows), plain)
    if quiet == "eval":
        squares(network(rows)).sum().backward()
        assert all(own.grad is not None for own in network.parameters())
    hooks.cleanup()


def test_a_copy_of_the_network_has_weights_of_its_own_and_is_not_watched() -> None:
    network = fill(nn.Sequential(nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(2, 2)))
    rows = draw(15, 2, 2, 3, 3)
    hooks = OnePassHooks(network, 1.0)
    double = copy.deepcopy(network)
    with torch.no_grad():
        for own in double.parameters():
            own.zero_()
    assert not double.eval()(rows).any()
    assert not double.train()(rows).any()
    assert hooks.tally.rows is None
    hooks.cleanup()


def test_a_look_at_metrics_between_forward_and_backward_changes_nothing() -> None:
    network = nn.Sequential(nn.Linear(3, 2))
    rows = draw(16, 4, 3)
    hooks = OnePassHooks(network, 1.0)
    output = network(rows)
    with torch.no_grad():
        network(rows[:2])
    squares(output).sum().backward()
    expected = clip(brute_force(network, rows), 1.0)
    assert_equal(Clipped(hooks.get_norm_sample(), dict(named_sums(network, hooks))), expected, RELATIVE)
    hooks.cleanup()


def named_sums(network: nn.Module, hooks: OnePassHooks) -> Iterator[tuple[str, Tensor]]:
    names = {id(own): name for name, own in network.named_parameters()}
    return ((names[id(own)], total) for own, total in hooks.clipped_sums())


def test_what_a_pass_leaves_is_freed_without_the_garbage_collector() -> None:
    network = DPResNet(3, 4, 2)
    hooks = OnePassHooks(network, 1.0)
    gc.disable()
    try:
        squares(network(draw(28, 2, 3, 8, 8))).sum().backward()
        tally = weakref.ref(hooks.tally)
        assert tally().deferred
        list(hooks.clipped_sums())
        assert tally() is None
    finally:
        gc.enable()
    hooks.cleanup()


def test_a_layer_that_took_no_part_has_a_sum_of_zeros() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(3, 2), nn.Conv2d(2, 2, 3)

        def forward(self, rows: Tensor) -> Tensor:
            return self.used(rows)

    found = check(Half(), draw(17, 3, 3), with_opacus=False)
    assert found.sums["idle.weight"].shape == (2, 2, 3, 3)
    assert not found.sums["idle.weight"].any()


def test_a_second_backward_pass_is_never_added_wrongly() -> None:
    network = nn.Sequential(nn.Linear(6, 6))
    hooks = OnePassHooks(network, 1.0)
    loss = squares(network(draw(18, 2, 6))).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="a backward pass to each forward pass"):
        loss.backward()
    hooks.cleanup()


def test_a_backward_pass_of_an_earlier_forward_pass_raises() -> None:
    network = nn.Sequential(nn.Linear(6, 6))
    hooks = OnePassHooks(network, 1.0)
    early = squares(network(draw(18, 2, 6))).sum()
    squares(network(draw(19, 2, 6))).sum().backward()
    with pytest.raises(RuntimeError, match="a backward pass to each forward pass"):
        early.backward()
    hooks.cleanup()


def test_rows_that_are_no_examples_are_refused() -> None:
    network = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Flatten(0, 1), nn.Linear(3, 2))
    hooks = OnePassHooks(network, 1.0)
    with pytest.raises(RuntimeError, match="a layer sees 4 rows where another saw 2"):
        network(draw(20, 2, 2, 3, 3))
    hooks.cleanup()


def test_a_batch_that_is_no_multiple_of_the_views_is_refused() -> None:
    network = nn.Sequential(nn.Linear(3, 2))
    hooks = OnePassHooks(network, 1.0, views=2)
    with pytest.raises(RuntimeError, match="2 to an example"):
        network(draw(20, 3, 3))
    hooks.cleanup()


def test_a_weight_used_outside_its_layer_is_refused() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, rows: Tensor) -> Tensor:
            return functional.linear(self.layer(rows), self.layer.weight)

    network = Tied()
    hooks = OnePassHooks(network, 1.0)
    with pytest.raises(RuntimeError, match="passes the clipping by"):
        squares(network(draw(21, 2, 3))).sum().backward()
    hooks.cleanup()


def test_a_layer_in_evaluation_mode_while_others_train_is_refused() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    network[1].eval()
    hooks = OnePassHooks(network, 1.0)
    with pytest.raises(RuntimeError, match="passes the clipping by"):
        squares(network(draw(22, 2, 3))).sum().backward()
    hooks.cleanup()


@pytest.mark.parametrize("way", ["one_pass", "hooks", "functorch"])
@pytest.mark.parametrize("wild", [torch.inf, torch.nan])
@pytest.mark.parametrize("kept", [0.0, 1e9])
def test_an_example_whose_gradient_is_not_finite_is_as_if_it_were_not_there(
    monkeypatch: pytest.MonkeyPatch, way: str, wild: float, kept: float
) -> None:
    monkeypatch.setattr(convolution, "KEPT_AT_MOST", kept)
    rows = draw(23, 3, 3, 6, 6)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 2))
    clipped = ClippedSums(network, way, 0.5)
    clipped.backward(squares(network(rows[[0, 2]])))
    expected = [total.clone() for _, total in clipped.sums()[1]]
    rows[1, 1, 2, 3] = wild
    clipped.backward(squares(network(rows)))
    norms, sums = clipped.sums()
    assert torch.isinf(norms).tolist() == [False, True, False]
    for (_, found), wanted in zip(sums, expected, strict=True):
        torch.testing.assert_close(found, wanted)


class OwnLinear(nn.Linear):
    """A user's layer, which may compute anything."""


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)), "1 (BatchNorm2d)"),
        (BareParameter(), "the network itself (BareParameter)"),
        (nn.Sequential(nn.Embedding(3, 2)), "0 (Embedding)"),
        (nn.Sequential(OwnLinear(3, 2)), "0 (OwnLinear)"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect")), "0 (Conv2d)"),
        (nn.Sequential(nn.Conv2d(1, 2, 2, padding="same")), "0 (Conv2d)"),
        (nn.Sequential(nn.Conv1d(1, 2, 2)), "0 (Conv1d)"),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))), "0 (ParametrizedLinear)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_known_is_named_and_refused(network: nn.Module, named: str) -> None:
    assert named in strangers(network)
    with pytest.raises(NotImplementedError) as refusal:
        OnePassHooks(network, 1.0)
    assert named in str(refusal.value)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_weight_under_another_name_is_not_known() -> None:
    assert strangers(nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 2)))) == ["0 (Linear)"]


def test_what_is_frozen_need_not_be_known() -> None:
    assert strangers(nn.Sequential(nn.Embedding(3, 2).requires_grad_(False), nn.Linear(2, 2))) == []


@pytest.mark.parametrize("inside", [False, True])
def test_under_autocast_norms_and_sums_are_float32_wherever_backward_is_called(inside: bool) -> None:
    network = DPResNet(3, 4, 4)
    rows = draw(24, 3, 3, 9, 9)
    hooks = OnePassHooks(network, 1.0)
    with autocast(True):
        output = network(rows)
        if inside:
            squares(output).sum().backward()
            norms, sums = hooks.get_norm_sample(), dict(named_sums(network, hooks))
    if not inside:
        squares(output).sum().backward()
        norms, sums = hooks.get_norm_sample(), dict(named_sums(network, hooks))
    hooks.cleanup()
    assert norms.dtype == torch.float32
    assert all(total.dtype == torch.float32 for total in sums.values())
    same = one_pass(network, rows, 1.0, bf16=True)
    assert torch.equal(norms, same.norms)
    assert all(torch.equal(sums[name], same.sums[name]) for name in sums)


@pytest.mark.parametrize("layer", [nn.GroupNorm(2, 4), nn.LayerNorm(4)])
def test_under_autocast_norm_layers_compute_in_float32(layer: nn.Module) -> None:
    network = nn.Sequential(layer)
    rows = draw(25, 3, 4, 4).to(torch.bfloat16)
    hooks = OnePassHooks(network, 1.0)
    with autocast(True):
        output = network(rows)
    hooks.cleanup()
    assert torch.equal(output, network(rows.float()))


@pytest.mark.parametrize("way", WAYS)
def test_the_four_ways_agree(way: str) -> None:
    network = DPResNet(3, 4, 4)
    rows = draw(26, 4, 3, 8, 8)
    most = float(clip(brute_force(network, rows), 1.0).norms.median())
    expected = clip(brute_force(network, rows), most)
    clipped = ClippedSums(network, way, most)
    for _ in range(2):
        clipped.backward(squares(network(rows)))
        norms, sums = clipped.sums()
        names = list(trained(network))
        totals = dict(zip(names, (total for _, total in sums), strict=True))
        assert_equal(Clipped(norms, totals), expected, 1e-4)


def test_a_linear_layer_takes_its_input_by_name() -> None:
    network = nn.Sequential(nn.Linear(3, 2))
    hooks = OnePassHooks(network, 1.0)
    with mock.patch.object(Linear, "apply", wraps=Linear.apply) as applied:
        network[0](input=draw(27, 2, 3))
    assert applied.called
    hooks.cleanup()
