"""Poisoned hospitals, and what bears them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.errors import DivergedError, InputError
from lightning_fed.experiment import Experiment, Faults, Federation, Poison, Privacy, SecAgg
from lightning_fed.federation import robust
from lightning_fed.federation.faults import poisoned
from lightning_fed.federation.robust import bound, median, trimmed_mean
from tests.federation.test_driver import SMALL, make_driver


def updates(count: int, length: int = 9, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).normal(size=(count, length)).astype(np.float32))


@given(count=st.integers(1, 12), length=st.integers(1, 20), seed=st.integers(0, 99))
def test_the_median_is_numpys(count: int, length: int, seed: int) -> None:
    some = updates(count, length, seed)
    np.testing.assert_allclose(median(some), np.median(some, axis=0), rtol=1e-6, atol=1e-7)


@given(count=st.integers(1, 12), trim=st.floats(0, 0.49), seed=st.integers(0, 99))
def test_the_trimmed_mean_is_that_of_the_middle_and_of_all_without_trimming(
    count: int, trim: float, seed: int
) -> None:
    some = updates(count, seed=seed)
    cut = int(trim * count + 1e-9)
    middle = np.sort(some, axis=0)[cut : count - cut]
    np.testing.assert_allclose(trimmed_mean(some, trim), middle.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trimmed_mean(some, 0.0), np.mean(some, axis=0), rtol=1e-5, atol=1e-6)


def test_a_long_update_is_sorted_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    some = updates(5, 1000)
    whole = trimmed_mean(some, 0.2)
    monkeypatch.setattr(robust, "AT_ONCE", 7)
    assert np.array_equal(trimmed_mean(some, 0.2), whole)


@given(bad=st.integers(0, 4), seed=st.integers(0, 99), size=st.floats(1, 1e30))
def test_fewer_poisoned_than_are_cut_stay_within_the_honest_ones(bad: int, seed: int, size: float) -> None:
    honest = updates(10 - bad, seed=seed)
    some = [*honest, *(np.full(9, size, np.float32) for _ in range(bad))]
    for combined in (median(some), trimmed_mean(some, 0.4)):
        assert (np.min(honest, axis=0) - 1e-6 <= combined).all()
        assert (combined <= np.max(honest, axis=0) + 1e-6).all()


def test_a_bounded_update_keeps_its_direction_and_a_short_one_everything() -> None:
    (update,) = updates(1, 50)
    short = bound(update, 1.0)
    assert np.linalg.norm(short) == pytest.approx(1.0, rel=1e-6)
    np.testing.assert_allclose(short / np.linalg.norm(short), update / np.linalg.norm(update), rtol=1e-5)
    assert bound(update, 100.0) is update
    assert bound(update, None) is update
    assert np.isnan(bound(np.array([np.nan], np.float32), 1.0)).all(), "for others to refuse"


def with_poison(kind: str, scale: float = 3.0, **federation: Any) -> Experiment:
    poison = Poison(hospitals=[1], kind=kind, scale=scale)  # type: ignore[arg-type]
    return replace(
        SMALL, faults=Faults(poison=poison), federation=replace(SMALL.federation, hospitals=5, **federation)
    )


def test_the_poisons_are_what_they_are_called() -> None:
    (update,) = updates(1, 400)
    flipped = poisoned(with_poison("sign_flip"), 1, 1, update)
    assert np.array_equal(flipped, -3 * update)
    noise = [poisoned(with_poison("random"), 1, round, update) for round in (1, 2)]
    assert [float(np.linalg.norm(one)) for one in noise] == pytest.approx([3 * float(np.linalg.norm(update))] * 2)
    assert abs(np.corrcoef(*noise)[0, 1]) < 0.3
    assert np.array_equal(poisoned(with_poison("sign_flip"), 0, 1, update), update)


def test_a_hospital_with_flipped_labels_trains_on_them_and_is_measured_honestly() -> None:
    driver = make_driver(with_poison("label_flip"))
    site: Any = driver.crew.site  # type: ignore[attr-defined]
    bad, good = site.hospitals[1].images, site.hospitals[2].images
    true = driver.data.train.labels
    assert np.array_equal(bad.shared.labels[bad.train], 7 - true[bad.train])
    assert np.array_equal(bad.held_out().labels, true[bad.validation])
    assert np.array_equal(good.shared.labels, true)


def after_one_round(settings: Experiment) -> np.ndarray:
    driver = make_driver(settings)
    weights: list[np.ndarray] = []
    driver.on_close = lambda trained: weights.append(driver.model.weights.copy())
    next(driver.rounds())
    return weights[0] - make_driver(settings).model.weights


def towards(step: np.ndarray, honest: np.ndarray) -> float:
    return float(step @ honest / np.linalg.norm(step) / np.linalg.norm(honest))


def test_one_hospital_turns_the_mean_round_and_neither_the_median_nor_the_trimmed_mean() -> None:
    honest = after_one_round(replace(with_poison("sign_flip"), faults=Faults()))
    turned, held, trimmed = (
        after_one_round(with_poison("sign_flip", 10.0, aggregator=kind))
        for kind in ("mean", "median", "trimmed_mean")
    )
    assert towards(turned, honest) < -0.2
    assert towards(held, honest) > 0.2
    assert towards(trimmed, honest) > 0.2


@pytest.mark.parametrize("wary", [{"aggregator": "median"}, {"norm_bound": 1.0}])
def test_an_update_that_is_not_finite_is_left_out_where_hospitals_may_mean_harm(wary: dict[str, Any]) -> None:
    driver = make_driver(with_poison("sign_flip", 1e39, **wary))
    trained = next(driver.rounds()).trained
    assert trained.counted == (0, 2, 3, 4)
    assert trained.refusals == ("hospital 1: its update is not finite, and is left out",)
    assert np.isfinite(driver.model.weights).all()


def test_where_no_update_is_finite_the_learning_rate_is_named() -> None:
    driver = make_driver(
        replace(with_poison("sign_flip", aggregator="median"), training=replace(SMALL.training, lr=1e30))
    )
    with pytest.raises(DivergedError, match=r"lower training\.lr"):
        list(driver.rounds())


def test_a_hospital_is_poisoned_once() -> None:
    with pytest.raises(InputError, match=r"^faults\.poison\.hospitals: \[1, 1\] names a hospital twice"):
        Poison(hospitals=[1, 1])


def test_the_server_bounds_what_a_poisoned_hospital_does_not() -> None:
    free = after_one_round(with_poison("sign_flip", 100.0))
    bounded = after_one_round(with_poison("sign_flip", 100.0, norm_bound=0.1))
    assert np.linalg.norm(bounded) <= 0.1 + 1e-5 < np.linalg.norm(free)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"federation": Federation(aggregator="median"), "secagg": SecAgg(protocol="secagg_plus")},
            r"^federation\.aggregator is 'median': the server must see each update",
        ),
        (
            {"federation": Federation(hospitals=4, aggregator="trimmed_mean")},
            r"^federation\.trim is 0\.2: of 4 hospitals in a round it leaves out none; set it to 0\.25 or more",
        ),
        ({"faults": Faults(poison=Poison(hospitals=[10]))}, r"^faults\.poison\.hospitals: 10 is none of"),
        (
            {
                "federation": Federation(local_steps=1, norm_bound=1.0),
                "secagg": SecAgg(protocol="secagg_plus"),
                "privacy": Privacy(mechanism="distributed", epsilon=6.0),
                "data": replace(SMALL.data, validation=0.0),
            },
            r"^faults\.poison, federation\.norm_bound: under privacy\.mechanism 'distributed'",
        ),
    ],
)
def test_a_defence_that_cannot_work_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Experiment(**changes)


def test_weights_of_hospitals_do_not_go_with_a_median() -> None:
    with pytest.raises(InputError, match=r"^federation\.weights: aggregator 'median' counts hospitals alike"):
        Federation(hospitals=2, weights=[1, 2], aggregator="median")


def test_as_many_are_trimmed_when_fewer_send() -> None:
    """The poisoned one may be among those that did: of four of five it is left out too."""
    updates = [np.full(3, value, dtype=np.float32) for value in (1.0, 2.0, 3.0, 1e6)]
    assert trimmed_mean(updates, 0.2, asked=5) == pytest.approx(2.5)
    with pytest.raises(ValueError, match="2 updates, of which 1 are left out at each end"):
        trimmed_mean(updates[:2], 0.2, asked=5)
