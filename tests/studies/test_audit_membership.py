"""Membership inference on real federations: those that learn by heart give their members away."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_fed.cli import main
from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment
from lightning_fed.report.card import card_of
from lightning_fed.report.load import read_run
from lightning_fed.report.page import write_report
from lightning_fed.studies import audit_membership as module
from lightning_fed.studies.audit_membership import (
    MEMBERSHIPS,
    Candidates,
    MembershipBudget,
    Seen,
    Shadow,
    begun_with,
    forget,
    guaranteed,
    halved,
    members_by_coins,
    prepare_membership,
)
from lightning_fed.studies.prepare import Prepared, prepare
from lightning_fed.tracking.audits import MembershipAudited, told_hospitals
from tests.studies.test_audit import experiment, words

FEW = MembershipBudget(federations=4, rounds=None)


def bare(**changed: Any) -> Experiment:
    """A federation that sees its few images again and again, and adds no noise."""
    keys: dict[str, Any] = {
        "data__images": 128,
        "model__name": "resnet9",
        "privacy__epsilon": "null",
        "ray__enabled": False,
        "training__optimizer": "AdamW",
        "training__lr": 0.005,
        "training__augment": False,
        "training__batch_size": 8,
        "federation__rounds": 8,
        "federation__local_steps": 4,
    }
    return experiment("none", **keys | changed)


def audited(wanted: Experiment, folder: Path, budget: MembershipBudget = FEW) -> MembershipAudited:
    found, shadows = module.audit_membership(prepare_membership(wanted, budget), budget, wanted, folder)
    forget(shadows)
    return found


def of_all(found: MembershipAudited, attack: str) -> Any:
    (one,) = [one for one in found.found if one.attack == attack and one.hospital is None]
    return one


@pytest.mark.slow
def test_a_federation_that_knows_its_images_by_heart_gives_them_away_and_with_little_epsilon_does_not(
    tmp_path: Path,
) -> None:
    """The same training; a claim of 0.5 bounds the AUC of any attack by e^0.5 / (1 + e^0.5) = 0.622."""
    found = audited(bare(), tmp_path)
    noised = audited(bare(privacy__mechanism="record", privacy__epsilon=0.5), tmp_path)
    for attack in ("loss threshold", "likelihood ratio"):
        assert of_all(found, attack).auc.low > 0.7
        assert of_all(noised, attack).auc.value < 0.622
    assert (found.epsilon, found.unit) == (None, None)
    assert noised.epsilon == pytest.approx(0.5, abs=0.01)
    assert noised.unit == "image"
    assert [one.hospital for one in found.found] == [None, 0, 1, 2, 3] * 2
    assert not (tmp_path / "shadows").exists()


def test_an_update_without_noise_claims_no_epsilon() -> None:
    wanted = experiment("update", privacy__noise=False, privacy__epsilon="null", ray__enabled=False)
    prepared = prepare_membership(wanted, FEW)
    assert prepared.roster.doses
    assert guaranteed(prepared) == ()
    assert len(guaranteed(prepare_membership(experiment("update", ray__enabled=False), FEW))) == 4


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare_membership(experiment("record", ray__enabled=False, data__partition="quantity"), FEW)


def test_half_of_every_hospitals_images_by_coins_and_noise_for_them(prepared: Prepared) -> None:
    candidates = Candidates.of(prepared.roster)
    own, coins = halved(prepared, candidates, 3)
    for whole, half in zip(prepared.roster.members, own.roster.members, strict=True):
        assert set(half.train) < set(whole.train)
        assert half.dose is not None
        assert whole.dose is not None
        assert half.dose.rate == 4 / len(half.train) > whole.dose.rate
        assert half.dose.noise_multiplier > whole.dose.noise_multiplier
    trained = np.concatenate([member.train for member in own.roster.members])
    assert np.array_equal(candidates.rows[coins], trained)
    assert 0.35 < coins.mean() < 0.65
    again, others = halved(prepared, candidates, 3), halved(prepared, candidates, 2)
    assert np.array_equal(again[1], coins)
    assert (others[1] != coins).any()
    seeds = {one[0].experiment.seed for one in (again, others)} | {prepared.experiment.seed}
    assert len(seeds) == 3
    assert own.experiment.seed == again[0].experiment.seed
    assert own.model is prepared.model, "all begin at the same weights"


def test_the_smallest_and_the_oddest_hospital() -> None:
    rows, hospital = np.array([5, 1, 2, 3, 4, 0, 6]), np.array([0, 0, 0, 1, 1, 2, 2])
    candidates = Candidates(rows, hospital)
    assert candidates.smallest == 1
    assert candidates.oddest(np.array([2, 0, 1, 0, 1, 0, 2]))[0] == 2  # which has images of class 2 alone
    assert list(candidates.sizes) == [3, 2, 2]


def test_a_hospital_that_stands_out_is_told_from_one_that_is_small() -> None:
    random = np.random.default_rng(0)
    hospital = np.repeat(np.arange(6), [20, 400, 400, 400, 400, 400])
    labels = random.integers(8, size=len(hospital))
    candidates = Candidates(np.arange(len(hospital)), hospital)
    assert candidates.oddest(labels)[1] > 0.05
    labels[hospital == 3] = random.integers(6, size=400)
    oddest, chance = candidates.oddest(labels)
    assert oddest == 3
    assert chance < 0.001


def test_of_many_that_stand_out_the_oddest_is_named() -> None:
    """Each has two classes but one, which has a class of its own; all their chances are too small for a float."""
    hospital = np.repeat(np.arange(8), 1200)
    labels = (hospital + (np.arange(len(hospital)) % 2)) % 8
    labels[hospital == 5] = 8
    assert Candidates(np.arange(len(hospital)), hospital).oddest(labels) == (5, 0.0)


def test_a_federation_that_was_trained_before_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = list[int]()

    def train(shadow: Shadow) -> None:
        trained.append(shadow.number)
        if len(trained) == 3:
            raise InputError("the machine is wanted for something else")
        random = np.random.default_rng(shadow.number)
        whole = prepare(shadow.experiment)
        coins = members_by_coins(whole, Candidates.of(whole.roster), shadow.number)[1]
        shadow.keep(Seen(random.standard_normal(160), coins, 0.5, 4 + shadow.number))

    monkeypatch.setattr(module, "train_shadow", train)
    wanted = experiment("record", ray__enabled=False)
    with pytest.raises(InputError, match="something else"):
        audited(wanted, tmp_path)
    assert audited(wanted, tmp_path).epsilon == 7, "of the federation that has the greatest"
    assert trained == [0, 1, 2, 2, 3]


def test_a_damaged_federation_is_refused(tmp_path: Path) -> None:
    shadow = Shadow(experiment("record"), "weights", 0, tmp_path / "shadows")
    coins = np.arange(7) % 2 == 0
    shadow.keep(Seen(np.zeros(7), coins, 0.5, 6.0))
    assert (shadow.seen(coins).accuracy, shadow.seen(coins).epsilon) == (0.5, 6.0)
    for others in (~coins, np.append(coins, True)):
        with pytest.raises(InputError, match="trained on other images; remove it"):
            shadow.seen(others)
    shadow.path.write_bytes(shadow.path.read_bytes()[:100])
    with pytest.raises(InputError, match="no federation can be read from it; remove it"):
        shadow.seen(coins)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_confidences_that_are_no_numbers_are_refused(tmp_path: Path, wrong: float) -> None:
    """One of them would make the likelihood ratio of all images none, and every attack look like guessing."""
    shadow, coins = Shadow(experiment("record"), "weights", 0, tmp_path / "shadows"), np.ones(7, dtype=bool)
    shadow.keep(Seen(np.array([0.1, 0.2, wrong, 0.4, 0.5, 0.6, 0.7]), coins, 0.5, 6.0))
    with pytest.raises(InputError, match="confidences that are no numbers; remove it"):
        shadow.seen(coins)


def test_what_was_kept_and_is_damaged_is_told_before_anything_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, trained = experiment("record", ray__enabled=False), list[int]()

    def train(shadow: Shadow) -> None:
        trained.append(shadow.number)
        shadow.folder.mkdir(exist_ok=True)
        shadow.path.write_bytes(b"torn")

    monkeypatch.setattr(module, "train_shadow", train)
    for _ in range(2):
        with pytest.raises(InputError, match="no federation can be read from it; remove it"):
            audited(wanted, tmp_path)
    assert trained == [0, 1, 2, 3]


def test_a_file_in_the_place_of_the_output_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("of the user")
    for output in ("file", "file/below"):
        assert main(["audit", "membership", *words("record"), "--output", str(tmp_path / output)]) == 2
        said = capsys.readouterr().err
        assert "cannot be written (Not a directory); name another" in said
        assert len(said.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "of the user"


def test_other_settings_weights_or_images_are_other_federations(tmp_path: Path, prepared: Prepared) -> None:
    first, second = (Shadow(experiment("record", training__lr=lr), "weights", 0, tmp_path) for lr in (0.1, 0.2))
    assert len({first.path, second.path, replace(first, begun_with="others").path}) == 3
    candidates, train = Candidates.of(prepared.roster), prepared.data.train
    moved = replace(prepared.model, weights=prepared.model.weights + 1e-3)
    pixels = train.images.copy()
    pixels[candidates.rows[0]] ^= 1
    data = replace(prepared.data, train=replace(train, images=pixels))
    others = [replace(prepared, model=moved), replace(prepared, data=data), prepared]
    assert len({begun_with(one, candidates) for one in others}) == 3
    assert begun_with(prepared, candidates) == begun_with(replace(prepared), candidates)


def test_what_was_kept_stays_until_the_result_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "shadows" / "kept.npz"
    kept.parent.mkdir()
    kept.write_bytes(b"of hours")
    (tmp_path / "audit.json").write_text("{")
    assert main(["audit", "membership", *words("record"), "--output", str(tmp_path)]) == 2
    assert "audit.json: not JSON; put back the file, or remove it" in capsys.readouterr().err
    assert kept.exists()


@pytest.mark.slow
def test_the_command_attacks_a_runs_experiment_and_its_page_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MEMBERSHIPS, "seconds", MembershipBudget(federations=4, rounds=1))
    run = tmp_path / "run"
    own = words("none", federation__rounds=2, ray__enabled=False, output=run, privacy__epsilon="null")
    assert main(["run", *own]) == 0
    assert main(["audit", "membership", "--run", str(run), "--budget", "seconds"]) == 0
    assert "none: members told in 4 federations" in capsys.readouterr().out
    found = json.loads((run / "audit.json").read_text())["membership"]
    assert (found["federations"], found["rounds"], found["asked"], found["epsilon"]) == (4, 1, 2, None)
    told = read_run(run)
    assert told.audits.membership is not None
    assert len(told_hospitals(told.audits.membership)) >= 4
    assert "| likelihood ratio | all hospitals |" in card_of(told)
    page = (run / "report.html").read_text()
    short = "1 round, where the experiment has 2 (its own model knows more than these)"
    assert short in card_of(told)
    assert short in page
    assert 'aria-label="Members told from others, AUC: loss threshold, all hospitals' in page
    assert ", at ε = " not in page
    write_report(run)
    assert (run / "report.html").read_text() == page


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["--data.images=24", "--data.min_images=1"],
            "6 images, and 20 are needed; set data.min_images to 20",
        ),
        (["--budget", "much"], "budget"),
    ],
)
def test_what_cannot_be_attacked_is_one_line(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "membership", *words("record"), *options]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert told in lines[-1]
    assert not any("Traceback" in line for line in lines)
