"""A federation under audit: the real one in this process, watched where it lets something out.

Its privacy, its noise, its samples and its secure sums are those of a run. What an adversary may choose is chosen:
how many images hospitals have beside the canaries, whose gradients are as long as clipping allows.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_fed.errors import InputError
from lightning_fed.experiment import Evaluation, Experiment, Faults, Tracking
from lightning_fed.federation.aggregation import SecAggPlus
from lightning_fed.federation.assembly import open_crew
from lightning_fed.federation.crew import LocalCrew
from lightning_fed.federation.driver import Driver
from lightning_fed.federation.enrolment import enrol, save_identities
from lightning_fed.federation.roster import Roster
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.joint import variance_of_one
from lightning_fed.studies.audit_watch import Held, Watch, attach, watch_sums
from lightning_fed.studies.prepare import Prepared, prepare

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Charged:
    """A line of a hospital's ledger, read by other means than its own.

    Args:
        round: whose. steps: releases. rate, noise_multiplier, adjacency: as charged.
    """

    round: int
    steps: int
    rate: float
    noise_multiplier: float
    adjacency: str


@dataclass(frozen=True)
class Watched:
    """What is left of a federation under audit.

    Args:
        experiment: as it ran. doses: of hospitals. ledgers: what each charged. least: hospitals without which no
            sum is opened.
    """

    experiment: Experiment
    doses: tuple[Dose, ...]
    ledgers: Mapping[int, list[Charged]]
    least: int


def prepare_audit(experiment: Experiment, pretrained: bool = False) -> Prepared:
    """The experiment in this process, without faults.

    Args:
        pretrained: whether to start from weights that the guarantee does not come from.

    Raises:
        InputError: it claims no epsilon, or does not fit.
    """
    if not experiment.privacy.guarantees:
        key = "mechanism" if experiment.privacy.mechanism == "none" else "noise"
        raise InputError(
            f"audit: by privacy.{key} this adds no noise and claims no epsilon; name an experiment that does"
        )
    return prepare(quiet(experiment), pretrained)


def quiet(experiment: Experiment) -> Experiment:
    """The experiment in one process, without faults, measurements and W&B.

    As many hospitals are asked, since noise and thresholds are made for so many, and all of them are in time.
    """
    federation = experiment.federation
    asked = federation.cohort_size / federation.hospitals
    return replace(
        experiment,
        ray=replace(experiment.ray, enabled=False, gpus_per_hospital=0.0),
        federation=replace(federation, participation=asked, over_selection=1.0, round_timeout=None),
        secagg=replace(experiment.secagg, identities=[]),
        faults=Faults(),
        evaluation=Evaluation(every=experiment.federation.rounds),
        tracking=Tracking(wandb="disabled"),
    )


def with_images(roster: Roster, most: int) -> Roster:
    """The hospitals with so many images at most, and the noise that was made for all of them."""
    members = tuple(replace(member, train=member.train[:most]) for member in roster.members)
    return replace(roster, members=members)


def open_federation(prepared: Prepared, roster: Roster, folder: Path) -> tuple[Driver, LocalCrew]:
    """A federation in this process, before its first round, whose ledgers and keys go into an empty folder.

    Args:
        roster: that may hold other images than the prepared one.
    """
    experiment, identities = enrol(prepared.experiment, prepared.roster)
    folder.mkdir(parents=True)
    save_identities(folder, identities)
    crew = open_crew(experiment, prepared.data, roster, folder)
    assert isinstance(crew, LocalCrew)
    return Driver(experiment, prepared.data, roster, copy.deepcopy(prepared.model), crew), crew


def run_watched(prepared: Prepared, roster: Roster, watch: Watch, rounds: int, folder: Path) -> Watched:
    """Run some rounds of a federation, whose ledgers and keys go into an empty folder."""
    driver, crew = open_federation(prepared, roster, folder)
    experiment = driver.experiment
    sums: dict[tuple[int, int], Held] = {}
    for number, hospital in crew.site.hospitals.items():
        members = watch.members.get(number, np.zeros(0, np.int64))
        attach(hospital, watch, members, prepared.classifier, sums)
    if experiment.privacy.mechanism == "distributed":
        assert isinstance(driver.aggregation, SecAggPlus)
        assert roster.doses is not None
        watch_sums(driver.aggregation, roster.doses[0], watch, sums)
    for _ in itertools.islice(driver.rounds(), rounds):
        pass
    everybody = range(experiment.federation.hospitals)
    assert roster.doses is not None
    ledgers = {hospital: charges_of(folder, hospital) for hospital in everybody}
    return Watched(experiment, roster.doses, ledgers, driver.aggregation.fewest)


def tensors_of(prepared: Prepared) -> list[int]:
    """Sizes of the network's trainable tensors, in the order of a release."""
    return [one.numel() for one in prepared.classifier.network.parameters() if one.requires_grad]


def charges_of(folder: Path, hospital: int) -> list[Charged]:
    """The charges in a run folder's ledger."""
    path = folder / "hospitals" / str(hospital) / "ledger.jsonl"
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""  # a line that is cut off charges nothing
    lines = map(json.loads, whole.splitlines())
    charges = (line["charge"] for line in lines if "charge" in line)
    return [
        Charged(one["round"], one["steps"], one["rate"], one["noise_multiplier"], one["adjacency"])
        for one in charges
    ]


def variance_of(dose: Dose, charged: Charged, hospitals: int) -> float:
    """Variance of each coordinate of a release, in units of C squared, by what was charged."""
    if dose.joint is not None:
        each = variance_of_one(dose.joint, charged.noise_multiplier) / dose.joint.bound**2
        return hospitals * dose.steps * each
    return (charged.noise_multiplier * (2 if charged.adjacency == "replace_one" else 1)) ** 2
