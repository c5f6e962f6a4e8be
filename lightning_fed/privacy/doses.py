"""From an experiment's budget to each hospital's noise, and from what was charged to epsilon."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment
from lightning_fed.privacy.accounting import (
    PoissonGaussian,
    epsilon,
    epsilon_replace_one,
    gaussian_epsilon,
)
from lightning_fed.privacy.calibration import (
    affordable_steps,
    gaussian_noise_multiplier_for,
    noise_multiplier_for,
)
from lightning_fed.privacy.dose import Dose


def doses_of(experiment: Experiment, sizes: Sequence[int]) -> tuple[Dose, ...] | None:
    """The dose of each hospital, None where the mechanism is `none`.

    Calibrated to the budget of the whole run: all steps of the most rounds that a hospital may take part in. Which
    hospitals a round picks is the adversary's choice and saves nothing.

    Args:
        experiment: with its privacy, training and federation. sizes: training images by hospital, public.

    Raises:
        InputError: the budget does not pay for one round.
    """
    mechanism = experiment.privacy.mechanism
    if mechanism == "none":
        return None
    make = _record_dose if mechanism == "record" else _update_dose
    return tuple(make(experiment, size) for size in sizes)


def most_rounds(experiment: Experiment) -> int:
    """The most rounds that one hospital takes part in."""
    rounds = experiment.federation.rounds
    return min(experiment.privacy.participations or rounds, rounds)


def _record_dose(experiment: Experiment, size: int) -> Dose:
    privacy, federation = experiment.privacy, experiment.federation
    rate = privacy.sample_rate or min(1.0, experiment.training.batch_size / size)
    steps = federation.local_steps or max(1, round(federation.local_epochs / rate))
    total = steps * most_rounds(experiment)
    multiplier, most = privacy.noise_multiplier, total if privacy.participations else None
    if multiplier is None:
        assert privacy.epsilon is not None
        multiplier, most = noise_multiplier_for(privacy.epsilon, privacy.delta, rate, total), total
    elif privacy.epsilon is not None:
        most = affordable_steps(privacy.epsilon, privacy.delta, rate, multiplier, total)
    dose = Dose("image", rate, multiplier, steps, most, privacy.epsilon, privacy.delta, rate * size)
    return _payable(dose)


def _update_dose(experiment: Experiment, size: int) -> Dose:
    privacy, rounds = experiment.privacy, most_rounds(experiment)
    if not privacy.noise:
        return Dose("hospital", 1.0, 0.0, 1, None, None, privacy.delta)
    multiplier, most = privacy.noise_multiplier, rounds if privacy.participations else None
    if multiplier is None:
        assert privacy.epsilon is not None
        multiplier, most = gaussian_noise_multiplier_for(privacy.epsilon, privacy.delta, rounds), rounds
    elif privacy.epsilon is not None:
        spent = (gaussian_epsilon(multiplier, count, privacy.delta) for count in range(1, rounds + 1))
        most = sum(value <= privacy.epsilon for value in spent)
    return _payable(
        Dose("hospital", 1.0, multiplier, 1, most, privacy.epsilon, privacy.delta, adjacency=privacy.sensitivity)
    )


def _payable(dose: Dose) -> Dose:
    if not dose.affords(0, dose.steps):
        cost = epsilon_of(dose, dose.steps)
        least = math.ceil(1000 * cost) / 1000 if math.isfinite(cost) else cost
        raise InputError(
            f"privacy.epsilon is {dose.epsilon:g}: one round of {dose.steps} steps at noise "
            f"{dose.noise_multiplier:g} costs {least}; raise epsilon to that or the noise"
        )
    return dose


def epsilon_of(dose: Dose, steps: int, delta: float | None = None, accountant: str = "prv") -> float:
    """Epsilon of a hospital after so many charged releases; infinite without noise.

    Args:
        delta: another one than the dose's. accountant: for sampled releases; without sampling it is exact.
    """
    at = dose.delta if delta is None else delta
    if dose.unit == "hospital":
        return gaussian_epsilon(dose.noise_multiplier, steps, at)
    return epsilon(PoissonGaussian(dose.rate, dose.noise_multiplier, steps), at, accountant)


def epsilon_if_blanked(dose: Dose, steps: int) -> float:
    """Epsilon where an image, or a hospital, is blanked, whichever the noise was made for."""
    if dose.adjacency == "zero_out":
        return epsilon_of(dose, steps)
    return gaussian_epsilon(2 * dose.noise_multiplier, steps, dose.delta)


def epsilon_if_replaced(dose: Dose, steps: int) -> float:
    """Epsilon where an image, or a hospital, is replaced by any other, whichever the noise was made for."""
    if dose.adjacency == "replace_one":
        return epsilon_of(dose, steps)
    if dose.unit == "hospital":
        return gaussian_epsilon(dose.noise_multiplier / 2, steps, dose.delta)
    return epsilon_replace_one(PoissonGaussian(dose.rate, dose.noise_multiplier, steps), dose.delta)
