"""Small federations under a privacy mechanism, and the noise in what their hospitals let out."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from lightning_fed.data.datamodule import flip_and_turn
from lightning_fed.data.images import ImageData
from lightning_fed.data.load import load_images
from lightning_fed.experiment import Data, Experiment, Federation, Model, Privacy, Ray, SecAgg, Training
from lightning_fed.federation.assembly import open_crew
from lightning_fed.federation.checkpoint import Checkpoints
from lightning_fed.federation.driver import Driver
from lightning_fed.federation.enrolment import enrol, save_identities
from lightning_fed.federation.protection import Protection, doses_of
from lightning_fed.federation.roster import make_roster
from lightning_fed.federation.site import Site, build_classifier
from lightning_fed.models.classifier import Classifier, normalise
from lightning_fed.models.metrics import Scores
from lightning_fed.models.vector import Vector, load_vector, to_vector
from lightning_fed.privacy.steps import StepDiagnostics
from lightning_fed.studies.prepare import prepare

C = 0.5
LR = 0.5
Noise = NDArray[np.float64]


@functools.cache
def images(data: Data) -> ImageData:
    return load_images(data)


def experiment(mechanism: str = "record", **privacy: Any) -> Experiment:
    settled: dict[str, Any] = {"noise_multiplier": 1.2, "max_grad_norm": C, **privacy}
    return Experiment(
        data=Data(images=90, partition="iid", min_images=4, validation=0.0),
        model=Model(width=2),
        training=Training(optimizer="SGD", lr=LR, batch_size=6, schedule="constant", warmup_rounds=0.0),
        federation=Federation(hospitals=3, rounds=4, local_steps=1, weighting="equal"),
        privacy=Privacy(mechanism=mechanism, **settled),  # type: ignore[arg-type]
        ray=Ray(enabled=False),
    )


def with_changes(base: Experiment, **sections: dict[str, Any]) -> Experiment:
    """An experiment with some keys of its sections changed."""
    changed = {name: replace(getattr(base, name), **values) for name, values in sections.items()}
    return replace(base, **changed)


def site_of(settings: Experiment, output: Path | None = None) -> Site:
    data = images(settings.data)
    roster = make_roster(settings, data)
    doses = doses_of(settings, [len(member.train) for member in roster.members])
    return Site(settings, data, roster.with_doses(doses).members, output)


def first_weights(settings: Experiment) -> Vector:
    weights = to_vector(build_classifier(settings, images(settings.data)).network)
    weights.flags.writeable = False  # as under Ray
    return weights


def protection(site: Site, hospital: int) -> Protection:
    found = site.hospitals[hospital].protection
    assert found is not None
    return found


def released(site: Site, hospital: int, round: int, weights: Vector) -> Vector:
    """What leaves a hospital for a round."""
    report, update = site.fit(hospital, round, weights)
    assert report is not None
    return np.array(update)


def noise_in(site: Site, hospital: int, weights: Vector, update: Vector) -> Noise:
    """What the hospital's last round let out beyond the clipped signal, in units of the charged deviation."""
    privacy, dose = site.experiment.privacy, protection(site, hospital).dose
    if privacy.mechanism == "update":
        extra = update.astype(np.float64) - clipped_update(site, hospital, weights)
        return extra / (dose.noise_multiplier * privacy.deviation_per_multiplier)
    gradient = update.astype(np.float64) / -LR
    extra = gradient * dose.batch - clipped_gradients(site, hospital, weights)
    return extra / (dose.noise_multiplier * privacy.max_grad_norm)


def clipped_update(site: Site, hospital: int, weights: Vector, round: int = 1) -> Noise:
    """The clipped update of a hospital that adds no noise."""
    quiet = with_changes(site.experiment, privacy={"noise": False, "noise_multiplier": None})
    own = site.hospitals[hospital].images.plan
    assert own is not None
    return released(site_of(quiet), hospital, own.round, weights).astype(np.float64)  # type: ignore[attr-defined]


def clipped_gradients(site: Site, hospital: int, weights: Vector) -> Noise:
    """The sum of clipped gradients of the one step's sampled images, one by one, in float64."""
    own = site.hospitals[hospital]
    plan = own.images.plan
    assert plan is not None
    network = copy.deepcopy(build_classifier(site.experiment, site.data).network)
    load_vector(network, weights)
    network = network.double().train()
    total = np.zeros(len(weights))
    for batch in plan.batches():
        rows = own.images.train[batch.positions]
        pixels = flip_and_turn(site.data.train.images[rows], plan.turns(batch))
        labels = torch.from_numpy(site.data.train.labels[rows])
        for pixel, label in zip(normalise(torch.from_numpy(pixels)).double(), labels, strict=True):
            loss = functional.cross_entropy(network(pixel[None]), label[None])
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            gradient = torch.cat([part.flatten() for part in gradients]).numpy()
            total += gradient * min(1.0, site.experiment.privacy.max_grad_norm / np.linalg.norm(gradient))
    return total


def ledger_lines(output: Path, hospital: int) -> list[str]:
    return (output / "hospitals" / str(hospital) / "ledger.jsonl").read_text().splitlines()


def driver_of(settings: Experiment, output: Path) -> Driver:
    """A driver in this process, with all that a run has."""
    goes_on = (output / "identities.txt").exists()
    prepared = prepare(settings)
    settings, identities = enrol(settings, prepared.roster, output if goes_on else None)
    output.mkdir(exist_ok=True)
    save_identities(output, identities)
    crew = open_crew(settings, prepared.data, prepared.roster, output)
    return Driver(settings, prepared.data, prepared.roster, prepared.model, crew, Checkpoints(output))


def flip_diagnostics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every diagnostic tells something else."""
    for name in ("clipped", "median_norm", "signal_to_noise"):
        monkeypatch.setattr(StepDiagnostics, name, property(lambda self: -1.0))
    begin = Classifier.on_train_start

    def begin_elsewhere(self: Classifier) -> None:
        begin(self)
        self.loss_sum += 1e9

    monkeypatch.setattr(Classifier, "on_train_start", begin_elsewhere)
    monkeypatch.setattr(
        "lightning_fed.federation.evaluation.score", lambda *_: Scores(0.0, 0.0, 0.0, 1e9, (0.0,) * 8)
    )
    fit = Site.fit

    def lying(self: Site, *arguments: Any) -> tuple[Any, ...]:
        report, *parts = fit(self, *arguments)
        return replace(report, loss=-1.0, seconds=1e6, saturated=10**9), *parts

    monkeypatch.setattr(Site, "fit", lying)


MASKED = SecAgg(protocol="secagg_plus", allow_unsafe=True)
