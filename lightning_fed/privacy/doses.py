"""From an experiment's budget to each hospital's noise, and from what was charged to epsilon."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment
from lightning_fed.privacy.accounting import epsilon, epsilon_replace_one
from lightning_fed.privacy.calibration import (
    affordable_steps,
    gaussian_noise_multiplier_for,
    noise_multiplier_for,
)
from lightning_fed.privacy.dose import Dose, Joint
from lightning_fed.privacy.gaussian import gaussian_epsilon
from lightning_fed.privacy.joint import (
    epsilon as joint_epsilon,
)
from lightning_fed.privacy.joint import (
    epsilon_realised,
    epsilon_replaced,
    grid_bound,
    noise_multiplier_of_one,
    refuse_other_variances,
)
from lightning_fed.privacy.poisson import PoissonGaussian


def doses_of(experiment: Experiment, sizes: Sequence[int], coordinates: int = 0) -> tuple[Dose, ...] | None:
    """The dose of each hospital, None where the mechanism is `none`.

    Calibrated to the budget of the whole run: all steps of the most rounds that a hospital may take part in. Which
    hospitals a round picks is the adversary's choice and saves nothing.

    Args:
        experiment: with its privacy, training and federation. sizes: training images by hospital, public.
        coordinates: of an update, where the noise is made for a grid (`distributed`).

    Raises:
        InputError: the budget does not pay for one round.
    """
    mechanism = experiment.privacy.mechanism
    if mechanism == "none":
        return None
    if mechanism == "distributed":
        return _joint_doses(experiment, sizes, coordinates)
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
        most = affordable_steps(
            lambda taken: epsilon(PoissonGaussian(rate, multiplier, taken), privacy.delta), privacy.epsilon, total
        )
    dose = Dose("image", rate, multiplier, steps, most, privacy.epsilon, privacy.delta, rate * size)
    return _payable(dose)


def _joint_doses(experiment: Experiment, sizes: Sequence[int], coordinates: int) -> tuple[Dose, ...]:
    """One rate, one grid and one noise for all hospitals."""
    if coordinates < 1:
        raise ValueError("the grid's sensitivity depends on the number of coordinates")
    privacy, federation = experiment.privacy, experiment.federation
    rate = privacy.sample_rate or min(1.0, experiment.training.batch_size / sum(sizes))
    largest, bound = rate * max(sizes), grid_bound(coordinates)
    # A larger sample than this has a chance of less than 1e-8, and to be cut costs no privacy.
    sampled = math.ceil(largest + 6 * math.sqrt(largest) + 10)
    joint = Joint(
        privacy.distribution,
        coordinates,
        bound,
        experiment.counted_survivors,
        federation.cohort_size,
        min(sampled, max(sizes)) * bound,
    )
    steps = federation.local_steps or 1
    total = steps * most_rounds(experiment)
    most = total if privacy.participations else None
    if privacy.noise_multiplier is not None:
        multiplier = privacy.noise_multiplier / math.sqrt(joint.counted)
        if privacy.epsilon is not None:
            most = affordable_steps(
                lambda taken: joint_epsilon(joint, rate, multiplier, taken, privacy.delta), privacy.epsilon, total
            )
    else:
        assert privacy.epsilon is not None
        multiplier, most = noise_multiplier_of_one(joint, rate, total, privacy.epsilon, privacy.delta), total
    refuse_other_variances(joint, multiplier)
    return tuple(
        _payable(
            Dose("image", rate, multiplier, steps, most, privacy.epsilon, privacy.delta, rate * size, joint=joint)
        )
        for size in sizes
    )


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
    if dose.joint is not None:
        return joint_epsilon(dose.joint, dose.rate, dose.noise_multiplier, steps, at, accountant)
    return epsilon(PoissonGaussian(dose.rate, dose.noise_multiplier, steps), at, accountant)


def epsilon_if_blanked(dose: Dose, steps: int) -> float:
    """Epsilon where an image, or a hospital, is blanked, whichever the noise was made for."""
    if dose.adjacency == "zero_out":
        return epsilon_of(dose, steps)
    return gaussian_epsilon(2 * dose.noise_multiplier, steps, dose.delta)


def epsilon_of_sums(dose: Dose, steps: int, honest: Sequence[int]) -> float:
    """Epsilon by the honest hospitals that were in the opened sums.

    Args:
        steps: releases that the hospital was charged for. honest: such hospitals in each sum that it was in; what
            is charged beyond those had at least the noise that is counted on.
    """
    assert dose.joint is not None
    by_honest = Counter(dict.fromkeys((dose.joint.counted,), max(steps - dose.steps * len(honest), 0)))
    for number in honest:
        by_honest[number] += dose.steps
    return epsilon_realised(dose.joint, dose.rate, dose.noise_multiplier, by_honest, dose.delta)


def epsilon_with_all(dose: Dose, steps: int) -> float:
    """Epsilon if all hospitals of a cohort were in every sum and none of them colluded."""
    assert dose.joint is not None
    return epsilon_of(replace(dose, joint=replace(dose.joint, counted=dose.joint.hospitals)), steps)


def epsilon_if_replaced(dose: Dose, steps: int) -> float:
    """Epsilon where an image, or a hospital, is replaced by any other, whichever the noise was made for."""
    if dose.adjacency == "replace_one":
        return epsilon_of(dose, steps)
    if dose.unit == "hospital":
        return gaussian_epsilon(dose.noise_multiplier / 2, steps, dose.delta)
    if dose.joint is not None:
        return epsilon_replaced(dose.joint, dose.rate, dose.noise_multiplier, steps, dose.delta)
    return epsilon_replace_one(PoissonGaussian(dose.rate, dose.noise_multiplier, steps), dose.delta)
