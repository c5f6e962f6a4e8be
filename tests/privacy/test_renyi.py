from __future__ import annotations

import itertools
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from opacus.accountants.analysis.rdp import get_privacy_spent

from lightning_fed.privacy import renyi
from tests.privacy.exact import (
    GAUSSIAN,
    SKELLAM,
    Reals,
    log_masses,
    mixed,
    shifted_pair,
    summed,
)
from tests.privacy.exact import renyi as divergence

SOME = np.array([2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 64, 128, 256])
FEW = np.arange(2, 33)
ROUNDING = 1 - 1e-9


def at(curve: Reals, orders: NDArray[np.int64]) -> Reals:
    """Of a curve at `renyi.ORDERS`."""
    found: Reals = curve[orders - 2]
    return found


def straight(slope: float) -> Reals:
    """A Gaussian's curve."""
    curve: Reals = slope * renyi.ORDERS.astype(np.float64)
    return curve


def skellam_pair(variance: float, shift: int, orders: int = 256) -> tuple[Reals, Reals]:
    reach = math.ceil(orders * shift + 15 * math.sqrt(variance) + 60)
    return shifted_pair(log_masses(SKELLAM, variance, reach), shift)


@pytest.mark.parametrize("variance", [1, 2, 4, 30, 300, 5000])
def test_skellam_noise_is_never_worth_more_than_it_is(variance: float) -> None:
    """One dimension, by a sum over the integers."""
    for shift in (1, 2, 7, 40):
        exact = divergence(*skellam_pair(variance, shift), SOME.tolist())
        bound = at(renyi.skellam(shift, shift, variance), SOME)
        assert (bound >= exact * ROUNDING).all()
        if variance == 5000 and shift < 40:
            assert (bound <= exact * 1.04).all()


def test_skellam_noise_costs_what_the_published_formula_says() -> None:
    """Agarwal, Kairouz & Liu 2021, Theorem 3.5: the sums above cannot see its correction, which is safe by far."""
    lesser = []
    for l2, l1, variance in [(1, 1, 0.3), (9, 60, 300), (66_000.0, 3.6e7, 2.7e10), (40, 1600, 5)]:
        for order in (2, 3, 17, 100, 256):
            corrections = ((2 * order - 1) * l2**2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance)
            lesser.append(corrections[0] < corrections[1])
            wanted = order * l2**2 / (2 * variance) + min(corrections)
            assert renyi.skellam(l2, l1, variance)[order - 2] == pytest.approx(wanted, rel=1e-13)
    assert 5 < sum(lesser) < 15


@pytest.mark.parametrize("variance", [10, 300])
def test_a_vector_moved_in_every_coordinate_costs_what_its_coordinates_cost_together(variance: float) -> None:
    for shift, coordinates in itertools.product((1, 3), (2, 100)):
        exact = coordinates * divergence(*skellam_pair(variance, shift), SOME.tolist())
        l2, l1 = shift * math.sqrt(coordinates), shift * coordinates
        assert (at(renyi.skellam(l2, l1, variance), SOME) >= exact * ROUNDING).all()


@pytest.mark.parametrize("each", [0.5, 0.7, 1.0, 4.0])
@pytest.mark.parametrize("shares", [1, 2, 3, 5])
def test_a_sum_of_discrete_gaussian_numbers_is_never_worth_more_than_it_is(each: float, shares: int) -> None:
    """Where that sum differs from a discrete Gaussian number to be seen."""
    variance = each * shares
    for shift in (1, 2, 5):
        orders = np.array([order for order in (2, 3, 5, 8, 16, 32) if order * shift < 24 * math.sqrt(variance)])
        reach = math.ceil(orders[-1] * shift + 12 * math.sqrt(variance) + 10)
        masses = summed(log_masses(GAUSSIAN, each, reach), shares)
        masses[masses < -650] = -np.inf
        there, absent = shifted_pair(masses, shift)
        known = np.isfinite(there) & np.isfinite(absent)
        exact = divergence(there[known], absent[known], orders.tolist())
        bound = at(renyi.discrete_gaussian(shift, shift, variance, shares, 1), orders)
        assert (bound >= exact * ROUNDING).all()
        assert (bound <= exact * (1.3 if each < 1 else 1.01)).all()


def test_what_a_sum_of_few_small_numbers_lacks_is_counted() -> None:
    """Kairouz, Liu & Steinke 2021, Theorem 1 by hand: each of the three bounds is the least somewhere."""
    for l2, l1, variance, shares, coordinates in [
        (1, 1, 1.0, 2, 1),
        (3, 9, 4.0, 3, 50),
        (2.0, 3.0, 1.5, 3, 10**6),
    ]:
        tau = 10 * sum(math.exp(-2 * math.pi**2 * variance / shares * k / (k + 1)) for k in range(1, shares))
        p2, p1 = l2 / math.sqrt(variance), l1 / math.sqrt(variance)
        for order in (2, 17, 256):
            three = (
                order / 2 * p2**2 + tau * coordinates,
                order / 2 * (p2**2 + 2 * p1 * tau + tau**2 * coordinates),
                order / 2 * (p2 + math.sqrt(coordinates) * tau) ** 2,
            )
            found = renyi.discrete_gaussian(l2, l1, variance, shares, coordinates)[order - 2]
            assert found == pytest.approx(min(three), rel=1e-12)
    plain = renyi.discrete_gaussian(1, 1, 1.0, 1, 10**6)
    assert plain == pytest.approx(renyi.ORDERS / 2, rel=1e-12)


def published(curve: Reals, rate: float, order: int) -> float:
    """Zhu & Wang 2019, Theorem 6, term by term in whole numbers and fractions."""
    q = Fraction(rate)
    total = (1 - q) ** (order - 1) * (order * q - q + 1)
    for j in range(2, order + 1):
        term = Fraction(math.exp((j - 1) * float(curve[j - 2])))
        total += math.comb(order, j) * (1 - q) ** (order - j) * q**j * term
    return math.log(total) / (order - 1)


@pytest.mark.parametrize("rate", [1e-4, 0.03, 0.34, 0.95])
def test_a_sampled_release_costs_what_the_published_formula_says(rate: float) -> None:
    for curve in (renyi.skellam(9, 60, 300), straight(0.002), straight(0.4)):
        orders = [order for order in (2, 3, 4, 7, 20, 60) if order * float(curve[order - 2]) < 600]
        found = at(renyi.sampled(curve, rate), np.array(orders))
        wanted = [min(published(curve, rate, order), float(curve[order - 2])) for order in orders]
        assert found == pytest.approx(wanted, rel=1e-9)


def test_sampling_nobody_is_free_and_sampling_all_is_no_sampling() -> None:
    curve = renyi.skellam(9, 60, 300)
    assert not renyi.sampled(curve, 0).any()
    assert np.array_equal(renyi.sampled(curve, 1), curve)
    almost = renyi.sampled(curve, 1 - 1e-12)
    assert (almost <= curve).all()
    assert almost == pytest.approx(curve, rel=1e-9)
    dearer = [renyi.sampled(curve, rate) for rate in (1e-9, 1e-3, 0.1, 0.3, 0.7, 0.99)]
    assert all((less <= more).all() for less, more in itertools.pairwise(dearer))


def exact_sampled(masses: Reals, shift: int, rate: float) -> tuple[Reals, Reals, Reals]:
    """Divergences at `FEW`: of the release itself, of a sample's with the record and without, and back."""
    there, absent = shifted_pair(masses, shift)
    whole = mixed(rate, there, absent)
    itself = divergence(there, absent, FEW.tolist())
    return itself, divergence(whole, absent, FEW.tolist()), divergence(absent, whole, FEW.tolist())


NOISES = [(SKELLAM, 4), (SKELLAM, 60), (SKELLAM, 2000), (GAUSSIAN, 4), (GAUSSIAN, 60), (GAUSSIAN, 2000)]
RATES = (1e-3, 0.02, 0.34, 0.8, 0.99)


@pytest.mark.parametrize(("distribution", "variance"), NOISES)
def test_a_sampled_release_is_never_worth_more_than_it_is_in_either_direction(
    distribution: str, variance: float
) -> None:
    for shift, rate in itertools.product((1, 4, 20), RATES):
        masses = log_masses(distribution, variance, math.ceil(33 * shift + 15 * math.sqrt(variance) + 60))
        itself, removed, added = exact_sampled(masses, shift, rate)
        if distribution == SKELLAM:
            ours = renyi.skellam(shift, shift, variance)
        else:
            ours = renyi.discrete_gaussian(shift, shift, variance, 1, 1)
        sharp = ours.copy()
        sharp[: len(FEW)] = itself
        for curve in (ours, sharp):
            bound = at(renyi.sampled(curve, rate), FEW)
            assert (bound >= removed * ROUNDING - 1e-13).all()
            assert (bound >= added * ROUNDING - 1e-13).all()


@pytest.mark.parametrize(("distribution", "variance"), NOISES)
def test_adding_a_record_to_symmetric_noise_never_costs_more_than_removing_it(
    distribution: str, variance: float
) -> None:
    """Mironov, Talwar & Zhang 2019, Theorem 5: the reflection that swaps noise and shifted noise is enough."""
    for shift, rate in itertools.product((1, 4, 20), RATES):
        masses = log_masses(distribution, variance, math.ceil(33 * shift + 15 * math.sqrt(variance) + 60))
        _, removed, added = exact_sampled(masses, shift, rate)
        assert (removed >= added * ROUNDING - 1e-13).all()


def test_sampling_symmetric_noise_costs_no_factor_of_three() -> None:
    """Without it the formula is an identity for removing a record, and adding one costs no more."""
    for distribution, variance, rate in [(SKELLAM, 60, 0.34), (SKELLAM, 2000, 0.02), (GAUSSIAN, 60, 0.8)]:
        itself, removed, _ = exact_sampled(log_masses(distribution, variance, 500), 4, rate)
        curve = straight(float(itself[-1] / FEW[-1]))
        curve[: len(FEW)] = itself
        assert at(renyi.sampled(curve, rate), FEW) == pytest.approx(removed, rel=1e-6)


@pytest.mark.parametrize("delta", [1e-3, 1.9e-4, 1e-8])
def test_epsilon_of_divergences_is_opacuss(delta: float) -> None:
    for curve in (renyi.skellam(9, 60, 300), straight(1e-3), 584 * renyi.sampled(straight(0.02), 0.3)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where the best order is the first or the last
            wanted, _ = get_privacy_spent(orders=renyi.ORDERS.tolist(), rdp=curve.tolist(), delta=delta)
        assert renyi.epsilon_of_curve(curve, delta) == pytest.approx(max(wanted, 0), rel=1e-12)
    assert renyi.epsilon_of_curve(np.zeros(len(renyi.ORDERS)), 0.5) == 0


def test_the_orders_are_all_whole_numbers_from_two_on() -> None:
    """The bound for a sample at one order needs the divergence at each below it."""
    assert renyi.ORDERS.tolist() == list(range(2, len(renyi.ORDERS) + 2))
