"""SecAgg+ through a real Ray: hospitals' processes that die, nothing in clear; `test_determinism` has its sums."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import RayActorError, RayError

from lightning_fed.cli import main
from lightning_fed.data.load import load_images
from lightning_fed.experiment import Data, Experiment, Federation, Model, Privacy, Ray, SecAgg, Training
from lightning_fed.federation.assembly import open_crew
from lightning_fed.federation.driver import Driver
from lightning_fed.federation.enrolment import encoding_of, enrol, save_identities
from lightning_fed.federation.roster import make_roster
from lightning_fed.federation.site import Site, build_classifier
from lightning_fed.federation.strategy import GlobalModel
from tests.federation.secrecy import numbers, shows
from tests.integration.conftest import words

pytestmark = pytest.mark.slow

MASKED = {"secagg.protocol": "secagg_plus", "privacy.reproducible": True, "faults.dropout.rate": 0.1}
SMALL = Experiment(
    data=Data(images=160, partition="quantity", min_images=4, validation=0.0),
    model=Model(width=2),
    training=Training(batch_size=16),
    federation=Federation(hospitals=8, rounds=6, local_epochs=1),
    privacy=Privacy(reproducible=True),
    secagg=SecAgg(protocol="secagg_plus", threshold=3, server="semi_honest", shards=1),
    ray=Ray(hospitals_per_actor=1),
)


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "in-process"
    assert main(["run", *words(output, ray__enabled=False, federation__hospitals=6, **MASKED)]) == 0
    return output


def test_the_summary_says_who_dropped_out_and_what_it_cost(in_process: Path) -> None:
    secagg = json.loads((in_process / "summary.json").read_text())["secagg"]
    lines = [json.loads(line) for line in (in_process / "rounds.jsonl").read_text().splitlines()]
    assert (secagg["protocol"], secagg["degree"], secagg["threshold"]) == ("secagg_plus", 5, 5)
    assert secagg["dropped"] == sum(len(line["aggregation"]["dropped"]) for line in lines) > 0
    assert secagg["dropped_by_stage"] == {"after_shares": secagg["dropped"]}
    assert secagg["seconds"] > 0
    assert secagg["upload_bytes_per_hospital"] > 0
    assert "hospitals dropped out" in (in_process / "report.html").read_text()


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    data = load_images(SMALL.data)
    roster = make_roster(SMALL, data)
    experiment, identities = enrol(SMALL, roster)
    save_identities(tmp_path, identities)
    model = GlobalModel.first(experiment, build_classifier(experiment, data).network)
    with closing(open_crew(experiment, data, roster, tmp_path)) as crew:
        yield Driver(experiment, data, roster, model, crew)


def is_gone(actor: Any) -> bool:
    """Whether an actor's death is known."""
    try:
        ray.get(actor.place.remote())
    except RayActorError:
        return True
    return False


def test_a_process_that_dies_at_a_stage_is_a_dropout_at_that_stage(driver: Driver) -> None:
    """Hospital r dies in round r, each at another stage, and stays away; the last round is without any death."""
    deaths = {1: "advertise", 2: "share_keys", 3: "fit", 4: "sign", 5: "unmask"}
    crew: Any = driver.crew
    start = crew.start
    number = 0

    def deadly_start(site: int, method: str, arguments: tuple[Any, ...], apart: int = 0) -> Any:
        if method == "each" and arguments[0] == "secagg":
            _, (hospital, *others), what, *_ = arguments
            assert not others, "each hospital has a process of its own"
        else:
            what, hospital = method, arguments[0]
        if deaths.get(number) == what and hospital == number:
            ray.kill(crew.actors[site])
            while not is_gone(crew.actors[site]):
                pass
        return start(site, method, arguments, apart)

    crew.start, crew.revive = deadly_start, lambda site, rounds: None
    begin = driver.aggregation.begin

    def counting_begin(round: int, *arguments: Any) -> list[int]:
        nonlocal number
        number = round
        return begin(round, *arguments)

    driver.aggregation.begin = counting_begin  # type: ignore[method-assign]
    told = [record.trained for record in driver.rounds()]
    assert [trained.failed for trained in told] == [None] * 6
    expected = ["before_keys", "after_keys", "after_shares", "after_masked_input", "at_unmasking"]
    for trained, stage in zip(told, expected, strict=False):
        gone_before = dict.fromkeys(range(1, trained.round), "before_keys")
        lost = {lost.hospital: lost.stage for lost in trained.dropped}
        assert lost == {**gone_before, trained.round: stage}
        in_sum = stage in ("after_masked_input", "at_unmasking")
        assert (trained.round in trained.counted) == in_sum
    assert told[-1].counted == (0, 6, 7)


def test_promise_1_nothing_that_the_driver_can_reach_shows_an_update_or_a_count(
    driver: Driver, tmp_path: Path
) -> None:
    driver.experiment = replace(driver.experiment, federation=replace(SMALL.federation, rounds=1))
    before = driver.model.weights.copy()
    crew: Any = driver.crew
    start, open_shards_put = crew.start, ray.put
    passed: list[Any] = []
    protocol: list[Any] = []
    stored: list[Any] = []

    def noting_start(site: int, method: str, arguments: tuple[Any, ...], apart: int = 0) -> Any:
        ticket = start(site, method, arguments, apart)
        passed.extend([*arguments, *ticket])
        if method == "each" and arguments[0] == "secagg":
            protocol.extend([*arguments, *ticket])
        return ticket

    def noting_put(value: Any) -> Any:
        stored.append(value)
        return open_shards_put(value)

    crew.start = noting_start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "put", noting_put)
        list(driver.rounds())
    assert len(passed) > 100
    assert len(protocol) > 50
    reached = [*stored, *map(fetched, passed)]
    data = load_images(SMALL.data)
    twin = replace(driver.experiment, secagg=SecAgg(), ray=Ray(enabled=False))
    site = Site(twin, data, driver.roster.members, None)
    encoding = encoding_of(driver.experiment)
    for hospital in range(8):
        _, update = site.fit(hospital, 1, before)
        assert shows(update, [update], encoding) == ["in clear"]
        assert shows(update, reached, encoding) == []
    counts = {len(member.train) for member in driver.roster.members} - set(range(9))
    assert counts
    assert counts.isdisjoint(number for value in map(fetched, protocol) for number in numbers(value))


def fetched(value: Any) -> Any:
    """The value, or the object that a reference leads to if it still exists."""
    if not isinstance(value, ray.ObjectRef):
        return value
    try:
        return ray.get(value, timeout=10)
    except RayError:
        return np.zeros(0)
