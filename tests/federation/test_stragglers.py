"""Slow hospitals, hospitals that are not there, and rounds that do not wait for them."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_fed.data.load import load_images
from lightning_fed.errors import InputError
from lightning_fed.experiment import Availability, Experiment, Faults, SecAgg, Stragglers
from lightning_fed.federation.driver import Driver
from lightning_fed.federation.faults import available, simulated_seconds
from lightning_fed.federation.roster import make_roster
from lightning_fed.federation.strategy import mean_update
from lightning_fed.federation.timetable import timetable
from tests.federation.protected import driver_of
from tests.federation.protected import experiment as private
from tests.federation.test_driver import SMALL, make_driver


def slow(seconds: float | None = 0.01, **federation: Any) -> Experiment:
    stragglers = Stragglers(seconds_per_image=seconds, spread=0.8, jitter=0.3)
    settings = replace(SMALL, faults=replace(SMALL.faults, stragglers=stragglers))
    return replace(settings, federation=replace(SMALL.federation, **federation))


def test_simulated_times_are_log_normal_with_the_stated_median_and_spreads() -> None:
    settings = slow(0.01)
    rounds = range(1, 401)
    logs = [[math.log(simulated_seconds(settings, h, r, 50) or 0) for r in rounds] for h in range(200)]
    means = [statistics.fmean(of_hospital) for of_hospital in logs]
    assert math.exp(statistics.median(means)) == pytest.approx(0.5, rel=0.15)
    assert statistics.stdev(means) == pytest.approx(0.8, rel=0.15)
    assert statistics.fmean(statistics.stdev(of_hospital) for of_hospital in logs) == pytest.approx(0.3, rel=0.03)
    assert simulated_seconds(SMALL, 0, 1, 50) is None


def test_the_round_closes_with_the_first_enough_or_at_its_limit() -> None:
    settings = slow(hospitals=3, participation=2 / 3, over_selection=1.5)
    roster = make_roster(settings, load_images(settings.data))
    times = {
        hospital: simulated_seconds(settings, hospital, 1, len(roster.members[hospital].train)) or 0.0
        for hospital in range(3)
    }
    first, second, third = sorted(times, key=times.__getitem__)
    found = timetable(settings, roster, 1, [0, 1, 2])
    assert found is not None
    assert (found.late, found.seconds) == (frozenset({third}), times[second])
    limit = (times[first] + times[second]) / 2
    hasty = replace(settings, federation=replace(settings.federation, round_timeout=limit))
    found = timetable(hasty, roster, 1, [0, 1, 2])
    assert found is not None
    assert (found.late, found.seconds) == (frozenset({second, third}), limit)
    assert timetable(SMALL, roster, 1, [0, 1, 2]) is None


def test_a_simulated_clock_limits_no_real_wait() -> None:
    """A limit in simulated seconds may be less than anything takes by the real clock."""
    settings = slow(hospitals=3)
    hasty = replace(settings, federation=replace(settings.federation, round_timeout=1e-3, rounds=2))
    assert hasty.real_timeout is None
    assert replace(hasty, faults=Faults()).real_timeout == 1e-3
    patient = replace(settings, federation=replace(settings.federation, round_timeout=1e6, rounds=2))
    records = list(make_driver(patient).rounds())
    assert all(record.released is not None and not record.trained.late for record in records)


def test_a_late_hospital_trains_but_is_not_in_the_mean() -> None:
    settings = slow(hospitals=3, participation=2 / 3, over_selection=1.5)
    driver = make_driver(settings)
    before, sent = driver.model.weights.copy(), {}
    site: Any = driver.crew.site  # type: ignore[attr-defined]
    fit = site.fit

    def seen(hospital: int, round: int, *arguments: Any) -> Any:
        answer = fit(hospital, round, *arguments)
        sent[round, hospital] = (answer[0].images, answer[1])
        return answer

    site.fit = seen
    after: list[np.ndarray] = []
    driver.on_close = lambda trained: after.append(driver.model.weights.copy())
    first = next(driver.rounds()).trained
    (late,) = first.late
    assert {hospital for round, hospital in sent if round == 1} == {0, 1, 2}
    assert set(first.counted) == {0, 1, 2} - {late}
    mean = mean_update(sent[1, hospital] for hospital in first.counted)
    assert np.array_equal(before + mean, after[0])
    assert first.simulated_seconds is not None


def test_simulated_lateness_is_the_same_in_a_run_that_goes_on(tmp_path: Path) -> None:
    settings = slow(hospitals=3, participation=2 / 3, over_selection=1.5)
    alone = make_driver(settings)
    whole = [record.trained.late for record in alone.rounds()]
    next(make_driver(settings, tmp_path).rounds())
    resumed = make_driver(settings, tmp_path)
    resumed.resume()
    assert [record.trained.late for record in resumed.rounds()] == whole
    assert np.array_equal(alone.model.weights, resumed.model.weights)


def sleepy(driver: Driver, sleepers: dict[tuple[int, int], float]) -> None:
    """Hospitals that sleep before they answer, by round and hospital."""
    site: Any = driver.crew.site  # type: ignore[attr-defined]
    fit = site.fit

    def slow_fit(hospital: int, round: int, *arguments: Any) -> Any:
        time.sleep(sleepers.get((round, hospital), 0.0))
        return fit(hospital, round, *arguments)

    site.fit = slow_fit


def test_by_the_clock_a_round_does_not_wait_longer_than_its_limit() -> None:
    limit = 3.0
    driver = make_driver(replace(SMALL, federation=replace(SMALL.federation, round_timeout=limit)))
    order = driver.roster.largest_first([0, 1, 2])
    sleepy(driver, {(2, order[1]): limit + 0.2})
    first, second, third = (record.trained for record in driver.rounds())
    assert first.late == third.late == ()
    assert second.late == tuple(sorted(order[1:])), "the one that slept, and the one that had to wait for it"
    assert second.counted == (order[0],)
    assert {lost.hospital for lost in second.dropped} == set(second.late)
    assert third.counted == (0, 1, 2)


def test_by_the_clock_a_round_closes_with_the_first_enough() -> None:
    settings = replace(SMALL.federation, participation=2 / 3, over_selection=1.5)
    driver = make_driver(replace(SMALL, federation=settings))
    *quick, slowest = driver.roster.largest_first([0, 1, 2])
    for record in driver.rounds():
        assert record.trained.counted == tuple(sorted(quick))
        assert record.trained.late == (slowest,)
    assert driver.crew.site.hospitals[slowest].optimizer.state == {}, "nobody waited for it, and it never began"  # type: ignore[attr-defined]


def test_with_masks_a_late_hospital_is_one_that_dropped_out(tmp_path: Path) -> None:
    settings = slow(hospitals=5, participation=0.8, over_selection=1.25)
    masked = replace(
        settings,
        secagg=SecAgg(protocol="secagg_plus", threshold=3, server="semi_honest"),
        data=replace(SMALL.data, validation=0.0),
    )
    driver = driver_of(masked, tmp_path)
    for record in driver.rounds():
        (late,) = record.trained.late
        assert record.trained.failed is None
        assert set(record.trained.counted) == set(range(5)) - {late}
        assert [(lost.hospital, lost.stage) for lost in record.trained.dropped] == [(late, "after_shares")]


def test_what_a_late_hospital_spent_is_charged(tmp_path: Path) -> None:
    base = private("record")
    settings = replace(
        base,
        federation=replace(base.federation, participation=2 / 3, over_selection=1.5),
        faults=Faults(stragglers=Stragglers(seconds_per_image=0.01)),
    )
    driver = driver_of(settings, tmp_path)
    records = list(driver.rounds())
    assert any(record.trained.late for record in records)
    assert driver.spent() == (4, 4, 4)
    last = records[-1].trained.epsilon_by_hospital
    assert last is not None
    assert len(set(last)) == 1, "equal hospitals that trained in every round, in time or not"


def test_hospitals_are_there_as_often_as_stated_each_by_its_own_chance() -> None:
    def share(concentration: float | None) -> list[float]:
        settings = replace(SMALL, faults=Faults(availability=Availability(0.7, concentration)))
        found = Counter(hospital for round in range(400) for hospital in available(settings, round, range(60)))
        return [found[hospital] / 400 for hospital in range(60)]

    alike, unlike = share(None), share(3.0)
    assert statistics.fmean(alike) == pytest.approx(0.7, abs=0.01)
    assert statistics.stdev(alike) < 0.04
    assert statistics.fmean(unlike) == pytest.approx(0.7, abs=0.1)
    assert statistics.stdev(unlike) == pytest.approx(math.sqrt(0.7 * 0.3 / 4), rel=0.25)


def test_a_round_that_nobody_can_be_asked_in_fails_and_the_next_goes_on() -> None:
    settings = replace(SMALL, faults=Faults(availability=Availability(0.3), max_failed_rounds=50))
    settings = replace(settings, federation=replace(SMALL.federation, rounds=12))
    trained = [record.trained for record in make_driver(settings).rounds()]
    asked = [sorted(available(settings, round, range(3))) for round in range(1, 13)]
    assert [list(one.cohort) for one in trained] == asked
    assert any(not one for one in asked)
    assert [one.failed is None for one in trained] == [bool(one) for one in asked]


def test_what_cannot_work_is_refused_by_its_key() -> None:
    masked = SecAgg(protocol="secagg_plus", min_survivors=3)
    with pytest.raises(
        InputError, match=r"^federation\.over_selection: a round closes with 2 hospitals, but a sum"
    ):
        replace(slow(hospitals=3, participation=2 / 3, over_selection=1.5), secagg=masked)
    with pytest.raises(InputError, match=r"^secagg\.rounds_per_setup: with faults\.availability\.mean below 1"):
        replace(
            SMALL,
            secagg=SecAgg(protocol="secagg_plus", rounds_per_setup=2),
            faults=Faults(availability=Availability(0.9)),
        )
