"""What a hospital does with its images in a round: training by a Lightning Trainer, or gradients alone."""

from __future__ import annotations

import signal
import warnings
from typing import Any, Protocol, cast

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.warnings import PossibleUserWarning

from lightning_fed.data.datamodule import Batches, HospitalData
from lightning_fed.experiment import Experiment
from lightning_fed.federation.local_training import FollowSchedule, ProximalPull, TellEngine
from lightning_fed.models.classifier import Classifier, ExampleWise
from lightning_fed.models.schedule import Schedule
from lightning_fed.models.vector import Vector, to_vector


class LocalWork(Protocol):
    """A round's work on images whose plan is set, from weights that are loaded."""

    def do(self, round: int, plan: Batches, weights: Vector) -> Any:
        """What comes of it, before any protection: an update (parameters,), or clipped sums."""
        ...


class LocalTraining:
    """Optimizer steps under a Lightning Trainer, a new one for each round; the update comes of it.

    Args:
        experiment: the whole run's. classifier, images: the hospital's own.
    """

    def __init__(self, experiment: Experiment, classifier: Classifier, images: HospitalData) -> None:
        self.experiment, self.classifier, self.images = experiment, classifier, images

    def do(self, round: int, plan: Batches, weights: Vector) -> Vector:
        """The update (parameters,)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)  # of loaders without worker processes
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 under torch 2.15
            self.train(self._trainer(round, plan))
        return to_vector(self.classifier.network) - weights

    def train(self, trainer: pl.Trainer) -> None:
        """Run a trainer; Ctrl-C comes through as such."""
        interrupt = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(self.classifier, datamodule=self.images)
        except SystemExit as error:
            signal.signal(signal.SIGINT, interrupt)  # Lightning leaves it ignored
            raise KeyboardInterrupt from error  # Lightning makes an exit of Ctrl-C; it is the driver's to handle

    def _trainer(self, round: int, plan: Batches) -> pl.Trainer:
        experiment = self.experiment
        callbacks: list[pl.Callback] = [
            FollowSchedule(Schedule(experiment.training, experiment.federation.rounds), round, plan)
        ]
        if self.classifier.example_wise is not None:
            callbacks.append(TellEngine(self.classifier.example_wise, plan))
        if experiment.federation.strategy == "fedprox":
            callbacks.append(ProximalPull(experiment.federation.proximal_mu))
        on_gpu = experiment.ray.gpus_per_hospital > 0
        return pl.Trainer(
            accelerator="gpu" if on_gpu else "cpu",
            devices=1,
            precision=experiment.training.precision,
            max_epochs=1,
            callbacks=callbacks,
            deterministic="warn" if on_gpu else None,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[LightningEnvironment()],  # a hospital is one process, whatever cluster it stands in
        )


class Gathering(ExampleWise, Protocol):
    """An engine that keeps what it made of a round's images until it is asked for it."""

    def take(self) -> Any:
        """What was gathered."""
        ...


class LocalGradients:
    """Forward and backward passes at the round's weights and no step: sums of clipped gradients come of it.

    A Trainer, whose loop is one of optimizer steps, would cost more than the hospital's whole share of a round.

    Args:
        experiment: the whole run's. classifier, images: the hospital's own; its `example_wise` adds up.
    """

    def __init__(self, experiment: Experiment, classifier: Classifier, images: HospitalData) -> None:
        self.experiment, self.classifier, self.images = experiment, classifier, images

    def do(self, round: int, plan: Batches, weights: Vector) -> Any:
        """The engine's sums, one for each Poisson sample of the round."""
        classifier, engine = self.classifier, cast(Gathering, self.classifier.example_wise)
        device = "cuda" if self.experiment.ray.gpus_per_hospital > 0 else "cpu"
        half = self.experiment.training.precision == "bf16-mixed"
        classifier.to(device)
        try:
            classifier.on_train_start()
            batches = zip(plan.batches(), self.images.train_dataloader(), strict=True)
            for index, (planned, batch) in enumerate(batches):
                images, labels = (part.to(device) for part in batch)
                engine.before_batch(len(labels), planned.last)
                with torch.autocast(device, torch.bfloat16, enabled=half):
                    loss = classifier.training_step((images, labels), index)
                classifier.backward(loss)
        finally:
            classifier.to("cpu")
        return engine.take()
