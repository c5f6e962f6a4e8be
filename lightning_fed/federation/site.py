"""One process's share of the federation: some hospitals that train in turn, and evaluation work."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_fed.data.datamodule import HospitalData
from lightning_fed.data.images import ImageData, ImageSet, Pixels
from lightning_fed.errors import FederationError, InputError
from lightning_fed.experiment import Experiment
from lightning_fed.federation.enrolment import client_of, directory_of, encoding_of, terms_of
from lightning_fed.federation.faults import poisoned, poisoned_labels
from lightning_fed.federation.hospital import Hospital
from lightning_fed.federation.outbox import AdditiveOutbox, LowRankOutbox, MaskedOutbox, Outbox, PlainOutbox
from lightning_fed.federation.protection import protection_of
from lightning_fed.federation.roster import Member
from lightning_fed.federation.state import HospitalStates
from lightning_fed.models.classifier import Classifier
from lightning_fed.models.distillation import Distilling
from lightning_fed.models.low_rank import shapes_of
from lightning_fed.models.metrics import score
from lightning_fed.models.vector import Vector, load_vector, to_vector
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.ledger import BudgetSpentError
from lightning_fed.secagg.additive import add_up
from lightning_fed.secagg.client import Client
from lightning_fed.secagg.conductor import LOST_AT, Refusal, refuse_politely
from lightning_fed.secagg.masks import Words
from lightning_fed.secagg.messages import Terms
from lightning_fed.seeds import derive
from lightning_fed.tracking.records import HospitalScore


@dataclass(frozen=True)
class Shard:
    """Class probabilities float32 (stop - start, classes) of one stretch of a public split."""

    start: int
    probabilities: NDArray[np.float32]
    seconds: float


class Site:
    """The hospitals of one process. A plain class: a Ray actor is a thin shell around it.

    Args:
        experiment: the whole run's. data: all images; under Ray a view of the object store.
        members: the hospitals that live here. output: run folder for hospitals' own states, None for none.
    """

    def __init__(
        self, experiment: Experiment, data: ImageData, members: Sequence[Member], output: Path | None
    ) -> None:
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        torch.set_num_threads(experiment.training.threads)
        _claim_gpu(experiment.ray.gpus_per_hospital)
        self.experiment, self.data = experiment, data
        self.clients = self._clients(members, output) if experiment.secagg.masked else {}
        self.hospitals = {member.hospital: self._hospital(member, output) for member in members}
        self.outboxes = self._outboxes()
        self._evaluator: Classifier | None = None

    def _hospital(self, member: Member, output: Path | None) -> Hospital:
        experiment, hospital = self.experiment, member.hospital
        classes = len(self.data.class_names)
        shared = poisoned_labels(experiment, hospital, self.data.train, member.train, classes)
        images = HospitalData(shared, member.train, member.validation, experiment.training)
        states = HospitalStates(output, hospital) if output is not None else None
        classifier = self._classifier(hospital)
        size = len(member.train)
        protection = protection_of(experiment, hospital, size, member.dose, output, classifier)
        client = self.clients.get(hospital)
        opened = None if client is None else client.me.answered
        return Hospital(hospital, experiment, images, classifier, states, protection, opened)

    def _clients(self, members: Sequence[Member], output: Path | None) -> Mapping[int, Client]:
        experiment, dose = self.experiment, members[0].dose
        parameters = len(to_vector(self._classifier().network))
        terms, directory = terms_of(experiment, parameters, dose), directory_of(experiment)
        refuse_thin_noise(experiment, terms, dose)
        return {one.hospital: client_of(experiment, one.hospital, terms, directory, output) for one in members}

    def _outboxes(self) -> Mapping[int, Outbox]:
        experiment = self.experiment
        if experiment.teacher is not None:
            shapes = shapes_of(self._classifier().network)
            return dict.fromkeys(self.hospitals, LowRankOutbox(experiment.federation, shapes))
        if experiment.secagg.protocol == "plain":
            return dict.fromkeys(self.hospitals, PlainOutbox())
        if experiment.secagg.protocol == "additive":
            encoding = encoding_of(experiment)
            return {hospital: AdditiveOutbox(experiment, hospital, encoding) for hospital in self.hospitals}
        return {hospital: MaskedOutbox(experiment, client) for hospital, client in self.clients.items()}

    def _classifier(self, hospital: int | None = None) -> Classifier:
        """A hospital's own module, or one that only answers."""
        return build_classifier(self.experiment, self.data, hospital)

    def fit(self, hospital: int, round: int, weights: Vector, parts: int = 1) -> tuple[Any, ...]:
        """One hospital's round: its report, and what leaves it of its update, in so many parts.

        Nothing in each place where its privacy budget does not pay for the round.
        """
        try:
            report = self.hospitals[hospital].fit(round, weights)
        except BudgetSpentError:
            return (None,) * (1 + parts)
        update = poisoned(self.experiment, hospital, round, self.hospitals[hospital].take_update())
        weight = self.experiment.federation.weight(hospital, report.images)
        parcel = self.outboxes[hospital].send(round, update, weight, parts)
        report = replace(
            report, saturated=parcel.saturated, protect_seconds=parcel.seconds, upload_bytes=parcel.bytes
        )
        told = report if self.experiment.evaluation.diagnostics else report.without_diagnostics()
        return told, *parcel.parts

    def each(self, method: str, hospitals: Sequence[int], *arguments: Any) -> dict[int, Any]:
        """What a method gives for each of some hospitals; each has its share of the arguments, in their order."""
        of_one = len(arguments) // len(hospitals)
        shares = (arguments[place * of_one : (place + 1) * of_one] for place in range(len(hospitals)))
        call = getattr(self, method)
        return {hospital: call(hospital, *share) for hospital, share in zip(hospitals, shares, strict=True)}

    def secagg(self, hospital: int, method: str, message: Any) -> Any:
        """A message of the aggregator to one hospital's SecAgg+ client: its answer, or its refusal."""
        if method not in LOST_AT:
            return Refusal(hospital, f"no message '{method}'")
        client = self.clients[hospital]
        try:
            return refuse_politely(hospital, lambda: getattr(client, method)(message))
        except OSError as error:  # of the note that a round is opened: nothing was answered
            raise FederationError(f"{client.me.answered.path}: cannot be written ({error.strerror})") from error

    def add_shares(self, hospital: int, *shares: Words) -> Words:
        """The sum of the additive shares that one hospital received."""
        return add_up(shares, len(shares[0]))

    def score_hospital(self, hospital: int, weights: Vector) -> HospitalScore | None:
        """The global model on one hospital's held-out images; None where it holds none out, or does not tell."""
        held_out = self.hospitals[hospital].images.held_out()
        if len(held_out) == 0 or not self.experiment.evaluation.diagnostics:
            return None
        begun = time.perf_counter()
        scores = score(self._probabilities(weights, held_out.images), torch.from_numpy(held_out.labels))
        seconds = time.perf_counter() - begun
        return HospitalScore(hospital, len(held_out), scores.accuracy, scores.loss, seconds)

    def score_teacher(self, hospital: int) -> tuple[float, float | None]:
        """Accuracy of one hospital's teacher on the test split, and on its held-out images, None without."""
        own = self.hospitals[hospital]
        assert isinstance(own.classifier, Distilling)
        teacher, held_out = own.classifier.teacher, own.images.held_out()
        own_accuracy = self._accuracy(teacher, held_out) if len(held_out) else None
        return self._accuracy(teacher, self.data.split("test")), own_accuracy

    def _accuracy(self, classifier: Classifier, images: ImageSet) -> float:
        labels = torch.from_numpy(images.labels.copy())
        return score(self._answers(classifier, images.images), labels).accuracy

    def evaluate(self, split: str, start: int, stop: int, weights: Vector) -> Shard:
        """The global model on images start..stop of a public split."""
        begun = time.perf_counter()
        probabilities = self._probabilities(weights, self.data.split(split).images[start:stop])
        return Shard(start, probabilities.numpy(), time.perf_counter() - begun)

    def _probabilities(self, weights: Vector, images: Pixels) -> Tensor:
        """By a module apart from the hospitals' own, whose mode and weights stay as their training left them."""
        if self._evaluator is None:
            self._evaluator = self._classifier()
        load_vector(self._evaluator.network, weights)
        return self._answers(self._evaluator, images)

    def _answers(self, classifier: Classifier, images: Pixels) -> Tensor:
        """Probabilities (images, classes), from the GPU where hospitals have one."""
        on_gpu = self.experiment.ray.gpus_per_hospital > 0
        if on_gpu:
            classifier.cuda()
        probabilities = classifier.probabilities(images, self.experiment.evaluation.batch_size)
        if on_gpu:
            classifier.cpu()
            torch.cuda.empty_cache()  # other hospitals share the card
        return probabilities

    def affords(self, hospital: int, round: int) -> bool:
        """Whether one hospital's privacy budget pays for a round, or has paid."""
        protection = self.hospitals[hospital].protection
        return protection is None or protection.ledger.affords(round)

    def spent(self, hospital: int) -> int:
        """Releases that one hospital's ledger was charged for."""
        protection = self.hospitals[hospital].protection
        return 0 if protection is None else protection.ledger.spent

    def restore(self, hospital: int, round: int) -> None:
        """One hospital takes up its state of the end of `round`."""
        self.hospitals[hospital].restore(round)

    def memory(self) -> int:
        """This process's proportional set size in bytes: private memory and its share of what is shared."""
        return int(psutil.Process(os.getpid()).memory_full_info().pss)


def refuse_thin_noise(experiment: Experiment, terms: Terms, dose: Dose | None) -> None:
    """Raise where a hospital's client would help to open a sum with less noise than was counted on.

    Raises:
        InputError: it would.
    """
    if dose is None or dose.joint is None:
        return
    honest = terms.least_survivors - experiment.privacy.colluding_hospitals
    if honest < dose.joint.counted:
        raise InputError(
            f"secagg.min_survivors: clients would open a sum of {terms.least_survivors} hospitals, {honest} of "
            f"them honest, but the noise of {dose.joint.counted} is counted on; set it to "
            f"{dose.joint.counted + experiment.privacy.colluding_hospitals}"
        )


def _claim_gpu(share: float) -> None:
    """Cap this process's share of the card's memory; PyTorch's own allocator keeps it, other memory does not."""
    if share == 0:
        return
    if not torch.cuda.is_available():
        raise InputError(f"ray.gpus_per_hospital is {share:g}, but torch finds no GPU here; set it to 0")
    torch.cuda.set_per_process_memory_fraction(share)


def build_classifier(experiment: Experiment, data: ImageData, hospital: int | None = None) -> Classifier:
    """The federation's first global model; every party builds the same from the seed.

    Args:
        hospital: whose, where it is to be trained: under `fedmic` each has a teacher of its own beside it.

    Raises:
        InputError: there is no such network, or it cannot be distilled.
    """
    given: dict[str, Any] = {
        "model": experiment.model,
        "training": experiment.training,
        "in_channels": data.channels,
        "num_classes": len(data.class_names),
        "seed": derive(experiment.seed, "weights"),
        "class_names": data.class_names,
        "size": data.size,
    }
    if hospital is None or experiment.teacher is None:
        return Classifier(**given)
    teacher_seed = derive(experiment.seed, "teacher", hospital)
    return Distilling(**given, teacher=experiment.teacher, teacher_seed=teacher_seed)
