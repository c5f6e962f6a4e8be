import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightning_fed.experiment import Data, Experiment, Privacy, Tracking
from lightning_fed.tracking.wandb import WandbRun
from tests.tracking.samples import record, result


def when_it_holds(file: Path, word: bytes, patience: float = 30.0) -> bytes:
    """A file's bytes once W&B's own process has written it, which may be after `finish` came back."""
    end = time.monotonic() + patience
    while word not in file.read_bytes() and time.monotonic() < end:
        time.sleep(0.1)
    return file.read_bytes()


def test_disabled_does_nothing_at_all(tmp_path: Path) -> None:
    tracker = WandbRun(Experiment(tracking=Tracking(wandb="disabled")), tmp_path)
    tracker.log_round(record(1))
    tracker.summarise(result())
    assert tracker.run is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_offline_writes_a_run_into_the_output_folder_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody answers there
    experiment = Experiment(tracking=Tracking(wandb="offline", project="of-the-tests", name="a-name"))
    with WandbRun(experiment, tmp_path) as tracker:
        assert tracker.run.name == "a-name"
        assert re.fullmatch("[0-9a-f]{16}", tracker.run.id)
        assert tracker.run.config["data"]["alpha"] == experiment.data.alpha
        for round in (1, 2):
            tracker.log_round(record(round, auroc=None))
        tracker.summarise(result())
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    (file,) = folder.glob("run-*.wandb")
    written = when_it_holds(file, b"status")
    for name in ("released/accuracy", "diagnostic/train_loss", "seconds/train", "test/accuracy", "status"):
        assert name.encode() in written, name
    for name in (b"released/auroc", b"by_epsilon"):
        assert name not in written, "a score that there is not"
    tables = sorted(folder.glob("files/media/table/diagnostic/hospitals_*.json"))
    assert [json.loads(table.read_text())["data"] for table in tables] == [
        [[round, 0, 300, 10, 0.5, 1.5, 0.7, None], [round, 2, 100, 4, 1.5, 0.5, None, None]] for round in (1, 2)
    ]


@pytest.mark.slow
def test_the_id_is_kept_in_the_folder_so_that_a_resumed_run_goes_on(tmp_path: Path) -> None:
    experiment = Experiment(tracking=Tracking(wandb="offline"))
    found = []
    for name in ("one", "two", "one"):
        (tmp_path / name).mkdir(exist_ok=True)
        with WandbRun(experiment, tmp_path / name) as tracker:
            found.append((tracker.run.id, tracker.run.name))
    assert found[0] == found[2]
    assert found[0][0] != found[1][0]
    assert found[0][1] == "one"


class Listener:
    """In the place of W&B's run."""

    def __init__(self) -> None:
        self.logged: dict[str, Any] = {}

    def log(self, numbers: dict[str, Any], step: int) -> None:
        self.logged = numbers


def test_what_privacy_bought_is_logged_over_epsilon_and_each_hospitals_epsilon_in_the_table(
    tmp_path: Path,
) -> None:
    tracker, told = WandbRun(Experiment(tracking=Tracking(wandb="disabled")), tmp_path), record(1)
    tracker.run = Listener()
    tracker.log_round(replace(told, trained=replace(told.trained, epsilon_by_hospital=(1.5, 0.0, 2.5))))
    logged = tracker.run.logged
    assert logged["released/epsilon"] == 2.5
    assert logged["released/accuracy_by_epsilon"] == logged["released/accuracy"] == 0.625
    assert logged["diagnostic/hospitals"].get_column("epsilon") == [1.5, 2.5]
    tracker.log_round(told)
    assert not [name for name in tracker.run.logged if "epsilon" in name]
    spent = replace(told.trained, epsilon_by_hospital=(1.5, 0.0, 2.5))
    tracker.log_round(replace(told, trained=spent, released=None))  # a round that was not measured
    assert [name for name in tracker.run.logged if name.startswith("released/")] == ["released/epsilon"]


@pytest.mark.slow
def test_offline_the_scores_over_epsilon_have_epsilon_as_their_axis(tmp_path: Path) -> None:
    experiment = Experiment(
        data=Data(validation=0), privacy=Privacy("record", 6.0), tracking=Tracking(wandb="offline")
    )
    told = record(1)
    with WandbRun(experiment, tmp_path) as tracker:
        tracker.log_round(replace(told, trained=replace(told.trained, epsilon_by_hospital=(1.5, 0.0, 2.5))))
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    written = when_it_holds(file, b"released/accuracy_by_epsilon")
    assert re.search(rb"released/accuracy_by_epsilon.{1,8}released/epsilon", written, re.DOTALL)
