"""A hospital's process that stops answering on a real Ray, and comes back."""

from __future__ import annotations

import json
import os
import signal
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from lightning_fed.experiment import Experiment, Privacy, SecAgg
from lightning_fed.federation.driver import Driver
from lightning_fed.tracking.records import TrainedRound
from tests.federation.protected import driver_of
from tests.integration.test_secagg_on_ray import SMALL

pytestmark = pytest.mark.slow

SLEEPER = 1


def rounds_with_a_sleeper(driver: Driver, until: int | None) -> list[TrainedRound]:
    """All rounds; the sleeper's process is stopped as round 2 is asked of it, and goes on after round `until`."""
    there: Any = driver.crew
    site = driver.roster.site_of[SLEEPER]
    pid = ray.get(there.actors[site].__ray_call__.remote(lambda self: os.getpid()))
    start = there.start

    def stopping_start(to: int, method: str, arguments: tuple[Any, ...], apart: int = 0) -> Any:
        if method == "fit" and arguments[:2] == (SLEEPER, 2):
            os.kill(pid, signal.SIGSTOP)
        return start(to, method, arguments, apart)

    def wake(trained: TrainedRound) -> None:
        if trained.round == until:
            os.kill(pid, signal.SIGCONT)

    there.start, driver.on_close = stopping_start, wake
    try:
        return [record.trained for record in driver.rounds()]
    finally:
        os.kill(pid, signal.SIGCONT)


def settings(protocol: str) -> Experiment:
    federation = replace(SMALL.federation, hospitals=4, rounds=4, round_timeout=8.0)
    secagg = replace(SMALL.secagg, protocol=protocol, stage_timeout=8.0)  # type: ignore[arg-type]
    return replace(SMALL, federation=federation, secagg=secagg if protocol != "plain" else SecAgg())


def test_a_round_that_a_late_hospital_never_began_costs_it_nothing(tmp_path: Path) -> None:
    """Stopped in round 2, it wakes after round 3."""
    private = Privacy(mechanism="record", epsilon=6.0, max_grad_norm=1.0)
    data = replace(SMALL.data, validation=0.0)
    driver = driver_of(replace(settings("plain"), privacy=private, data=data), tmp_path)
    with closing(driver.crew):
        told = rounds_with_a_sleeper(driver, until=3)
    assert [SLEEPER in one.late for one in told] == [False, True, True, False]
    assert SLEEPER in told[3].counted
    lines = (tmp_path / "hospitals" / str(SLEEPER) / "ledger.jsonl").read_text().splitlines()
    charges = [line["charge"]["round"] for line in map(json.loads, lines) if "charge" in line]
    assert charges == [1, 2, 4]


def test_a_late_hospital_is_not_asked_for_a_round_that_its_budget_does_not_pay_for(tmp_path: Path) -> None:
    """Two rounds are paid for; one hospital is stopped in the second, and never tells."""
    private = Privacy(mechanism="record", epsilon=6.0, max_grad_norm=1.0, participations=2)
    data = replace(SMALL.data, validation=0.0)
    driver = driver_of(replace(settings("plain"), privacy=private, data=data), tmp_path)
    with closing(driver.crew):
        told = rounds_with_a_sleeper(driver, until=None)
    assert [one.failed for one in told] == [None, None]
    assert driver.stopped_on_budget


@pytest.mark.parametrize("protocol", ["plain", "secagg_plus"])
def test_a_stopped_process_is_late_and_takes_part_again_when_it_goes_on(protocol: str, tmp_path: Path) -> None:
    driver = driver_of(settings(protocol), tmp_path)
    with closing(driver.crew):
        told = rounds_with_a_sleeper(driver, until=2)
    others = tuple(hospital for hospital in range(4) if hospital != SLEEPER)
    assert [one.failed for one in told] == [None] * 4
    assert [one.late for one in told] == [(), (SLEEPER,), (), ()]
    assert told[1].counted == others
    assert told[2].counted == told[3].counted == (0, 1, 2, 3)
    assert told[1].train_seconds < 30
