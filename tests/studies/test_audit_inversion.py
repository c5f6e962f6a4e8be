"""What is sought in a step that leaves a hospital in one way or another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lightning_fed.audit.inversion import Attack
from lightning_fed.cli import main
from lightning_fed.report.card import card_of
from lightning_fed.report.load import read_run
from lightning_fed.report.page import write_report
from lightning_fed.studies.audit_inversion import INVERSIONS as BUDGETS
from lightning_fed.studies.audit_inversion import InversionBudget, Scene, _result, audit_inversion, rows_of
from lightning_fed.studies.audit_view import prepare_audit
from lightning_fed.tracking.audits import CLIPPED, MASKED, NOISED, NONE, SUM, WAYS
from tests.studies.test_audit import experiment, words

QUICK = Attack(restarts=1, steps=40, starts=10)
MASKS = {"secagg__protocol": "secagg_plus", "secagg__threshold": 3, "secagg__server": "semi_honest"}
EXCHANGES = 3
"""Each for another hospital's images: of the same ones, what is alike by chance would be so in each."""


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(prepare_audit(experiment("record", **MASKS)), QUICK, hospital=1)


def test_a_masked_vector_tells_no_more_of_an_image_than_of_another(scene: Scene) -> None:
    """A one-sided test at 95 %; where the images are not in it, three exchanges pass it but once in 8,000."""
    assert _result(*scene.attack(NONE, 1, 12)).p_value < 0.01, "this attack finds images where they are"
    scenes = [
        Scene(prepare_audit(experiment("record", **MASKS)), QUICK, hospital) for hospital in range(EXCHANGES)
    ]
    values = [_result(*one.attack(MASKED, 1, 12)).p_value for one in scenes]
    assert max(values) >= 0.05, values


def test_the_sum_is_opened_to_the_mean_of_all_gradients(scene: Scene) -> None:
    (step,) = scene._steps(range(4), 2, 2)
    assert list(step.rows) == [0, 1, 2, 3]
    expected = np.mean([scene._gradient(rows) for rows in step.rows.values()], axis=0)
    assert np.allclose(scene._leaving(SUM, step), expected, atol=1e-4)
    masked = scene._leaving(MASKED, step)
    assert abs(np.corrcoef(masked, scene._gradient(step.rows[1]))[0, 1]) < 0.2


def test_clipping_and_noise_are_those_of_the_mechanism(scene: Scene) -> None:
    bound, multiplier = scene.experiment.privacy.max_grad_norm, scene.doses[1].noise_multiplier
    (step,) = scene._steps([1], 4, 4)
    rows = step.rows[1]
    each = [scene._gradient(rows[place : place + 1]) for place in range(4)]
    assert max(np.linalg.norm(one) for one in each) > bound
    clipped = np.mean([one * min(1, bound / np.linalg.norm(one)) for one in each], axis=0)
    assert np.allclose(scene._leaving(CLIPPED, step), clipped, atol=1e-6)
    noise = 4 * (scene._leaving(NOISED, step) - clipped) / (bound * multiplier)
    assert noise.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * len(noise)))
    assert np.allclose(scene._leaving(NONE, step), np.mean(each, axis=0), atol=1e-5)


def test_others_are_of_the_same_classes_and_not_the_images(scene: Scene) -> None:
    rows = scene.orders[1][:6]
    others = scene._others(rows)
    assert np.array_equal(scene.train.labels[others], scene.train.labels[rows])
    assert not set(others) & set(rows)


def test_every_way_and_batch_is_looked_at() -> None:
    prepared = prepare_audit(experiment("distributed"))
    budget = InversionBudget(images=4, batches=(1, 2), attack=Attack(restarts=1, steps=3, starts=2))
    audited, found = audit_inversion(prepared, budget, 2)
    assert [(one.way, one.batch) for one in audited.found] == [(way, batch) for batch in (1, 2) for way in WAYS]
    assert [one.images for one in audited.found] == [4, 4, 4, 4, 4, 4, 4, 4, 4, 8]
    rows = rows_of(found)
    assert [len(row.images) for row in rows] == [4, 4, 4, 4, 4, 4, 4]
    assert np.array_equal(rows[0].images[0], found[0].true[0].numpy())


def test_the_sum_is_that_of_a_cohort_with_the_hospital_in_it() -> None:
    wanted = experiment("record", federation__hospitals=6, federation__participation=0.5, secagg__protocol="plain")
    scene = Scene(prepare_audit(wanted), QUICK, hospital=5)
    assert scene.cohort == [0, 1, 5]
    (step,) = scene._steps(scene.cohort, 2, 2)
    expected = np.mean([scene._gradient(rows) for rows in step.rows.values()], axis=0)
    assert np.allclose(scene._leaving(SUM, step), expected, atol=1e-4)
    assert len(scene._leaving(MASKED, step)) == len(expected)


def test_of_two_hospitals_nothing_is_summed() -> None:
    prepared = prepare_audit(experiment("record", federation__hospitals=2, secagg__protocol="plain"))
    budget = InversionBudget(images=2, batches=(1,), attack=Attack(restarts=1, steps=3, starts=2))
    audited, _ = audit_inversion(prepared, budget, 0)
    assert [one.way for one in audited.found] == [NONE, CLIPPED, NOISED]


@pytest.mark.slow
def test_the_command_leaves_a_picture_and_figures_that_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BUDGETS, "seconds", InversionBudget(images=2, batches=(1,), attack=QUICK))
    run = tmp_path / "run"
    own = words("record", federation__rounds=2, ray__enabled=False, output=run, **MASKS)
    assert main(["run", *own]) == 0
    assert main(["audit", "inversion", "--run", str(run), "--budget", "seconds", "--hospital", "3"]) == 0
    found = json.loads((run / "audit.json").read_text())["inversion"]
    assert (found["hospital"], found["network"], len(found["found"])) == (3, "dpresnet", 5)
    assert (run / "figures" / "inversion.png").stat().st_size > 10_000
    page = (run / "report.html").read_text()
    assert "the masked vector that leaves under SecAgg+" in page
    assert 'aria-label="Images of a hospital' in page
    told = read_run(run)
    assert "| the masked vector that leaves under SecAgg+ | 1 |" in card_of(told)
    assert told.audits.inversion is not None
    assert told.reconstructions is not None
    write_report(run)
    assert (run / "report.html").read_text() == page, "drawing it again changes nothing"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--hospital", "4"], "--hospital is 4: hospitals are 0 to 3"),
        (["--hospital", "x"], "hospital"),
        (
            ["--data.images=24", "--data.min_images=1"],
            "has 6 images, fewer than a batch of 8; set data.min_images",
        ),
        (["--budget", "much"], "budget"),
        (["--privacy.mechanism=update"], "'update' clips no gradient"),
        (["--privacy.mechanism=none", "--privacy.epsilon=null"], "adds no noise"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "inversion", *words("record"), *options]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert told in lines[-1]
    assert not any("Traceback" in line for line in lines)
