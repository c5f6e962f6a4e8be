"""One process's share of the federation: some hospitals that train in turn, and evaluation work."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from lightning_fed.data.datamodule import HospitalData
from lightning_fed.data.images import ImageData
from lightning_fed.experiment import Experiment
from lightning_fed.federation.hospital import Hospital
from lightning_fed.federation.roster import Member
from lightning_fed.federation.state import HospitalStates
from lightning_fed.models.classifier import Classifier
from lightning_fed.models.vector import Vector, load_vector
from lightning_fed.seeds import derive
from lightning_fed.tracking.records import FitReport, HospitalScore


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
        self.experiment, self.data = experiment, data
        self.hospitals = {member.hospital: self._hospital(member, output) for member in members}
        self._evaluator: Classifier | None = None

    def _hospital(self, member: Member, output: Path | None) -> Hospital:
        images = HospitalData(self.data.train, member.train, member.validation, self.experiment.training)
        states = HospitalStates(output, member.hospital) if output is not None else None
        return Hospital(member.hospital, self.experiment, images, self._classifier(), states)

    def _classifier(self) -> Classifier:
        return build_classifier(self.experiment, self.data)

    def fit(self, hospital: int, round: int, weights: Vector) -> tuple[FitReport, Vector]:
        """One hospital's round under the plain protocol: its report, and its update (parameters,) in clear."""
        report = self.hospitals[hospital].fit(round, weights)
        update = self.hospitals[hospital].update
        assert update is not None
        return report, update

    def score_hospital(self, hospital: int, weights: Vector) -> HospitalScore | None:
        """The global model on one hospital's held-out images."""
        return self.hospitals[hospital].score(weights)

    def evaluate(self, split: str, start: int, stop: int, weights: Vector) -> Shard:
        """The global model on images start..stop of a public split."""
        begun = time.perf_counter()
        if self._evaluator is None:
            self._evaluator = self._classifier()
            if self.experiment.ray.gpus_per_hospital > 0:
                self._evaluator.cuda()
        load_vector(self._evaluator.network, weights)
        images = self.data.split(split).images[start:stop]
        probabilities = self._evaluator.probabilities(images, self.experiment.evaluation.batch_size)
        return Shard(start, probabilities.numpy(), time.perf_counter() - begun)

    def restore(self, round: int) -> None:
        """Every hospital here takes up its state of the end of `round`."""
        for hospital in self.hospitals.values():
            hospital.restore(round)

    def memory(self) -> int:
        """This process's proportional set size in bytes: private memory and its share of what is shared."""
        return int(psutil.Process(os.getpid()).memory_full_info().pss)


def build_classifier(experiment: Experiment, data: ImageData) -> Classifier:
    """The federation's first global model; every party builds the same from the seed."""
    return Classifier(
        experiment.model,
        experiment.training,
        in_channels=data.channels,
        num_classes=len(data.class_names),
        seed=derive(experiment.seed, "weights"),
    )
