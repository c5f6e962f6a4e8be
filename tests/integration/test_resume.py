"""A run that is killed or interrupted goes on to the very weights of the run that was left alone."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from lightning_fed.cli import main
from tests.integration.conftest import same, start, wait_for_round, weights, words

pytestmark = pytest.mark.slow

ROUNDS = {
    "federation__rounds": 7,
    "federation__server_optimizer": "Adam",
    "federation__server_lr": 0.01,
    "federation__participation": 0.5,
    "model__name": "resnet9",
    "model__norm": "batch",
}


def test_a_driver_killed_in_round_five_resumes_to_the_same_weights(tmp_path: Path) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    assert main(["run", *words(alone, ray__enabled=False, **ROUNDS)]) == 0

    process = start("run", *words(killed, **ROUNDS), start_new_session=True)
    wait_for_round(killed, 4)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "summary.json").exists()

    packing = ["--ray.hospitals_per_actor", "4"]  # another than before: the result does not depend on it
    assert main(["run", "--resume", str(killed), *packing]) == 0
    assert same(weights(alone), weights(killed))
    lines = [(folder / "rounds.jsonl").read_text().splitlines() for folder in (alone, killed)]
    told = [[json.loads(line)["released"] for line in folder] for folder in lines]
    assert told[0] == told[1]


@pytest.mark.parametrize(("number", "on_ray"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_an_interrupt_names_the_line_that_resumes_and_exits_130(
    tmp_path: Path, number: signal.Signals, on_ray: bool
) -> None:
    output = tmp_path / "run"
    process = start("run", *words(output, ray__enabled=on_ray, federation__rounds=500), start_new_session=True)
    wait_for_round(output, 2)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert "received at time" not in told, "Ray's own handler prints its stack"
    assert process.returncode == 130
    assert f"lightning-fed run --resume {output}" in told
    assert "Traceback" not in told


def test_a_finished_run_is_not_resumed_and_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert main(["run", *words(output, ray__enabled=False, federation__rounds=1)]) == 0
    before = (output / "summary.json").read_text()
    assert main(["run", *words(output, ray__enabled=False, federation__rounds=1)]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main(["run", "--resume", str(output)]) == 2
    assert "is complete" in capsys.readouterr().err
    assert (output / "summary.json").read_text() == before
