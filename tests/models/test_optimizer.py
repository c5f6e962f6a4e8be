import pytest
import torch
from torch import nn

from lightning_fed.errors import InputError
from lightning_fed.experiment import Training
from lightning_fed.models.dpresnet import DPResNet
from lightning_fed.models.optimizer import build_optimizer, optimizer_class

WORKING = ["ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"]


@pytest.mark.parametrize("name", WORKING)
def test_an_optimizer_of_torch_is_built_at_the_rate_and_moves_the_network(name: str) -> None:
    network = DPResNet(1, 2, 2)
    optimizer = build_optimizer(network.parameters(), Training(optimizer=name, lr=0.125))
    assert type(optimizer) is getattr(torch.optim, name)
    assert optimizer.param_groups[0]["lr"] == 0.125
    before = [parameter.clone() for parameter in network.parameters()]
    network(torch.rand(4, 1, 8, 8)).square().sum().backward()
    optimizer.step()
    assert any(not torch.equal(one, other) for one, other in zip(before, network.parameters(), strict=True))


def test_momentum_and_weight_decay_reach_the_optimizer() -> None:
    training = Training(optimizer="SGD", momentum=0.75, weight_decay=0.125)
    group = build_optimizer(nn.Linear(1, 1).parameters(), training).param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.75, 0.125)


def test_a_weight_decay_of_zero_is_not_the_optimizers_default() -> None:
    optimizer = build_optimizer(nn.Linear(1, 1).parameters(), Training(optimizer="AdamW"))
    assert optimizer.param_groups[0]["weight_decay"] == 0


@pytest.mark.parametrize(
    ("name", "advice"), [("Adm", "did you mean 'Adam'"), ("sgd", "did you mean 'SGD'"), ("zzz", "choose one of")]
)
def test_an_unknown_optimizer_is_refused_with_the_nearest_name(name: str, advice: str) -> None:
    with pytest.raises(InputError, match=rf"training\.optimizer is '{name}': {advice}"):
        build_optimizer(nn.Linear(1, 1).parameters(), Training(optimizer=name))


@pytest.mark.parametrize("name", ["Optimizer", "LBFGS", "SparseAdam", "lr_scheduler"])
def test_a_name_of_torch_optim_that_cannot_train_here_is_refused_and_not_advised(name: str) -> None:
    with pytest.raises(InputError, match=r"some\.key is ") as caught:
        optimizer_class(name, "some.key")
    assert f"'{name}'" not in str(caught.value).split(":", 1)[1]


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (Training(optimizer="Adam", momentum=0.9), r"training\.momentum: Adam has none; set it to 0 or use SGD"),
        (Training(optimizer="Rprop", weight_decay=0.1), r"training\.weight_decay: Rprop has none"),
        (Training(optimizer="Muon"), r"training\.optimizer Muon does not fit: .*2D"),
    ],
)
def test_an_optimizer_that_does_not_fit_is_refused(training: Training, message: str) -> None:
    if not hasattr(torch.optim, training.optimizer):
        pytest.skip(f"this torch has no {training.optimizer}")
    with pytest.raises(InputError, match=message):
        build_optimizer(DPResNet(1, 2, 2).parameters(), training)
