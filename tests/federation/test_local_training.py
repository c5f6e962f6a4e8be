from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_fed.data.datamodule import Plan
from lightning_fed.experiment import Training
from lightning_fed.federation.local_training import FollowSchedule, ProximalPull
from lightning_fed.models.schedule import Schedule


def test_the_proximal_pull_is_the_gradient_of_its_term() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    pull = ProximalPull(0.3)
    pull.on_train_start(SimpleNamespace(optimizers=[]), network)
    start = [parameter.detach().clone() for parameter in network.parameters()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
    images = torch.randn(4, 3)

    network(images).sum().backward()
    pull.on_before_optimizer_step(None, network, None)
    found = [parameter.grad.clone() for parameter in network.parameters()]

    network.zero_grad()
    distance = sum((one - other).square().sum() for one, other in zip(network.parameters(), start, strict=True))
    (network(images).sum() + 0.3 / 2 * distance).backward()
    for one, parameter in zip(found, network.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)


def test_a_frozen_parameter_is_left_alone() -> None:
    network = nn.Linear(3, 2)
    network.bias.requires_grad_(False)
    pull = ProximalPull(0.3)
    pull.on_train_start(SimpleNamespace(optimizers=[]), network)
    network(torch.ones(1, 3)).sum().backward()
    pull.on_before_optimizer_step(None, network, None)
    assert network.bias.grad is None


@pytest.mark.parametrize(("round", "step", "rate"), [(1, 0, 0.005), (1, 5, 0.055), (2, 0, 0.1), (3, 9, 0.1)])
def test_the_rate_of_a_step_is_that_of_its_place_in_the_federation(round: int, step: int, rate: float) -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=7.0)
    schedule = Schedule(Training(lr=0.1, schedule="constant", warmup_rounds=1.0), 3)
    trainer = SimpleNamespace(optimizers=[optimizer])
    plan = Plan(10, 1, 1, None, 0, 0, round)
    FollowSchedule(schedule, round, plan).on_train_batch_start(trainer, None, None, step)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)
