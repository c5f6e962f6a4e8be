"""`lightning-fed bench distributed` at the smallest size, on a real Ray: its figures, not its speed."""

from __future__ import annotations

import json

import pytest

from lightning_fed.cli import main


@pytest.mark.slow
def test_the_last_line_holds_a_round_and_its_gradient_work(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--hospitals", "3", "--width", "2", "--rounds", "2", "--batch", "6"]
    assert main(["bench", "distributed", *words]) == 0
    printed = capfd.readouterr().out.splitlines()
    figures = json.loads(printed[-1])
    assert figures["parameters"] == 4994
    assert figures["round_seconds"] > 0
    assert figures["gradient_seconds"] > 0
    assert figures["beyond_seconds"] == figures["round_seconds"] - figures["gradient_seconds"]
    assert figures["job"]["batch"] == 6
