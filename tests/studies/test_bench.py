"""`lightning-fed bench federation` at the smallest size: its figures, not its speed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lightning_fed.cli import main
from lightning_fed.data.datamodule import Plan
from lightning_fed.data.images import ImageSet
from lightning_fed.models.dpresnet import DPResNet
from lightning_fed.studies.bench_federation import BATCH_SIZE, FederationJob, _experiment
from lightning_fed.studies.bench_floor import _epoch


@pytest.mark.slow
def test_the_last_line_holds_every_promised_figure(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "federation", "--hospitals", "2", "--images", "32", "--width", "2", "--rounds", "3"]
    assert main(words) == 0
    figures = json.loads(capfd.readouterr().out.splitlines()[-1])
    wanted = {"round_seconds", "floor_seconds", "ratio", "startup_seconds", "hospital_pss_bytes"}
    for part in (figures, figures["packed"], figures["unpacked"]):
        assert wanted <= part.keys()
        assert all(part[name] > 0 for name in wanted)
    assert figures["ratio"] == figures["unpacked"]["ratio"]
    assert figures["ratio"] == pytest.approx(figures["round_seconds"] / figures["floor_seconds"])


@pytest.mark.parametrize("images", [32, 33, 1195])
def test_the_federation_takes_the_very_steps_of_its_floor(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    job = FederationJob(hospitals=1, images=images, width=2, rounds=2, threads=1)
    experiment = _experiment(job, per_actor=1)
    training, federation = experiment.training, experiment.federation
    planned = Plan(images, training.batch_size, federation.local_epochs, federation.local_steps, 0, 0, 1).length

    taken: list[int] = []
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: taken.append(1))
    pixels = ImageSet(np.zeros((images, 8, 8, 3), np.uint8), np.zeros(images, np.int64))
    network = DPResNet(3, 8, 2)
    optimizer = torch.optim.Adam(network.parameters(), training.lr)
    _epoch(network, optimizer, pixels, np.arange(images), BATCH_SIZE)
    assert planned == len(taken)
    assert (training.optimizer, training.schedule, training.warmup_rounds) == ("Adam", "constant", 0.0)
    assert not training.augment


def test_no_process_of_the_floor_is_without_a_hospital() -> None:
    assert FederationJob(hospitals=1, images=8, width=2, rounds=2, threads=1).processes == 1


@pytest.mark.parametrize(
    "words", [["federatoin"], ["federation", "--rounds", "1"], ["federation", "--widht", "3"]]
)
def test_a_wrong_benchmark_or_option_is_one_line_and_exit_code_two(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
