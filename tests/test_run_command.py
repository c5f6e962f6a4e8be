from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lightning_fed.arguments import read_experiment
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data, Experiment, Ray, Tracking
from lightning_fed.run_command import Switches, read_switches, resumed, run_command

STORED = Experiment(
    data=Data(alpha=0.25),
    ray=Ray(enabled=False, cpus_per_hospital=2.0),
    tracking=Tracking(wandb="disabled", group="a group"),
    seed=7,
    output="/where/it/was",
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(STORED.as_dict(), sort_keys=False))
    return tmp_path


def test_a_resumed_run_is_the_stored_experiment_in_the_folder_where_it_stands_now(run: Path) -> None:
    assert resumed(run, []) == replace(STORED, output=str(run))


@pytest.mark.parametrize(
    "words",
    [
        ["--ray.hospitals_per_actor=5", "--tracking.name=again"],
        ["--ray.hospitals_per_actor", "5", "--tracking.name", "again"],
        ["--ray={hospitals_per_actor: 5}", "--tracking={name: again}"],
    ],
    ids=["with equals signs", "as two words", "whole sections"],
)
def test_placement_and_tracking_may_change_and_their_other_keys_stay_as_stored(
    run: Path, words: list[str]
) -> None:
    found = resumed(run, words)
    assert found.ray == replace(STORED.ray, hospitals_per_actor=5)
    assert found.tracking == replace(STORED.tracking, name="again")
    assert (found.data, found.seed) == (STORED.data, STORED.seed)


@pytest.mark.parametrize(
    "word", ["--data.alpha=1", "--seed=8", "--federation.rounds=20", "--output=elsewhere", "--config=other.yaml"]
)
def test_what_would_change_the_result_is_refused_by_its_key(run: Path, word: str) -> None:
    key = word.split("=")[0]
    with pytest.raises(
        InputError, match=rf"{key} cannot change in a resumed run; only ray\.\*, tracking\.\* and faults\.max_"
    ):
        resumed(run, [word])


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"--resume .*: no experiment\.yaml in it; name the folder of a run"):
            resumed(folder, [])


def test_a_complete_run_is_not_run_again(run: Path) -> None:
    (run / "summary.json").write_text("{}")
    with pytest.raises(InputError, match=r"that run is complete; its result is in summary\.json"):
        resumed(run, [])


def test_a_damaged_experiment_is_refused_by_its_file(run: Path) -> None:
    (run / "experiment.yaml").write_text("data: [")
    with pytest.raises(InputError, match=r"experiment\.yaml: not YAML"):
        resumed(run, [])


def test_a_dry_run_prints_its_plan_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--data.images=120", "--federation.hospitals=2", "--model.width=2", "--dry_run"]
    assert run_command(words) == 0
    said = capsys.readouterr().out
    assert "federation: 2 hospitals" in said
    assert "privacy: none" in said
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_refuses_the_folder_that_a_run_would(run: Path) -> None:
    with pytest.raises(InputError, match="already holds a run; name another folder"):
        run_command([f"--output={run}", "--data.images=120", "--dry_run"])


@pytest.mark.parametrize("words", [["--resume", "runs/a"], ["--resume=runs/a"]])
def test_the_folder_to_resume_is_taken_out_of_the_words(words: list[str]) -> None:
    found = read_switches(["--dry_run", *words, "--ray.enabled", "false"])
    assert found == Switches(dry_run=True, resume="runs/a", rest=("--ray.enabled", "false"))


@pytest.mark.parametrize("words", [["--resume"], ["--resume="], ["--resume", "--dry_run_not"]])
def test_resume_without_a_folder_is_refused(words: list[str]) -> None:
    with pytest.raises(InputError, match="name the folder of a run"):
        read_switches(words)


def test_the_printed_configuration_is_an_experiment_that_can_be_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command(["--model.width", "12", "--print_config"])
    assert stopped.value.code == 0
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    assert read_experiment(["--config", str(path)]).model.width == 12
