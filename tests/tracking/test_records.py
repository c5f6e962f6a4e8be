import json
from collections.abc import Iterator
from typing import Any

from lightning_fed.tracking.records import RoundRecord, TrainedRound
from tests.tracking.samples import record, result, trained

PUBLIC = {"round", "cohort", "images", "steps", "seconds", "aggregation"}  # sizes and times, not metrics


def test_a_trained_round_comes_back_from_its_plain_values_and_from_json() -> None:
    assert TrainedRound.from_dict(trained(3).as_dict()) == trained(3)
    assert TrainedRound.from_dict(json.loads(json.dumps(trained(3).as_dict()))) == trained(3)


def leaves(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield from leaves(value, (*path, key))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from leaves(value, path)
    else:
        yield path, values


def test_every_metric_of_a_line_stands_under_released_or_diagnostic() -> None:
    line = record(3).as_dict()
    assert set(line) == PUBLIC | {"released", "diagnostic"}
    for path, _ in leaves(line):
        if path[0] not in ("released", "diagnostic"):
            assert not any(word in "/".join(path) for word in ("loss", "accuracy", "auroc")), path


def test_numbers_of_private_images_stand_under_diagnostic_and_nowhere_else() -> None:
    line = record(3).as_dict()
    private = {0, 0.5, 1.5, 0.7, 0.6, 1.1, 1.2, (0.5 * 300 + 1.5 * 100) / 400}  # 0: nothing was clipped
    found = {value for path, value in leaves(line) if path[0] == "diagnostic" and path[-1] != "hospital"}
    assert found == private
    assert line["diagnostic"]["fits"][1] == {"hospital": 2, "loss": 1.5, "seconds": 0.5, "saturated": 0}
    assert line["diagnostic"]["hospitals"][1] == {"hospital": 1, "accuracy": 0.6, "loss": 1.2}
    assert line["released"] == {
        "split": "validation",
        "accuracy": 0.625,
        "balanced_accuracy": 0.5,
        "auroc": 0.75,
        "loss": 1.25,
        "per_class_accuracy": (0.5, None),
    }


def test_a_line_lists_its_cohort_with_sizes_and_steps_in_one_order() -> None:
    line = record(3).as_dict()
    assert (line["round"], line["cohort"], line["images"], line["steps"]) == (3, [0, 2], [300, 100], [10, 4])
    assert line["seconds"] == {"train": 2.0, "aggregate": 0.25, "evaluate": 0.5, "setup": 0.0, "protect": 0.0}


def test_a_line_tells_who_is_in_the_sum_and_who_was_lost_where() -> None:
    assert record(3).as_dict()["aggregation"] == {
        "asked": [0, 1, 2],
        "counted": [0, 2],
        "dropped": [{"hospital": 1, "stage": "after_shares"}],
        "refusals": [],
        "failed": None,
        "spent": [],
        "late": [],
        "returned": [],
    }


def test_the_training_loss_is_weighted_by_images() -> None:
    assert record(1).train_loss == 0.75


def test_a_line_and_a_result_are_plain_json() -> None:
    line: RoundRecord = record(3, auroc=None)
    assert json.loads(json.dumps(line.as_dict()))["released"]["auroc"] is None
    values = json.loads(json.dumps(result().as_dict()))
    assert values["test"]["per_class_accuracy"] == [0.9, None]
    assert values["privacy"]["epsilon"] is None
    assert "no noise is added" in values["privacy"]["reason"]
