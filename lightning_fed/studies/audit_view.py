"""A federation under audit: the real one in this process, watched where it lets something out.

Its privacy, its noise, its samples and its secure sums are those of a run. What an adversary may choose is chosen:
how many images hospitals have beside the canaries, whose gradients are as long as clipping allows.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.errors import InputError
from lightning_fed.experiment import Evaluation, Experiment, Faults, Tracking
from lightning_fed.federation.aggregation import SecAggPlus
from lightning_fed.federation.assembly import open_crew
from lightning_fed.federation.crew import LocalCrew
from lightning_fed.federation.driver import Driver
from lightning_fed.federation.enrolment import enrol, save_identities
from lightning_fed.federation.hospital import Hospital
from lightning_fed.federation.protection import (
    DistributedProtection,
    Permit,
    RecordProtection,
    SampledProtection,
    UpdateProtection,
)
from lightning_fed.federation.roster import Roster
from lightning_fed.models.classifier import Classifier
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.joint import variance_of_one
from lightning_fed.studies.single import Prepared, prepare

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Release:
    """What the adversary receives, in units of the clipping norm C.

    Args:
        hospitals: whose it is: one, or all whose sum it is. round: counted from 1. vector: (parameters,).
        signal: what was recomputed that it holds beside noise (parameters,); None where it was not.
    """

    hospitals: tuple[int, ...]
    round: int
    vector: Reals
    signal: Reals | None


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


@dataclass
class Watch:
    """What is looked at.

    Args:
        seen: told of each release. members: coordinates of the canaries that are in each hospital's data set;
            each has C at its own coordinate as its gradient. recompute: the clipped sums, image by image.
    """

    seen: Callable[[Release], None]
    members: Mapping[int, NDArray[np.int64]] = field(default_factory=dict)
    recompute: bool = False


@dataclass(frozen=True)
class Watched:
    """What is left of a federation under audit.

    Args:
        experiment: as it ran. doses: of hospitals. ledgers: what each charged. weights: the released model's.
    """

    experiment: Experiment
    doses: tuple[Dose, ...]
    ledgers: Mapping[int, list[Charged]]
    weights: Any


def prepare_audit(experiment: Experiment) -> Prepared:
    """The experiment in this process, without faults and pretraining, from which the guarantee does not come.

    Raises:
        InputError: it claims no epsilon, or does not fit.
    """
    if not experiment.privacy.guarantees:
        raise InputError("audit: privacy.mechanism adds no noise and claims no epsilon; name one that does")
    quiet = replace(
        experiment,
        ray=replace(experiment.ray, enabled=False),
        faults=Faults(),
        evaluation=Evaluation(every=experiment.federation.rounds),
        tracking=Tracking(wandb="disabled"),
    )
    return prepare(quiet, pretrained=False)


def with_images(roster: Roster, most: int) -> Roster:
    """The hospitals with so many images at most, and the noise that was made for all of them."""
    members = tuple(replace(member, train=member.train[:most]) for member in roster.members)
    return replace(roster, members=members)


def run_watched(prepared: Prepared, roster: Roster, watch: Watch, rounds: int, folder: Path) -> Watched:
    """Run some rounds of a federation, whose ledgers and keys go into an empty folder."""
    experiment, identities = enrol(prepared.experiment, prepared.roster)
    folder.mkdir(parents=True)
    save_identities(folder, identities)
    crew = open_crew(experiment, prepared.data, roster, folder)
    assert isinstance(crew, LocalCrew)
    driver = Driver(experiment, prepared.data, roster, copy.deepcopy(prepared.model), crew)
    sums: dict[tuple[int, int], Reals] = {}
    for number, hospital in crew.site.hospitals.items():
        members = watch.members.get(number, np.zeros(0, np.int64))
        _attach(hospital, watch, members, prepared.classifier, sums)
    if experiment.privacy.mechanism == "distributed":
        assert isinstance(driver.aggregation, SecAggPlus)
        assert roster.doses is not None
        _watch_sums(driver.aggregation, roster.doses[0], watch, sums)
    for _ in islice(driver.rounds(), rounds):
        pass
    everybody = range(experiment.federation.hospitals)
    assert roster.doses is not None
    ledgers = {hospital: charges_of(folder, hospital) for hospital in everybody}
    return Watched(experiment, roster.doses, ledgers, driver.model.released)


def charges_of(folder: Path, hospital: int) -> list[Charged]:
    """The charges in a run folder's ledger."""
    path = folder / "hospitals" / str(hospital) / "ledger.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    charges = (line["charge"] for line in lines if "charge" in line)
    return [
        Charged(one["round"], one["steps"], one["rate"], one["noise_multiplier"], one["adjacency"])
        for one in charges
    ]


def variance_of(experiment: Experiment, dose: Dose, charged: Charged, hospitals: int) -> float:
    """Variance of each coordinate of a release, in units of C squared, by what was charged."""
    if dose.joint is not None:
        each = variance_of_one(dose.joint, charged.noise_multiplier) / dose.joint.bound**2
        return hospitals * dose.steps * each
    return (charged.noise_multiplier * (2 if charged.adjacency == "replace_one" else 1)) ** 2


def _attach(
    hospital: Hospital,
    watch: Watch,
    members: NDArray[np.int64],
    classifier: Classifier,
    sums: dict[tuple[int, int], Reals],
) -> None:
    protection = hospital.protection
    if isinstance(protection, UpdateProtection):
        _watch_updates(hospital, watch)
        return
    assert isinstance(protection, SampledProtection)
    drawn = _put_in(protection, members)
    recomputed = Recomputed(hospital, copy.deepcopy(classifier)) if watch.recompute else None
    if isinstance(protection, RecordProtection):
        _watch_steps(hospital, protection, watch, drawn, recomputed)
    elif isinstance(protection, DistributedProtection):
        _watch_samples(hospital, protection, drawn, recomputed, sums)


def _put_in(protection: SampledProtection, members: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Canaries among the images that are sampled; the coordinates of those that are in each step of a round."""
    plan, images = protection.plan, protection.images
    drawn: list[NDArray[np.int64]] = []

    def with_canaries(permit: Permit) -> Any:
        protection.images = images + len(members)
        try:
            found = plan(permit)
        finally:
            protection.images = images
        drawn[:] = [members[draw[draw >= images] - images] for draw in found.draws]
        return replace(found, draws=tuple(draw[draw < images] for draw in found.draws), images=images)

    protection.plan = with_canaries  # type: ignore[method-assign]
    return drawn


class Recomputed:
    """A hospital's clipped sums by another way: one image at a time, on a network without hooks.

    Args:
        hospital: whose batches are listened to. classifier: of its kind, for this alone.
    """

    def __init__(self, hospital: Hospital, classifier: Classifier) -> None:
        self.hospital, self.classifier = hospital, classifier
        self._batches: list[tuple[Tensor, Tensor]] = []
        step = hospital.classifier.training_step

        def training_step(batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # Lightning asks for that name
            self._batches.append(batch)
            return step(batch, batch_idx)

        hospital.classifier.training_step = training_step  # type: ignore[method-assign, assignment]

    def take(self) -> Reals:
        """The sum over all images since the last time, at the present weights, in units of C."""
        experiment, network = self.hospital.experiment, self.classifier.network
        network.load_state_dict(self.hospital.classifier.network.state_dict())
        self.classifier.train()
        parameters = [one for one in network.parameters() if one.requires_grad]
        total, views = np.zeros(sum(one.numel() for one in parameters)), experiment.training.views
        for images, labels in self._batches:
            for start in range(0, len(labels), views):
                rows = slice(start, start + views)
                loss = functional.cross_entropy(self.classifier(images[rows]), labels[rows])
                gradient = _flat(torch.autograd.grad(loss, parameters)) / experiment.privacy.max_grad_norm
                total += gradient / max(1.0, float(np.linalg.norm(gradient)))
        self._batches.clear()
        return total


def _round(hospital: Hospital) -> int:
    plan: Any = hospital.images.plan
    return int(plan.round)


def _flat(tensors: Any) -> Reals:
    return np.concatenate([one.detach().cpu().double().numpy().ravel() for one in tensors])


def _canary_sum(size: int, coordinates: NDArray[np.int64]) -> Reals:
    total = np.zeros(size)
    np.add.at(total, coordinates, 1.0)
    return total


def _watch_steps(
    hospital: Hospital,
    protection: RecordProtection,
    watch: Watch,
    drawn: list[NDArray[np.int64]],
    recomputed: Recomputed | None,
) -> None:
    """`record`: each noised sum, of which the accountant assumes that all are seen."""
    optimizer, bound = protection.engine.optimizer, hospital.experiment.privacy.max_grad_norm
    add_noise = optimizer.add_noise
    parameters: list[nn.Parameter] = optimizer.params

    def noised() -> None:
        size = sum(one.numel() for one in parameters)
        canaries = _canary_sum(size, drawn.pop(0))
        signal = None if recomputed is None else recomputed.take() + canaries
        place = 0
        for one in parameters:
            part = torch.from_numpy(bound * canaries[place : place + one.numel()]).view_as(one).to(one)
            place += one.numel()
            one.summed_grad = part if one.summed_grad is None else one.summed_grad + part  # type: ignore[attr-defined]
        add_noise()
        vector = _flat(one.grad for one in parameters) / bound
        watch.seen(Release((hospital.number,), _round(hospital), vector, signal))

    optimizer.add_noise = noised  # type: ignore[method-assign]


def _watch_samples(
    hospital: Hospital,
    protection: DistributedProtection,
    drawn: list[NDArray[np.int64]],
    recomputed: Recomputed | None,
    sums: dict[tuple[int, int], Reals],
) -> None:
    """`distributed`: what goes into the sum of all; nothing of it is seen."""
    engine, bound = protection.engine, hospital.experiment.privacy.max_grad_norm
    take = engine.take

    def with_canaries() -> list[Reals]:
        made = take()
        canaries = [_canary_sum(len(one), coordinates) for one, coordinates in zip(made, drawn, strict=True)]
        if recomputed is not None:
            sums[_round(hospital), hospital.number] = recomputed.take() + np.sum(canaries, axis=0)
        return [one + bound * more for one, more in zip(made, canaries, strict=True)]

    engine.take = with_canaries  # type: ignore[method-assign]


def _watch_sums(aggregation: SecAggPlus, dose: Dose, watch: Watch, sums: dict[tuple[int, int], Reals]) -> None:
    """`distributed`: the sum that secure aggregation opens."""
    mean_of, joint = aggregation.mean_of, dose.joint
    assert joint is not None
    rounds: Iterator[int] = iter(range(1, 10**9))

    def opened(total: Any, survivors: tuple[int, ...]) -> Any:
        encoding: Any = aggregation.terms.encoding
        round = next(rounds)
        parts = [sums.pop((round, hospital)) for hospital in survivors if (round, hospital) in sums]
        signal = np.sum(parts, axis=0) if parts else None
        watch.seen(Release(survivors, round, encoding.decode(total) / joint.bound, signal))
        return mean_of(total, survivors)

    aggregation.mean_of = opened


def _watch_updates(hospital: Hospital, watch: Watch) -> None:
    """`update`: the hospital's update."""
    do, take, bound = hospital.work.do, hospital.take_update, hospital.experiment.privacy.max_grad_norm
    made: list[Reals] = []

    def worked(*arguments: Any) -> Any:
        update = do(*arguments)
        made[:] = [np.asarray(update, np.float64) / bound]
        return update

    def taken() -> Any:
        released = take()
        signal = made[0] / max(1.0, float(np.linalg.norm(made[0])))
        vector = np.asarray(released, np.float64) / bound
        watch.seen(Release((hospital.number,), _round(hospital), vector, signal))
        return released

    hospital.work.do = worked  # type: ignore[method-assign, assignment]
    hospital.take_update = taken  # type: ignore[method-assign]
