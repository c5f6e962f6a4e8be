"""A federation on a real Ray and in one process: what it leaves, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lightning_fed.cli import main
from lightning_fed.models.classifier import Classifier
from tests.integration.conftest import same, weights, words

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "in-process"
    assert main(["run", *words(output, ray__enabled=False)]) == 0
    return output


def test_fedmics_factors_and_teachers_are_the_same_on_ray(tmp_path: Path) -> None:
    changes = {
        **{"federation.strategy": "fedmic", "federation.rounds": 2, "federation.distillation.teacher": "resnet9"},
        **{"federation.distillation.teacher_width": 4, "model.width": 8},
    }
    for name, places in (("alone", {"ray.enabled": False}), ("on-ray", {"ray.hospitals_per_actor": 2})):
        assert main(["run", *words(tmp_path / name, **changes, **places)]) == 0
    assert same(weights(tmp_path / "alone"), weights(tmp_path / "on-ray"))
    alone, on_ray = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("alone", "on-ray"))
    assert alone["teachers"] == on_ray["teachers"]
    assert alone["secagg"]["upload_bytes_per_hospital"] == on_ray["secagg"]["upload_bytes_per_hospital"] > 0


def test_another_seed_gives_other_weights(in_process: Path, tmp_path: Path) -> None:
    assert main(["run", *words(tmp_path / "run", ray__enabled=False, seed=43)]) == 0
    assert not same(weights(in_process), weights(tmp_path / "run"))


def test_the_run_folder_holds_what_outside_tools_rely_on(in_process: Path) -> None:
    summary = json.loads((in_process / "summary.json").read_text())
    rounds = [json.loads(line) for line in (in_process / "rounds.jsonl").read_text().splitlines()]
    assert [line["round"] for line in rounds] == [1, 2, 3]
    assert summary["status"] == "completed"
    assert sum(summary["data"]["images_by_hospital"]) == 240
    assert summary["privacy"]["epsilon"] is None
    assert summary["privacy"]["reason"]
    assert summary["secagg"]["protocol"] == "plain"
    assert summary["hospital_accuracy"]["worst"] <= summary["hospital_accuracy"]["mean"]
    assert summary["seconds"]["total"] >= summary["seconds"]["train"]
    assert {"experiment.yaml", "report.html", "figures", "checkpoints", "hospitals", "model.ckpt"} <= {
        path.name for path in in_process.iterdir()
    }


def test_the_checkpoints_of_the_last_two_rounds_are_kept(in_process: Path) -> None:
    assert [path.name for path in sorted((in_process / "checkpoints").iterdir())] == [
        "round-00002.pt",
        "round-00003.pt",
    ]


def test_the_trained_model_loads_as_a_lightning_checkpoint(in_process: Path) -> None:
    classifier = Classifier.load_from_checkpoint(in_process / "model.ckpt", weights_only=True)
    logits = classifier(torch.zeros(2, 28, 28, 3, dtype=torch.uint8))
    assert logits.shape == (2, 8)


def test_partial_participation_trains_the_drawn_cohort_only(tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert main(["run", *words(output, ray__enabled=False, federation__participation=0.5)]) == 0
    cohorts = [json.loads(line)["cohort"] for line in (output / "rounds.jsonl").read_text().splitlines()]
    assert all(len(cohort) == 2 for cohort in cohorts)
    assert len({tuple(cohort) for cohort in cohorts}) > 1


def test_a_hospital_dearer_than_any_node_is_refused_with_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *words(tmp_path / "run", ray__cpus_per_hospital=4096)]) == 2
    line = capsys.readouterr().err
    assert "ray.cpus_per_hospital is 4096" in line
    assert "the cluster has 1 node" in line
    assert not (tmp_path / "run").exists()


def test_an_address_where_no_ray_answers_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *words(tmp_path / "run", ray__address="127.0.0.1:9")]) == 2
    assert "ray.address is '127.0.0.1:9'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
