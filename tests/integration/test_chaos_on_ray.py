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
    assert {name for name, counts in told["by_fault"].items() if counts["record"]} == names
