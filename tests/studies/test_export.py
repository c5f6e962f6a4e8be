"""`lightning-fed export`: every form of the model answers as the run's own; its card says what is guaranteed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_fed.cli import main
from lightning_fed.data.bloodcells import draw
from lightning_fed.errors import InputError
from lightning_fed.experiment import Model, Training
from lightning_fed.models import deploy
from lightning_fed.models.classifier import Classifier
from lightning_fed.models.export import load_model
from lightning_fed.report.card import card_of
from lightning_fed.report.load import read_run
from tests.report import folders

pytest.importorskip("safetensors", reason="the extra 'export' is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")

IMAGES = draw(9, seed=2)[0]


def answers(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path))
    found: np.ndarray = session.run(None, {"images": IMAGES})[0]
    return found


def test_a_run_goes_out_in_every_form_with_its_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data.images", "90", "--data.min_images", "4", "--data.validation", "0", "--federation.rounds", "1"]
    words += ["--federation.hospitals", "3", "--federation.weighting", "equal", "--model.width", "4"]
    words += ["--privacy.mechanism", "update", "--privacy.epsilon", "8", "--privacy.delta", "1e-4"]
    words += ["--ray.enabled", "false", "--tracking.wandb", "disabled", "--output", str(tmp_path / "run")]
    assert main(["run", *words]) == 0
    capsys.readouterr()
    assert main(["export", str(tmp_path / "run")]) == 0
    told = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in told] == ["PRIVACY.md", "model.ckpt", "model.safetensors", "model.onnx"]
    model = load_model(tmp_path / "run" / "model.ckpt")
    np.testing.assert_allclose(answers(told[3]), model.probabilities(IMAGES, 16).numpy(), atol=1e-5)

    from safetensors import safe_open

    with safe_open(told[2], framework="pt") as file:
        assert set(file.keys()) == set(model.state_dict())
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in model.state_dict().items())
        assert json.loads(file.metadata()["class_names"]) == model.hparams["class_names"]
    card = told[0].read_text()
    assert "Each hospital is protected as a whole" in card
    assert "| budget | 0.0001 | 8.00 |" in card


@pytest.mark.parametrize(
    "model",
    [
        Model(name="resnet9", width=4, norm_after_sum=True, test_time_augmentation=True),
        Model(width=4, standardise_weights=True),
        Model(name="resnet18", width=4, norm="batch"),
    ],
    ids=lambda model: model.name,
)
def test_onnx_answers_like_the_classifier(model: Model, tmp_path: Path) -> None:
    classifier = Classifier(model, Training(), seed=1, size=28).eval()
    deploy.save_onnx(classifier, tmp_path / "model.onnx")
    np.testing.assert_allclose(
        answers(tmp_path / "model.onnx"), classifier.probabilities(IMAGES, 16).numpy(), atol=1e-5
    )


def test_what_cannot_be_exported_is_one_line(tmp_path: Path) -> None:
    nameless = Classifier(Model(width=2), Training(), seed=1).eval()
    with pytest.raises(InputError, match="what size of images"):
        deploy.save_onnx(nameless, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="no form in ONNX"):
        deploy.save_onnx(Classifier(Model(name="scatternet_linear"), Training(), size=28), tmp_path / "model.onnx")

    with pytest.raises(InputError, match=r"pip install 'lightning-fed\[export\]'"):
        deploy._library("no_such_library.part")
    assert main(["export", str(tmp_path)]) == 2
    assert main(["export"]) == 2


def test_a_card_has_both_deltas_the_adversary_and_what_is_not_covered(tmp_path: Path) -> None:
    for mechanism in ("record", "update"):
        (tmp_path / mechanism).mkdir()
        card = card_of(read_run(folders.protected(tmp_path / mechanism, mechanism)))
        for word in ("5.44", "7.70", "0.00019", "8.4e-06", "Adversary: ", "Accountant: ", "Not covered: "):
            assert word in card, word
    (tmp_path / "open").mkdir()
    assert "## No privacy guarantee" in card_of(read_run(folders.noiseless(tmp_path / "open")))
    (tmp_path / "cut").mkdir()
    with pytest.raises(InputError, match="not finished"):
        card_of(read_run(folders.write(tmp_path / "cut")))
