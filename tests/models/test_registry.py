import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_fed.errors import InputError
from lightning_fed.experiment import Model
from lightning_fed.models.dpresnet import DPResNet
from lightning_fed.models.registry import NETWORKS, build_network
from lightning_fed.models.resnet import ResNet9, ResNet18

OWN = """
import random
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, in_channels, num_classes, hidden=4):
        super().__init__(nn.Flatten(), nn.LazyLinear(hidden), nn.Linear(hidden, num_classes))

class Needy(nn.Module):
    def __init__(self, in_channels, num_classes, missing):
        super().__init__()

class Raising(nn.Module):
    def __init__(self, in_channels, num_classes):
        raise RuntimeError("no such luck")

class NotANetwork:
    def __init__(self, in_channels, num_classes):
        pass

constant = 3
"""


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the present one, that holds the user's own modules."""
    (tmp_path / "nets_of_the_tests.py").write_text(OWN)
    (tmp_path / "broken_of_the_tests.py").write_text("class Net(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in sys.path if entry])
    for name in ("nets_of_the_tests", "broken_of_the_tests"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize(("name", "kind"), [("dpresnet", DPResNet), ("resnet9", ResNet9), ("resnet18", ResNet18)])
def test_a_name_gives_its_network(name: str, kind: type[nn.Module]) -> None:
    assert type(build_network(Model(name=name, width=4), 3, 8, 0)) is kind


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"model\.name is 'resnet-18': did you mean 'resnet18'\?"):
        build_network(Model(name="resnet-18"), 3, 8, 0)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_seed_alone_decides_the_weights_and_the_global_generator_is_left_alone(name: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        network = build_network(Model(name=name, width=4), 3, 8, seed)
        return torch.cat([parameter.flatten() for parameter in network.parameters()])

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = weights(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(weights(1), first)
    assert not torch.equal(weights(2), first)


def test_a_users_own_module_beside_the_experiment_is_found_and_given_its_arguments(beside: Path) -> None:
    model = Model(class_path="nets_of_the_tests.Net", init_args={"hidden": 7})
    network = build_network(model, 1, 3, 0)
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert network[1].out_features == 7


@pytest.mark.parametrize(
    ("class_path", "reason"),
    [
        ("nets_of_the_tests.Missing", "has no attribute 'Missing'"),
        ("no_such_module.Net", "No module named 'no_such_module'"),
        ("Net", "Empty module name"),
        (".nets.Net", "cannot be built"),
        ("nets_of_the_tests.Needy", "missing"),
        ("nets_of_the_tests.Raising", "no such luck"),
        ("nets_of_the_tests.constant", r"is not a torch\.nn\.Module"),
        ("nets_of_the_tests.NotANetwork", r"is not a torch\.nn\.Module"),
        ("broken_of_the_tests.Net", "invalid syntax"),
    ],
)
def test_a_class_path_that_does_not_lead_to_a_network_is_refused(
    beside: Path, class_path: str, reason: str
) -> None:
    with pytest.raises(InputError, match=rf"model\.class_path '{class_path}' .*{reason}"):
        build_network(Model(class_path=class_path), 3, 8, 0)


def test_an_argument_that_the_users_class_does_not_take_is_refused(beside: Path) -> None:
    with pytest.raises(InputError, match="unexpected keyword argument 'depth'"):
        build_network(Model(class_path="nets_of_the_tests.Net", init_args={"depth": 3}), 3, 8, 0)
