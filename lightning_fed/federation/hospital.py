"""A hospital: its images, its LightningModule, its optimizer, kept for the whole federation."""

from __future__ import annotations

import copy
import signal
import time
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.warnings import PossibleUserWarning

from lightning_fed.data.datamodule import HospitalData, Plan
from lightning_fed.experiment import Experiment
from lightning_fed.federation.local_training import FollowSchedule, ProximalPull
from lightning_fed.federation.state import HospitalStates
from lightning_fed.models.classifier import Classifier
from lightning_fed.models.schedule import Schedule
from lightning_fed.models.vector import Vector, load_vector, to_vector
from lightning_fed.seeds import derive
from lightning_fed.tracking.records import FitReport


class Hospital:
    """Trains the global model on its own images, round by round.

    The module, its optimizer and the images live as long as the hospital; a Lightning Trainer is made for
    each round. A unit test builds one without Ray.

    Args:
        number: from 0. experiment: the whole run's. images: this hospital's rows of the shared pixels.
        classifier: its own module, whose first weights do not matter.
        states: where its optimizer's state is kept, or None to keep none.
    """

    def __init__(
        self,
        number: int,
        experiment: Experiment,
        images: HospitalData,
        classifier: Classifier,
        states: HospitalStates | None = None,
    ) -> None:
        self.number, self.experiment, self.images, self.states = number, experiment, images, states
        self.classifier = classifier
        self.optimizer = classifier.configure_optimizers()
        self._fresh = copy.deepcopy(self.optimizer.state_dict())
        self.update: Vector | None = None

    def plan(self, round: int) -> Plan:
        """The batches of a round."""
        federation, training = self.experiment.federation, self.experiment.training
        return Plan(
            images=len(self.images.train),
            batch_size=training.batch_size,
            epochs=federation.local_epochs,
            steps=federation.local_steps,
            seed=self.experiment.seed,
            hospital=self.number,
            round=round,
        )

    def fit(self, round: int, weights: Vector) -> FitReport:
        """Train from the global `weights` (parameters,) for one round; the update stays in `self.update`."""
        start = time.perf_counter()
        load_vector(self.classifier.network, weights)
        self.classifier.train()  # `score` leaves it in evaluation mode, and Lightning does not change that
        if self.experiment.training.reset_optimizer_state:
            self.optimizer.load_state_dict(copy.deepcopy(self._fresh))
        self.images.plan = self.plan(round)
        torch.manual_seed(derive(self.experiment.seed, "torch", self.number, round))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)  # of loaders without worker processes
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 under torch 2.15
            self._train(self._trainer(round, self.images.plan))
        self.update = to_vector(self.classifier.network) - weights
        if self.states is not None:
            self.states.save(round, self._state())
        return FitReport(
            hospital=self.number,
            round=round,
            images=len(self.images.train),
            steps=self.images.plan.length,
            loss=float(self.classifier.loss_sum) / max(self.classifier.examples, 1),
            seconds=time.perf_counter() - start,
        )

    def take_update(self) -> Vector:
        """The last round's update (parameters,), once: the hospital keeps no copy."""
        update, self.update = self.update, None
        assert update is not None, "a hospital trains before it sends"
        return update

    def _train(self, trainer: pl.Trainer) -> None:
        interrupt = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(self.classifier, datamodule=self.images)
        except SystemExit as error:
            signal.signal(signal.SIGINT, interrupt)  # Lightning leaves it ignored
            raise KeyboardInterrupt from error  # Lightning makes an exit of Ctrl-C; it is the driver's to handle

    def _trainer(self, round: int, plan: Plan) -> pl.Trainer:
        experiment = self.experiment
        callbacks: list[pl.Callback] = [
            FollowSchedule(Schedule(experiment.training, experiment.federation.rounds), round, plan.length)
        ]
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

    def restore(self, round: int) -> None:
        """Take up the state that this hospital had at the end of `round`, the last one that it trained in.

        Raises:
            InputError: that state is missing or damaged; without it the run would end in other weights.
        """
        if self.states is None:
            return
        state = self.states.load(round)
        if state["optimizer"] is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        own = self.classifier.network.state_dict()
        for name, counter in state["counters"].items():
            own[name].copy_(counter)

    def _state(self) -> dict[str, Any]:
        """What does not travel: integer buffers, and the optimizer's state unless the next round forgets it."""
        counters = {
            name: buffer
            for name, buffer in self.classifier.network.state_dict().items()
            if not buffer.is_floating_point()
        }
        forgotten = self.experiment.training.reset_optimizer_state
        return {"optimizer": None if forgotten else self.optimizer.state_dict(), "counters": counters}
