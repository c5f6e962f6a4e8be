"""`lightning-fed sweep`: the runs that a W&B sweep file asks for, here and as W&B's agent would start them."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_fed.arguments import read_experiment
from lightning_fed.cli import main
from lightning_fed.errors import InputError
from lightning_fed.experiment import Ray
from lightning_fed.report.sweep import Measured, _series, groups_of, percent_of, table_of
from lightning_fed.studies import cells as cells_module
from lightning_fed.studies.sweep import sweep_command
from lightning_fed.studies.sweep_file import SweepFile, read_sweep

SWEEPS = sorted(Path("configs/sweeps").glob("*.yaml"))
SMALLEST = [
    *("--data.name", "bloodcells", "--data.images", "120", "--data.partition", "iid", "--data.min_images", "4"),
    *("--model.name", "dpresnet", "--model.width", "2", "--model.pretrained", "null"),
    *("--federation.hospitals", "4", "--federation.rounds", "1", "--training.batch_size", "40"),
    *("--secagg.min_survivors", "null", "--ray.enabled", "false"),
]
TINY = {
    "method": "grid",
    "parameters": {"privacy.epsilon": {"values": [4, 8]}, "seed": {"values": [1, 2]}},
    "command": ["lightning-fed", "run", "--privacy.mechanism=update", "${args}"],
}
ONE_DRAW = {"method": "random", "run_cap": 1}
TINY_WORDS = [
    *("--data.images", "90", "--data.min_images", "4", "--data.validation", "0", "--model.width", "2"),
    *("--federation.hospitals", "3", "--federation.rounds", "1", "--federation.weighting", "equal"),
    *("--privacy.delta", "1e-4", "--ray.enabled", "false"),
]


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (TINY | changes).items() if value is not None}))
    return path


def sweep(folder: Path, **changes: Any) -> SweepFile:
    return read_sweep(written(folder, **changes))


def as_the_agent_would(file: SweepFile, point: dict[str, Any]) -> list[str]:
    """By the functions of W&B's own agent."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    told = yaml.safe_load(file.path.read_text())["command"]
    flags = create_sweep_command_args({"args": {key: {"value": value} for key, value in point.items()}})
    command: list[str] = []
    for word in create_sweep_command(list(told)):
        command += flags["args"] if word == "${args}" else [word]
    return command


def test_a_grid_goes_through_every_combination(tmp_path: Path) -> None:
    points = sweep(tmp_path).points(None, 0)
    assert points == [{"privacy.epsilon": e, "seed": s} for e in (4, 8) for s in (1, 2)]
    assert len(sweep(tmp_path).points(3, 0)) == 3
    assert len(sweep(tmp_path, run_cap=2).points(None, 0)) == 2


def test_draws_lie_in_their_ranges_and_follow_the_seed(tmp_path: Path) -> None:
    parameters = {
        "a": {"min": 1, "max": 3},
        "b": {"min": 0.5, "max": 1.0},
        "c": {"distribution": "log_uniform_values", "min": 1e-3, "max": 10.0},
        "d": {"values": ["x", "y"], "probabilities": [0.9, 0.1]},
        "e": {"value": 7},
    }
    file = sweep(tmp_path, method="random", parameters=parameters)
    points = file.points(400, 5)
    assert points == file.points(400, 5) != file.points(400, 6)
    assert {point["a"] for point in points} == {1, 2, 3}
    assert all(0.5 <= point["b"] <= 1 and 1e-3 <= point["c"] <= 10 and point["e"] == 7 for point in points)
    assert 0.4 < sum(point["c"] < 0.1 for point in points) / 400 < 0.6, "half of the decades"
    assert 20 <= sum(point["d"] == "y" for point in points) <= 70


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "bayes"}, "needs W&B's server"),
        ({"method": "random"}, "add run_cap, or --runs N"),
        ({"parameters": {"seed": {"min": 1, "max": 2}}}, "seed has no values to go through"),
        ({**ONE_DRAW, "parameters": {"seed": {}}}, "seed needs value, values, or min and max"),
        ({**ONE_DRAW, "parameters": {"a": {"min": 0.0, "max": 1.0, "distribution": "beta"}}}, "'beta'"),
        ({**ONE_DRAW, "parameters": {"a": {"values": [1, 2], "probabilities": [1]}}}, "probabilities"),
        ({**ONE_DRAW, "parameters": {"a": {"values": [1, 2], "probabilities": ["a", "b"]}}}, "probabilities"),
        ({**ONE_DRAW, "parameters": {"a": {"values": [1, 2], "probabilities": [1.5, -0.5]}}}, "probabilities"),
        ({**ONE_DRAW, "parameters": {"a": {"min": 0, "max": float("inf")}}}, "min and max"),
        ({**ONE_DRAW, "parameters": {"a": {"min": 0, "max": 10**30}}}, "min and max"),
        ({"parameters": {7: {"value": 1}}}, "this is no sweep"),
        ({"parameters": None}, "this is no sweep"),
        ({"command": ["python", "train.py", "${args}"]}, "command must be a list"),
        ({"command": ["lightning-fed", "run"]}, "command must be a list"),
        ({"run_cap": 0}, "run_cap is 0"),
        ({"method": "gird"}, "method is 'gird': did you mean 'grid'"),
        ({"runcap": 2}, "runcap is not a key of a sweep: did you mean 'run_cap'"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_run_here_is_one_line_with_the_mend(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        sweep(tmp_path, **changes).points(None, 0)


def test_a_missing_file_and_a_wrong_key_are_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(tmp_path / "none.yaml")]) == 2
    path = written(tmp_path, parameters={"privacy.epsilom": {"values": [1]}})
    assert main(["sweep", str(path), "--output", str(tmp_path / "out")]) == 2
    assert "did you mean 'privacy.epsilon'" in capsys.readouterr().err.replace("--", "")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_our_words_are_those_of_wandbs_own_agent(path: Path) -> None:
    file = read_sweep(path)
    for point in file.points(3, 0, "grid" if file.method == "grid" else "random"):
        assert ["lightning-fed", "run", *file.words_of(point)] == as_the_agent_would(file, point)


@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_each_files_command_runs(path: Path, tmp_path: Path) -> None:
    file = read_sweep(path)
    points = file.points(None if file.method == "grid" else 1, 0, "grid" if file.method == "grid" else "random")
    chosen = {point["config"]: point for point in points}  # one of each recipe
    for number, point in enumerate(chosen.values()):
        words = as_the_agent_would(file, point)[1:]
        output = tmp_path / str(number)
        assert main([*words, *SMALLEST, "--tracking.wandb", "offline", "--output", str(output)]) == 0
        summary = json.loads((output / "summary.json").read_text())
        assert summary["privacy"]["budget"] == point.get("privacy.epsilon", 6.0)
        assert list((output / "wandb").glob("offline-run-*"))


def test_a_sweep_keeps_what_is_finished_and_tells_what_each_setting_gave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output = written(tmp_path), tmp_path / "out"
    words = ["sweep", str(path), "--output", str(output), *TINY_WORDS]
    assert main([*words, "--dry_run"]) == 0
    assert capsys.readouterr().out.count("epsilon=") == 4
    assert not output.exists()
    assert main([*words, "--runs", "3"]) == 0
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "3 runs, 0 finished before" in told
    assert "4 runs, 3 finished before" in told
    rows = list(csv.DictReader((output / "sweep.csv").open()))
    assert [row["privacy.epsilon"] + row["seed"] for row in rows] == ["41", "42", "81", "82"]
    assert all(float(row["epsilon"]) == pytest.approx(float(row["privacy.epsilon"]), rel=1e-3) for row in rows)
    assert "<svg" in (output / "sweep.svg").read_text()
    table = (output / "sweep.md").read_text().splitlines()
    assert len(table) == 4
    assert " ± " in table[2]
    seen: list[object] = []
    monkeypatch.setattr(cells_module, "run_cell", seen.append)
    assert main(words) == 0
    assert not seen, "nothing runs twice"
    with pytest.raises(InputError, match="holds a run with other settings"):
        sweep_command([*words[1:], "--training.lr", "0.5"])


def test_a_run_that_fails_does_not_stop_the_others_and_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, parameters={"training.lr": {"values": [1e30, 0.01]}, "seed": {"value": 1}})
    words = ["sweep", str(path), "--output", str(tmp_path / "out"), *TINY_WORDS, "--privacy.epsilon", "8"]
    words += ["--privacy.mechanism", "none", "--training.optimizer", "SGD"]
    assert main(words) == 3
    told = capsys.readouterr().out
    assert "failed: " in told
    assert "1 runs failed" in told
    assert len((tmp_path / "out" / "sweep.md").read_text().splitlines()) == 3
    (log,) = (tmp_path / "out").glob("001-*.log")
    assert "finite" in log.read_text()


@pytest.mark.slow
def test_on_ray_runs_go_side_by_side_in_processes_of_their_own(tmp_path: Path) -> None:
    words = [word for word in TINY_WORDS if word not in ("--ray.enabled", "false")]
    path, output = written(tmp_path), tmp_path / "out"
    assert main(["sweep", str(path), "--output", str(output), *words]) == 0
    assert main(["sweep", str(path), "--output", str(tmp_path / "here"), *TINY_WORDS]) == 0
    tables = (output / "sweep.csv", tmp_path / "here" / "sweep.csv")
    ours, here = (list(csv.DictReader(table.open())) for table in tables)
    assert [row["epsilon"] for row in ours] == [row["epsilon"] for row in here]
    assert len(ours) == 4


def test_a_cell_that_was_cut_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(cells_module, "run_experiment", lambda experiment, resume: asked.append(resume))
    experiment = read_experiment([*TINY_WORDS, "--output", str(tmp_path / "cell")])
    cell = cells_module.Cell("cell", experiment)
    cells_module.run_cells([cell], Ray(enabled=False), lambda: None)
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / "experiment.yaml").write_text(yaml.safe_dump(experiment.as_dict()))
    cells_module.run_cells([cell], Ray(enabled=False), lambda: None)
    assert asked == [False, True]


def measured(accuracy: float, **point: Any) -> Measured:
    return Measured(point, "record", "image", 5.99, None, accuracy, 0.5, None, 9.0, "completed", "cells")


def test_a_cell_keeps_to_its_images_and_its_start(tmp_path: Path) -> None:
    words = [*TINY_WORDS, "--output", str(tmp_path / "cell")]
    first = cells_module.Cell("cell", read_experiment([*words, "--data.root", "/data/official"]))
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / "experiment.yaml").write_text(yaml.safe_dump(first.experiment.as_dict()))
    first.refuse_another()
    for changed in (
        ["--data.root", "/data/rebuilt"],
        ["--data.root", "/data/official", "--model.start", "/a.ckpt"],
    ):
        with pytest.raises(InputError, match="other settings"):
            cells_module.Cell("cell", read_experiment([*words, *changed])).refuse_another()


def test_cells_whose_names_have_dots_have_logs_of_their_own(tmp_path: Path) -> None:
    experiments = [read_experiment(["--output", str(tmp_path / name)]) for name in ("e-0.5-a", "e-0.5-b")]
    one, other = (cells_module.Cell("", experiment).log for experiment in experiments)
    assert one != other


def test_an_unexpected_error_of_one_run_is_its_own_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(experiment: object, resume: bool) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(cells_module, "run_experiment", broken)
    cell = cells_module.Cell("cell", read_experiment(["--output", str(tmp_path / "cell")]))
    written: list[int] = []
    assert cells_module.run_cells([cell], Ray(enabled=False), lambda: written.append(1)) == [cell]
    assert written == [1]
    told = capsys.readouterr().out
    assert f"1/1  cell  failed: MemoryError: no room; see {cell.log}" in told
    assert "1 runs failed; the same command tries them again" in told
    assert "Traceback" in cell.log.read_text()


def test_two_configurations_of_one_mechanism_are_two_lines() -> None:
    groups = groups_of([measured(0.9, config="a.yaml"), measured(0.8, config="b.yaml")])
    assert set(_series(groups)) == {"record, config a", "record, config b"}


def test_runs_that_differ_in_their_seed_alone_are_averaged() -> None:
    runs = [measured(0.9, lr=1, seed=1), measured(0.7, lr=2, seed=1), measured(0.92, lr=1, seed=2)]
    assert [len(group) for group in groups_of(runs)] == [2, 1]
    assert percent_of([0.9, 0.92]) == f"91.00 ± {100 * math.sqrt(2) * 0.01:.2f} %"
    assert percent_of([]) == "-"
    rows = table_of(runs).splitlines()
    assert rows[2] == "| 1 | record | image | 5.99 | - | 91.00 ± 1.41 % | 50.00 ± 0.00 % | - | 2 |"
