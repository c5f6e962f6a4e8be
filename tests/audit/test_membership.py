"""Attacks on membership where the truth is known: confidences that are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from lightning_fed.audit.membership import (
    ATTACKS,
    Federations,
    Success,
    by_likelihood,
    by_loss,
    confidence,
    success,
)

SPREAD = 2.0
"""Of images' own levels, where a model's deviation is 1."""


def drawn(federations: int, images: int, gains: float | np.ndarray, seed: int = 0) -> Federations:
    random = np.random.default_rng(seed)
    coins = random.random((federations, images)) < 0.5
    levels = SPREAD * random.standard_normal(images)
    return Federations(levels + gains * coins + random.standard_normal(coins.shape), coins)


def attack(name: str, federations: Federations) -> Success:
    targets = range(len(federations.coins))
    return success(np.stack([ATTACKS[name](federations, one) for one in targets]), federations.coins)


def test_a_threshold_tells_what_theory_says() -> None:
    found = attack("loss threshold", drawn(4, 8000, gains=1.0))
    assert found.true_positives is not None
    expected = stats.norm.cdf(1 / np.sqrt(2 * (1 + SPREAD**2)))
    assert found.auc.value == pytest.approx(expected, abs=0.01)
    assert found.auc.low < expected < found.auc.high
    rate = stats.norm.sf(stats.norm.isf(0.01) - 1 / np.sqrt(1 + SPREAD**2))
    assert found.true_positives.value == pytest.approx(rate, abs=0.006)


@pytest.mark.parametrize(("federations", "least"), [(4, 0.68), (12, 0.735)])
def test_shadows_take_an_images_own_level_away(federations: int, least: float) -> None:
    """Who knew each image's level would reach 0.760."""
    best = stats.norm.cdf(1 / np.sqrt(2))
    found = attack("likelihood ratio", drawn(federations, 3000, gains=1.0))
    assert least < found.auc.value < best + 0.01
    assert found.auc.low > attack("loss threshold", drawn(federations, 3000, gains=1.0)).auc.high


def test_many_shadows_tell_images_that_gain_more() -> None:
    """Half of the images gain 3 deviations and half nothing: those are where a member is sure to be found."""
    gains = np.where(np.arange(2000) % 2, 3.0, 0.0)
    rates = [
        attack(name, drawn(24, 2000, gains)).true_positives for name in ("likelihood ratio", "loss threshold")
    ]
    assert rates[0] is not None
    assert rates[1] is not None
    assert rates[0].value > 0.25
    assert rates[1].value < 0.1


@pytest.mark.parametrize("name", ATTACKS)
def test_intervals_hold_chance_where_nothing_is_to_be_found(name: str) -> None:
    """Of 40 intervals of 95 % at least 33: fewer come but once in 1,400 times."""
    found = [attack(name, drawn(4, 300, gains=0.0, seed=seed)).auc for seed in range(40)]
    assert sum(auc.low <= 0.5 <= auc.high for auc in found) >= 33
    assert np.mean([auc.value for auc in found]) == pytest.approx(0.5, abs=0.015)


def test_an_image_that_all_or_no_shadows_had_is_guessed_at_too() -> None:
    federations = drawn(4, 1000, gains=2.0)
    counts = federations.without(0).coins.sum(0)
    assert {0, 3} <= set(counts)
    scores = by_likelihood(federations, 0)
    assert np.isfinite(scores).all()
    for count in (0, 3):
        own = counts == count
        told = success(scores[None, own], federations.coins[:1, own])
        assert told.auc.low > 0.6


def test_scores_of_one_federation_do_not_read_its_own_coins() -> None:
    federations = drawn(5, 500, gains=1.0)
    turned = federations.coins.copy()
    turned[2] = ~turned[2]
    for by in ATTACKS.values():
        assert np.array_equal(by(federations, 2), by(Federations(federations.confidences, turned), 2))


def test_rates_of_a_perfect_a_blind_and_a_wrong_attack() -> None:
    coins = np.random.default_rng(0).random((2, 700)) < 0.5
    for scores, auc, found in ((coins, 1.0, 1.0), (0 * coins, 0.5, 0.0), (~coins, 0.0, 0.0)):
        told = success(scores.astype(float), coins)
        assert told.true_positives is not None
        assert (told.auc.value, told.true_positives.value) == (auc, found)
        assert told.auc.low <= auc <= told.auc.high


def test_at_most_one_in_a_hundred_others_is_above_the_threshold() -> None:
    others, members = np.arange(600.0), np.array([593.5, 592.5, 150.0, 1000.0])
    scores = np.concatenate([others, members])[None]
    coins = np.arange(604)[None] >= 600
    found = success(scores, coins).true_positives
    assert found is not None
    assert found.value == 2 / 4  # 594 to 599 are taken for members, 593 is not


def test_of_few_images_one_in_a_hundred_is_not_told() -> None:
    assert attack("loss threshold", drawn(4, 200, gains=1.0)).true_positives is None


def test_single_federations_stand_beside() -> None:
    """Of those in which models learn more by heart more members are found."""
    federations = drawn(3, 2000, gains=np.array([[0.0], [1.0], [4.0]]))
    alone = attack("loss threshold", federations).alone
    assert len(alone) == 3
    assert alone[0] == pytest.approx(0.5, abs=0.05)
    assert alone[0] < alone[1] < alone[2]


def test_without_members_or_others_there_is_nothing_to_tell() -> None:
    with pytest.raises(ValueError, match="members and others"):
        success(np.zeros((1, 5)), np.ones((1, 5), dtype=bool))


def test_confidence_is_the_logit_of_the_true_class() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.standard_normal((50, 8)), random.integers(8, size=50)
    chances = special.softmax(logits, axis=1)[np.arange(50), labels]
    assert np.allclose(confidence(logits, labels), special.logit(chances))
    sure = confidence(np.array([[1000.0, 0.0, 0.0]]), np.array([0]))
    assert sure == pytest.approx(1000 - np.log(2))
    assert by_loss(Federations(sure[None], np.array([[True]])), 0) == pytest.approx(0.0)


def test_federations_whose_models_are_surer_of_everything_are_each_told_by_themselves() -> None:
    same = drawn(4, 6000, gains=np.abs(np.random.default_rng(1).standard_normal(6000)))
    shifted = Federations(same.confidences + np.array([[-2.0], [-1.0], [1.0], [2.0]]), same.coins)
    for found in (attack("likelihood ratio", shifted), attack("loss threshold", shifted)):
        assert min(found.alone) <= found.auc.value <= max(found.alone)
    assert attack("loss threshold", shifted) == attack("loss threshold", same)
