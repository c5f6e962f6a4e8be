"""Whole runs under a budget, in one process: who goes on, when it ends, and what the summary says of it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant

from lightning_fed.experiment import Experiment
from lightning_fed.federation.driver import Driver, OpenRound
from lightning_fed.federation.local_work import LocalTraining
from lightning_fed.federation.site import Site
from lightning_fed.privacy.accounting import epsilon, epsilon_replace_one
from lightning_fed.privacy.engine import HospitalOptimizer
from lightning_fed.privacy.poisson import PoissonGaussian
from lightning_fed.studies.single import run_experiment
from lightning_fed.tracking.records import RoundRecord
from tests.federation.protected import (
    MASKED,
    driver_of,
    experiment,
    first_weights,
    flip_diagnostics,
    ledger_lines,
    protection,
    released,
    site_of,
    with_changes,
)


def budget(mechanism: str = "update", hospitals: int = 3, **privacy: Any) -> Experiment:
    settled = {"epsilon": 8.0, "noise_multiplier": None, **privacy}
    return with_changes(experiment(mechanism, **settled), federation={"hospitals": hospitals})


def site(driver: Driver) -> Site:
    return driver.crew.site  # type: ignore[attr-defined,no-any-return]


def charge(driver: Driver, hospital: int, times: int) -> None:
    for place in range(times):
        protection(site(driver), hospital).ledger.charge(100 + place, "elsewhere")


def run(driver: Driver) -> list[RoundRecord]:
    return list(driver.rounds())


def test_a_hospital_whose_budget_is_spent_leaves_while_others_go_on(tmp_path: Path) -> None:
    driver = driver_of(budget(), tmp_path)
    charge(driver, 1, 2)
    records = run(driver)
    assert [record.trained.counted for record in records] == [(0, 1, 2), (0, 1, 2), (0, 2), (0, 2)]
    assert [record.trained.spent for record in records] == [(), (), (1,), (1,)]
    assert not driver.stopped_on_budget
    assert driver.spent() == (4, 4, 4)
    last = records[-1].trained.epsilon_by_hospital
    assert last is not None
    assert last == pytest.approx((8.0, 8.0, 8.0), rel=1e-6)
    assert max(last) <= 8.0


def test_so_it_does_under_secure_aggregation(tmp_path: Path) -> None:
    settings = replace(budget(hospitals=4), secagg=replace(MASKED, clip=16.0))
    driver = driver_of(settings, tmp_path)
    charge(driver, 1, 2)
    records = run(driver)
    assert [record.trained.counted for record in records] == [(0, 1, 2, 3)] * 2 + [(0, 2, 3)] * 2
    assert all(record.trained.dropped == () for record in records)
    assert not driver.stopped_on_budget


@pytest.mark.parametrize("masked", [False, True])
def test_a_run_ends_by_value_when_too_few_can_pay(tmp_path: Path, masked: bool) -> None:
    settings = budget(participations=2)
    if masked:
        settings = replace(settings, secagg=replace(MASKED, clip=16.0))
    driver = driver_of(settings, tmp_path)
    records = run(driver)
    assert len(records) == 2
    assert driver.stopped_on_budget
    assert max(records[-1].trained.epsilon_by_hospital or ()) == pytest.approx(8.0, rel=1e-6)
    again = driver_of(settings, tmp_path)
    again.resume()
    assert [record.round for record in run(again)] == [2]  # its evaluation, and nothing more
    assert again.stopped_on_budget
    assert np.array_equal(again.model.weights, driver.model.weights)


def test_the_last_round_that_the_budget_paid_for_is_measured_in_any_case(tmp_path: Path) -> None:
    driver = driver_of(with_changes(budget(), evaluation={"every": 40}), tmp_path)
    for hospital in range(3):
        charge(driver, hospital, 2)
    records = run(driver)
    assert driver.stopped_on_budget
    assert [record.released is not None for record in records] == [False, True]


def test_a_round_is_drawn_from_those_that_can_pay(tmp_path: Path) -> None:
    settings = with_changes(budget(participations=8), federation={"participation": 1 / 3, "rounds": 8})
    driver = driver_of(settings, tmp_path)
    for hospital in (0, 2):
        charge(driver, hospital, 8)
    records = run(driver)
    assert len(records) == 8
    assert {record.trained.counted for record in records} == {(1,)}
    assert not any(record.trained.failed for record in records)


@pytest.mark.parametrize("mechanism", ["update", "record"])
def test_killed_after_its_last_charges_a_run_still_ends_as_the_one_that_was_left_alone(
    tmp_path: Path, mechanism: str
) -> None:
    """They are paid, though the budget is spent to the last step."""
    settings = budget(mechanism)
    driver = driver_of(settings, tmp_path)
    run(driver)
    lines = [ledger_lines(tmp_path, hospital) for hospital in range(3)]
    (tmp_path / "checkpoints/round-00004.pt").unlink()
    again = driver_of(settings, tmp_path)
    again.resume()
    records = run(again)
    assert not again.stopped_on_budget
    assert records[-1].round == 4
    assert records[-1].trained.counted == (0, 1, 2)
    assert again.model.weights.tobytes() == driver.model.weights.tobytes()
    assert [ledger_lines(tmp_path, hospital) for hospital in range(3)] == lines


def test_a_hospital_that_cannot_pay_for_a_round_that_does_not_repeat_is_left_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = budget()
    run(driver_of(settings, tmp_path))
    (tmp_path / "checkpoints/round-00004.pt").unlink()
    again = driver_of(settings, tmp_path)
    again.resume()
    train = LocalTraining.train

    def elsewhere(self: LocalTraining, trainer: Any) -> None:
        train(self, trainer)
        if self is again.crew.site.hospitals[1].work:  # type: ignore[attr-defined]
            with torch.no_grad():
                next(self.classifier.network.parameters()).add_(1e-3)

    monkeypatch.setattr(LocalTraining, "train", elsewhere)
    records = run(again)
    assert records[-1].trained.counted == (0, 2)
    assert records[-1].trained.spent == (1,)
    assert records[-1].trained.dropped == ()
    assert again.spent() == (4, 4, 4)


def test_what_a_hospital_that_is_gone_has_spent_is_read_from_its_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = driver_of(budget(), tmp_path)
    run(driver)
    reach = driver._reach
    monkeypatch.setattr(
        driver, "_reach", lambda method, arguments: {k: v for k, v in reach(method, arguments).items() if k != 1}
    )
    assert driver.spent() == (4, 4, 4)


def test_a_hospital_that_is_lost_in_a_round_has_spent_what_it_charged(tmp_path: Path) -> None:
    driver = driver_of(budget("record"), tmp_path)
    charge(driver, 1, 1)
    job = driver._fit(OpenRound(1, [0, 1, 2], 0.0, waiting={0, 1, 2}), 1, driver.model.weights)
    assert job.lost is not None
    driver.experiment = replace(driver.experiment, secagg=MASKED)
    job.lost("its process is gone")
    dose = protection(site(driver), 1).dose
    wanted = epsilon(PoissonGaussian(dose.rate, dose.noise_multiplier, 1), dose.delta)
    assert driver._epsilons == [0.0, wanted, 0.0]


@pytest.mark.parametrize("mechanism", ["record", "update"])
@pytest.mark.parametrize("masked", [False, True])
def test_flipping_every_diagnostic_leaves_the_final_weights_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mechanism: str, masked: bool
) -> None:
    settings = with_changes(
        budget(mechanism, reproducible=True), federation={"ema": 0.5, "strategy": "fedprox", "proximal_mu": 0.1}
    )
    if masked:
        settings = replace(settings, secagg=replace(MASKED, clip=16.0))
    honest = driver_of(settings, tmp_path / "honest")
    told = [run(honest)]
    flip_diagnostics(monkeypatch)
    flipped = driver_of(settings, tmp_path / "flipped")
    told.append(run(flipped))
    assert told[0][0].train_loss != told[1][0].train_loss
    assert told[0][0].released != told[1][0].released
    assert flipped.model.weights.tobytes() == honest.model.weights.tobytes()
    assert flipped.model.released.tobytes() == honest.model.released.tobytes()
    assert [record.trained.spent for record in told[0]] == [record.trained.spent for record in told[1]]


def test_the_average_of_the_rounds_is_what_is_released_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    settings = with_changes(budget("record", reproducible=True), federation={"ema": 0.9})
    alone = driver_of(settings, tmp_path / "alone")
    seen, rounds = [], alone.rounds()
    for _ in rounds:
        seen.append(alone.model.weights.copy())
    average = alone.model.released
    assert not np.array_equal(average, alone.model.weights)
    cut = driver_of(settings, tmp_path / "cut")
    partial = cut.rounds()
    next(partial)
    next(partial)
    again = driver_of(settings, tmp_path / "cut")
    again.resume()
    assert again.model.average is not None
    run(again)
    assert again.model.released.tobytes() == average.tobytes()
    assert again.model.weights.tobytes() == alone.model.weights.tobytes()
    assert again.model.rounds == 4


@pytest.mark.parametrize(
    ("federation", "shares"),
    [
        ({"weights": [1, 2, 5], "weighting": "equal"}, [1 / 8, 2 / 8, 5 / 8]),
        ({"weights": [], "weighting": "equal"}, [1 / 3] * 3),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_hospitals_count_as_the_experiment_says(
    tmp_path: Path, federation: dict[str, Any], shares: list[float], masked: bool
) -> None:
    settings = with_changes(experiment("update", reproducible=True, noise_multiplier=0.01), federation=federation)
    twin, weights = site_of(settings), first_weights(settings)
    updates = [released(twin, hospital, 1, weights) for hospital in range(3)]
    if masked:
        settings = replace(settings, secagg=replace(MASKED, clip=1.0))
    driver = driver_of(with_changes(settings, federation={"rounds": 1}), tmp_path)
    # The noise goes by the experiment's federation too, so that a twin of one round is another's.
    twin = site_of(with_changes(settings, federation={"rounds": 1}, secagg={"protocol": "plain"}))
    updates = [released(twin, hospital, 1, weights) for hospital in range(3)]
    run(driver)
    wanted = sum(share * update.astype(np.float64) for share, update in zip(shares, updates, strict=True))
    np.testing.assert_allclose(driver.model.weights - weights, wanted, atol=2e-5)


def second_opinion(rate: float, multiplier: float, steps: int, delta: float) -> float:
    accountant = PLDAccountant(value_discretization_interval=1e-4)
    step = dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(multiplier))
    accountant.compose(step, steps)
    return float(accountant.get_epsilon(delta))


def strict(text: str) -> Any:
    """JSON without the numbers that are none."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_the_summary_tells_the_epsilon_of_the_steps_that_were_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masked: bool
) -> None:
    """Steps are counted here, as updates leave, and epsilon is computed by dp-accounting."""
    noised: Counter[int] = Counter()
    left: Counter[int] = Counter()
    add_noise, fit = HospitalOptimizer.add_noise, Site.fit

    def counted(self: HospitalOptimizer) -> None:
        noised[id(self)] += 1
        add_noise(self)

    def fitted(self: Site, hospital: int, *arguments: Any) -> tuple[Any, ...]:
        optimizer = id(self.hospitals[hospital].optimizer)
        before = noised[optimizer]
        result = fit(self, hospital, *arguments)
        left[hospital] += noised[optimizer] - before
        return result

    monkeypatch.setattr(HospitalOptimizer, "add_noise", counted)
    monkeypatch.setattr(Site, "fit", fitted)
    settings = with_changes(
        budget("record", epsilon=3.0, delta=2e-3),
        data={"partition": "quantity", "images": 120},
        federation={"local_steps": None, "local_epochs": 1, "participation": 1.0, "weighting": "images"},
        tracking={"wandb": "disabled"},
    )
    if masked:
        settings = replace(settings, secagg=MASKED)
    run_experiment(replace(settings, output=str(tmp_path / "run")))
    summary = strict((tmp_path / "run/summary.json").read_text())
    told = summary["privacy"]
    assert summary["status"] == "completed"
    sizes = summary["data"]["images_by_hospital"]
    assert len(set(sizes)) > 1
    assert told["steps_by_hospital"] == [left[hospital] for hospital in range(3)]
    for hospital, size in enumerate(sizes):
        assert told["sample_rate_by_hospital"][hospital] == 6 / size
        wanted = second_opinion(
            6 / size, told["noise_multiplier_by_hospital"][hospital], left[hospital], told["delta"]
        )
        assert wanted <= told["epsilon_by_hospital"][hospital] <= 1.01 * wanted
    assert told["epsilon"] == max(told["epsilon_by_hospital"])
    replaced = [
        epsilon_replace_one(PoissonGaussian(6 / size, multiplier, left[hospital]), told["delta"])
        for hospital, (size, multiplier) in enumerate(
            zip(sizes, told["noise_multiplier_by_hospital"], strict=True)
        )
    ]
    assert told["epsilon_replace_one"] == max(replaced)
    assert 2.99 < told["epsilon"] <= 3.0 == told["budget"]
    assert (told["mechanism"], told["unit"], told["adjacency"]) == ("record", "image", "zero_out")
    assert (told["accountant"], told["delta"], told["reproducible"]) == ("prv", 2e-3, False)
    assert told["epsilon_pld"] <= told["epsilon"] < told["epsilon_rdp"]
    assert told["epsilon_replace_one"] > told["epsilon"] == told["epsilon_zero_out"]
    assert told["strict_delta"] == 1 / (10 * sum(sizes))
    assert told["epsilon_strict_delta"] > told["epsilon"]
    assert told["max_grad_norm"] == 0.5
    assert told["reason"] is None
    lines = [strict(line) for line in (tmp_path / "run/rounds.jsonl").read_text().splitlines()]
    curve = [line["released"]["epsilon"] for line in lines]
    assert curve == sorted(curve)
    assert curve[-1] == told["epsilon"]
    assert lines[-1]["released"]["epsilon_by_hospital"] == told["epsilon_by_hospital"]
    for fit_told in lines[0]["diagnostic"]["fits"]:
        assert {"clipped", "median_norm", "signal_to_noise", "loss"} <= fit_told.keys()


@pytest.mark.slow
def test_the_published_pipeline_is_reported_as_no_guarantee_in_words(tmp_path: Path) -> None:
    settings = with_changes(
        experiment("update", noise=False, noise_multiplier=None, epsilon=6.0), tracking={"wandb": "disabled"}
    )
    run_experiment(replace(settings, output=str(tmp_path / "run")))
    told = strict((tmp_path / "run/summary.json").read_text())["privacy"]
    assert told["epsilon"] is None
    assert "no noise is added" in told["reason"]
    assert told["epsilon_by_hospital"] is None
    lines = [strict(line) for line in (tmp_path / "run/rounds.jsonl").read_text().splitlines()]
    assert all("epsilon" not in line["released"] for line in lines)


@pytest.mark.slow
def test_a_run_that_its_budget_stops_says_so_in_its_summary(tmp_path: Path) -> None:
    settings = with_changes(
        budget("record", noise_multiplier=1.5, epsilon=5.0, delta=1e-4), tracking={"wandb": "disabled"}
    )
    settings = with_changes(settings, federation={"rounds": 40, "local_steps": 2})
    result = run_experiment(replace(settings, output=str(tmp_path / "run")))
    assert result.status == "stopped_on_budget"
    assert 0 < result.rounds < 40
    assert result.privacy.epsilon is not None
    assert result.privacy.epsilon <= 5.0
    assert result.privacy.steps_by_hospital == (2 * result.rounds,) * 3
