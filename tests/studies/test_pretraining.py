"""Pretraining on drawn cells: once, kept, found again only for the same, and told in the result."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_fed.cli import main
from lightning_fed.data.bloodcells import CELL_TYPES, draw
from lightning_fed.data.images import ImageData, ImageSet
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data, Experiment, Federation, Model, Privacy, Training
from lightning_fed.federation.site import build_classifier
from lightning_fed.models.vector import to_vector
from lightning_fed.studies import pretraining
from lightning_fed.studies.pretraining import Recipe, features_of, kept_at, pretrain, refuse_other_images
from lightning_fed.tracking.records import FitReport
from tests.integration.conftest import words

OWN = """
from torch import nn

class Own(nn.Sequential):
    def __init__(self, in_channels, num_classes):
        super().__init__(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * in_channels, num_classes))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and a recipe of a second."""
    monkeypatch.setenv("LIGHTNING_FED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pretraining, "RECIPE", Recipe(cells=64, epochs=1, batch_size=32))
    return tmp_path / "cache" / "pretrained"


def images(classes: int = 8, channels: int = 3, size: int = 28) -> ImageData:
    few = ImageSet(np.zeros((1, size, size, channels), np.uint8), np.zeros(1, np.int64))
    return ImageData("path", "own pictures", False, tuple(map(str, range(classes))), few, few, few)


SMALL = Experiment(model=Model(width=2, pretrained="bloodcells"))


def pretrained(experiment: Experiment = SMALL) -> np.ndarray:
    """The weights after `pretrain`."""
    classifier = build_classifier(experiment, images())
    pretrain(classifier, experiment, images())
    return to_vector(classifier.network)


def path_of(experiment: Experiment, data: ImageData | None = None) -> Path:
    data = data or images()
    return kept_at(build_classifier(experiment, data), experiment, data)


def test_the_drawn_classes_are_bloodmnists_in_its_order() -> None:
    from medmnist.info import INFO

    names = INFO["bloodmnist"]["label"]
    assert [names[str(label)].split("(")[0] for label in range(8)] == list(CELL_TYPES)


def test_the_weights_are_made_once_and_then_taken_from_the_file(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = pretrained()
    assert [path.name for path in cache.iterdir()] == [path_of(SMALL).name]
    assert "pretrains on 64 procedural cells (bloodcells), 1 passes" in capsys.readouterr().out
    monkeypatch.setattr(pretraining, "_train", None)
    assert np.array_equal(pretrained(), first)
    assert "starts from weights pretrained on 64" in capsys.readouterr().out
    assert not np.array_equal(first, to_vector(build_classifier(SMALL, images()).network))


def test_the_same_seed_makes_the_same_weights_and_leaves_other_streams_and_threads_alone(cache: Path) -> None:
    first = pretrained()
    next(cache.iterdir()).unlink()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    torch.set_num_threads(2)
    assert np.array_equal(pretrained(), first)
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), state)
    assert not np.array_equal(pretrained(replace(SMALL, seed=1)), first)


@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, seed=1),
        lambda one: replace(one, model=replace(one.model, width=4)),
        lambda one: replace(one, model=replace(one.model, standardise_weights=True)),
        lambda one: replace(one, training=Training(precision="bf16-mixed")),
        lambda one: replace(one, training=Training(threads=2)),
    ],
)
def test_what_the_weights_depend_on_is_in_the_name(change: Callable[[Experiment], Experiment]) -> None:
    assert path_of(change(SMALL)) != path_of(SMALL)


@pytest.mark.parametrize(
    "change",
    [{"version": 99}, {"cells": 65}, {"epochs": 2}, {"lr": 0.1}, {"warmup": 0.5}, {"distort": 0.5}],
)
def test_the_recipe_and_the_size_are_in_the_name(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, float]
) -> None:
    before = path_of(SMALL)
    assert path_of(SMALL, images(size=64)) != before
    monkeypatch.setattr(pretraining, "RECIPE", replace(pretraining.RECIPE, **change))
    assert path_of(SMALL) != before


def test_the_federation_that_follows_is_not_in_the_name() -> None:
    later = replace(
        SMALL,
        data=Data(validation=0.0),
        federation=Federation(rounds=99),
        training=Training(optimizer="SGD", lr=1.0),
        privacy=Privacy(mechanism="record", epsilon=1.0),
        output="elsewhere",
    )
    assert path_of(later) == path_of(SMALL)


def test_a_users_own_network_is_pretrained_and_made_anew_when_its_file_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_of_pretraining.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    own = Experiment(model=Model(class_path="own_of_pretraining.Own", pretrained="bloodcells"))
    assert len(pretrained(own)) == 48 * 8 + 8
    assert [path_of(own)] == list(cache.iterdir())
    (tmp_path / "own_of_pretraining.py").write_text(OWN + "# another\n")
    assert not path_of(own).exists()


@pytest.mark.parametrize("content", [b"", b"no weights"])
def test_a_damaged_file_is_named_with_the_mend(cache: Path, content: bytes) -> None:
    pretrained()
    path = path_of(SMALL)
    path.write_bytes(content or path.read_bytes()[:-100])
    with pytest.raises(
        InputError, match=r"bloodcells-\w+\.ckpt: .*delete the file, and they are made anew"
    ) as raised:
        pretrained()
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_cache_that_cannot_be_written_costs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIGHTNING_FED_CACHE", str(tmp_path / "file"))
    first = pretrained()
    assert "not kept for later runs" in capsys.readouterr().out
    assert np.array_equal(pretrained(), first)


def test_two_runs_that_pretrain_at_the_same_time_both_end_well(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[np.ndarray] = []
    sync = os.fsync

    def sync_slowly(descriptor: int) -> None:
        if not others:  # the file is not in its place yet when another run comes
            others.append(np.empty(0))
            others.append(pretrained())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync_slowly)
    first = pretrained()
    assert np.array_equal(first, others[1])
    assert [path.name for path in cache.iterdir()] == [path_of(SMALL).name]
    monkeypatch.setattr(pretraining, "_train", None)
    assert np.array_equal(pretrained(), first)


def test_a_network_that_diverges_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "RECIPE", replace(pretraining.RECIPE, lr=1e37, warmup=0.0))
    with pytest.raises(InputError, match=r"model\.pretrained: this network diverges on drawn cells"):
        pretrained()
    assert not cache.exists()


@pytest.mark.parametrize(("classes", "channels", "size"), [(9, 3, 28), (8, 1, 28), (8, 3, 27), (8, 3, 225)])
def test_images_of_another_kind_are_refused(classes: int, channels: int, size: int) -> None:
    told = f"8 classes, 3 channels and 28 to 224 pixels, but own pictures has {classes}, {channels} and {size}"
    with pytest.raises(InputError, match=told):
        refuse_other_images(images(classes, channels, size))


def test_features_that_cost_nothing_are_told_together_and_learned_ones_are_not() -> None:
    assert features_of(Experiment()) is None
    assert features_of(Experiment(model=Model(name="scatternet_cnn", class_path="a.B"))) is None
    both = Experiment(model=Model(name="scatternet_cnn", pretrained="bloodcells"))
    assert features_of(both) == (
        "ScatterNet (fixed), pretrained on 64 procedural cells (bloodcells): no cost in privacy"
    )


@pytest.mark.slow
def test_pretraining_teaches_the_cells_that_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "RECIPE", Recipe(cells=960, epochs=4, batch_size=32))
    experiment = Experiment(model=Model(width=4, pretrained="bloodcells"))
    classifier = build_classifier(experiment, images())
    pretrain(classifier, experiment, images())
    assert classifier.evaluate(*draw(256, seed=5, stream="validation"), 64).accuracy > 0.25, "an eighth is chance"


@pytest.mark.slow
@pytest.mark.parametrize("guarantee", [False, True])
def test_a_run_starts_from_the_pretrained_weights_and_its_result_and_page_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarantee: bool
) -> None:
    seen = []
    first = pretraining.pretrain
    monkeypatch.setattr(
        "lightning_fed.studies.prepare.pretrain",
        lambda classifier, *rest: (first(classifier, *rest), seen.append(to_vector(classifier.network))),
    )
    changes = {"privacy.mechanism": "record", "privacy.epsilon": 6.0, "data.validation": 0.0} if guarantee else {}
    asked = words(
        tmp_path / "run", ray__enabled=False, federation__rounds=1, model__pretrained="bloodcells", **changes
    )
    starts = []
    fit = pretraining.Hospital.fit

    def watched(self: pretraining.Hospital, round: int, weights: np.ndarray) -> FitReport:
        starts.append(weights.copy())
        return fit(self, round, weights)

    monkeypatch.setattr(pretraining.Hospital, "fit", watched)
    assert main(["run", *asked]) == 0
    assert all(np.array_equal(weights, seen[0]) for weights in starts[1:])
    assert len(starts) == 1 + 4, "the pretraining, then four hospitals"
    told = "pretrained on 64 procedural cells (bloodcells): no cost in privacy"
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["privacy"]["features"] == told
    assert (tmp_path / "run" / "report.html").read_text().count(told) == (2 if guarantee else 1)
