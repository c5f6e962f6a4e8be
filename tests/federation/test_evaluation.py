"""The evaluation's shards, without Ray."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from lightning_fed.data.load import load_images
from lightning_fed.errors import FederationError
from lightning_fed.experiment import Data, Evaluation, Experiment, Federation, Model, Ray
from lightning_fed.federation import evaluation as room
from lightning_fed.federation.crew import Capacity, LocalCrew, Place
from lightning_fed.federation.dispatch import Dispatcher
from lightning_fed.federation.roster import make_roster
from lightning_fed.federation.site import Site, build_classifier
from lightning_fed.models.vector import to_vector

SMALL = Experiment(
    data=Data(images=160, partition="iid", min_images=4),
    model=Model(width=2),
    federation=Federation(hospitals=2),
    evaluation=Evaluation(batch_size=16),
    ray=Ray(enabled=False),
)

QUEUE = Dispatcher(LocalCrew(None))  # type: ignore[arg-type]


def test_shards_done_in_any_order_give_the_scores_of_the_whole() -> None:
    data = load_images(SMALL.data)
    roster = make_roster(SMALL, data)
    site = Site(SMALL, data, roster.members, None)
    classifier = build_classifier(SMALL, data)
    measured = room.Evaluation(SMALL, data, roster, "validation", to_vector(classifier.network), QUEUE)
    jobs = measured.jobs()
    assert len(jobs) == 3 + 2  # 40 images in batches of 16, and two hospitals
    for job in reversed(jobs):
        assert not measured.finished
        job.done(getattr(site, job.method)(*job.arguments))
    assert measured.finished
    whole = classifier.evaluate(data.validation.images, data.validation.labels, 16)
    assert measured.released().accuracy == whole.accuracy
    assert measured.released().loss == whole.loss
    assert [score.hospital for score in measured.hospital_scores()] == [0, 1]


def test_without_held_out_images_no_hospital_is_asked() -> None:
    experiment = replace(SMALL, data=replace(SMALL.data, validation=0.0))
    data = load_images(experiment.data)
    measured = room.Evaluation(experiment, data, make_roster(experiment, data), "validation", None, QUEUE)
    assert {job.method for job in measured.jobs()} == {"evaluate"}


class HalfStuck(LocalCrew):
    """Two sites, of which the first never answers."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.places = (Place("a", None), Place("a", None))
        self.capacity = Capacity({"a": 2}, 1)
        self.stuck: set[int] = set()

    def start(self, site: int, method: str, arguments: tuple[Any, ...], apart: int = 0) -> int:
        ticket = super().start(site, method, arguments, apart)
        if site == 0:
            self.stuck.add(ticket)
        return ticket

    def wait(self, tickets: Sequence[int], seconds: float | None = None) -> list[tuple[int, Any]]:
        ready = [ticket for ticket in tickets if ticket not in self.stuck]
        if not ready:
            assert seconds is not None, "this would wait for ever"
            time.sleep(seconds)
        return super().wait(ready)


def measured_by(crew: LocalCrew, limit: float) -> tuple[room.Evaluation, Dispatcher]:
    federation = replace(SMALL.federation, round_timeout=limit)
    experiment = replace(SMALL, federation=federation, data=replace(SMALL.data, validation=0.0))
    data = load_images(experiment.data)
    weights = to_vector(build_classifier(experiment, data).network)
    dispatcher = Dispatcher(crew)
    roster = make_roster(experiment, data)
    measured = room.Evaluation(experiment, data, roster, "validation", weights, dispatcher)
    dispatcher.submit(measured.jobs())
    return measured, dispatcher


def test_what_a_site_does_not_measure_in_time_another_one_does() -> None:
    data = load_images(SMALL.data)
    crew = HalfStuck(Site(SMALL, data, make_roster(SMALL, data).members, None))
    measured, dispatcher = measured_by(crew, 0.1)
    dispatcher.run_until(lambda: measured.finished)
    assert crew.stuck
    assert len(measured.shards) == 3


def test_where_nobody_measures_the_run_ends_and_does_not_hang() -> None:
    data = load_images(SMALL.data)
    crew = HalfStuck(Site(SMALL, data, make_roster(SMALL, data).members, None))
    crew.places, crew.capacity = crew.places[:1], Capacity({"a": 1}, 1)
    measured, dispatcher = measured_by(crew, 0.02)
    with pytest.raises(FederationError, match=r"nobody measured the model in 4 times federation\.round_timeout"):
        dispatcher.run_until(lambda: measured.finished)
