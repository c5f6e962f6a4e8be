"""FedMIC in a federation: students travel as factors, teachers stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_fed.errors import InputError
from lightning_fed.experiment import Distillation, Experiment, Privacy, SecAgg
from lightning_fed.federation.driver import Driver
from lightning_fed.federation.site import Site
from lightning_fed.models.distillation import Distilling
from lightning_fed.models.low_rank import LowRankUpdate
from lightning_fed.models.vector import Vector, to_vector
from lightning_fed.tracking.records import FitReport
from tests.federation.test_driver import SMALL, make_driver


def fedmic(**distillation: float) -> Experiment:
    chosen = Distillation(teacher="resnet9", teacher_width=2, **distillation)  # type: ignore[arg-type]
    return replace(SMALL, federation=replace(SMALL.federation, strategy="fedmic", distillation=chosen))


def test_a_round_is_the_mean_of_what_the_sent_factors_give() -> None:
    driver = make_driver(fedmic())
    site: Site = driver.crew.site  # type: ignore[attr-defined]
    fit, sent = site.fit, []

    def seen(*arguments: Any) -> tuple[Any, ...]:
        answer = fit(*arguments)
        sent.append(answer)
        return answer

    site.fit = seen  # type: ignore[method-assign]
    before, after = driver.model.weights.copy(), first_weights_of(driver)
    first: list[tuple[FitReport, LowRankUpdate]] = sent[:3]
    assert [report.upload_bytes for report, _ in first] == [update.bytes for _, update in first]
    images = sum(report.images for report, _ in first)
    mean = sum(report.images * update.expand().astype(np.float64) for report, update in first) / images
    np.testing.assert_allclose(before + mean, after, atol=1e-6)


def first_weights_of(driver: Driver) -> Vector:
    """The global weights after the first round."""
    weights: list[Vector] = []
    driver.on_close = lambda trained: weights.append(driver.model.weights.copy())
    next(driver.rounds())
    return weights[0]


def test_less_is_sent_in_the_first_rounds_than_in_the_last() -> None:
    driver = make_driver(fedmic(energy_first=0.3, energy_last=0.99))
    sizes = [[report.upload_bytes for report in record.trained.reports] for record in driver.rounds()]
    assert all(early < late for early, late in zip(sizes[0], sizes[-1], strict=True))
    assert max(sizes[-1]) <= 4 * len(driver.model.weights)


def test_what_is_not_sent_is_missing_in_the_global_model() -> None:
    whole, most = fedmic(energy_first=1.0, energy_last=1.0), fedmic(energy_first=0.5, energy_last=0.5)
    exact, cut = (first_weights_of(make_driver(settings)) for settings in (whole, most))
    start = make_driver(whole).model.weights
    assert np.linalg.norm(cut - start) < 0.9 * np.linalg.norm(exact - start)


def test_a_run_that_goes_on_keeps_its_teachers(tmp_path: Path) -> None:
    alone = make_driver(fedmic(), tmp_path / "alone")
    list(alone.rounds())
    next(make_driver(fedmic(), tmp_path / "cut").rounds())
    resumed = make_driver(fedmic(), tmp_path / "cut")
    resumed.resume()
    list(resumed.rounds())
    assert np.array_equal(alone.model.weights, resumed.model.weights)
    assert alone.teachers() == resumed.teachers()


def test_each_hospital_tells_its_own_teachers_accuracy() -> None:
    driver = make_driver(fedmic())
    list(driver.rounds())
    found = driver.teachers()
    assert found is not None
    site: Site = driver.crew.site  # type: ignore[attr-defined]
    modules = [site.hospitals[hospital].classifier for hospital in range(3)]
    teachers = [module.teacher for module in modules if isinstance(module, Distilling)]
    test = site.data.test
    assert list(found.test_by_hospital) == [
        teacher.evaluate(test.images, test.labels, 99).accuracy for teacher in teachers
    ]
    held_out = [site.hospitals[hospital].images.held_out() for hospital in range(3)]
    assert list(found.own_by_hospital) == [
        teacher.evaluate(own.images, own.labels, 99).accuracy
        for teacher, own in zip(teachers, held_out, strict=True)
    ]
    assert found.test_mean == pytest.approx(np.mean([score or 0.0 for score in found.test_by_hospital]))
    assert not np.array_equal(to_vector(teachers[0].network), to_vector(teachers[1].network))
    assert make_driver(SMALL).teachers() is None


def test_a_teacher_that_never_trained_does_not_count() -> None:
    settings = fedmic()
    driver = make_driver(replace(settings, federation=replace(settings.federation, participation=1 / 3, rounds=1)))
    (record,) = driver.rounds()
    (trained,) = record.trained.cohort
    found = driver.teachers()
    assert found is not None
    assert [score is not None for score in found.test_by_hospital] == [one == trained for one in range(3)]
    assert found.test_mean == found.test_by_hospital[trained]
    assert "on the test split" in found.text


def test_factors_are_neither_masked_nor_called_private() -> None:
    with pytest.raises(InputError, match=r"^secagg\.protocol is 'secagg_plus': fedmic's hospitals send factors"):
        replace(fedmic(), secagg=SecAgg(protocol="secagg_plus"))
    private = Privacy(mechanism="record", epsilon=6.0)
    with pytest.raises(InputError, match=r"^privacy\.mechanism is 'record': the size of fedmic's updates tells"):
        replace(fedmic(), privacy=private, data=replace(SMALL.data, validation=0.0))
    with pytest.raises(InputError, match=r"^evaluation\.diagnostics is false: what fedmic's models are worth"):
        replace(fedmic(), evaluation=replace(SMALL.evaluation, diagnostics=False))
    with pytest.raises(InputError, match=r"energy_last is below energy_first"):
        Distillation(energy_first=0.9, energy_last=0.5)
    with pytest.raises(InputError, match=r"^federation\.distillation\.teacher_width is 17: it must be even"):
        Distillation(teacher_width=17)


def test_a_teacher_that_does_not_exist_is_refused_by_its_name() -> None:
    unknown = replace(SMALL.federation, strategy="fedmic", distillation=Distillation(teacher="resnet90"))
    with pytest.raises(InputError, match=r"^federation\.distillation\.teacher is 'resnet90'"):
        make_driver(replace(SMALL, federation=unknown))
