from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.data.bloodcells import draw
from lightning_fed.data.distortion import dice_for, distort

IMAGES = draw(12, seed=3)[0]
DICE = np.random.default_rng(5).random((12, dice_for(3)))
STILL = np.full((12, dice_for(3)), 0.5)
"""No turn, no shift, no change of colour."""


def with_die(place: int, value: float) -> np.ndarray:
    dice = STILL.copy()
    dice[:, place] = value
    return dice


def test_the_middle_of_every_range_and_strength_zero_change_nothing() -> None:
    assert np.abs(distort(IMAGES, STILL, 1.0).astype(int) - IMAGES).max() <= 1, "a rounding"
    still = distort(IMAGES, DICE, 0.0)
    assert np.array_equal(still, IMAGES)
    assert still is not IMAGES


def test_what_happens_to_an_image_depends_on_its_own_numbers_alone() -> None:
    together = distort(IMAGES, DICE, 1.0)
    for place in (0, 7):
        alone = distort(IMAGES[place : place + 1], DICE[place : place + 1], 1.0)
        assert np.abs(together[place].astype(int) - alone[0]).max() <= 1
    assert np.abs(together.astype(int) - IMAGES).mean() > 8
    assert together.dtype == np.uint8
    assert together.shape == IMAGES.shape


def test_a_shift_moves_the_picture_by_its_share_of_half_the_side() -> None:
    moved = distort(IMAGES, with_die(3, 1.0), 1.0)  # by 0.15 of 14 pixels: the picture goes left by 2.1
    inner = moved[:, 4:-4, 4:-8].astype(int)
    assert np.abs(inner - IMAGES[:, 4:-4, 6:-6]).mean() < 0.5 * np.abs(inner - IMAGES[:, 4:-4, 4:-8]).mean()


@pytest.mark.parametrize(("value", "rises"), [(1.0, True), (0.0, False)])
def test_each_channel_is_lit_by_its_own_number(value: float, rises: bool) -> None:
    lit = distort(IMAGES, with_die(5 + 9 + 1, value), 1.0).astype(int) - IMAGES
    assert (lit[..., 1].mean() > 8) if rises else (lit[..., 1].mean() < -8)
    assert np.abs(lit[..., (0, 2)]).max() <= 1


def test_the_last_number_blurs_or_sharpens() -> None:
    def roughness(images: np.ndarray) -> float:
        return float(np.abs(np.diff(images.astype(int), axis=2)).mean())

    blurred, sharpened = (roughness(distort(IMAGES, with_die(-1, value), 1.0)) for value in (1.0, 0.0))
    assert blurred < 0.9 * roughness(IMAGES) < roughness(IMAGES) < sharpened


@given(
    count=st.integers(0, 3),
    size=st.integers(4, 12),
    channels=st.sampled_from([1, 3]),
    strength=st.floats(0, 2),
    seed=st.integers(0, 99),
)
def test_any_images_stay_images(count: int, size: int, channels: int, strength: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, size, size, channels), dtype=np.uint8)
    before = images.copy()
    found = distort(images, generator.random((count, dice_for(channels))), strength)
    assert found.shape == images.shape
    assert found.dtype == np.uint8
    assert np.array_equal(images, before)
