"""Hospitals that drop out on purpose: who, in which round, at which stage; a function of the experiment alone."""

from __future__ import annotations

from collections.abc import Iterable

from lightning_fed.experiment import Experiment
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
