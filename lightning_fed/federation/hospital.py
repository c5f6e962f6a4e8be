"""A hospital: its images, its LightningModule, its optimizer, kept for the whole federation."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch

from lightning_fed.data.datamodule import Batches, HospitalData, Plan
from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment
from lightning_fed.federation.local_work import LocalGradients, LocalTraining, LocalWork
from lightning_fed.federation.protection import Permit, Protection
from lightning_fed.federation.state import HospitalStates
from lightning_fed.models.classifier import Classifier
from lightning_fed.models.vector import Vector, load_vector
from lightning_fed.secagg.answers import AnsweredRounds
from lightning_fed.seeds import derive
from lightning_fed.tracking.records import FitReport


class Hospital:
    """Trains the global model on its own images, round by round.

    The module, its optimizer and the images live as long as the hospital. A unit test builds one without Ray.

    Args:
        number: from 0. experiment: the whole run's. images: this hospital's rows of the shared pixels.
        classifier: its own module, whose first weights do not matter.
        states: where its optimizer's state is kept, or None to keep none.
        protection: its differential privacy, or None without; made before, as it wraps the optimizer.
        opened: the rounds that it helped to open, None without SecAgg+.
    """

    def __init__(
        self,
        number: int,
        experiment: Experiment,
        images: HospitalData,
        classifier: Classifier,
        states: HospitalStates | None = None,
        protection: Protection | None = None,
        opened: AnsweredRounds | None = None,
    ) -> None:
        self.number, self.experiment, self.images, self.states = number, experiment, images, states
        self.classifier, self.protection, self.opened = classifier, protection, opened
        kind = LocalGradients if experiment.privacy.mechanism == "distributed" else LocalTraining
        self.work: LocalWork = kind(experiment, classifier, images)
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
        """Train from the global `weights` (parameters,) for one round; the update stays in `self.update`.

        Under a privacy mechanism the round is charged before it is trained, and what leaves is noted before it
        leaves. Where a round that is done again does not repeat what left for it before, to the bit, it is
        charged and trained anew, with other noise.

        Raises:
            BudgetSpentError: the hospital's privacy budget does not pay for the round.
        """
        start = time.perf_counter()
        if self.experiment.training.reset_optimizer_state:
            self.optimizer.load_state_dict(copy.deepcopy(self._fresh))
        before = copy.deepcopy(self._state()) if self.protection is not None else {}
        released, permit = self._train_once(round, weights, before)
        if self.protection is not None and permit is not None and not self.protection.release(permit, released):
            self._take_up(before)
            released, permit = self._train_once(round, weights, before, anew=True)
            assert permit is not None
            self.protection.release(permit, released)
        self.update = released
        if self.states is not None:
            self.states.save(round, self._state() | self._marks())
        assert self.images.plan is not None
        return FitReport(
            hospital=self.number,
            round=round,
            images=len(self.images.train),
            steps=self.images.plan.length,
            loss=float(self.classifier.loss_sum) / max(self.classifier.examples, 1),
            seconds=time.perf_counter() - start,
            spending=self.protection.spending() if self.protection is not None else None,
        )

    def _train_once(
        self, round: int, weights: Vector, state: dict[str, Any], anew: bool = False
    ) -> tuple[Vector, Permit | None]:
        """What is let out of one round's update, and what paid for it."""
        load_vector(self.classifier.network, weights)
        self.classifier.train()  # `score` leaves it in evaluation mode, and Lightning does not change that
        plan: Batches = self.plan(round)
        seed = derive(self.experiment.seed, "torch", self.number, round)
        permit = None
        if self.protection is not None:
            permit = self.protection.begin(round, weights, state, anew)
            plan = self.protection.plan(permit) or plan
            # Of a network's own dropout: the server may not know it.
            seed = int(permit.stream("torch").words(1)[0] >> 1)
            self.protection.prepare(permit)
        self.images.plan = plan
        torch.manual_seed(seed)
        made = self.work.do(round, plan, weights)
        if self.protection is not None and permit is not None:
            made = self.protection.protect(permit, made)
        return made, permit

    def take_update(self) -> Vector:
        """The last round's update (parameters,), once: the hospital keeps no copy."""
        update, self.update = self.update, None
        assert update is not None, "a hospital trains before it sends"
        return update

    def restore(self, round: int) -> None:
        """Take up the state that this hospital had at the end of `round`, the last one that it trained in.

        Raises:
            InputError: that state, the ledger's charge of that round or of a later one, a round that was opened
                before it, or the noise key is missing, damaged or another.
        """
        if self.states is None:
            return
        for later, state in self.states.later(round):
            self._require(later, state)
        state = self.states.load(round)
        self._require(round, state)
        self._take_up(state)

    def _marks(self) -> dict[str, Any]:
        """What a state says of the hospital's other files, so that no others are put in their place."""
        opened = {} if self.opened is None else {"opened": len(self.opened)}
        return opened | ({} if self.protection is None else self.protection.marks())

    def _require(self, round: int, state: dict[str, Any]) -> None:
        """Raise `InputError` unless the hospital's other files are those of a round's state, or further on."""
        if self.protection is not None:
            self.protection.require(round, state)
        noted = state.get("opened", 0)
        if self.opened is not None and len(self.opened) < noted:
            raise InputError(
                f"{self.opened.path}: {len(self.opened)} opened rounds where {noted} were opened before round "
                f"{round}; put it back"
            )

    def _take_up(self, state: dict[str, Any]) -> None:
        kept = state["optimizer"]
        self.optimizer.load_state_dict(copy.deepcopy(self._fresh) if kept is None else kept)
        self.classifier.take_home(state)

    def _state(self) -> dict[str, Any]:
        """What does not travel: the module's own, and the optimizer's state unless the next round forgets it."""
        forgotten = self.experiment.training.reset_optimizer_state
        return {"optimizer": None if forgotten else self.optimizer.state_dict(), **self.classifier.at_home()}
