"""The jobs' own checks, without a cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs import job

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "words",
    [
        ["--output", "runs/x"],
        ["--output=runs/x"],
        ["--output", "/x", "--data.root", "data"],
        ["--output", "/x", "--data.root=../data"],
        ["--resume", "runs/x"],
        ["--output"],
    ],
)
def test_a_relative_path_is_refused_with_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run_job("run", words) == 2
    assert "a job needs an absolute path" in capsys.readouterr().err


def test_an_output_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run_job("sweep", ["configs/sweeps/privacy_budget.yaml"]) == 2
    assert "--output is missing" in capsys.readouterr().err


def test_a_job_joins_the_cluster_that_runs_it_unless_it_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(job, "main", lambda words: seen.append(words) or 0)
    assert job.run_job("run", ["--output", "/x"]) == 0
    assert job.run_job("paper", ["--output=/x", "--ray.address=here:1"]) == 0
    here = ["--ray.address", "auto"]
    assert seen == [["run", "--output", "/x", *here], ["paper", "--output=/x", "--ray.address=here:1"]]


@pytest.mark.parametrize("name", ["train", "sweep", "paper"])
def test_each_script_is_its_command(name: str, tmp_path: Path) -> None:
    script = ROOT / "ray_jobs" / f"{name}.py"
    done = subprocess.run([sys.executable, str(script), "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"lightning-fed {'run' if name == 'train' else name}" in done.stdout
