"""From a budget to noise: rates, steps, totals, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lightning_fed.errors import InputError
from lightning_fed.experiment import Data, Experiment, Federation, Privacy, Training
from lightning_fed.privacy.accounting import epsilon
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.doses import doses_of, epsilon_of, most_rounds
from lightning_fed.privacy.poisson import PoissonGaussian


def experiment(federation: dict[str, Any] | None = None, **privacy: Any) -> Experiment:
    settled: dict[str, Any] = {"epsilon": 6.0, "delta": 1.9e-4} | privacy
    return Experiment(
        data=Data(validation=0.0),
        training=Training(batch_size=64),
        federation=Federation(
            **{"hospitals": 2, "rounds": 5, "local_epochs": 2, "weighting": "equal"} | (federation or {})
        ),
        privacy=Privacy(**{"mechanism": "record"} | settled),
    )


def doses(settings: Experiment, *sizes: int) -> tuple[Dose, ...]:
    found = doses_of(settings, sizes)
    assert found is not None
    return found


def test_without_a_mechanism_there_is_no_dose() -> None:
    assert doses_of(Experiment(), [10]) is None


@pytest.mark.parametrize("size", [49, 98, 103, 107, 161, 187, 196, 1093, 1999])
def test_the_rate_is_the_true_one_and_the_steps_are_set_by_themselves(size: int) -> None:
    """`int(1 / (1 / n))` is not n for 141 numbers below 2000: the first of them are 49, 98, 103, 107."""
    settings = replace(experiment(noise_multiplier=1.0, epsilon=None), training=Training(batch_size=1))
    (dose,) = doses(replace(settings, federation=replace(settings.federation, local_epochs=1)), size)
    assert dose.rate == 1 / size
    assert dose.steps == size
    assert dose.batch == pytest.approx(1.0, abs=1e-12)


def test_the_trap_is_a_real_one() -> None:
    assert sum(int(1 / (1 / n)) != n for n in range(1, 2000)) == 141


@pytest.mark.parametrize(
    ("federation", "privacy", "rate", "steps"),
    [
        ({}, {}, 64 / 1000, 31),
        ({"local_steps": 7}, {}, 64 / 1000, 7),
        ({}, {"sample_rate": 0.25}, 0.25, 8),
        ({"local_steps": 3}, {"sample_rate": 1.0}, 1.0, 3),
        ({"local_epochs": 1}, {"sample_rate": 1.0}, 1.0, 1),
    ],
)
def test_rate_and_steps_of_a_round(
    federation: dict[str, Any], privacy: dict[str, Any], rate: float, steps: int
) -> None:
    (dose,) = doses(experiment(federation, noise_multiplier=1.0, epsilon=None, **privacy), 1000)
    assert (dose.unit, dose.rate, dose.steps, dose.most_steps) == ("image", rate, steps, None)
    assert dose.batch == pytest.approx(rate * 1000)


def test_a_hospital_smaller_than_the_batch_is_sampled_whole() -> None:
    (dose,) = doses(experiment(noise_multiplier=1.0, epsilon=None), 40)
    assert (dose.rate, dose.batch, dose.steps) == (1.0, 40.0, 2)


def test_noise_is_for_all_steps_of_all_rounds_and_the_budget_ends_there() -> None:
    (dose,) = doses(experiment(), 1000)
    assert dose.most_steps == 5 * dose.steps == 155
    spent = epsilon(PoissonGaussian(dose.rate, dose.noise_multiplier, 155), 1.9e-4)
    assert 0.9995 * 6 < spent <= 6
    assert epsilon_of(dose, 155) == spent
    assert dose.affords(124, 31)
    assert not dose.affords(125, 31)


def test_the_rounds_that_a_hospital_takes_part_in_at_most_count_and_nothing_is_saved_by_picking() -> None:
    everyone = doses(experiment(), 1000)
    picked = doses(experiment({"participation": 0.5, "hospitals": 2}), 1000)
    assert picked == everyone  # the adversary picks
    (fewer,) = doses(experiment(participations=2), 1000)
    assert fewer.most_steps == 2 * fewer.steps
    assert fewer.noise_multiplier < everyone[0].noise_multiplier
    assert most_rounds(experiment(participations=2)) == 2
    assert most_rounds(experiment(participations=99)) == 5
    (bound,) = doses(experiment(participations=2, epsilon=None, noise_multiplier=1.0), 1000)
    assert bound.most_steps == 2 * bound.steps


def test_each_size_has_its_own_noise_and_the_smallest_hospital_the_most() -> None:
    found = doses(experiment(), 400, 800, 1600)
    multipliers = [dose.noise_multiplier for dose in found]
    assert multipliers == sorted(multipliers, reverse=True)
    assert len(set(multipliers)) == 3
    for dose in found:
        assert dose.most_steps is not None
        assert 0.9995 * 6 < epsilon_of(dose, dose.most_steps) <= 6


def test_a_smaller_budget_or_delta_asks_for_more_noise() -> None:
    ladder = [doses(experiment(epsilon=value), 1000)[0].noise_multiplier for value in (0.5, 2, 6, 16)]
    assert ladder == sorted(ladder, reverse=True)
    assert ladder[0] > 3 * ladder[-1]
    assert doses(experiment(delta=1e-6), 1000)[0].noise_multiplier > doses(experiment(), 1000)[0].noise_multiplier


def test_a_multiplier_without_a_budget_is_taken_as_it_is() -> None:
    (dose,) = doses(experiment(epsilon=None, noise_multiplier=0.9), 1000)
    assert (dose.noise_multiplier, dose.most_steps, dose.epsilon) == (0.9, None, None)
    assert dose.affords(10**9, 31)


def test_a_multiplier_with_a_budget_pays_for_as_many_steps_as_it_does() -> None:
    (dose,) = doses(experiment(epsilon=4.0, noise_multiplier=0.9), 1000)
    assert dose.most_steps is not None
    assert 31 <= dose.most_steps < 155
    assert epsilon_of(dose, dose.most_steps) <= 4.0 < epsilon_of(dose, dose.most_steps + 1)
    (plenty,) = doses(experiment(epsilon=50.0, noise_multiplier=2.0), 1000)
    assert plenty.most_steps == 155


def test_a_budget_that_pays_for_no_round_is_refused_with_one_that_would() -> None:
    with pytest.raises(InputError, match=r"privacy\.epsilon is 1.*costs (\S+); raise epsilon to that") as caught:
        doses(experiment(epsilon=1.0, noise_multiplier=0.6), 1000)
    least = float(str(caught.value).split("costs ")[1].split(";")[0])
    assert doses(experiment(epsilon=least, noise_multiplier=0.6), 1000)[0].most_steps is not None


def test_a_budget_too_small_for_any_noise_is_refused_with_the_smallest_that_would_do() -> None:
    with pytest.raises(InputError, match=r"privacy\.epsilon is 1e-06.*the smallest that would do is") as caught:
        doses(experiment(epsilon=1e-6, delta=1e-9), 1000)
    least = float(str(caught.value).split("would do is ")[1])
    assert doses(experiment(epsilon=least, delta=1e-9), 1000)


def test_an_update_dose_counts_rounds() -> None:
    settings = experiment(mechanism="update", epsilon=4.0, noise_multiplier=3.0)
    found = doses(settings, 100, 900)
    assert found[0] == found[1]  # the count of images is private
    (dose, _) = found
    assert dose.most_steps is not None
    assert epsilon_of(dose, dose.most_steps) <= 4.0
    with pytest.raises(InputError, match=r"privacy\.epsilon is 0\.1: one round of 1 steps at noise 3 costs"):
        doses(experiment(mechanism="update", epsilon=0.1, noise_multiplier=3.0), 100)


@pytest.mark.parametrize("mechanism", ["record", "update"])
def test_epsilon_over_the_rounds_starts_at_nothing_and_ends_at_the_budget(mechanism: str) -> None:
    (dose,) = doses(experiment(mechanism=mechanism), 1000)
    curve = [epsilon_of(dose, done * dose.steps) for done in range(6)]
    assert curve[0] == 0
    assert curve == sorted(set(curve))
    assert 5.9 < curve[-1] <= 6


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"epsilon": None}, r"privacy\.epsilon"),
        ({"epsilon": -1.0}, r"privacy\.epsilon"),
        ({"delta": 0.0}, r"privacy\.delta"),
        ({"accountant": "gdp"}, r"privacy\.accountant is 'gdp'"),
        ({"accountant": "rdp"}, r"privacy\.accountant is 'rdp'"),
        ({"noise": False}, r"privacy\.noise"),
        ({"sample_rate": 1.5}, r"privacy\.sample_rate"),
    ],
)
def test_settings_that_guarantee_nothing_are_refused_by_their_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError, match=key):
        experiment(**settings)


@pytest.mark.parametrize(
    ("section", "values", "key"),
    [
        ("data", {"validation": 0.2}, r"data\.validation"),
        ("model", {"name": "resnet9", "norm": "batch"}, r"model\.norm"),
    ],
)
def test_what_would_leak_beside_the_noise_is_refused(section: str, values: dict[str, Any], key: str) -> None:
    base = experiment()
    with pytest.raises(InputError, match=key):
        replace(base, **{section: replace(getattr(base, section), **values)})


def test_update_level_weights_by_images_are_refused() -> None:
    with pytest.raises(InputError, match=r"federation\.weighting is 'images'"):
        experiment({"weighting": "images"}, mechanism="update")
    assert experiment({"weighting": "images", "weights": [1, 2]}, mechanism="update")
    assert experiment({"weighting": "images"})
