"""A hospital's process that stops answering on a real Ray, and comes back."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from lightning_fed.data.load import load_images
from lightning_fed.experiment import Experiment, SecAgg
from lightning_fed.federation.assembly import open_crew
from lightning_fed.federation.driver import Driver
from lightning_fed.federation.enrolment import enrol, save_identities
from lightning_fed.federation.roster import make_roster
from lightning_fed.federation.site import build_classifier
from lightning_fed.federation.strategy import GlobalModel
from lightning_fed.tracking.records import TrainedRound
from tests.integration.test_secagg_on_ray import SMALL

pytestmark = pytest.mark.slow

SLEEPER = 1


def settings(protocol: str) -> Experiment:
    federation = replace(SMALL.federation, hospitals=4, rounds=4, round_timeout=8.0)
    secagg = replace(SMALL.secagg, protocol=protocol, stage_timeout=8.0)  # type: ignore[arg-type]
    return replace(SMALL, federation=federation, secagg=secagg if protocol != "plain" else SecAgg())


@pytest.mark.parametrize("protocol", ["plain", "secagg_plus"])
def test_a_stopped_process_is_late_and_takes_part_again_when_it_goes_on(protocol: str, tmp_path: Path) -> None:
    data = load_images(SMALL.data)
    roster = make_roster(settings(protocol), data)
    experiment, identities = enrol(settings(protocol), roster)
    save_identities(tmp_path, identities)
    model = GlobalModel.first(experiment, build_classifier(experiment, data).network)
    with closing(open_crew(experiment, data, roster, tmp_path)) as crew:
        driver = Driver(experiment, data, roster, model, crew)
        there: Any = crew
        site = roster.site_of[SLEEPER]
        pid = ray.get(there.actors[site].__ray_call__.remote(lambda self: os.getpid()))
        start = there.start

        def stopping_start(to: int, method: str, arguments: tuple[Any, ...], apart: int = 0) -> Any:
            if method == "fit" and arguments[:2] == (SLEEPER, 2):
                os.kill(pid, signal.SIGSTOP)
            return start(to, method, arguments, apart)

        def wake(trained: TrainedRound) -> None:
            if trained.round == 2:
                os.kill(pid, signal.SIGCONT)

        there.start, driver.on_close = stopping_start, wake
        try:
            told = [record.trained for record in driver.rounds()]
        finally:
            os.kill(pid, signal.SIGCONT)
    others = tuple(hospital for hospital in range(4) if hospital != SLEEPER)
    assert [one.failed for one in told] == [None] * 4
    assert [one.late for one in told] == [(), (SLEEPER,), (), ()]
    assert told[1].counted == others
    assert told[2].counted == told[3].counted == (0, 1, 2, 3)
    assert told[1].train_seconds < 30
