"""Bounds from guesses, on mechanisms whose epsilon is known in closed form."""

import math

import numpy as np
import pytest
from scipy import stats

from lightning_fed.audit.bound import (
    Rates,
    epsilon_of_guesses,
    epsilon_of_rates,
    mu_of_rates,
    p_value,
    rates,
)
from lightning_fed.audit.canaries import Sampled, audited, guess, guesses_for

AUDITS = 200
MOST_ABOVE = 21
"""Of 200 bounds that hold with 0.95 each, the 99.9 % quantile of those above the truth."""


def test_the_quantile_is_what_it_is_called() -> None:
    assert stats.binom.cdf(MOST_ABOVE - 1, AUDITS, 0.05) <= 0.999 <= stats.binom.cdf(MOST_ABOVE, AUDITS, 0.05)


@pytest.mark.parametrize(("guesses", "right"), [(1, 1), (50, 40), (200, 101), (1000, 1000)])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 3.0])
def test_without_delta_the_p_value_is_a_binomial_tail(guesses: int, right: int, epsilon: float) -> None:
    chance = math.exp(epsilon) / (1 + math.exp(epsilon))
    tail = sum(stats.binom.pmf(value, guesses, chance) for value in range(right, guesses + 1))
    assert p_value(3000, guesses, right, epsilon, 0.0) == pytest.approx(min(tail, 1.0), rel=1e-9)


def test_the_delta_term_is_that_of_the_theorem() -> None:
    canaries, guesses, right, epsilon, delta = 100, 12, 9, 1.0, 1e-3
    chance = math.exp(epsilon) / (1 + math.exp(epsilon))

    def tail(least: int) -> float:
        return sum(
            math.comb(guesses, v) * chance**v * (1 - chance) ** (guesses - v)
            for v in range(max(least, 0), guesses + 1)
        )

    worst = max((tail(right - i) - tail(right)) / i for i in range(1, canaries + 1))
    assert p_value(canaries, guesses, right, epsilon, delta) == pytest.approx(
        tail(right) + 2 * canaries * delta * worst
    )


def test_few_guesses_and_bad_ones_say_nothing() -> None:
    assert epsilon_of_guesses(100, 4, 4, 0.0) == 0.0
    assert epsilon_of_guesses(100, 100, 50, 0.0) == 0.0
    assert epsilon_of_guesses(100, 100, 0, 0.0) == 0.0


@pytest.mark.parametrize("epsilon", [1.0, 2.0])
def test_bounds_on_randomised_response_are_right(epsilon: float) -> None:
    """Each canary's bit is told truly with chance e^eps / (1 + e^eps)."""
    random, canaries = np.random.default_rng(7), 1000
    bounds = []
    for _ in range(AUDITS):
        coins = random.random(canaries) < 0.5
        truly = random.random(canaries) < math.exp(epsilon) / (1 + math.exp(epsilon))
        scores = np.where(coins == truly, 1.0, -1.0) + 1e-6 * random.random(canaries)
        bounds.append(audited(coins, scores, canaries, 0.0).epsilon)
    assert sum(bound > epsilon for bound in bounds) <= MOST_ABOVE
    assert np.median(bounds) >= 0.8 * epsilon


@pytest.mark.parametrize("deviation", [0.5, 1.0])
def test_bounds_on_one_gaussian_release_are_right(deviation: float) -> None:
    """Independent releases: rates of a threshold test, Clopper-Pearson, composed as a Gaussian's."""
    random, calls = np.random.default_rng(8), 20_000
    bounds = []
    for _ in range(AUDITS):
        found = int((1 + deviation * random.standard_normal(calls) > 0.5).sum())
        taken = int((deviation * random.standard_normal(calls) > 0.5).sum())
        bounds.append(mu_of_rates(rates(found, taken, calls)))
    assert sum(bound > 1 / deviation for bound in bounds) <= MOST_ABOVE
    assert np.median(bounds) >= 0.8 / deviation


def test_one_run_of_a_gaussian_mechanism_stays_below_its_epsilon() -> None:
    """Many canaries in one release; the truth at delta by Balle and Wang's formula."""
    random, canaries, delta, deviation = np.random.default_rng(9), 1000, 1e-4, 0.6
    truth = next(
        epsilon
        for epsilon in np.linspace(0, 20, 20_001)
        if stats.norm.cdf(1 / (2 * deviation) - epsilon * deviation)
        - math.exp(epsilon) * stats.norm.cdf(-1 / (2 * deviation) - epsilon * deviation)
        <= delta
    )
    release = Sampled(1.0, 1, deviation, 1)
    guesses = guesses_for({release: canaries}, delta)
    bounds = []
    for _ in range(50):
        coins = random.random(canaries) < 0.5
        scores = release.likelihood(release.rehearse(coins, random))
        bounds.append(audited(coins, scores, guesses, delta).epsilon)
    assert sum(bound > truth for bound in bounds) <= 7
    assert np.median(bounds) >= truth / 3


@pytest.mark.parametrize("samples", [1, 3])
def test_the_likelihood_is_that_of_a_mixture(samples: int) -> None:
    way = Sampled(0.2, samples, 0.7, 4)
    seen = np.random.default_rng(0).standard_normal((4, 5))
    chances = stats.binom.pmf(np.arange(samples + 1), samples, 0.2)
    member = sum(chances[k] * stats.norm.pdf(seen, k, 0.7) for k in range(samples + 1))
    np.testing.assert_allclose(way.likelihood(seen), np.log(member / stats.norm.pdf(seen, 0, 0.7)).sum(0))


def test_guesses_are_the_surest_ones() -> None:
    made = guess(np.array([0.3, -5.0, 9.0, 0.1, 4.0, -1.0]), 4)
    assert made.tolist() == [0, -1, 1, 0, 1, -1]
    assert guess(np.arange(5.0), 3).tolist() == [-1, 0, 0, 1, 1]


def test_rates_hold_at_once_as_often_as_they_say() -> None:
    random, calls = np.random.default_rng(3), 300
    missed = 0
    for _ in range(2000):
        limits = rates(random.binomial(calls, 0.7), random.binomial(calls, 0.2), calls)
        missed += limits.true > 0.7 or limits.false < 0.2
    assert missed <= stats.binom.ppf(0.999, 2000, 0.05)
    assert rates(0, calls, calls) == Rates(0.0, 1.0)


def test_epsilon_of_rates_is_the_least_that_allows_them() -> None:
    assert epsilon_of_rates(Rates(0.8, 0.1), 0.0) == pytest.approx(math.log(8))
    assert epsilon_of_rates(Rates(0.99, 0.5), 0.01) == pytest.approx(math.log(0.49 / 0.01))
    assert epsilon_of_rates(Rates(0.1, 0.8), 0.0) == 0.0
    assert mu_of_rates(Rates(0.3, 0.6)) == 0.0
