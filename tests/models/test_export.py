from pathlib import Path

import pytest
import torch

from lightning_fed.errors import InputError
from lightning_fed.experiment import Model, Training
from lightning_fed.models.classifier import Classifier
from lightning_fed.models.export import load_weights, save_model


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


def test_a_network_starts_from_the_weights_of_another_run(tmp_path: Path) -> None:
    first, second = (Classifier(Model(width=2), Training(), seed=seed) for seed in (1, 2))
    save_model(first, tmp_path / "model.ckpt")
    load_weights(second, tmp_path / "model.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint"])
def test_a_start_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.start: .*model\.ckpt does not start this network"):
        load_weights(Classifier(Model(width=2), Training()), tmp_path / "model.ckpt")


def test_a_start_of_another_network_is_refused(tmp_path: Path) -> None:
    save_model(Classifier(Model(width=4), Training()), tmp_path / "model.ckpt")
    with pytest.raises(InputError, match=r"model\.start: .* name a model\.ckpt of the same model"):
        load_weights(Classifier(Model(width=2), Training()), tmp_path / "model.ckpt")
