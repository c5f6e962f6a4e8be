"""The driver over the plain classes, without Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightning_fed.data.images import ImageData
from lightning_fed.data.load import load_images
from lightning_fed.errors import FederationError, InputError
from lightning_fed.experiment import (
    Data,
    Evaluation,
    Experiment,
    Federation,
    Model,
    Ray,
    Tracking,
    Training,
)
from lightning_fed.federation.assembly import open_crew
from lightning_fed.federation.checkpoint import Checkpoints
from lightning_fed.federation.driver import Driver
from lightning_fed.federation.roster import make_roster
from lightning_fed.federation.site import build_classifier
from lightning_fed.federation.strategy import GlobalModel
from lightning_fed.tracking.records import RoundRecord

SMALL = Experiment(
    data=Data(images=96, partition="quantity", min_images=4),
    model=Model(width=2),
    training=Training(batch_size=16),
    federation=Federation(hospitals=3, rounds=3, local_epochs=1),
    ray=Ray(enabled=False),
)


def make_driver(experiment: Experiment, output: Path | None = None) -> Driver:
    data: ImageData = load_images(experiment.data)
    roster = make_roster(experiment, data)
    model = GlobalModel.first(experiment, build_classifier(experiment, data).network)
    crew = open_crew(experiment, data, roster, output)
    return Driver(experiment, data, roster, model, crew, Checkpoints(output) if output else None)


def test_every_round_gives_one_record_in_order_with_all_its_parts() -> None:
    records = list(make_driver(SMALL).rounds())
    assert [record.round for record in records] == [1, 2, 3]
    for record in records:
        assert [report.hospital for report in record.trained.reports] == [0, 1, 2]
        assert [score.hospital for score in record.hospitals] == [0, 1, 2]
        assert record.released.split == "validation"
        assert len(record.released.per_class_accuracy) == 8


def test_one_round_is_the_mean_of_the_hospitals_own_trainings() -> None:
    driver = make_driver(SMALL)
    before = driver.model.weights.copy()
    twin = make_driver(SMALL).crew.site  # type: ignore[attr-defined]
    rounds = driver.rounds()
    next(rounds)  # the first record comes out in the second round, whose weights are not averaged yet
    updates = [twin.fit(hospital, 1, before) for hospital in range(3)]
    images = sum(report.images for report, _ in updates)
    mean = sum(report.images * update.astype(np.float64) for report, update in updates) / images
    np.testing.assert_allclose(driver.model.weights - before, mean, atol=1e-6)


def test_flipping_every_diagnostic_leaves_the_final_weights_unchanged() -> None:
    honest, flipped = make_driver(SMALL), make_driver(SMALL)
    site = flipped.crew.site  # type: ignore[attr-defined]
    fit, score = site.fit, site.score_hospital

    def lying_fit(hospital: int, round: int, weights: object, parts: int) -> object:
        report, update = fit(hospital, round, weights, parts)
        return replace(report, loss=-report.loss, seconds=1e6), update

    def lying_score(hospital: int, weights: object) -> object:
        return replace(score(hospital, weights), accuracy=0.0, loss=1e9)

    site.fit, site.score_hospital = lying_fit, lying_score
    told: list[list[RoundRecord]] = [list(driver.rounds()) for driver in (honest, flipped)]
    assert told[0][0].train_loss != told[1][0].train_loss
    assert np.array_equal(honest.model.weights, flipped.model.weights)


def test_a_model_that_diverges_ends_the_run_before_its_checkpoint(tmp_path: Path) -> None:
    wild = replace(SMALL, training=replace(SMALL.training, optimizer="SGD", lr=1e30, warmup_rounds=0.0))
    driver = make_driver(wild, tmp_path)
    with pytest.raises(FederationError, match=r"the weights are not finite any more; lower training\.lr"):
        list(driver.rounds())
    assert Checkpoints(tmp_path).rounds() == []


def test_a_new_driver_goes_on_from_the_checkpoint_and_evaluates_its_round_again(tmp_path: Path) -> None:
    alone = make_driver(SMALL)
    whole = list(alone.rounds())
    cut = make_driver(SMALL, tmp_path).rounds()
    assert next(cut).round == 1  # the second round's training is over, its checkpoint is not written

    resumed = make_driver(SMALL, tmp_path)
    resumed.resume()
    rest = list(resumed.rounds())
    assert [record.round for record in rest] == [1, 2, 3]
    assert [record.released for record in rest] == [record.released for record in whole]
    assert np.array_equal(alone.model.weights, resumed.model.weights)


def test_a_run_whose_experiment_was_changed_does_not_go_on(tmp_path: Path) -> None:
    next(make_driver(SMALL, tmp_path).rounds())
    changed = replace(SMALL, training=replace(SMALL.training, lr=0.5))
    with pytest.raises(InputError, match=r"experiment\.yaml: it was changed after round 1; put the run's own"):
        make_driver(changed, tmp_path).resume()
    make_driver(replace(SMALL, tracking=Tracking(name="again")), tmp_path).resume()


def test_the_test_split_is_read_for_the_last_model_only() -> None:
    driver = make_driver(SMALL)
    splits = {record.released.split for record in driver.rounds()}
    assert splits == {"validation"}
    assert driver.test().split == "test"


def measured_every(every: int, rounds: int) -> Experiment:
    return replace(SMALL, evaluation=Evaluation(every=every), federation=replace(SMALL.federation, rounds=rounds))


def test_rounds_between_measurements_have_records_without_scores(tmp_path: Path) -> None:
    driver = make_driver(measured_every(2, 5))
    records = list(driver.rounds())
    assert [record.round for record in records] == [1, 2, 3, 4, 5]
    assert [record.released is not None for record in records] == [False, True, False, True, True]
    assert [len(record.hospitals) for record in records] == [0, 3, 0, 3, 3]
    always = make_driver(measured_every(1, 5))
    assert [record.released for record in always.rounds()][1] == records[1].released
    assert np.array_equal(driver.model.weights, always.model.weights)

    cut = make_driver(measured_every(2, 5), tmp_path)
    rounds = cut.rounds()
    next(rounds), next(rounds)  # the third round is under way, or done
    resumed = make_driver(measured_every(2, 5), tmp_path)
    resumed.resume()
    again = list(resumed.rounds())
    assert [record.released for record in again] == [record.released for record in records][-len(again) :]
