from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_fed.errors import InputError
from lightning_fed.privacy import calibration
from lightning_fed.privacy.accounting import epsilon
from lightning_fed.privacy.calibration import (
    GREATEST_MULTIPLIER,
    affordable_steps,
    gaussian_noise_multiplier_for,
    noise_multiplier_for,
    smallest_epsilon,
)
from lightning_fed.privacy.gaussian import gaussian_epsilon
from lightning_fed.privacy.poisson import PoissonGaussian

RATE = 256 / 1195
STEPS = 25 * 1195 // 256 + 1  # 25 epochs
IMAGES = (1093, 1298, 761, 1631, 926, 1466, 1090, 1302, 1125, 1267)


def check(asked: float, delta: float, rate: float, steps: int) -> float:
    found = noise_multiplier_for(asked, delta, rate, steps)
    assert asked * 0.9999 <= epsilon(PoissonGaussian(rate, found, steps), delta) <= asked
    return found


@pytest.mark.parametrize("asked", [0.5, 1, 2, 4, 6, 8, 16])
def test_the_multiplier_spends_the_budget_and_no_more(asked: float) -> None:
    check(asked, 1.9e-4, RATE, STEPS)


def afforded_steps(budget: float, rate: float, multiplier: float, at_most: int) -> int:
    return affordable_steps(
        lambda steps: epsilon(PoissonGaussian(rate, multiplier, steps), 1.9e-4), budget, at_most
    )


def test_known_multiplier() -> None:
    """2.363 by Opacus's PRV, of which its error of 0.01 is 0.008."""
    assert 2.35 < check(3, 1e-5, 0.05, 1000) < 2.363


def test_the_multiplier_falls_as_the_budget_grows() -> None:
    found = [noise_multiplier_for(asked, 1.9e-4, RATE, STEPS) for asked in (0.5, 1, 2, 4, 6, 8, 16)]
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(
    ("asked", "delta", "rate", "steps"),
    [
        (0.01, 1e-5, 0.01, 10000),
        (0.1, 1e-5, 0.2, 2000),
        (100, 1e-5, 0.001, 1),
        (5, 1e-5, 0.9, 1),
        (300, 1.9e-4, RATE, STEPS),
        (2000, 1e-5, 0.5, 100),
        (1e6, 1e-5, 0.5, 1),
        (3, 1e-5, 1.0, 100),
        (3, 1e-5, 1 - 1e-9, 100),
    ],
)
def test_corners(asked: float, delta: float, rate: float, steps: int) -> None:
    check(asked, delta, rate, steps)


@settings(max_examples=6, deadline=None)
@given(asked=st.floats(0.3, 20), log_delta=st.floats(-16, -7), rate=st.floats(0.01, 1), steps=st.integers(1, 1000))
def test_any_budget(asked: float, log_delta: float, rate: float, steps: int) -> None:
    found = noise_multiplier_for(asked, math.exp(log_delta), rate, steps)
    cost = epsilon(PoissonGaussian(rate, found, steps), math.exp(log_delta))
    assert asked * 0.995 <= cost <= asked


def test_ten_hospitals_take_few_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[PoissonGaussian] = []

    def counted(mechanism: PoissonGaussian, delta: float) -> float:
        asked.append(mechanism)
        return epsilon(mechanism, delta)

    monkeypatch.setattr(calibration, "epsilon_of", counted)
    for images in IMAGES:
        noise_multiplier_for(6.03, 1.9e-4, 256 / images, 100 * images // 256)
    assert len(asked) <= 4 * len(IMAGES)


def test_the_ledger_of_a_calibrated_run_ends_within_the_budget() -> None:
    multiplier = noise_multiplier_for(6, 1.9e-4, RATE, STEPS)
    assert epsilon(PoissonGaussian(RATE, multiplier, STEPS), 1.9e-4) <= 6
    assert afforded_steps(6, RATE, multiplier, STEPS) == STEPS


def test_affordable_steps() -> None:
    afforded = afforded_steps(6, 0.2, 2.0, 2000)
    assert epsilon(PoissonGaussian(0.2, 2.0, afforded), 1.9e-4) <= 6
    assert epsilon(PoissonGaussian(0.2, 2.0, afforded + 1), 1.9e-4) > 6
    assert afforded_steps(0.01, 0.2, 2.0, 2000) == 0
    assert afforded_steps(6, 0.2, 0.0, 2000) == 0
    assert afforded_steps(6, 0.2, 2.0, 0) == 0
    assert afforded_steps(6, 0.2, 2.0, 10) == 10


def test_a_budget_too_small_is_refused_with_the_smallest_that_would_do() -> None:
    least = smallest_epsilon(1e-5, 0.2, 1000)
    assert 0 < least < 0.01
    with pytest.raises(
        InputError, match=r"privacy\.epsilon is 1e-06.*1000 steps.*the smallest that would do is"
    ) as no:
        noise_multiplier_for(1e-6, 1e-5, 0.2, 1000)
    said = float(str(no.value).rsplit(" ", 1)[1])
    assert least <= said <= least * 1.002
    assert noise_multiplier_for(said, 1e-5, 0.2, 1000) <= GREATEST_MULTIPLIER


def test_one_step_at_the_greatest_multiplier_is_free_unless_delta_is_tiny() -> None:
    assert smallest_epsilon(1e-5, 0.2) < 1e-3
    with pytest.raises(InputError, match=r"one step.*smallest that would do"):
        noise_multiplier_for(1e-6, 1e-9, 0.9, 1)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ((0.0, 1e-5, 0.1, 1), "epsilon"),
        ((math.inf, 1e-5, 0.1, 1), "epsilon"),
        ((1e7, 1e-5, 0.1, 1), "epsilon"),
        ((1.0, 0.0, 0.1, 1), "delta"),
        ((1.0, 1e-5, 0.0, 1), "sample_rate"),
        ((1.0, 1e-5, 1.5, 1), "sample_rate"),
        ((1.0, 1e-5, 0.1, 0), "steps"),
    ],
)
def test_bad_values_are_named(values: tuple[float, float, float, int], key: str) -> None:
    with pytest.raises(InputError, match=key):
        noise_multiplier_for(*values)


@settings(max_examples=60, deadline=None)
@given(log_epsilon=st.floats(-4, 11.5), log_delta=st.floats(-60, -1), releases=st.integers(1, 100))
def test_gaussian_there_and_back(log_epsilon: float, log_delta: float, releases: int) -> None:
    asked, delta = math.exp(log_epsilon), math.exp(log_delta)
    found = gaussian_noise_multiplier_for(asked, delta, releases)
    assert asked * (1 - 1e-6) <= gaussian_epsilon(found, releases, delta) <= asked * (1 + 1e-11)


def test_gaussian_refusal() -> None:
    with pytest.raises(InputError, match=r"privacy\.epsilon is 0\.001.*smallest that would do is 0\.00127"):
        gaussian_noise_multiplier_for(0.001, 1e-5, 50)
