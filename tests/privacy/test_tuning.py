"""The price of choosing the best of several runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

from lightning_fed.errors import InputError
from lightning_fed.privacy.dose import Dose, Joint
from lightning_fed.privacy.gaussian import gaussian_epsilon
from lightning_fed.privacy.joint import grid_bound, noise_multiplier_of_one, sampled_curve
from lightning_fed.privacy.renyi import ORDERS as WHOLE
from lightning_fed.privacy.tuning import ORDERS, _gamma, epsilon_of_best

DELTA = 1.9e-4
DOSE = Dose("image", 0.2, 2.4, 1, None, None, DELTA)
STEPS = 300


def shared(distribution: str) -> Dose:
    joint = Joint(distribution, 76112, grid_bound(76112), 8, 10, 2**24)
    multiplier = noise_multiplier_of_one(joint, 0.2, STEPS, 6.0, DELTA)
    return Dose("image", 0.2, multiplier, 1, None, 6.0, DELTA, joint=joint)


def test_one_run_costs_what_it_costs_by_renyi_divergence() -> None:
    curve = compute_rdp(q=0.2, noise_multiplier=2.4, steps=STEPS, orders=list(ORDERS))
    alone = get_privacy_spent(orders=list(ORDERS), rdp=curve, delta=DELTA)[0]
    best = epsilon_of_best(DOSE, STEPS, 1)
    assert alone <= best  # that the one was looked at costs the divergence near order 1
    assert best < 1.6 * alone


@pytest.mark.parametrize("runs", [2.0, 10.0, 100.0])
def test_it_is_the_least_over_both_orders_of_the_published_bound(runs: float) -> None:
    gamma = _gamma(runs)
    curve = compute_rdp(q=0.2, noise_multiplier=2.4, steps=STEPS, orders=list(ORDERS))
    least = math.inf
    for order, divergence in zip(ORDERS, curve, strict=True):
        for other, its in zip(ORDERS, curve, strict=True):
            of_best = divergence + (1 - 1 / other) * its + math.log(1 / gamma) / other
            of_best += math.log(runs) / (order - 1)
            least = min(least, of_best + math.log1p(-1 / order) - math.log(DELTA * order) / (order - 1))
    assert epsilon_of_best(DOSE, STEPS, runs) == pytest.approx(least)


@pytest.mark.parametrize("runs", [1.5, 7.0, 40.0, 1000.0])
def test_the_parameter_gives_the_mean_number_of_runs(runs: float) -> None:
    gamma = _gamma(runs)
    numbers = np.arange(1, 2_000_000)
    chances = np.exp(numbers * math.log1p(-gamma)) / numbers
    assert (numbers * chances).sum() / chances.sum() == pytest.approx(runs, rel=1e-3)


@pytest.mark.parametrize("distribution", ["skellam", "discrete_gaussian"])
def test_more_runs_cost_more_and_no_more_than_twice_and_a_little(distribution: str) -> None:
    dose = shared(distribution)
    costs = [epsilon_of_best(dose, STEPS, runs) for runs in (1, 3, 30, 300)]
    assert costs == sorted(costs)
    assert costs[0] > 6.0
    assert costs[-1] < 25.0


def test_skellam_is_taken_at_its_own_orders() -> None:
    dose = shared("skellam")
    assert dose.joint is not None
    curve = STEPS * sampled_curve(dose.joint, 0.2, dose.noise_multiplier)
    best = min(
        float(one + (1 - 1 / b) * other + np.log1p(-1 / a) - math.log(DELTA * a) / (a - 1))
        for a, one in zip(WHOLE[:20], curve, strict=False)
        for b, other in zip(WHOLE[:20], curve, strict=False)
    )
    assert best < epsilon_of_best(dose, STEPS, 1) < 1.0002 * best, "with what the sampler may be off"


def test_updates_of_hospitals_are_tuned_at_the_price_of_their_gaussian() -> None:
    """The divergence of T releases is a T / 2 s^2 at order a: the published bound by hand."""
    dose, gamma, runs = Dose("hospital", 1.0, 5.0, 1, None, 6.0, DELTA), _gamma(30), 30
    curve = {float(order): 10 * float(order) / 2 / 5.0**2 for order in ORDERS}
    extra = min((1 - 1 / b) * its + math.log(1 / gamma) / b for b, its in curve.items())
    bounds = [
        its + extra + math.log(runs) / (a - 1) + math.log1p(-1 / a) - math.log(DELTA * a) / (a - 1)
        for a, its in curve.items()
    ]
    assert epsilon_of_best(dose, 10, runs) == pytest.approx(min(bounds))
    assert gaussian_epsilon(5.0, 10, DELTA) < epsilon_of_best(dose, 10, 1) < epsilon_of_best(dose, 10, runs)


def test_less_than_one_run_is_refused() -> None:
    with pytest.raises(InputError, match=r"privacy\.tuning_runs is 0: it must be 1 or greater"):
        epsilon_of_best(DOSE, STEPS, 0)
