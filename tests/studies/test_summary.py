"""From records to the summary."""

from __future__ import annotations

from lightning_fed.data.load import load_images
from lightning_fed.experiment import Data, Experiment, Federation
from lightning_fed.federation.roster import make_roster
from lightning_fed.studies.summary import sum_seconds, summarise_data


def line(round: int, train: float) -> dict[str, object]:
    return {"round": round, "seconds": {"train": train, "aggregate": 1.0, "setup": 0.0, "evaluate": 0.5}}


def test_a_resumed_run_counts_the_seconds_of_the_process_before_it() -> None:
    lines = [line(1, 10.0), line(2, 20.0), line(3, 30.0)]
    seconds = sum_seconds(lines, startup=4.0, this_process=40.0, resumed_after=2)
    assert seconds.train == 60.0
    assert seconds.total == 40.0 + (10.0 + 1.0) + (20.0 + 1.0)


def test_the_classes_by_hospital_add_up_to_the_training_images() -> None:
    experiment = Experiment(data=Data(images=320, alpha=5.0), federation=Federation(hospitals=4))
    data = load_images(experiment.data)
    told = summarise_data(data, make_roster(experiment, data))
    assert sum(told.images_by_hospital) == 320
    assert tuple(map(sum, told.classes_by_hospital)) == told.images_by_hospital
    assert [sum(column) for column in zip(*told.classes_by_hospital, strict=True)] == [40] * 8
