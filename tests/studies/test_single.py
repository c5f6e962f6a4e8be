"""A run that cannot start leaves nothing behind, and says why in one line."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from lightning_fed.cli import main
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data, Experiment, Privacy
from lightning_fed.studies.prepare import refuse_private_start
from tests.integration.conftest import words

OWN = """
from torch import nn

class Narrow(nn.Sequential):
    def __init__(self, in_channels, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(in_channels * 28 * 28, 3))

class Picky(nn.Module):
    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.layer = nn.Linear(5, num_classes)

    def forward(self, images):
        return self.layer(images)
"""


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data.size": 16}, "data.size is 16"),
        ({"model.class_path": "own_networks.Narrow"}, "logits of shape (2, 3) instead of (2, 8)"),
        ({"model.class_path": "own_networks.Picky"}, "does not take 28-pixel images"),
        ({"ray.gpus_per_hospital": 1}, "ray.gpus_per_hospital is 1"),
        ({"federation.server_optimizer": "Adamm"}, "did you mean 'Adam'?"),
        ({"federation.hospitals": 241}, "federation.hospitals is 241"),
        ({"data.partition": "shards", "data.classes_per_hospital": 9}, "data.classes_per_hospital is 9"),
        ({"federation.server_options": "{momentum: 0.9}"}, "there is no federation.server_optimizer"),
        ({"secagg.protocol": "secagg_plus", "secagg.degree": 20}, "secagg.degree is 20"),
        ({"model.start": "nowhere.ckpt"}, "does not start this network"),
        (
            {
                "secagg.protocol": "secagg_plus",
                "privacy.mechanism": "update",
                "privacy.epsilon": 6,
                "data.validation": 0,
                "federation.weighting": "equal",
            },
            "secagg.clip is 4: it would cut noise",
        ),
    ],
)
def test_a_run_that_cannot_start_leaves_no_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    told: str,
) -> None:
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    output = tmp_path / "run"
    assert main(["run", *words(output, ray__enabled=False, **changes)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert told in lines[0]
    assert not output.exists()


@pytest.mark.parametrize("leftover", ["checkpoints", "hospitals"])
def test_a_folder_with_another_run_s_leftovers_is_not_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], leftover: str
) -> None:
    (tmp_path / leftover).mkdir()
    assert main(["run", *words(tmp_path, ray__enabled=False)]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [leftover]


@pytest.mark.parametrize(("name", "epsilon", "refused"), [("x", 6, True), ("x", None, False), ("y", 6, False)])
def test_a_guarantee_does_not_start_from_weights_of_the_images_it_protects(
    tmp_path: Path, name: str, epsilon: float | None, refused: bool
) -> None:
    (tmp_path / "experiment.yaml").write_text("data: {name: x}")
    privacy = Privacy() if epsilon is None else Privacy(mechanism="record", epsilon=epsilon)
    experiment = Experiment(data=Data(name=name, validation=0.0), privacy=privacy)
    with (
        pytest.raises(InputError, match=r"was trained on x, the images to be protected")
        if refused
        else nullcontext()
    ):
        refuse_private_start(experiment, tmp_path / "model.ckpt")
