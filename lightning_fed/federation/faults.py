"""Hospitals that drop out, are slow, cannot be asked or mean harm: functions of the experiment alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from lightning_fed.data.images import ImageSet, Indices
from lightning_fed.experiment import Experiment
from lightning_fed.federation.robust import bound
from lightning_fed.models.vector import Vector
from lightning_fed.secagg.conductor import STAGES
from lightning_fed.seeds import stream

LAST_BEFORE_UPLOAD = "after_shares"


def dropouts(experiment: Experiment, round: int, cohort: Iterable[int]) -> dict[int, str]:
    """The hospitals of a cohort that drop out of a round, and the stage at which each is gone."""
    settings = experiment.faults.dropout
    gone: dict[int, str] = {}
    for hospital in cohort:
        generator = stream(experiment.seed, "dropout", round, hospital)
        if generator.random() < settings.rate:
            drawn = STAGES[int(generator.integers(len(STAGES)))]
            gone[hospital] = drawn if settings.stage == "any" else settings.stage
    listed = {loss.hospital: loss.stage for loss in settings.losses if loss.round == round}
    return gone | {hospital: stage for hospital, stage in listed.items() if hospital in set(cohort)}


def uploads(stage: str | None) -> bool:
    """Whether a hospital that is gone from `stage` on (None: that stays) still sends its vector."""
    return stage is None or STAGES.index(stage) > STAGES.index(LAST_BEFORE_UPLOAD)


def available(experiment: Experiment, round: int, hospitals: Iterable[int]) -> set[int]:
    """Those of some hospitals that can be asked in a round."""
    settings = experiment.faults.availability
    if settings.mean == 1:
        return set(hospitals)
    found = set()
    for hospital in hospitals:
        chance, strength = settings.mean, settings.concentration
        if strength is not None:
            own = stream(experiment.seed, "availability", hospital)
            chance = own.beta(settings.mean * strength, (1 - settings.mean) * strength)
        if stream(experiment.seed, "availability", hospital, round).random() < chance:
            found.add(hospital)
    return found


def simulated_seconds(experiment: Experiment, hospital: int, round: int, images: float) -> float | None:
    """How long a hospital's training of a round would take, None where nothing is simulated.

    Args:
        images: of all its steps, in the mean.
    """
    settings = experiment.faults.stragglers
    if settings.seconds_per_image is None:
        return None
    of_hospital = stream(experiment.seed, "speed", hospital).standard_normal()
    of_round = stream(experiment.seed, "speed", hospital, round).standard_normal()
    slowness = math.exp(settings.spread * of_hospital + settings.jitter * of_round)
    return settings.seconds_per_image * images * slowness


def poisoned(experiment: Experiment, hospital: int, round: int, update: Vector) -> Vector:
    """What a hospital sends in place of its update (parameters,), if it means harm; else the bounded update."""
    poison = experiment.faults.poison
    if hospital not in poison.hospitals:
        return bound(update, experiment.federation.norm_bound)
    if poison.kind == "random":
        noise = stream(experiment.seed, "poison", hospital, round).standard_normal(len(update))
        length = poison.scale * np.linalg.norm(update.astype(np.float64)) / np.linalg.norm(noise)
        return (length * noise).astype(np.float32)
    return np.float32(poison.scale * (-1 if poison.kind == "sign_flip" else 1)) * update


def poisoned_labels(
    experiment: Experiment, hospital: int, images: ImageSet, rows: Indices, classes: int
) -> ImageSet:
    """The shared images as a hospital trains on its `rows` of them: labels backwards under `label_flip`."""
    poison = experiment.faults.poison
    if hospital not in poison.hospitals or poison.kind != "label_flip":
        return images
    labels = images.labels.copy()
    labels[rows] = classes - 1 - labels[rows]
    return ImageSet(images.images, labels)
