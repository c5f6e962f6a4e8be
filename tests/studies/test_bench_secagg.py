"""`lightning-fed bench secagg` at the smallest size: its figures, not its speed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from lightning_fed.cli import main
from lightning_fed.secagg.parameters import Assumption, choose
from lightning_fed.secagg.quantise import Encoding
from lightning_fed.studies import bench_secagg
from lightning_fed.studies.bench_secagg import Rehearsal


@pytest.mark.slow
def test_the_last_line_holds_every_promised_figure(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_secagg, "TABLE_HOSPITALS", (10, 20))
    words = ["bench", "secagg", "--hospitals", "10", "--parameters", "1000", "--width", "2", "--rounds", "1"]
    assert main(words) == 0
    figures = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert {"cpu_seconds", "floor_seconds", "ratio", "upload_bytes", "dropped_ratio"} <= figures.keys()
    assert figures["upload_bytes"] == 3003
    assert figures["dropped"] == 3
    assert figures["round_seconds_on_ray"]["plain"] > 0
    for row in figures["by_hospitals"].values():
        assert row["client_cpu_seconds"] > 0 < row["server_cpu_seconds"]
    assert [(row["degree"], row["threshold"]) for row in figures["by_hospitals"].values()] == [(9, 7), (8, 6)]


def rehearsal(hospitals: int = 10, parameters: int = 50) -> Rehearsal:
    encoding = Encoding(hospitals, 1.0, 20, bench_secagg.WEIGHT)
    return Rehearsal(choose(hospitals, Assumption()), encoding, encoding.length(parameters))


@pytest.mark.parametrize("dropped", [0, 3])
def test_a_rehearsed_round_costs_every_party_something(dropped: int) -> None:
    cost = rehearsal().round(1, np.ones(50, np.float32) / 3, dropped)
    assert min(cost.setup, cost.clients, cost.server_add, cost.consistency, cost.server_open) > 0
    assert cost.total == pytest.approx(cost.setup + cost.clients + cost.server + cost.consistency)


def test_a_rehearsal_whose_sum_is_wrong_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    add = bench_secagg.ShardSum.add

    def add_one_more(self: Any, packed: Any) -> None:
        add(self, packed)
        self.total[0] += 1

    monkeypatch.setattr(bench_secagg.ShardSum, "add", add_one_more)
    with pytest.raises(RuntimeError, match="not that of the survivors"):
        rehearsal().round(1, np.ones(50, np.float32) / 3)


def test_too_few_hospitals_are_one_line_and_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "secagg", "--hospitals", "2"]) == 2
    assert "bench.hospitals: 2 hospitals: the sum of two tells each the other's" in capsys.readouterr().err
