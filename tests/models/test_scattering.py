"""ScatterNet against sums over pixels in float64 (see `make_scattering`), and what its features promise."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lightning_fed.errors import InputError
from lightning_fed.models import scattering
from lightning_fed.models.scattering import MEMO_BYTES, PATHS, Memo, ScatterNet, padding

VECTORS = json.loads(Path(__file__).with_name("scattering.json").read_text())


def images(count: int = 4, size: int = 28, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, channels, size, size, generator=generator) * 2 - 1


def by_angle(features: Tensor) -> tuple[Tensor, ...]:
    """(1, 81, ...) -> the image, the fine and the coarse wavelets by angle, and the second order by both."""
    low, fine, coarse, second = features[0].split([1, 8, 8, 64])
    return low, fine, coarse, second.unflatten(0, (8, 8))


def test_the_features_are_those_of_sums_over_pixels() -> None:
    found = ScatterNet()(torch.tensor(VECTORS["image"])[None, None])[0]
    torch.testing.assert_close(found, torch.tensor(VECTORS["features"]), rtol=0, atol=3e-7)


@pytest.mark.parametrize(("size", "places"), [(8, 2), (9, 3), (27, 7), (28, 7), (29, 8), (64, 16)])
def test_four_pixels_make_a_feature(size: int, places: int) -> None:
    assert ScatterNet()(images(2, size)).shape == (2, 3 * PATHS, places, places)


def test_each_channel_has_features_of_its_own() -> None:
    found = ScatterNet()(images(1))
    alone = torch.cat([ScatterNet()(images(1)[:, channel : channel + 1]) for channel in range(3)], 1)
    torch.testing.assert_close(found, alone)


def test_an_image_that_is_too_small_is_refused() -> None:
    with pytest.raises(InputError, match=r"ScatterNet takes images of 8 pixels or more"):
        ScatterNet()(images(1, 7))


def test_a_constant_image_is_its_own_average_and_has_no_waves() -> None:
    low, *waves = by_angle(ScatterNet()(torch.full((1, 1, 28, 28), 0.5)))
    torch.testing.assert_close(low, torch.full_like(low, 0.5))
    assert all(float(wave.abs().max()) < 1e-6 for wave in waves)


@pytest.mark.parametrize("kind", ["noise", "stripes", "edge"])
def test_the_features_have_no_more_energy_than_the_image(kind: str) -> None:
    image = images(1, channels=1)
    if kind == "stripes":  # at the fine wavelets' own frequency
        image = torch.cos(torch.arange(28.0) * scattering.FREQUENCY).expand(1, 1, 28, 28).contiguous()
    if kind == "edge":
        image = torch.ones(1, 1, 28, 28)
        image[..., :13] = -1
    padded = functional.pad(image, 2 * padding(28), mode="reflect")
    energy = 16 * float(ScatterNet()(image).square().sum())
    assert 0.05 * float(image.square().sum()) < energy < float(padded.square().sum())


def test_a_pixels_shift_moves_the_features_less_than_the_image() -> None:
    wide = images(1, 29, 1)
    here, there = wide[..., :-1, :-1], wide[..., 1:, :-1]
    first, second = ScatterNet()(here), ScatterNet()(there)
    moved = float((first - second).norm() / first.norm())
    assert 0.01 < moved < 0.5 * float((here - there).norm() / here.norm())


def test_a_quarter_turn_turns_the_maps_and_their_angles() -> None:
    image = images(1, channels=1)
    straight, turned = (by_angle(ScatterNet()(one)) for one in (image, torch.rot90(image, 1, (2, 3))))
    for order, angles in enumerate([(), (0,), (0,), (0, 1)]):
        expected = torch.rot90(straight[order], 1, (-2, -1))
        if angles:
            expected = expected.roll((4,) * len(angles), angles)
        torch.testing.assert_close(turned[order], expected, rtol=0, atol=1e-6)
    assert not torch.allclose(turned[1], torch.rot90(straight[1], 1, (-2, -1)), atol=1e-3)


def test_a_flip_mirrors_the_maps_and_their_angles() -> None:
    image = images(1, channels=1)
    straight, flipped = (by_angle(ScatterNet()(one)) for one in (image, image.flip(3)))
    mirror = -torch.arange(8) % 8
    torch.testing.assert_close(flipped[1], straight[1][mirror].flip(-1), rtol=0, atol=1e-6)
    torch.testing.assert_close(flipped[3], straight[3][mirror][:, mirror].flip(-1), rtol=0, atol=1e-6)


def test_an_images_features_are_equal_to_the_bit_whatever_the_batch_and_the_memo() -> None:
    batch = images(6)
    together = ScatterNet()(batch)
    network = ScatterNet()
    network(batch[[4, 1]])
    assert torch.equal(network(batch), together), "two from the memo, four new"
    assert torch.equal(network(batch.flip(0)), together.flip(0)), "all from the memo"
    assert torch.equal(torch.cat([ScatterNet()(one[None]) for one in batch]), together)


def test_an_image_is_scattered_once_and_a_turned_one_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    scatter = scattering.scatter
    monkeypatch.setattr(scattering, "scatter", lambda image: made.append(image) or scatter(image))
    network, batch = ScatterNet(), images(2, 8)
    for _ in range(3):
        network(batch)
    network.train(False)(batch)
    assert len(made) == 2
    network(torch.rot90(batch, 1, (2, 3)))
    assert len(made) == len(network.memo) == 4


def test_the_memo_keeps_to_its_bound_and_what_is_beyond_is_made_anew() -> None:
    network, batch = ScatterNet(), images(4, 8)
    one = PATHS * 3 * 4 * 4
    network.memo = Memo(2 * one + 1)
    first = network(batch)
    assert (len(network.memo), network.memo.bytes) == (2, 2 * one)
    assert torch.equal(network(batch), first)
    assert len(network.memo) == 2


def test_images_of_other_shapes_but_equal_bytes_are_told_apart() -> None:
    network, flat = ScatterNet(), images(1, 16, 1)
    network(flat.view(1, 1, 8, 32))
    assert torch.equal(network(flat.view(1, 1, 32, 8)), ScatterNet()(flat.view(1, 1, 32, 8)))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_starts_with_an_empty_memo_of_its_own(copied: object) -> None:
    network = ScatterNet()
    expected = network(images(2, 8))
    other = copied(network)  # type: ignore[operator]
    assert (len(other.memo), other.memo.limit) == (0, MEMO_BYTES)
    assert torch.equal(other(images(2, 8)), expected)
    assert len(network.memo) == 2


def test_what_was_made_in_inference_mode_serves_a_later_training() -> None:
    scattering.Filters.of.cache_clear()
    network, layer = ScatterNet(), torch.nn.Linear(3 * PATHS * 4, 2)
    with torch.inference_mode():
        network(images(2, 8))
    layer(network(images(2, 8)).flatten(1)).sum().backward()
    assert layer.weight.grad is not None
    assert float(layer.weight.grad.abs().sum()) > 0


def test_no_gradient_goes_through() -> None:
    assert not ScatterNet()(images(1, 8).requires_grad_()).requires_grad


def test_half_precision_around_it_changes_nothing() -> None:
    expected = ScatterNet()(images(2))
    with torch.autocast("cpu", torch.bfloat16):
        found = ScatterNet()(images(2))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_an_empty_batch_has_the_shape_of_a_full_one() -> None:
    assert ScatterNet()(images(0)).shape == (0, 3 * PATHS, 7, 7)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_features_are_there_and_the_memo_serves_both_devices() -> None:
    expected = ScatterNet()(images(2))
    network = ScatterNet().cuda()
    found = network(images(2).cuda())
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-5)
    assert torch.equal(network.cpu()(images(2)), found.cpu()), "from the memo"
