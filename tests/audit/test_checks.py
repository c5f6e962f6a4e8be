"""Tests of releases: sound ones pass, each kind of unsound one does not."""

import numpy as np
import pytest

from lightning_fed.audit.checks import (
    LEVEL,
    gaussian,
    holds_signal,
    poisson,
    served,
    sizes,
    steps,
    unchanged,
    uncorrelated,
    variance,
    within_claim,
)

SIZE = 20_000


def noises(count: int, deviation: float = 2.0, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [deviation * random.standard_normal(SIZE) for _ in range(count)]


def test_sound_noise_passes_as_often_as_it_should() -> None:
    chances = [variance(noises(3, seed=seed), [4.0] * 3).values["p_value"] for seed in range(200)]
    assert min(chances) > LEVEL
    assert 0.3 < np.median(chances) <= 1


def test_a_normal_distribution_passes_and_its_greatest_shift_is_one_of_so_many_normal_numbers() -> None:
    found = [gaussian(noises(3, seed=seed), [4.0] * 3) for seed in range(50)]
    assert all(one.passed for one in found)
    assert np.median([one.values["p_value"] for one in found]) > 0.2
    half = np.random.default_rng(0).standard_normal(SIZE // 2)
    assert not gaussian([np.concatenate([half, half])], [1.0]).passed
    assert not gaussian([np.random.default_rng(0).uniform(-3.46, 3.46, SIZE)], [4.0]).passed


@pytest.mark.parametrize(
    ("samples", "images", "batch"), [(2, 1000, 32), (4, 80, 4), (8, 40, 1), (4, 160, 16), (20, 1000, 256)]
)
def test_samples_of_poissons_sizes_pass_however_few_they_are(samples: int, images: int, batch: int) -> None:
    """All of them at their mean is more likely than that."""
    rate = batch / images
    assert sizes([(images, rate, batch)] * samples).passed == (samples < 20)
    random = np.random.default_rng(0)
    for _ in range(300):
        assert sizes([(images, rate, int(count)) for count in random.binomial(images, rate, samples)]).passed


def test_images_that_went_in_are_those_drawn() -> None:
    assert served([(3, 3), (0, 0)], as_drawn=True).passed
    assert not served([(3, 3), (4, 3)], as_drawn=True).passed
    assert not served([(3, 3)], as_drawn=False).passed


def test_updates_are_what_their_steps_give_to_within_float32() -> None:
    assert unchanged([1e-7, 1e-5]).passed
    assert not unchanged([1e-7, 0.01]).passed


@pytest.mark.parametrize("deviation", [0.0, 1.0, 1.9, 2.1])
def test_other_noise_does_not(deviation: float) -> None:
    assert not variance(noises(3, deviation), [4.0] * 3).passed


def test_one_release_without_noise_among_many_is_noticed() -> None:
    some = [*noises(400), np.zeros(SIZE)]
    found = variance(some, [4.0] * len(some))
    assert not found.passed
    assert found.values["least"] == 0.0


def test_noises_that_share_something_are_noticed() -> None:
    first, second, third = noises(3)
    assert uncorrelated([first, second, third]).passed
    assert not uncorrelated([first, second, 0.9 * third + 0.1 * first]).passed
    assert not uncorrelated([first, first]).passed
    assert uncorrelated([np.zeros(SIZE), first]).passed
    assert uncorrelated([first]).passed


def test_a_signal_that_is_in_it_twice_or_not_at_all_is_noticed() -> None:
    (noise,), signal = noises(1), np.full(SIZE, 0.1)
    assert holds_signal([noise], [signal], [4.0]).passed
    assert not holds_signal([noise + signal], [signal], [4.0]).passed
    assert not holds_signal([noise - signal], [signal], [4.0]).passed
    assert holds_signal([noise], [np.zeros(SIZE)], [4.0]).passed


def test_releases_that_nobody_charged_are_named() -> None:
    assert steps({0: 3, 1: 3}, {0: 3, 1: 4}).passed
    found = steps({0: 3, 1: 3}, {0: 3, 1: 1})
    assert not found.passed
    assert "hospital 1 released 2 more than it charged" in found.told


def test_a_claim_below_what_was_charged_is_noticed() -> None:
    assert within_claim({0: 6.05, 1: 5.0}, 6.0, 0.02).passed
    assert not within_claim({0: 6.2, 1: 5.0}, 6.0, 0.02).passed


def presence(kind: str, rate: float, count: int, members: int, deviation: float, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    window = round(1 / rate)
    there = np.zeros((count, members))
    if kind == "poisson":
        there = (random.random((count, members)) < rate).astype(float)
    elif kind == "shuffled":
        for start in range(0, count, window):
            places = start + random.integers(0, window, members)
            inside = places < count
            there[places[inside], np.flatnonzero(inside)] = 1
    return there + deviation * random.standard_normal((count, members))


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("deviation", [0.1, 1.0])
def test_poisson_samples_pass_and_shuffled_ones_do_not_where_theory_lets_them_be_seen(
    rate: float, deviation: float
) -> None:
    for seed in range(20):
        assert poisson(presence("poisson", rate, 60, 1500, deviation, seed), rate, deviation).passed
    found = poisson(presence("shuffled", rate, 60, 1500, deviation), rate, deviation)
    assert found.passed == ("could not be told for certain" in found.told)
    assert deviation == 1.0 or not found.passed


def test_members_that_are_taken_more_often_are_noticed() -> None:
    assert not poisson(presence("poisson", 0.12, 60, 1500, 1.0), 0.1, 1.0).passed
    assert not poisson(presence("poisson", 0.13, 5, 3000, 0.5), 0.1, 0.5).passed


def test_where_everybody_is_taken_there_are_no_gaps() -> None:
    found = poisson(1 + np.random.default_rng(0).standard_normal((10, 100)), 1.0, 1.0)
    assert found.passed
    assert "too few steps" in found.told
