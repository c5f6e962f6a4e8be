"""The evaluation's shards, without Ray."""

from __future__ import annotations

from dataclasses import replace

from lightning_fed.data.load import load_images
from lightning_fed.experiment import Data, Evaluation, Experiment, Federation, Model, Ray
from lightning_fed.federation import evaluation as room
from lightning_fed.federation.crew import LocalCrew
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
