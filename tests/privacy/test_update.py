"""Update-level privacy: the bound holds, the noise is as stated, and the published figures come out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from lightning_fed.experiment import Data, Experiment, Federation, Privacy
from lightning_fed.privacy.doses import doses_of
from lightning_fed.privacy.gaussian import gaussian_epsilon
from lightning_fed.privacy.streams import Secret
from lightning_fed.privacy.update import add_noise, clip
from lightning_fed.studies.privacy_card import privacy_card

SIZES = [1093, 761]
PUBLISHED_DEVIATION = math.sqrt(2 * math.log(1.25 / 1.9e-4)) / 6.0
"""Flower's `LocalDpMod` at sensitivity 1, epsilon 6, delta 1.9e-4: 0.6989 on every weight."""
FLOATS = st.floats(-(2.0**99), 2.0**99, width=32)


@given(arrays.arrays(np.float32, st.integers(1, 300), elements=FLOATS), st.floats(1e-3, 1e3))
def test_no_update_is_longer_than_the_bound_afterwards(update: np.ndarray, most: float) -> None:  # type: ignore[type-arg]
    clipped, norm = clip(update, most)
    exact = float(np.linalg.norm(update.astype(np.float64)))
    assert norm == exact
    assert clipped.dtype == np.float32
    assert np.linalg.norm(clipped.astype(np.float64)) <= most
    if exact <= most:
        assert np.array_equal(clipped, update)


@given(st.integers(0, 10**6), st.floats(0.1, 50))
def test_a_long_update_keeps_its_direction_and_takes_the_bound(seed: int, most: float) -> None:
    update = np.random.default_rng(seed).normal(0, 10, 5000).astype(np.float32)
    clipped, norm = clip(update, most)
    assert norm > most
    assert np.linalg.norm(clipped.astype(np.float64)) == pytest.approx(most, rel=2e-6)
    np.testing.assert_allclose(clipped, update * (most / norm), rtol=2e-6)


@pytest.mark.parametrize("deviation", [0.01, 0.7, 30.0])
def test_the_noise_has_the_stated_deviation_and_shape(deviation: float) -> None:
    update = np.linspace(-0.5, 0.5, 100_001).astype(np.float32)
    noised = add_noise(update, deviation, Secret.of_seed(1, 1).stream("noise"))
    assert noised.dtype == np.float32
    noise = (noised.astype(np.float64) - update) / deviation
    assert noise.std() == pytest.approx(1, rel=5 / math.sqrt(2 * len(noise)))
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise, update)[0, 1]) < 5 / math.sqrt(len(noise))


def published(rounds: int, sensitivity: str = "zero_out", multiplier: float | None = None) -> Experiment:
    """The paper's local DP with the noise that its configuration states, had it been added."""
    return Experiment(
        data=Data(validation=0.0),
        federation=Federation(hospitals=2, rounds=rounds, weighting="equal"),
        privacy=Privacy(
            mechanism="update",
            max_grad_norm=7.0,
            delta=1.9e-4,
            noise_multiplier=PUBLISHED_DEVIATION / 7 if multiplier is None else multiplier,
            sensitivity=sensitivity,  # type: ignore[arg-type]
        ),
    )


@pytest.mark.parametrize(("rounds", "blanked", "replaced"), [(1, 84.9, 270.9), (50, 2759.0, 10534.0)])
def test_what_the_published_noise_would_be_worth(rounds: int, blanked: float, replaced: float) -> None:
    """facts.md, section 2."""
    settings = published(rounds)
    card = privacy_card(settings, doses_of(settings, SIZES), SIZES, [rounds] * 2)
    assert card.epsilon == card.epsilon_zero_out == pytest.approx(blanked, rel=1e-3)
    assert card.epsilon_replace_one == pytest.approx(replaced, rel=1e-3)
    assert (card.unit, card.adjacency, card.accountant) == ("hospital", "zero_out", "exact Gaussian")
    # The same noise, stated against the sensitivity of a hospital that is replaced.
    other = published(rounds, "replace_one", PUBLISHED_DEVIATION / 14)
    assert other.privacy.deviation_per_multiplier == 14
    card = privacy_card(other, doses_of(other, SIZES), SIZES, [rounds] * 2)
    assert card.epsilon == card.epsilon_replace_one == pytest.approx(replaced, rel=1e-3)
    assert card.epsilon_zero_out == pytest.approx(blanked, rel=1e-3)
    assert card.adjacency == "replace_one"


@given(st.floats(0.3, 50), st.sampled_from(["zero_out", "replace_one"]), st.integers(1, 60))
def test_a_budget_is_spent_to_the_last_round_and_not_beyond(budget: float, sensitivity: str, rounds: int) -> None:
    base = published(rounds, sensitivity)
    settings = replace(base, privacy=replace(base.privacy, noise_multiplier=None, epsilon=budget))
    doses = doses_of(settings, SIZES)
    assert doses is not None
    for dose in doses:
        assert (dose.unit, dose.rate, dose.steps, dose.most_steps) == ("hospital", 1.0, 1, rounds)
        deviation = dose.noise_multiplier * settings.privacy.deviation_per_multiplier
        spent = gaussian_epsilon(deviation / (14 if sensitivity == "replace_one" else 7), rounds, 1.9e-4)
        assert 0.9999 * budget <= spent <= budget
    card = privacy_card(settings, doses, SIZES, [rounds] * 2)
    assert card.epsilon_zero_out is not None
    assert card.epsilon_replace_one is not None
    assert card.epsilon_zero_out < card.epsilon_replace_one
    assert card.epsilon == (card.epsilon_replace_one if sensitivity == "replace_one" else card.epsilon_zero_out)


def test_one_number_of_releases_costs_each_hospital_its_own() -> None:
    settings = published(50)
    card = privacy_card(settings, doses_of(settings, SIZES), SIZES, [50, 3])
    assert card.epsilon_by_hospital is not None
    assert card.epsilon_by_hospital[0] > card.epsilon_by_hospital[1]
    assert card.epsilon == card.epsilon_by_hospital[0]


def test_without_noise_nothing_is_guaranteed_and_it_is_said_in_words() -> None:
    base = published(50)
    quiet = replace(base, privacy=replace(base.privacy, noise=False, noise_multiplier=None, epsilon=6.0))
    doses = doses_of(quiet, SIZES)
    assert doses is not None
    assert all((dose.noise_multiplier, dose.epsilon, dose.most_steps) == (0.0, None, None) for dose in doses)
    card = privacy_card(quiet, doses, SIZES, [50, 50])
    assert card.epsilon is None
    assert card.epsilon_by_hospital is None
    assert card.epsilon_replace_one is None
    assert card.reason is not None
    assert "no noise is added" in card.reason
    assert "nothing is guaranteed" in card.reason
