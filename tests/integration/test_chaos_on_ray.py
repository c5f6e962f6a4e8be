"""The chaos command on a cluster of its own."""

from __future__ import annotations

import json

import pytest

from lightning_fed.cli import main
from lightning_fed.studies import chaos
from lightning_fed.studies.chaos import FAULTS, Trial

ROUNDS = 20


@pytest.mark.slow
def test_one_trial_for_real(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on three nodes: a process of hospitals killed, a shard killed, a node lost, the driver killed."""
    names = {"hospital killed", "shard killed", "node lost", "driver killed"}
    struck = tuple(fault for fault in FAULTS if fault.name in names)
    monkeypatch.setattr(chaos, "trials", lambda seed: [Trial(0, "record", "secagg_plus", struck)])
    monkeypatch.setattr(chaos, "ROUNDS", ROUNDS)
    assert main(["chaos", "--seed", "3", "--only", "0"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["runs"] == 1
    assert told["faults"] == 4
    assert told["lives"] >= 2
    assert told["rounds"] == ROUNDS
    assert told["failed_rounds"] < ROUNDS / 2
    assert {name for name, counts in told["by_fault"].items() if counts["record"]} == names


def test_a_search_that_sees_nothing_is_noticed_before_the_first_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chaos.Search, "found_in", lambda self, content: False)
    assert main(["chaos", "--seed", "3", "--only", "0"]) == 3
    assert "object stores was found in 0; updates would not be either" in capsys.readouterr().err
