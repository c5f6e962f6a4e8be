"""`lightning-fed predict`: the run's own accuracy comes out of its model again."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_fed.cli import main
from lightning_fed.data.bloodcells import CELL_TYPES, draw
from lightning_fed.errors import InputError
from lightning_fed.experiment import Model, Training
from lightning_fed.models.classifier import Classifier
from lightning_fed.models.export import save_model
from lightning_fed.studies.predict import predict

WORDS = [
    *("--data.images", "150", "--federation.hospitals", "3", "--federation.rounds", "1", "--model.width", "4"),
    *("--ray.enabled", "false", "--tracking.wandb", "disabled", "--model.test_time_augmentation", "true"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict") / "run"
    assert main(["run", *WORDS, "--output", str(folder)]) == 0
    return folder


def rows(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table)))


def cells(folder: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    images, labels = draw(60, seed=9)
    path = folder / "cells.npz"
    arrays = {f"{split}_images": images for split in ("train", "val", "test")}
    np.savez(path, **arrays, **{f"{split}_labels": labels[:, None] for split in ("train", "val", "test")})
    return path, images, labels


def test_an_npz_is_named_image_by_image_as_the_run_itself_would(run: Path, tmp_path: Path) -> None:
    path, images, _ = cells(tmp_path)
    table = rows(predict(str(run / "model.ckpt"), str(path)))
    model = Classifier.load_from_checkpoint(run / "model.ckpt", weights_only=True)
    wanted = model.probabilities(images, 256)
    assert [row["predicted"] for row in table] == [CELL_TYPES[label] for label in wanted.argmax(1)]
    assert [row["image"] for row in table[:2]] == ["test 0", "test 1"]
    for row, shares in zip(table, wanted.tolist(), strict=True):
        assert [float(row[name]) for name in CELL_TYPES] == pytest.approx(shares, abs=1e-6)


def test_an_npz_of_images_alone_is_named_too(run: Path, tmp_path: Path) -> None:
    path, images, _ = cells(tmp_path)
    np.savez(tmp_path / "alone.npz", images=images)
    whole, alone = (rows(predict(str(run / "model.ckpt"), str(one))) for one in (path, tmp_path / "alone.npz"))
    assert [row.pop("image") for row in alone][:2] == ["image 0", "image 1"]
    assert alone == [{name: value for name, value in row.items() if name != "image"} for row in whole]


def test_pictures_in_folders_get_the_answers_of_their_pixels(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, images, _ = cells(tmp_path)
    pictures = tmp_path / "pictures"
    (pictures / "deeper").mkdir(parents=True)
    for number in range(4):
        Image.fromarray(images[number]).save(pictures / ("deeper" if number > 1 else ".") / f"{number}.png")
    (pictures / "notes.txt").write_text("no picture")
    assert main(["predict", str(run), str(pictures)]) == 0
    found = rows(capsys.readouterr().out)
    of_npz = rows(predict(str(run / "model.ckpt"), str(path)))
    assert [row["image"] for row in found] == ["0.png", "1.png", "deeper/2.png", "deeper/3.png"]
    assert [row["predicted"] for row in found] == [row["predicted"] for row in of_npz[:4]]
    single = rows(predict(str(run / "model.ckpt"), str(pictures / "1.png")))
    assert single[0] == found[1]


def test_the_table_can_go_to_a_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _, _ = cells(tmp_path)
    assert main(["predict", str(run), str(path), "--split", "val", "--output", str(tmp_path / "out.csv")]) == 0
    assert capsys.readouterr().out == ""
    assert len(rows((tmp_path / "out.csv").read_text())) == 60
    assert main(["predict", str(run), str(path), "--output", str(tmp_path / "no" / "out.csv")]) == 2


def test_the_model_says_what_it_learned_from(run: Path) -> None:
    kept = Classifier.load_from_checkpoint(run / "model.ckpt", weights_only=True).hparams
    summary = json.loads((run / "summary.json").read_text())
    assert kept["class_names"] == summary["data"]["class_names"]
    assert kept["size"] == summary["data"]["size"] == 28


@pytest.mark.parametrize("bad", ["none.ckpt", "empty.ckpt", "rubbish.ckpt"])
def test_a_model_that_cannot_be_read_is_one_line(run: Path, tmp_path: Path, bad: str) -> None:
    if bad != "none.ckpt":
        (tmp_path / bad).write_bytes(b"" if bad == "empty.ckpt" else (run / "model.ckpt").read_bytes()[:500])
    with pytest.raises(InputError, match=f"{bad}: no model can be read from it"):
        predict(str(tmp_path / bad), str(tmp_path))


def test_images_that_do_not_fit_are_refused_with_the_mend(run: Path, tmp_path: Path) -> None:
    model = str(run / "model.ckpt")
    with pytest.raises(InputError, match="no picture and no npz"):
        predict(model, str(tmp_path))
    with pytest.raises(InputError, match=r"none\.png: there is no such file"):
        predict(model, str(tmp_path / "none.png"))
    (tmp_path / "half.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(InputError, match="not a whole picture"):
        predict(model, str(tmp_path))
    images, labels = np.zeros((3, 32, 32, 3), np.uint8), np.arange(3)
    np.savez(tmp_path / "test.npz", test_images=images, test_labels=labels)
    with pytest.raises(InputError, match="no array called"):
        predict(model, str(tmp_path / "test.npz"))
    every = {f"{s}_images": images for s in ("train", "val", "test")}
    np.savez(tmp_path / "large.npz", **every, **{f"{s}_labels": labels for s in ("train", "val", "test")})
    with pytest.raises(InputError, match="images of 32 pixels"):
        predict(model, str(tmp_path / "large.npz"))


def test_a_model_that_names_code_of_its_own_is_not_built_without_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted.py").write_text(
        "import pathlib, torch\npathlib.Path('ran').touch()\n"
        "class Net(torch.nn.Linear):\n    def __init__(self, in_channels, num_classes): super().__init__(2, 3)\n"
        "def call(in_channels, num_classes): pathlib.Path('called').touch()\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("planted.Net", "planted.call"):
        classifier = Classifier(Model(width=2), Training(), seed=1)
        classifier.hparams["model"]["class_path"] = name
        save_model(classifier, tmp_path / "model.ckpt")
        with pytest.raises(InputError, match="--trust runs it"):
            predict("model.ckpt", ".")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InputError, match="cannot be built"):
        predict("model.ckpt", ".", trust=True)
    assert (tmp_path / "ran").exists(), "with trust the module is imported"
    assert not (tmp_path / "called").exists(), "what is no class of a network is not even called"


def test_a_model_without_names_counts_its_classes(tmp_path: Path) -> None:
    save_model(Classifier(Model(width=2), Training(), seed=1), tmp_path / "model.ckpt")
    path, _, _ = cells(tmp_path)
    table = rows(predict(str(tmp_path / "model.ckpt"), str(path)))
    assert table[0]["predicted"].startswith("class ")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "one.png")
    with pytest.raises(InputError, match="does not say what size"):
        predict(str(tmp_path / "model.ckpt"), str(tmp_path / "one.png"))
