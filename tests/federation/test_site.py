"""A site's hospitals and its scores, without Ray."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lightning_fed.data.images import ImageData
from lightning_fed.data.load import load_images
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data, Experiment, Federation, Model, Ray, Training
from lightning_fed.federation.roster import make_roster
from lightning_fed.federation.site import Site, build_classifier
from lightning_fed.models.vector import to_vector

BATCH_NORM = Model(name="resnet9", width=2, norm="batch")
SMALL = Experiment(
    data=Data(images=96, partition="iid", min_images=4),
    model=Model(width=2),
    training=Training(batch_size=16),
    federation=Federation(hospitals=2, rounds=4, local_epochs=1),
)


def site_of(experiment: Experiment) -> tuple[Site, ImageData]:
    data = load_images(experiment.data)
    return Site(experiment, data, make_roster(experiment, data).members, None), data


def test_a_score_is_the_given_model_s_on_the_hospital_s_held_out_images() -> None:
    site, data = site_of(SMALL)
    classifier = build_classifier(SMALL, data)
    site.fit(1, 1, to_vector(classifier.network))
    found = site.score_hospital(1, to_vector(classifier.network))
    rows = make_roster(SMALL, data).members[1].validation
    wanted = classifier.evaluate(data.train.images[rows], data.train.labels[rows], 256)
    assert found is not None
    assert (found.hospital, found.images) == (1, len(rows))
    assert (found.accuracy, found.loss) == (wanted.accuracy, wanted.loss)


def test_a_hospital_that_holds_nothing_out_has_no_score() -> None:
    experiment = replace(SMALL, data=replace(SMALL.data, validation=0.0))
    site, data = site_of(experiment)
    assert site.score_hospital(0, to_vector(build_classifier(experiment, data).network)) is None


@pytest.mark.parametrize("model", [Model(width=2), BATCH_NORM], ids=["dpresnet", "batch norm"])
def test_scoring_between_rounds_changes_no_update(model: Model) -> None:
    """Else a result would depend on when the evaluation found a free worker."""
    experiment = replace(SMALL, model=model)
    updates = []
    for scored in (False, True):
        site, data = site_of(experiment)
        weights = to_vector(build_classifier(experiment, data).network)
        site.fit(0, 1, weights)
        if scored:
            site.score_hospital(0, weights)
            site.evaluate("validation", 0, 16, weights)
        updates.append(site.fit(0, 2, weights)[1])
    assert np.array_equal(*updates)


def test_a_gpu_that_torch_cannot_find_is_refused_by_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=r"ray\.gpus_per_hospital is 0\.5, but torch finds no GPU here"):
        site_of(replace(SMALL, ray=Ray(enabled=False, gpus_per_hospital=0.5)))
