"""A run that cannot go on by itself says so in its summary, with what it spent, until it has gone on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_fed.cli import main
from lightning_fed.privacy.accounting import epsilon
from lightning_fed.privacy.poisson import PoissonGaussian
from lightning_fed.report.load import read_run
from lightning_fed.tracking.files import RunFolder
from tests.integration.conftest import words

PRIVATE = {
    "data__validation": 0,
    "federation__local_epochs": 1,
    "federation__local_steps": 2,
    "privacy__mechanism": "record",
    "privacy__epsilon": 8,
    "secagg__protocol": "secagg_plus",
    "secagg__min_survivors": 4,
    "faults__dropout__losses": "[{round: 2, hospital: 1, stage: after_shares}]",
    "faults__max_failed_rounds": 0,
    "ray__enabled": False,
}


def summary(run: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return told


@pytest.fixture(scope="module")
def aborted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private run of which the second of three rounds could not be opened."""
    run = tmp_path_factory.mktemp("aborted") / "run"
    assert main(["run", *words(run, **PRIVATE)]) == 3
    return run


def test_its_summary_tells_what_was_spent_in_all_rounds_that_were_charged(aborted: Path) -> None:
    told, privacy = summary(aborted), summary(aborted)["privacy"]
    assert (told["status"], told["rounds"], told["test"]) == ("aborted", 1, None)  # the second is not measured
    assert "round 2 gave no new model" in told["reason"]
    assert privacy["steps_by_hospital"] == [4, 2, 4, 4]  # a round that fails was trained and paid for
    names = ("sample_rate_by_hospital", "noise_multiplier_by_hospital", "steps_by_hospital")
    per_hospital = zip(*(privacy[name] for name in names), strict=True)
    spent = [epsilon(PoissonGaussian(*one), privacy["delta"]) for one in per_hospital]
    assert privacy["epsilon_by_hospital"] == spent
    assert 0 < privacy["epsilon"] == max(spent) < 8


def test_its_page_says_why_it_ended_and_claims_no_test_scores(aborted: Path) -> None:
    assert main(["report", str(aborted)]) == 0
    page = (aborted / "report.html").read_text()
    assert 'class="status aborted"' in page
    assert "1 of 3 rounds; then the run could not go on: round 2 gave no new model" in page
    assert "until it was aborted" in page
    assert "test accuracy" not in page


@pytest.mark.parametrize("command", [["export"], ["audit", "leaks", "--run"]])
def test_what_needs_a_finished_run_refuses_it(
    aborted: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, str(aborted)]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "run --resume" in said


def test_it_goes_on_to_an_ordinary_summary(aborted: Path) -> None:
    before = summary(aborted)["privacy"]["epsilon"]
    assert main(["run", "--resume", str(aborted), "--faults.max_failed_rounds=1"]) == 0
    told = summary(aborted)
    assert (told["status"], told["rounds"], told["reason"]) == ("completed", 3, None)
    assert told["test"]["accuracy"] > 0
    assert before < told["privacy"]["epsilon"] <= 8


def test_a_run_that_goes_on_forgets_that_it_was_aborted_before_it_is_cut_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert main(["run", *words(run, **PRIVATE)]) == 3

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "add_round", cut)
    assert main(["run", "--resume", str(run), "--faults.max_failed_rounds=1"]) == 130
    assert not (run / "summary.json").exists()


def test_weights_that_are_not_finite_abort_a_run_before_its_first_round_is_over(tmp_path: Path) -> None:
    run = tmp_path / "run"
    reckless = {"training__optimizer": "SGD", "training__lr": 1e30, "ray__enabled": False}
    assert main(["run", *words(run, **reckless)]) == 3
    told = summary(run)
    assert (told["status"], told["rounds"], told["hospital_accuracy"]) == ("aborted", 0, None)
    assert "not finite" in told["reason"]
    assert read_run(run).result is not None


def test_a_summary_that_lacks_its_test_scores_is_refused_unless_the_run_was_aborted(
    aborted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("experiment.yaml", "rounds.jsonl"):
        (tmp_path / name).write_bytes((aborted / name).read_bytes())
    (tmp_path / "summary.json").write_text(json.dumps(summary(aborted) | {"status": "completed", "test": None}))
    assert main(["report", str(tmp_path)]) == 2
    assert "test does not fit to status, completed" in capsys.readouterr().err


def test_a_damaged_summary_is_no_aborted_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.complete
    for text in ('{"status": "abor', "[]", '{"status": "completed"}'):
        folder.summary.write_text(text)
        assert folder.complete
    folder.summary.write_text('{"status": "aborted"}')
    assert not folder.complete
