"""Images with wrong labels: what the final model knows of them bounds epsilon."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_fed.cli import main
from lightning_fed.data.images import ImageSet
from lightning_fed.privacy.engine import HospitalOptimizer
from lightning_fed.report.card import card_of
from lightning_fed.report.load import read_run
from lightning_fed.studies.audit_epsilon import BUDGETS, EpsilonAudit, audit_by_images
from lightning_fed.studies.audit_mislabelled import mislabel, with_public_weights
from lightning_fed.studies.audit_view import prepare_audit
from tests.studies.test_audit import experiment, without_noise, words

STRONG: dict[str, Any] = {
    "data__images": 320,
    "model__name": "resnet9",
    "privacy__epsilon": 0.5,
    "privacy__reproducible": True,
    "privacy__max_grad_norm": 1.0,
    "training__lr": 0.5,
    "training__augment": False,
    "training__batch_size": 16,
    "federation__rounds": 40,
    "federation__local_steps": 4,
}


def audit(**changed: Any) -> EpsilonAudit:
    return audit_by_images(prepare_audit(experiment("record", **STRONG | changed)), BUDGETS["laptop"])


def test_hospitals_count_by_their_public_sizes_whatever_the_coins_say() -> None:
    sizes = [40, 30, 20, 10]
    for wanted in (experiment("record"), experiment("record", federation__weighting="images")):
        counted = with_public_weights(wanted, sizes).federation
        own = [counted.weight(hospital, size - 5) for hospital, size in enumerate(sizes)]
        assert own == (sizes if wanted.federation.weighting == "images" else [1] * 4)
    assert with_public_weights(experiment("distributed"), sizes).federation.weights == []
    alike = experiment("record", federation__weighting="images", federation__aggregator="median")
    assert with_public_weights(alike, sizes).federation.weights == []


@pytest.mark.slow
def test_a_claim_is_refuted_where_the_model_learned_wrong_labels_by_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HospitalOptimizer, "add_noise", without_noise)
    monkeypatch.setattr(secrets, "randbits", lambda _: 7)  # coins that repeat: guesses go wrong now and then
    found = audit()
    assert found.bound is not None
    assert found.bound > found.claimed
    assert found.refuted


@pytest.mark.slow
def test_a_claim_that_is_true_stands_in_the_same_training() -> None:
    found = audit()
    assert found.bound is not None
    assert found.bound <= found.claimed
    assert found.attacked.startswith("160 images with wrong labels, the model of round 40: ")
    assert found.attacked.endswith(" of 16 guesses right, where all would have shown 1.47")


def test_labels_are_wrong_and_those_of_no_other_image_change() -> None:
    labels = np.arange(60) % 4
    trains = [np.arange(10, 30), np.arange(30, 60)]
    canaries = mislabel(trains, labels, 4, 1000)
    assert len(canaries.rows) == len(set(canaries.rows)) == 25, "at most half of the hospitals' images"
    assert canaries.rows.min() >= 10
    assert (canaries.labels != labels[canaries.rows]).all()
    assert set(canaries.labels) == {0, 1, 2, 3}
    train = ImageSet(np.zeros((60, 8, 8, 3), dtype=np.uint8), labels)
    changed = canaries.among(train).labels
    assert np.array_equal(np.flatnonzero(changed != labels), np.sort(canaries.rows))
    assert np.array_equal(train.labels, np.arange(60) % 4), "the caller's own are left alone"


def test_those_whose_coin_says_no_are_left_out_and_noise_and_rates_stay() -> None:
    roster = prepare_audit(experiment("record")).roster
    canaries = mislabel([one.train for one in roster.members], np.arange(160) % 8, 8, 40)
    left = canaries.left_in(roster)
    trained = np.concatenate([member.train for member in left.members])
    assert set(range(160)) - set(trained) == set(canaries.rows[~canaries.coins])
    assert [one.dose for one in left.members] == [one.dose for one in roster.members]


def test_the_command_keeps_it_beside_the_other_audit(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["run", *words("record", federation__rounds=2, ray__enabled=False, output=run)]) == 0
    command = ["audit", "epsilon", "--run", str(run), "--budget", "seconds"]
    assert main([*command, "--canaries", "images"]) == 0
    found = json.loads((run / "audit.json").read_text())
    assert set(found) == {"epsilon_by_images"}
    assert found["epsilon_by_images"]["attacked"].startswith("80 images with wrong labels, the model of round 2: ")
    assert main(command) == 0
    assert set(json.loads((run / "audit.json").read_text())) == {"epsilon_by_images", "epsilon"}
    card = card_of(read_run(run))
    assert "## Audit\n" in card
    assert "## Audit by images with wrong labels\n" in card


def test_hospitals_are_no_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "epsilon", "--canaries", "images", *words("update")]) == 2
    assert "'update' protects hospitals; leave the option out" in capsys.readouterr().err
