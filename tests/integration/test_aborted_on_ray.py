"""A run on Ray that is aborted while hospitals still work tells all that they charged."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from lightning_fed.cli import main
from lightning_fed.tracking.files import RunFolder
from lightning_fed.tracking.records import RoundRecord
from tests.integration.conftest import words
from tests.studies.test_aborted import PRIVATE

pytestmark = pytest.mark.slow


def charged(run: Path, hospital: int) -> int:
    """Steps that a hospital's ledger holds."""
    lines = (run / "hospitals" / str(hospital) / "ledger.jsonl").read_text().splitlines()
    return sum(json.loads(line).get("charge", {}).get("steps", 0) for line in lines)


def test_what_hospitals_charge_while_the_run_ends_is_in_its_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first round's record cannot be written, beside the second round's training."""
    run = tmp_path / "run"

    def full(self: RunFolder, record: RoundRecord) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self.rounds))

    monkeypatch.setattr(RunFolder, "add_round", full)
    own = PRIVATE | {"ray__enabled": True, "faults__dropout__losses": "[]", "federation__local_steps": 20}
    assert main(["run", *words(run, **own)]) == 3
    assert "cannot be written (No space left on device)" in capsys.readouterr().err
    told = json.loads((run / "summary.json").read_text())
    assert told["status"] == "aborted"
    assert told["privacy"]["steps_by_hospital"] == [charged(run, hospital) for hospital in range(4)]
    assert min(told["privacy"]["steps_by_hospital"]) >= 20
