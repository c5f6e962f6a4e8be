"""The two classifiers on ScatterNet features."""

from __future__ import annotations

import pytest
import torch

from lightning_fed.experiment import Model, Training
from lightning_fed.models.classifier import Classifier
from lightning_fed.models.registry import build_network
from lightning_fed.models.scatternet import Features, ScatterNetCNN, ScatterNetLinear
from lightning_fed.models.vector import to_vector, vector_size
from lightning_fed.privacy.trial import refuse_unbounded

NAMES = ("scatternet_linear", "scatternet_cnn")


@pytest.mark.parametrize(("width", "parameters"), [(4, 95_264), (32, 95_264)])
def test_the_linear_classifier_travels_as_its_one_layer_whatever_the_width(width: int, parameters: int) -> None:
    network = build_network(Model(name="scatternet_linear", width=width), 3, 8, 0)
    assert isinstance(network, ScatterNetLinear)
    assert list(network.state_dict()) == ["head.1.weight", "head.1.bias"]
    assert vector_size(network) == parameters == 3 * 81 * 49 * 8 + 8
    network(torch.rand(2, 3, 28, 28))
    assert len(to_vector(network)) == parameters, "nothing of the features is added by using them"


def test_the_width_is_of_the_cnns_convolutions() -> None:
    network = build_network(Model(name="scatternet_cnn", width=16), 3, 8, 0)
    assert isinstance(network, ScatterNetCNN)
    assert not [name for name, _ in network.named_buffers()]
    assert [tuple(one.shape) for one in network.parameters() if one.dim() == 4] == [
        (16, 243, 3, 3),
        (16, 16, 3, 3),
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_each_nine_channels_are_normalised_without_anything_learned(channels: int) -> None:
    features = Features(channels)
    found = features(torch.rand(2, channels, 28, 28)).unflatten(1, (9 * channels, 9)).flatten(2)
    torch.testing.assert_close(found.mean(2), torch.zeros(2, 9 * channels), rtol=0, atol=1e-4)
    assert float(found.var(2, correction=0).max()) < 1.001
    assert not list(features.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("size", "channels", "classes"), [(8, 1, 2), (28, 3, 8), (64, 3, 9)])
def test_every_size_gives_logits_with_as_many_weights(name: str, size: int, channels: int, classes: int) -> None:
    network = build_network(Model(name=name), channels, classes, 0)
    assert network(torch.rand(2, channels, size, size)).shape == (2, classes)
    assert vector_size(network) == vector_size(build_network(Model(name=name), channels, classes, 1))


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # Opacus's, on the first layer
@pytest.mark.parametrize("clipping", ["one_pass", "hooks", "ghost", "functorch"])
@pytest.mark.parametrize("name", NAMES)
def test_private_training_can_take_the_images_apart(name: str, clipping: str) -> None:
    network = build_network(Model(name=name, width=4), 3, 8, 0).train()
    refuse_unbounded(network, torch.rand(3, 3, 28, 28) * 2 - 1, clipping)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_after_it_was_evaluated(name: str) -> None:
    classifier = Classifier(Model(name=name), Training(lr=0.01), seed=1)
    images = torch.randint(0, 256, (16, 28, 28, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(16) % 8
    before = classifier.evaluate(images.numpy(), labels.numpy(), 8).loss
    optimizer = classifier.configure_optimizers()
    classifier.train()
    for step in range(20):
        optimizer.zero_grad()
        classifier.training_step((images, labels), step).backward()
        optimizer.step()
    assert classifier.evaluate(images.numpy(), labels.numpy(), 8).loss < 0.5 * before
