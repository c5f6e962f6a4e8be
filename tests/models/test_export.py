from pathlib import Path

import pytest
import torch

from lightning_fed.experiment import Model, Training
from lightning_fed.models.classifier import Classifier
from lightning_fed.models.export import save_model


def test_a_checkpoint_holds_no_code_and_what_lightning_looks_for(tmp_path: Path) -> None:
    save_model(Classifier(Model(width=2), Training()), tmp_path / "model.ckpt")
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert content["pytorch-lightning_version"]
    assert content["hyper_parameters"]["model"]["width"] == 2
    assert set(content["state_dict"]) == set(Classifier(Model(width=2), Training()).state_dict())


def test_an_older_checkpoint_is_replaced_whole_or_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    save_model(Classifier(Model(width=2), Training(), seed=1), path)
    first = path.read_bytes()
    broken = Classifier(Model(width=2), Training(), seed=2)
    broken.hparams["model"] = lambda: None  # cannot be pickled
    with pytest.raises(Exception, match=r"pickle|lambda"):
        save_model(broken, path)
    assert path.read_bytes() == first
    save_model(Classifier(Model(width=2), Training(), seed=2), path)
    assert path.read_bytes() != first
