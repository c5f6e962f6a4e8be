"""`lightning-fed bench noise` with few draws: its figures, not its speed."""

from __future__ import annotations

import json

import pytest

from lightning_fed.cli import main
from lightning_fed.studies import bench_noise


def test_the_last_line_holds_draws_a_second_of_each_noise(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_noise, "DRAWS", 2**14)
    assert main(["bench", "noise", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    figures = json.loads(printed[-1])
    assert figures.keys() == {"numpy_normal_per_second", "skellam", "discrete_gaussian"}
    assert figures["skellam"].keys() == {"8192", "32768", "131072"}
    assert all(rate > 0 for rate in [*figures["skellam"].values(), *figures["discrete_gaussian"].values()])
    assert any("skellam" in line for line in printed[:-1])


def test_no_rounds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "noise", "--rounds", "0"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "lightning-fed: bench.rounds is 0: it must be finite and greater than 0"
    ]
