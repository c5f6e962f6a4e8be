"""`lightning-fed bench soak` at the smallest size, on a real Ray: its figures, and leaks that it must see."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import psutil
import pytest

from lightning_fed.cli import main
from lightning_fed.federation.actors import ActorCrew
from lightning_fed.federation.census import AGGREGATOR, DRIVER, HOSPITALS, RAY, Resident
from lightning_fed.federation.checkpoint import Checkpoint, Checkpoints
from lightning_fed.studies.bench_soak import Sample, SoakJob, experiment_of, figures_of, sample_of

HOSPITALS_IN_ALL, ROUNDS, EVERY = 6, 6, 2
MEGABYTES, FILES = 30, 5  # that a planted leak takes in each round
SPARE = 5  # handles by which Ray's own may differ from one moment to another


def soak(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    words = ["--hospitals", str(HOSPITALS_IN_ALL), "--rounds", str(ROUNDS), "--every", str(EVERY)]
    assert main(["bench", "soak", *words, "--width", "2", "--images", "8"]) == 0
    figures: dict[str, Any] = json.loads(capfd.readouterr().out.splitlines()[-1])
    return figures


@pytest.mark.slow
def test_the_last_line_holds_what_a_run_really_took(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[Checkpoint] = []
    seen: list[tuple[int, int, int]] = []
    store = Checkpoints.store

    def look(checkpoints: Checkpoints, checkpoint: Checkpoint) -> Any:
        path = store(checkpoints, checkpoint)
        titles = ["".join(child.cmdline()[:1]) for child in psutil.Process().children(recursive=True)]
        files = sum(len(names) for _, _, names in os.walk(checkpoints.folder.parent))
        stored.append(checkpoint)
        named = [sum(title.startswith(f"ray::{name}") for title in titles) for name in ("HospitalActor", "Shard")]
        seen.append((named[0], named[1], files))
        return path

    monkeypatch.setattr(Checkpoints, "store", look)
    figures = soak(capfd)
    job = SoakJob(**figures["job"])
    assert (figures["rounds"], figures["hospitals"]) == (ROUNDS, HOSPITALS_IN_ALL)
    assert [sample["round"] for sample in figures["samples"]] == [2, 4, 6]
    assert [checkpoint.round for checkpoint in stored] == [1, 2, 3, 4, 5, 6]
    assert figures["rounds_without_a_sum"] == sum(checkpoint.trained.failed is not None for checkpoint in stored)
    assert any(checkpoint.trained.dropped for checkpoint in stored)

    groups = -(-HOSPITALS_IN_ALL // experiment_of(job).ray.hospitals_per_actor)
    assert figures["actors"] == {when: {"hospitals": groups, "aggregator": 1} for when in ("2", "last")}
    for sample, (hospitals, shards, files) in zip(figures["samples"], seen[1::2], strict=True):
        assert sample["actors"] == {"hospitals": hospitals, "aggregator": shards}
        assert sample["files"] == files
        assert sample["seconds"] > 0
        for taken in (sample["memory"], sample["handles"]):
            assert taken["all"] == sum(taken[kind] for kind in (DRIVER, HOSPITALS, AGGREGATOR, RAY))
            assert min(taken.values()) > 0
    assert (
        figures["memory_ratio"]["all"]
        == figures["memory_bytes"]["last"]["all"] / figures["memory_bytes"]["2"]["all"]
    )
    for kind in (DRIVER, HOSPITALS):
        assert abs(figures["handles"]["last"][kind] - figures["handles"]["2"][kind]) <= SPARE


@pytest.mark.slow
def test_what_the_driver_keeps_of_each_round_is_seen(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bytes] = []
    opened: list[int] = []
    store, put = Checkpoints.store, ActorCrew.put

    def hoard(checkpoints: Checkpoints, checkpoint: Checkpoint) -> Any:
        kept.append(os.urandom(MEGABYTES * 10**6))
        opened.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(FILES))
        return store(checkpoints, checkpoint)

    def breed(crew: ActorCrew, value: Any) -> Any:
        if len(kept) == EVERY:  # after the first sample
            crew.open_shards(1).begin(8, 32)
        return put(crew, value)

    monkeypatch.setattr(Checkpoints, "store", hoard)
    monkeypatch.setattr(ActorCrew, "put", breed)
    figures = soak(capfd)
    for handle in opened:
        os.close(handle)
    between = ROUNDS - EVERY
    first, last = figures["memory_bytes"]["2"], figures["memory_bytes"]["last"]
    grown = last["without_libraries"] - first["without_libraries"]  # whose share others may take meanwhile
    assert grown > 0.7 * between * MEGABYTES * 10**6
    assert figures["memory_ratio"][DRIVER] > 1.0
    assert figures["greatest_ratio"]["without_libraries"] >= figures["memory_ratio"]["without_libraries"] > 1.05
    first, last = figures["handles"]["2"], figures["handles"]["last"]
    assert between * FILES <= last[DRIVER] - first[DRIVER] <= between * FILES + SPARE
    assert figures["actors"]["last"] == {"hospitals": figures["actors"]["2"]["hospitals"], "aggregator": 2}


def resident(kind: str, memory: int, libraries: int = 0, handles: int = 1) -> Resident:
    return Resident(kind, 1, memory, libraries, handles)


def test_a_sample_adds_up_its_processes() -> None:
    found = [
        resident(DRIVER, 100, 10, 3),
        resident(HOSPITALS, 200, 20, 5),
        resident(HOSPITALS, 300, 30, 7),
        resident(RAY, 50, 5, 11),
    ]
    sample = sample_of(7, 0.5, found, 9)
    kinds = {"all": 650, "driver": 100, "hospitals": 500, "aggregator": 0, "ray": 50}
    assert sample.memory == {**kinds, "without_libraries": 585}
    assert sample.handles == {"all": 26, "driver": 3, "hospitals": 12, "aggregator": 0, "ray": 11}
    assert sample.actors == {"hospitals": 2, "aggregator": 0}
    assert (sample.round, sample.seconds, sample.files) == (7, 0.5, 9)


def run_of(memory: dict[int, int]) -> list[Sample]:
    first = sample_of(1, 0.5, [], 0)
    return [replace(first, round=round, memory={**first.memory, "all": size}) for round, size in memory.items()]


@pytest.mark.parametrize(
    ("memory", "since", "ratio", "greatest"),
    [
        ({50: 10, 100: 100, 150: 130, 200: 110}, "100", 1.1, 1.3),
        ({50: 500, 100: 100, 150: 90, 200: 80}, "100", 0.8, 0.9),  # what was before the run settled is left out
        ({60: 50, 120: 100, 180: 150}, "120", 1.5, 1.5),
        ({50: 80, 100: 100}, "50", 1.25, 1.25),
        ({2: 10, 4: 5, 6: 8}, "2", 0.8, 0.8),
    ],
)
def test_the_run_is_compared_with_itself_once_it_has_settled(
    memory: dict[int, int], since: str, ratio: float, greatest: float
) -> None:
    figures = figures_of(run_of(memory))
    assert figures["memory_bytes"].keys() == {since, "last"}
    assert figures["memory_ratio"]["all"] == pytest.approx(ratio)
    assert figures["greatest_ratio"]["all"] == pytest.approx(greatest)
    assert figures["greatest_ratio"].keys() == {"all"}  # nothing else took any


def test_the_size_of_the_issue_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SoakJob] = []

    def note(job: SoakJob) -> dict[str, Any]:
        asked.append(job)
        return {}

    monkeypatch.setattr("lightning_fed.studies.bench_soak.bench_soak", note)
    assert main(["bench", "soak"]) == 0
    assert asked == [SoakJob(100, 1000, images=50, width=8, batch=8, every=50, threads=1)]
    experiment = experiment_of(asked[0])
    assert experiment.secagg.protocol == "secagg_plus"
    assert (experiment.faults.dropout.rate, experiment.faults.dropout.stage) == (0.1, "any")
    assert (experiment.federation.local_steps, experiment.data.images) == (1, 5000)


@pytest.mark.parametrize("words", [["--every", "0"], ["--rounds", "4", "--every", "4"], ["--images", "-1"]])
def test_a_run_without_two_samples_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "soak", *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
