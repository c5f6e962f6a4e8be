"""The search for images in a gradient: that it finds them, and what it is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.audit.inversion import Attack, Public, _Peaked, gradient, invert, total_variation
from lightning_fed.audit.likeness import match, psnr, similarities
from lightning_fed.data.bloodcells import draw
from lightning_fed.models.dpresnet import DPResNet

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "bloodmnist.npz"
WIDTH, IMAGES, ALIKE = 8, 16, 0.7


def pixels(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def real_cells() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images of hospitals, drawn with a seed, and public ones."""
    with np.load(REAL) as data:
        chosen = np.random.default_rng(0).choice(len(data["train_images"]), IMAGES, replace=False)
        own = pixels(data["train_images"][chosen]), torch.from_numpy(data["train_labels"][chosen]).flatten().long()
        public = pixels(data["val_images"]), torch.from_numpy(data["val_labels"]).flatten().long()
    return own, public


def drawn_cells() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    sets = [
        draw(count, seed=1, size=28, stream=stream) for stream, count in (("train", IMAGES), ("validation", 800))
    ]
    own, public = [(pixels(images), torch.from_numpy(labels)) for images, labels in sets]
    return own, public


@pytest.mark.slow
def test_a_plain_step_on_one_image_gives_the_image_away() -> None:
    """SSIM above 0.7 on at least half of 16 images of real cells; of drawn ones where those are not there."""
    (images, labels), (public, classes) = real_cells() if REAL.exists() else drawn_cells()
    torch.manual_seed(0)
    network, attack = DPResNet(3, 8, WIDTH), Attack(restarts=1, steps=200, starts=100)
    known = Public(public, classes, attack.components)
    alike = []
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        found = invert(network, gradient(network, image, label), label, known, attack, seed=0).images
        alike.append(match(image, found)[0].ssim)
        if sum(one > ALIKE for one in alike) >= len(images) / 2:
            break
    assert sum(one > ALIKE for one in alike) >= len(images) / 2, f"found with SSIM {np.round(alike, 2)}"


def test_a_gradient_is_that_of_the_mean_loss() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    images, labels = torch.randn(2, 3, 2, 2), torch.tensor([0, 2])
    functional.cross_entropy(network(images), labels).backward()
    expected = torch.cat([one.grad.flatten() for one in network.parameters() if one.grad is not None])
    assert torch.equal(gradient(network, images, labels), expected)


def test_only_the_second_derivative_of_relu_is_another() -> None:
    features = torch.tensor([-2.0, -0.1, 0.1, 2.0], requires_grad=True)

    def derivatives(peaked: bool) -> tuple[Tensor, Tensor, Tensor]:
        if peaked:
            with _Peaked(4.0):
                return derivatives(False)
        value = functional.relu(features)
        (first,) = torch.autograd.grad((value * torch.arange(1.0, 5.0)).sum(), features, create_graph=True)
        second = torch.autograd.grad(first.sum(), features)[0] if first.requires_grad else torch.zeros(4)
        return value, first, second

    plain, peaked = derivatives(False), derivatives(True)
    assert torch.equal(plain[0], peaked[0])
    assert torch.equal(plain[1], peaked[1])
    on = torch.sigmoid(4.0 * features)
    assert torch.allclose(peaked[2], torch.arange(1.0, 5.0) * 4.0 * on * (1 - on))
    assert torch.equal(plain[2], torch.zeros(4))


def test_public_images_are_combinations_of_their_components() -> None:
    images, labels = torch.rand(20, 1, 4, 4) - 0.5, torch.arange(20) % 4
    public = Public(images, labels, 16)
    assert torch.allclose(public.images(public.coefficients), images, atol=1e-4)
    assert public.coefficients.std(0, correction=0).mean().item() == pytest.approx(1.0, abs=1e-3)
    like = public.images(public.like(torch.tensor([2, 9]), torch.Generator().manual_seed(0)))
    distances = (like[:1] - images[labels == 2]).flatten(1).norm(dim=1)
    assert distances.min() < 1e-3, "an image of that class"
    assert like.shape == (2, 1, 4, 4), "of a class that nobody has, any image"


def test_each_image_is_matched_with_one_of_its_own() -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = match(images, images[[2, 0, 3, 1]])
    assert [one.found for one in found] == [1, 3, 0, 2]
    assert all(one.ssim == pytest.approx(1.0) and one.psnr > 60 for one in found)
    assert similarities(images, images[:1]).shape == (4, 1)
    assert psnr(images[0], images[0] + 0.2) == pytest.approx(20.0)


def test_a_flat_image_varies_nowhere() -> None:
    assert total_variation(torch.ones(1, 3, 4, 4)).item() == 0.0
    assert total_variation(torch.arange(4.0).expand(1, 1, 4, 4)).item() == pytest.approx(1.0)
