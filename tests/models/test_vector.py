import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_fed.models.dpresnet import DPResNet
from lightning_fed.models.resnet import ResNet9, Style
from lightning_fed.models.vector import load_vector, to_vector, trainable_entries, vector_size


def small(seed: int = 0) -> nn.Module:
    """Two convolutions' worth of everything: weights, biases, running statistics and a counter."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    network(torch.randn(5, 2, 4, 4))
    return network


def test_a_vector_holds_every_float_of_the_state_in_its_order_and_no_counter() -> None:
    network = small()
    state = network.state_dict()
    wanted = [values.flatten() for name, values in state.items() if "num_batches_tracked" not in name]
    assert np.array_equal(to_vector(network), torch.cat(wanted).numpy())
    assert to_vector(network).dtype == np.float32
    assert vector_size(network) == len(to_vector(network)) == 54 + 3 + 4 * 3 + 24 + 2


def test_a_loaded_vector_carries_weights_and_running_statistics_but_not_the_counter() -> None:
    source, target = small(0), small(1)
    target[1].num_batches_tracked.fill_(77)
    load_vector(target, to_vector(source))
    for name, values in source.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert target.state_dict()[name] == 77
        else:
            assert torch.equal(target.state_dict()[name], values)
    assert source[1].running_mean.abs().max() > 0


@given(seed=st.integers(0, 1000))
def test_any_vector_comes_back_to_the_bit(seed: int) -> None:
    network = small()
    vector = np.random.default_rng(seed).standard_normal(vector_size(network)).astype(np.float32)
    load_vector(network, vector)
    assert np.array_equal(to_vector(network), vector)


def test_a_vector_is_a_copy_and_so_are_the_weights_that_take_it_up() -> None:
    network = small()
    vector = to_vector(network)
    before = vector.copy()
    vector += 1
    assert np.array_equal(to_vector(network), before)
    load_vector(network, vector)
    vector += 1
    assert np.array_equal(to_vector(network), before + 1)


def test_a_read_only_vector_is_taken_without_a_warning_and_stays_as_it_was() -> None:
    network = small()
    vector = np.arange(vector_size(network), dtype=np.float32)
    vector.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_vector(network, vector)
    with torch.no_grad():
        network[0].weight.add_(1)
    assert vector[0] == 0


def test_loading_keeps_the_parameters_that_an_optimizer_holds() -> None:
    network = small()
    held = list(network.parameters())
    load_vector(network, np.zeros(vector_size(network), np.float32))
    assert all(one is other for one, other in zip(held, network.parameters(), strict=True))
    assert all(parameter.requires_grad and not parameter.any() for parameter in held)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_vector_of_another_length_is_refused_and_nothing_is_changed(change: int) -> None:
    network = small()
    before = to_vector(network)
    with pytest.raises(ValueError, match="does not fit 95 weights"):
        load_vector(network, np.zeros(vector_size(network) + change, np.float32))
    assert np.array_equal(to_vector(network), before)


def test_a_matrix_of_the_right_size_is_refused() -> None:
    network = small()
    with pytest.raises(ValueError, match="does not fit"):
        load_vector(network, np.zeros((1, vector_size(network)), np.float32))


def test_trainable_entries_are_the_parameters_and_not_the_running_statistics() -> None:
    network = small()
    load_vector(network, np.where(trainable_entries(network), 1, 2).astype(np.float32))
    assert all((parameter == 1).all() for parameter in network.parameters())
    assert (network[1].running_mean == 2).all()
    assert (network[1].running_var == 2).all()


@pytest.mark.parametrize(
    "network", [DPResNet(3, 8, 4), ResNet9(3, 8, 4, Style("batch"))], ids=["group norms", "batch norms"]
)
def test_as_many_entries_are_trainable_as_there_are_parameters(network: nn.Module) -> None:
    trainable = trainable_entries(network)
    assert trainable.sum() == sum(parameter.numel() for parameter in network.parameters())
    assert len(trainable) == vector_size(network)
