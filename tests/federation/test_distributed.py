"""Distributed DP through whole rounds: what the server's sum carries, for every number of survivors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lightning_fed.data.datamodule import DrawnPlan
from lightning_fed.errors import FederationError, InputError
from lightning_fed.experiment import Dropout, Experiment, Faults, Federation, Loss, Privacy, SecAgg
from lightning_fed.federation.aggregation import mean_gradient_of
from lightning_fed.federation.driver import Driver
from lightning_fed.federation.roster import Roster
from lightning_fed.federation.site import Site, refuse_thin_noise
from lightning_fed.models.vector import Vector, load_vector
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.joint import ROUNDING, sensitivity, variance_of_one
from lightning_fed.privacy.sums import on_grid
from lightning_fed.secagg.wire import add_packed
from tests.federation.protected import (
    C,
    clipped_gradients,
    driver_of,
    experiment,
    first_weights,
    flip_diagnostics,
    protection,
    with_changes,
)
from tests.federation.secrecy import alike, arrays

HOSPITALS = 10
SMALL = 1e-3
"""A clipping norm that every image's gradient is longer than."""
SURVIVORS = SecAgg(protocol="secagg_plus", min_survivors=7)
Real = NDArray[np.float64]


class Frozen(torch.nn.Module):
    """A network of a user with a layer that does not train."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(in_channels, 4, 3)
        self.last = torch.nn.Linear(4, num_classes)
        self.first.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(self.first(images).mean((2, 3)))
        return logits


def settings(rounds: int = 1, distribution: str = "skellam", **privacy: Any) -> Experiment:
    values = {"reproducible": True, "distribution": distribution, **privacy}
    base = experiment("none")
    return replace(
        base,
        privacy=Privacy(mechanism="distributed", **{"noise_multiplier": 1.2, "max_grad_norm": C, **values}),
        data=replace(base.data, images=200),
        training=replace(base.training, batch_size=60),
        federation=Federation(hospitals=HOSPITALS, rounds=rounds, local_steps=1),
        secagg=SURVIVORS,
    )


def losing(base: Experiment, *hospitals: int, stage: str = "after_shares") -> Experiment:
    losses = [Loss(1, hospital, stage) for hospital in hospitals]  # type: ignore[arg-type]
    return replace(base, faults=Faults(Dropout(losses=losses)))


def without_noise(driver: Driver) -> None:
    """Every hospital's own multiplier 0, as if the noise had been left out."""
    for hospital in site(driver).hospitals.values():
        assert hospital.protection is not None
        hospital.protection.dose = replace(hospital.protection.dose, noise_multiplier=0.0)


def site(driver: Driver) -> Site:
    return driver.crew.site  # type: ignore[attr-defined,no-any-return]


def dose_of(driver: Driver) -> Dose:
    assert driver.roster.doses is not None
    return driver.roster.doses[0]


def opened(driver: Driver) -> tuple[Real, tuple[int, ...]]:
    """The opened sum of a run of one round, in steps of the grid, and the hospitals in it."""
    seen: list[tuple[Real, tuple[int, ...]]] = []
    mean_of = driver.aggregation.mean_of  # type: ignore[attr-defined]

    def noted(total: Any, survivors: tuple[int, ...]) -> Vector:
        terms = driver.aggregation.terms  # type: ignore[attr-defined]
        seen.append((terms.encoding.decode(total).astype(np.float64), survivors))
        mean: Vector = mean_of(total, survivors)
        return mean

    driver.aggregation.mean_of = noted  # type: ignore[attr-defined]
    for _ in driver.rounds():
        pass
    (found,) = seen
    return found


def own_signal(driver: Driver, hospital: int) -> Real:
    """A hospital's clipped sum of the last round, image by image, in steps of the grid."""
    joint = dose_of(driver).joint
    assert joint is not None
    sums = clipped_gradients(site(driver), hospital, first_weights(driver.experiment))
    return sums * (joint.bound / C)


@pytest.mark.parametrize("distribution", ["skellam", "discrete_gaussian"])
@pytest.mark.parametrize("lost", [(), (4,), (0, 5, 9)], ids=["none", "one", "three"])
def test_the_opened_sum_carries_at_least_the_charged_noise_and_is_unbiased(
    tmp_path: Path, distribution: str, lost: tuple[int, ...]
) -> None:
    driver = driver_of(losing(settings(distribution=distribution), *lost), tmp_path)
    dose = dose_of(driver)
    assert dose.joint is not None
    assert dose.joint.counted == 6  # seven survivors at least, one of whom may collude
    charged = variance_of_one(dose.joint, dose.noise_multiplier) * dose.joint.counted
    total, survivors = opened(driver)
    assert survivors == tuple(sorted(set(range(HOSPITALS)) - set(lost)))
    noise = total - sum(own_signal(driver, hospital) for hospital in survivors)
    expected = variance_of_one(dose.joint, dose.noise_multiplier) * len(survivors)
    assert expected - variance_of_one(dose.joint, dose.noise_multiplier) >= charged * (1 - 1e-12)
    spread = np.sqrt(2 / len(noise))  # of a variance, over its own size
    assert noise.var() == pytest.approx(expected, rel=5 * spread)
    assert noise.var() > charged
    assert abs(noise.mean()) < 5 * np.sqrt(expected / len(noise))


def test_the_charged_noise_is_that_of_the_privacy_settings(tmp_path: Path) -> None:
    dose = dose_of(driver_of(settings(noise_multiplier=1.2), tmp_path))
    assert dose.joint is not None
    l2 = dose.joint.bound * 1.001 + np.sqrt(dose.joint.coordinates)
    assert sensitivity(dose.joint)[0] == pytest.approx(l2)
    total = variance_of_one(dose.joint, dose.noise_multiplier) * dose.joint.counted
    assert np.sqrt(total) == pytest.approx(1.2 * l2)
    assert dose.joint.bound >= 100 * np.sqrt(dose.joint.coordinates)


def test_without_noise_the_sum_is_that_of_the_hospitals_rounded_sums_to_the_bit(tmp_path: Path) -> None:
    driver = driver_of(settings(), tmp_path)
    without_noise(driver)
    weights = driver.model.weights.copy()
    rounded: dict[int, Any] = {}
    for number, hospital in site(driver).hospitals.items():
        assert hospital.protection is not None
        protect = hospital.protection.protect

        def noted(permit: Any, made: Any, number: int = number, protect: Any = protect) -> Any:
            dose = protection(site(driver), number).dose
            rounded[number] = on_grid(made[0], C, dose, permit.stream("rounding"))
            return protect(permit, made)

        hospital.protection.protect = noted  # type: ignore[method-assign]
    total, survivors = opened(driver)
    assert np.array_equal(total, sum(rounded[hospital] for hospital in survivors))
    dose = dose_of(driver)
    assert dose.joint is not None
    central = sum(own_signal(driver, hospital) for hospital in survivors)
    assert np.abs(total - central).max() < HOSPITALS * 1.01  # each rounds by less than a step of the grid
    sizes = [len(member.train) for member in driver.roster.members]
    batch = dose.rate * sum(sizes)
    mean = (weights - driver.model.weights) / driver.experiment.training.lr
    step = C / dose.joint.bound
    assert mean == pytest.approx(central * step / batch, abs=1.01 * HOSPITALS * step / batch)


@pytest.mark.parametrize("survivors", range(7, HOSPITALS + 1))
def test_what_colluders_know_taken_away_leaves_the_charged_variance(tmp_path: Path, survivors: int) -> None:
    lost = tuple(range(survivors, HOSPITALS))
    driver = driver_of(losing(settings(), *lost), tmp_path)
    joint = dose_of(driver).joint
    assert joint is not None
    own = variance_of_one(joint, dose_of(driver).noise_multiplier)
    charged = joint.counted * own
    shares = {number: np.zeros(0) for number in range(survivors)}
    for number in shares:
        held = protection(site(driver), number)
        protect = held.protect

        def noted(permit: Any, made: Any, number: int = number, held: Any = held, protect: Any = protect) -> Any:
            sent = protect(permit, made)
            shares[number] = sent - on_grid(made[0], C, held.dose, permit.stream("rounding"))
            return sent

        held.protect = noted  # type: ignore[method-assign]
    total, counted = opened(driver)
    assert counted == tuple(range(survivors))
    colluder = 2
    left = sum(shares[number] for number in counted if number != colluder)
    assert np.var(left) == pytest.approx((survivors - 1) * own, rel=5 * np.sqrt(2 / len(total)))
    assert (survivors - 1) * own >= charged * (1 - 1e-12)
    noise = total - sum(own_signal(driver, hospital) for hospital in counted)
    assert np.corrcoef(noise - shares[colluder], left)[0, 1] > 0.999


def test_noises_of_hospitals_rounds_and_samples_are_independent(tmp_path: Path) -> None:
    base = replace(settings(), federation=Federation(hospitals=HOSPITALS, rounds=2, local_steps=2))
    driver = driver_of(base, tmp_path)
    noises: list[Real] = []
    draws: list[tuple[int, ...]] = []
    for number in range(3):
        held = protection(site(driver), number)
        protect = held.protect

        def noted(permit: Any, made: Any, held: Any = held, protect: Any = protect) -> Any:
            rounding = permit.stream("rounding")
            signal = sum(on_grid(one, C, held.dose, rounding) for one in made)
            sent = protect(permit, made)
            noises.append((sent - signal).astype(np.float64))
            plan = held.plan(permit)
            draws.extend(tuple(draw) for draw in plan.draws)
            return sent

        held.protect = noted  # type: ignore[method-assign]
    for _ in driver.rounds():
        pass
    assert len(noises) == 6
    correlations = np.corrcoef(noises) - np.eye(6)
    assert np.abs(correlations).max() < 5 / np.sqrt(len(noises[0]))
    assert len(set(draws)) == len(draws)  # no sample is drawn again
    joint = dose_of(driver).joint
    assert joint is not None
    twice = 2 * variance_of_one(joint, dose_of(driver).noise_multiplier)
    assert [noise.var() for noise in noises] == pytest.approx([twice] * 6, rel=5 * np.sqrt(2 / len(noises[0])))


def test_a_round_of_several_samples_takes_all_gradients_at_its_public_weights(tmp_path: Path) -> None:
    base = replace(settings(), federation=Federation(hospitals=HOSPITALS, rounds=1, local_steps=3))
    driver = driver_of(base, tmp_path)
    without_noise(driver)
    weights = driver.model.weights.copy()
    total, survivors = opened(driver)
    central = sum(own_signal(driver, hospital) for hospital in survivors)  # at the first weights, all samples
    assert np.abs(total - central).max() < 3 * HOSPITALS * 1.01
    assert [protection(site(driver), hospital).ledger.spent for hospital in survivors] == [3] * HOSPITALS
    assert not np.array_equal(weights, driver.model.weights)


def test_epsilon_is_charged_by_the_counted_survivors_whoever_else_survives(tmp_path: Path) -> None:
    base = settings(rounds=3, noise_multiplier=None, epsilon=4.0)
    told = []
    for place, lost in enumerate([(), (0, 5, 9)]):
        driver = driver_of(losing(base, *lost), tmp_path / str(place))
        told.append([record.trained.epsilon_by_hospital for record in driver.rounds()][-1])
    assert told[0] is not None
    assert told[1] is not None
    assert told[0][1] == told[1][1] == pytest.approx(4.0, rel=1e-3)
    assert max(told[0]) <= 4.0


def test_too_few_survivors_open_nothing_and_their_round_stays_charged(tmp_path: Path) -> None:
    driver = driver_of(losing(settings(), 0, 1, 2, 3), tmp_path)
    weights = driver.model.weights.copy()
    with pytest.raises(FederationError, match="no round of 1 gave a new model"):
        list(driver.rounds())
    assert [protection(site(driver), hospital).ledger.spent for hospital in (4, 5, 9)] == [1, 1, 1]
    assert np.array_equal(driver.model.weights, weights)


def test_a_resumed_run_ends_where_an_uninterrupted_one_ends(tmp_path: Path) -> None:
    base = with_changes(settings(rounds=3), training={"momentum": 0.9}, federation={"ema": 0.5})
    whole = driver_of(base, tmp_path / "whole")
    for _ in whole.rounds():
        pass
    cut = driver_of(base, tmp_path / "cut")
    rounds = iter(cut.rounds())
    next(rounds)
    again = driver_of(base, tmp_path / "cut")
    again.resume()
    for _ in again.rounds():
        pass
    assert np.array_equal(whole.model.weights, again.model.weights)
    assert np.array_equal(whole.model.released, again.model.released)
    assert whole.spent() == again.spent()


def test_flipping_every_diagnostic_leaves_the_final_weights_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = with_changes(settings(rounds=2), federation={"ema": 0.5})
    models = []
    for name in ("honest", "flipped"):
        driver = driver_of(base, tmp_path / name)
        told = list(driver.rounds())
        models.append((driver.model.weights, driver.model.released, told[0].train_loss))
        flip_diagnostics(monkeypatch)
    (honest, average, loss), (flipped, other, lie) = models
    assert loss != lie
    assert np.array_equal(honest, flipped)
    assert np.array_equal(average, other)


def test_what_leaves_a_hospital_is_masked(tmp_path: Path) -> None:
    """Promise 1: the noised sum itself, whose noise is a share only, is in nothing that a site gives away."""
    driver = driver_of(settings(), tmp_path)
    own: dict[int, Any] = {}
    gone: dict[int, list[Any]] = {}
    place, fit = site(driver), site(driver).fit

    def noted(hospital: int, *arguments: Any) -> tuple[Any, ...]:
        protect = protection(place, hospital).protect
        protection(place, hospital).protect = lambda *given: own.setdefault(hospital, protect(*given))  # type: ignore[method-assign]
        gone[hospital] = list(fit(hospital, *arguments))
        return tuple(gone[hospital])

    place.fit = noted  # type: ignore[method-assign,assignment]
    list(driver.rounds())
    terms = driver.aggregation.terms  # type: ignore[attr-defined]
    for hospital, values in gone.items():
        clear = terms.encoding.encode(own[hospital])
        (packed,) = arrays(values)
        assert packed.dtype == np.uint8
        sent = np.zeros(len(clear), dtype=np.uint32)
        add_packed(sent, packed, terms.encoding.ring_bits)
        assert (sent == clear).mean() < 0.01
        assert not alike((sent & 0xFFFF).astype(float), (clear & 0xFFFF).astype(float))
        assert place.hospitals[hospital].update is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"secagg": SecAgg(protocol="plain")}, r"secagg\.protocol is 'plain'.*set it to secagg_plus"),
        ({"secagg": SecAgg(protocol="additive")}, r"secagg\.protocol is 'additive'.*set it to secagg_plus"),
        (
            {"secagg": SecAgg(protocol="secagg_plus", degree=4, threshold=4, allow_unsafe=True)},
            r"secagg\.degree is 4.*set it to 9",
        ),
        (
            {"secagg": SecAgg(protocol="secagg_plus", degree=9, threshold=4, allow_unsafe=True)},
            r"leave allow_unsafe out",
        ),
        ({"federation": Federation(hospitals=10, local_epochs=2)}, r"federation\.local_steps: .* set it to 1"),
        ({"federation": Federation(hospitals=10, local_steps=1, strategy="fedprox")}, r"federation\.strategy"),
        ({"federation": Federation(hospitals=10, local_steps=1, server_optimizer="Adam")}, r"server_optimizer"),
        ({"federation": Federation(hospitals=10, local_steps=1, weights=[1] * 10)}, r"federation\.weights"),
        (
            {"privacy": Privacy(mechanism="distributed", epsilon=6.0, colluding_hospitals=2)},
            r"privacy\.colluding_hospitals is 2, but secagg\.adversary_rate counts on 1 of 10; set that to 0\.2",
        ),
        (
            {"federation": Federation(hospitals=20, participation=0.5, local_steps=1)},
            r"federation\.participation: two sums of 7 of the 20 hospitals could be opened in one round",
        ),
    ],
)
def test_what_would_not_hold_is_refused_with_the_mend(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(settings(), **changes)


def test_a_ring_among_many_hospitals_is_refused(tmp_path: Path) -> None:
    many = Federation(hospitals=20, local_steps=1)
    with pytest.raises(InputError, match=r"secagg\.degree is \d+.*set it to 19, every other hospital"):
        replace(settings(), federation=many, secagg=SecAgg(protocol="secagg_plus"))
    whole = SecAgg(protocol="secagg_plus", degree=19, threshold=14)
    assert replace(settings(), federation=many, secagg=whole).counted_survivors == 13


def test_clients_that_would_open_a_thinner_sum_than_was_counted_are_refused(tmp_path: Path) -> None:
    driver = driver_of(settings(), tmp_path)
    dose, terms = dose_of(driver), driver.aggregation.terms  # type: ignore[attr-defined]
    assert terms.least_survivors == 7
    refuse_thin_noise(driver.experiment, terms, dose)
    assert dose.joint is not None
    more = replace(dose, joint=replace(dose.joint, counted=8))
    with pytest.raises(InputError, match=r"secagg\.min_survivors: clients would open .* set it to 9"):
        refuse_thin_noise(driver.experiment, terms, more)
    roster: Roster = driver.roster.with_doses([more] * HOSPITALS)
    with pytest.raises(InputError, match=r"set it to 9"):
        Site(driver.experiment, site(driver).data, roster.members, tmp_path)


def test_a_network_with_numbers_that_no_gradient_moves_is_refused(tmp_path: Path) -> None:
    base = settings()
    frozen = replace(base, model=replace(base.model, class_path="tests.federation.test_distributed.Frozen"))
    with pytest.raises(InputError, match=r"'first\.weight' is a buffer, frozen or shared"):
        driver_of(frozen, tmp_path)


def test_the_mean_is_over_the_public_nominal_batch_of_the_survivors(tmp_path: Path) -> None:
    driver = driver_of(settings(), tmp_path)
    assert driver.roster.doses is not None
    terms = driver.aggregation.terms  # type: ignore[attr-defined]
    mean_of = mean_gradient_of(terms.encoding, driver.roster.doses, C)
    total = terms.encoding.encode(np.array([5000, -5000, 0]))
    joint = driver.roster.doses[0].joint
    assert joint is not None
    for survivors in [tuple(range(HOSPITALS)), tuple(range(7))]:
        batch = sum(driver.roster.doses[hospital].batch for hospital in survivors)
        expected = np.array([5000, -5000, 0]) / joint.bound * C / batch
        assert mean_of(total, survivors) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_an_image_changes_how_others_are_rounded_by_less_than_is_counted(tmp_path: Path, precision: str) -> None:
    """Its own gradient is as long as C, and sums with and without it are hardly further apart; loads of four."""
    base = replace(settings(max_grad_norm=SMALL), model=replace(settings().model, name="resnet9", width=4))
    base = replace(base, privacy=replace(base.privacy, physical_batch_size=4))
    base = replace(base, training=replace(base.training, precision=precision))  # type: ignore[arg-type]
    driver = driver_of(base, tmp_path)
    hospital, weights = site(driver).hospitals[0], driver.model.weights
    last = len(hospital.images.train) - 1

    def clipped_sum(positions: list[int]) -> Real:
        plan = DrawnPlan((np.array(positions),), last + 1, 4, 1, 0, 0, 1)
        hospital.images.plan = plan
        hospital.classifier.example_wise.begin_round()  # type: ignore[union-attr]
        (found,) = hospital.work.do(1, plan, weights)
        return np.asarray(found / SMALL)

    load_vector(hospital.classifier.network, weights)
    for count in (2, 3, 4, 5, 8, 12):
        moved = clipped_sum([*range(count), last]) - clipped_sum(list(range(count)))
        assert 0.99 < np.linalg.norm(moved) < 1 + ROUNDING
