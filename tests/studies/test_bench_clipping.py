"""`lightning-fed bench clipping` at the smallest size: its figures, not its speed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from lightning_fed.cli import main
from lightning_fed.privacy.clipping.ways import WAYS
from lightning_fed.studies import bench_clipping
from lightning_fed.studies.bench_clipping import (
    SUBJECTS,
    ClippingJob,
    Subject,
    make_step,
    memory_ratio,
    step_seconds,
)

RATIOS = {f"{way}_ratio" for way in WAYS}


@pytest.mark.slow
def test_the_last_line_holds_every_promised_figure(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_clipping, "MEMORY_BATCH", 16)
    assert main(["bench", "clipping", "--width", "2", "--batch", "4", "--rounds", "1"]) == 0
    printed = capfd.readouterr().out.splitlines()
    figures = json.loads(printed[-1])
    assert {name for name in figures if not name.endswith("_cuda")} == {"dpresnet_2", "resnet18_2"}
    for row in figures.values():
        assert row.keys() == {"plain_ms", "one_pass_memory_ratio"} | RATIOS
        assert all(figure > 0 for figure in row.values())
    assert any("dpresnet_2" in line for line in printed[:-1])


def test_the_subjects_are_the_papers_network_at_two_widths_and_a_standard_one() -> None:
    assert ClippingJob(1, 1).subjects == list(SUBJECTS)
    assert [one.name for one in SUBJECTS] == ["dpresnet_16", "dpresnet_64", "resnet18_64"]
    assert {one.batch for one in ClippingJob(1, 1, batch=3).subjects} == {3}
    assert [one.name for one in ClippingJob(1, 1, width=4).subjects] == ["dpresnet_4", "resnet18_4"]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_every_way_takes_the_same_sums_of_the_same_step() -> None:
    subject = Subject("dpresnet", 4, 3)
    sums = [make_step(subject, way, "cpu")() for way in WAYS]
    for other in sums[1:]:
        for one, same in zip(sums[0], other, strict=True):
            torch.testing.assert_close(same, one, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_the_first_step_of_each_way_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    monkeypatch.setattr(bench_clipping, "make_step", lambda subject, way, device: lambda: taken.append(way))
    seconds = step_seconds(Subject("dpresnet", 2, 1), ClippingJob(5, 1), "cpu")
    assert seconds.keys() == {"plain", *WAYS}
    counts = {way: taken.count(way) for way in seconds}
    assert counts == {"plain": 6, "one_pass": 6, "hooks": 3, "ghost": 3, "functorch": 3}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's peak")
def test_memory_is_that_of_the_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_clipping, "MEMORY_BATCH", 128)
    ratio = memory_ratio(Subject("dpresnet", 4, 1), 1, "cpu")
    assert 0.3 < ratio < 2  # a busy system takes pages away from either process


def test_where_the_system_tells_no_peak_there_is_no_figure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bench_clipping, "STATUS", tmp_path / "status")
    assert math.isnan(bench_clipping._resident("VmHWM"))
    monkeypatch.setattr(bench_clipping, "_peak_in_child", lambda *job: bench_clipping._resident("VmHWM"))
    assert memory_ratio(Subject("dpresnet", 2, 1), 1, "cpu") is None


def test_rounds_must_be_positive(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "clipping", "--rounds", "0"]) == 2
    assert "bench.rounds is 0" in capsys.readouterr().err
