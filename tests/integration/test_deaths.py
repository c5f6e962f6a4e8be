"""Processes of hospitals and of the aggregator that die on a real Ray, and others that go on in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import RayActorError

from lightning_fed.errors import FederationError
from lightning_fed.experiment import Experiment, Faults, Loss, Privacy, SecAgg
from lightning_fed.federation.actors import ActorCrew
from lightning_fed.federation.driver import Driver
from lightning_fed.tracking.records import TrainedRound
from tests.federation.protected import driver_of, ledger_lines
from tests.integration.test_secagg_on_ray import SMALL

pytestmark = pytest.mark.slow

VICTIM = 1


@pytest.fixture(scope="module", autouse=True)
def _one_ray() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _no_ray_left_behind() -> None:
    """All tests here share one."""


def settings(protocol: str, mechanism: str = "none") -> Experiment:
    federation = replace(SMALL.federation, hospitals=4, rounds=4, weighting="equal", local_steps=2)
    secagg = SecAgg() if protocol == "plain" else replace(SMALL.secagg, protocol=protocol, shards=2, clip=8.0)  # type: ignore[arg-type]
    privacy = Privacy(reproducible=True)
    if mechanism != "none":
        privacy = replace(privacy, mechanism=mechanism, noise_multiplier=1.0)  # type: ignore[arg-type]
    training = replace(SMALL.training, optimizer="AdamW", reset_optimizer_state=False)
    return replace(
        SMALL,
        federation=federation,
        secagg=secagg,
        privacy=privacy,
        training=training,
        data=replace(SMALL.data, validation=0.0),
        ray=replace(SMALL.ray, hospitals_per_actor=2),
    )


def alone(experiment: Experiment, output: Path) -> Driver:
    """The same run in one process, without any death."""
    driver = driver_of(replace(experiment, ray=replace(experiment.ray, enabled=False)), output)
    list(driver.rounds())
    return driver


def kill(actor: Any) -> None:
    """End an actor's process, and return when Ray knows."""
    ray.kill(actor)
    while True:
        try:
            ray.get(actor.__ray_ready__.remote())
        except RayActorError:
            return


def before_fit(driver: Driver, round: int, do: Callable[[ActorCrew, int], None]) -> None:
    """Do something once, before the victim is sent a round's training."""
    crew: Any = driver.crew
    start, done = crew.start, list[int]()

    def deadly_start(site: int, method: str, arguments: tuple[Any, ...], apart: int = 0) -> Any:
        if method == "fit" and arguments[:2] == (VICTIM, round) and not done:
            done.append(site)
            do(crew, site)
        return start(site, method, arguments, apart)

    crew.start = deadly_start


@pytest.mark.parametrize(
    ("protocol", "mechanism"), [("plain", "none"), ("plain", "record"), ("additive", "update")]
)
def test_a_hospital_that_dies_comes_back_from_its_own_state_and_nothing_differs(
    protocol: str, mechanism: str, tmp_path: Path
) -> None:
    """Its process holds another hospital too, and each an optimizer with moments."""
    experiment = settings(protocol, mechanism)
    expected = alone(experiment, tmp_path / "alone")
    driver = driver_of(experiment, tmp_path / "run")
    neighbours = driver.roster.groups[driver.roster.site_of[VICTIM]]
    with closing(driver.crew):
        before_fit(driver, 3, lambda crew, site: kill(crew.actors[site]))
        told = [record.trained for record in driver.rounds()]
        spent = driver.spent() if mechanism != "none" else ()
    assert [one.counted for one in told] == [(0, 1, 2, 3)] * 4
    assert [set(one.returned) for one in told] == [set(), set(), {one.hospital for one in neighbours}, set()]
    assert np.array_equal(driver.model.weights, expected.model.weights)
    if mechanism != "none":
        assert spent == expected.spent(), "a round that is done again is not charged again"
        for hospital in range(4):
            assert len(ledger_lines(tmp_path / "run", hospital)) == len(ledger_lines(tmp_path / "alone", hospital))


def test_work_that_ends_in_an_error_is_done_again_by_a_new_process(tmp_path: Path) -> None:
    """As on a card without memory: the hospital's own state is what it comes back from."""
    experiment = settings("plain", "record")
    expected = alone(experiment, tmp_path / "alone")
    driver, lost = driver_of(experiment, tmp_path / "run"), list[str]()
    driver.on_loss = lost.append
    crew: Any = driver.crew
    start, done = crew.start, list[int]()

    def failing_start(site: int, method: str, arguments: tuple[Any, ...], apart: int = 0) -> Any:
        if method == "fit" and arguments[:2] == (VICTIM, 3) and not done:
            done.append(site)
            arguments = (VICTIM, 3, crew.put(np.zeros(3, dtype=np.float32)), *arguments[3:])
        return start(site, method, arguments, apart)

    crew.start = failing_start
    with closing(driver.crew):
        assert [record.trained.counted for record in driver.rounds()] == [(0, 1, 2, 3)] * 4
    assert np.array_equal(driver.model.weights, expected.model.weights)
    (told,) = lost
    assert "work failed (ValueError: a vector of (3,) does not fit" in told


def test_a_hospital_whose_state_is_damaged_does_not_come_back(tmp_path: Path) -> None:
    driver = driver_of(settings("plain"), tmp_path)

    def kill_and_damage(crew: ActorCrew, site: int) -> None:
        kill(crew.actors[site])
        state = tmp_path / "hospitals" / str(VICTIM) / "state-00002.pt"
        state.write_bytes(b"\0" + state.read_bytes()[1:])

    with closing(driver.crew):
        before_fit(driver, 3, kill_and_damage)
        with pytest.raises(FederationError, match=r"hospitals/1/state-00002\.pt: not a whole checkpoint"):
            list(driver.rounds())
    assert driver.done is not None
    assert driver.done.round == 2


def test_with_masks_the_round_goes_on_without_it_and_the_next_one_has_it_again(tmp_path: Path) -> None:
    experiment = settings("secagg_plus", "record")
    experiment = replace(experiment, ray=replace(experiment.ray, hospitals_per_actor=1))
    driver = driver_of(experiment, tmp_path / "run")

    def wait_until_it_is_back(trained: TrainedRound) -> None:
        driver.dispatcher.run_until(lambda: not driver.dispatcher.coming)

    with closing(driver.crew):
        driver.on_close = wait_until_it_is_back
        before_fit(driver, 2, lambda crew, site: kill(crew.actors[site]))
        told = [record.trained for record in driver.rounds()]
        spent = driver.spent()
    others = tuple(hospital for hospital in range(4) if hospital != VICTIM)
    assert [one.counted for one in told] == [(0, 1, 2, 3), others, (0, 1, 2, 3), (0, 1, 2, 3)]
    assert [(one.hospital, one.stage) for one in told[1].dropped] == [(VICTIM, "after_shares")]
    assert [one.returned for one in told] == [(), (), (VICTIM,), ()]
    losses = [Loss(2, VICTIM, "after_shares")]
    dropping = replace(experiment, faults=Faults(dropout=replace(experiment.faults.dropout, losses=losses)))
    expected = alone(dropping, tmp_path / "alone")
    assert np.array_equal(driver.model.weights, expected.model.weights)
    assert spent == expected.spent()


@pytest.mark.parametrize("moment", ["adding", "opening"])
def test_a_shard_that_dies_costs_no_round(moment: str, tmp_path: Path) -> None:
    """Another process adds the same masked slices up again."""
    experiment = settings("secagg_plus")
    expected = alone(experiment, tmp_path / "alone")
    driver = driver_of(experiment, tmp_path / "run")
    with closing(driver.crew):
        aggregation: Any = driver.aggregation
        shards = aggregation.shards
        add, opened, first = shards.add, shards.open, list(shards.actors)

        def deadly_add(hospital: int, parts: Any) -> None:
            if moment == "adding" and hospital == VICTIM:
                kill(shards.actors[1])
            add(hospital, parts)

        def deadly_open(masks: Any) -> Any:
            if moment == "opening":
                kill(shards.actors[0])
            return opened(masks)

        shards.add, shards.open = deadly_add, deadly_open
        told = [record.trained for record in driver.rounds()]
        assert sum(one not in first for one in shards.actors) == 1
    assert [one.failed for one in told] == [None] * 4
    assert [one.counted for one in told] == [(0, 1, 2, 3)] * 4
    assert np.array_equal(driver.model.weights, expected.model.weights)


def test_shards_that_die_again_and_again_cost_the_round_and_no_more(tmp_path: Path) -> None:
    driver = driver_of(settings("secagg_plus"), tmp_path)
    with closing(driver.crew):
        aggregation: Any = driver.aggregation
        shards = aggregation.shards
        mend, number = shards._mend, [0]

        def deadly_mend() -> None:
            mend()
            if number[0] == 2:
                kill(shards.actors[0])

        def counted(trained: TrainedRound) -> None:
            number[0] = trained.round + 1
            if number[0] == 2:
                kill(shards.actors[0])

        shards._mend, driver.on_close = deadly_mend, counted
        told = [record.trained for record in driver.rounds()]
    assert told[1].failed is not None
    assert "the aggregator's processes were lost" in told[1].failed
    assert [one.failed for one in (told[0], *told[2:])] == [None] * 3
