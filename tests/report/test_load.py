"""Damaged run folders: one line that names the file."""

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_fed.errors import InputError
from lightning_fed.report.load import read_run
from tests.report import folders


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_without_an_experiment_is_no_run_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        f"{tmp_path}/experiment.yaml: no such file, so this is no run folder; name one that a run has written"
    )


@pytest.mark.parametrize("text", ["a: [", "- a list", "", "data: 3", "data: {name: 7}", "seed: 2025-99-99"])
def test_a_damaged_experiment_is_named(tmp_path: Path, text: str) -> None:
    folders.write(tmp_path)
    (tmp_path / "experiment.yaml").write_text(text)
    assert refusal(tmp_path).startswith(f"{tmp_path}/experiment.yaml: ")


@pytest.mark.parametrize("text", ['{"status": ', "[]", "{}", "", "null"])
def test_a_damaged_summary_is_named(tmp_path: Path, text: str) -> None:
    folders.write(tmp_path)
    (tmp_path / "summary.json").write_text(text)
    assert refusal(tmp_path).startswith(f"{tmp_path}/summary.json: ")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    folders.write(tmp_path)
    (tmp_path / "summary.json").write_bytes(b"\xff\xfe{")
    assert "summary.json: not UTF-8" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("test", "accuracy", "high"),
        ("test", "accuracy", None),
        ("test", "per_class_accuracy", [0.5]),
        ("data", "title", 3),
        ("data", "classes_by_hospital", [[1, 2], [3], [4, 5]]),
        ("data", "images_by_hospital", [1, 2]),
        ("seconds", "train", True),
    ],
)
def test_a_wrong_value_in_the_summary_is_named(tmp_path: Path, part: str, key: str, value: Any) -> None:
    result = folders.summary()
    result[part][key] = value
    told = refusal(folders.write(tmp_path, result=result))
    assert told.startswith(f"{tmp_path}/summary.json: ")
    assert key in told


def test_an_unknown_status_is_refused(tmp_path: Path) -> None:
    told = refusal(folders.write(tmp_path, result=folders.summary() | {"status": "fine"}))
    assert "status is 'fine', not one of completed" in told


def test_a_round_without_its_scores_is_named(tmp_path: Path) -> None:
    broken = folders.line(1) | {"released": None}
    told = refusal(folders.write(tmp_path, lines=[broken, folders.line(2)]))
    assert told.startswith(f"{tmp_path}/rounds.jsonl: released ")


def test_a_torn_last_round_as_a_killed_run_leaves_it_is_dropped(tmp_path: Path) -> None:
    folders.write(tmp_path)
    with (tmp_path / "rounds.jsonl").open("a") as file:
        file.write(json.dumps(folders.line(3))[:100])
    assert [line.round for line in read_run(tmp_path).lines] == [1, 2]


def test_parts_that_a_later_version_adds_are_passed_over(tmp_path: Path) -> None:
    result = folders.summary() | {"carbon": 3}
    result["test"]["kappa"] = 0.5
    assert read_run(folders.write(tmp_path, result=result)).result is not None
    assert read_run(tmp_path).result.test.accuracy == 0.8768  # type: ignore[union-attr]


def test_optional_parts_may_be_missing(tmp_path: Path) -> None:
    result, line = folders.summary(), folders.line(1)
    del result["hospital_accuracy"], result["versions"], result["privacy"]["reason"], line["diagnostic"]
    run = read_run(folders.write(tmp_path, lines=[line], result=result))
    assert run.result is not None
    assert run.result.hospital_accuracy is None
    assert run.lines[0].diagnostic.train_loss is None


def test_images_of_an_unfinished_run_are_those_of_each_hospitals_latest_round(tmp_path: Path) -> None:
    lines = [folders.line(1), folders.line(2) | {"cohort": [2], "images": [9]}]
    assert read_run(folders.write(tmp_path, lines=lines)).images == {0: 100, 1: 101, 2: 9}
