"""The driver: rounds of training, aggregation, checkpoint and evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lightning_fed.data.images import ImageData
from lightning_fed.errors import DivergedError
from lightning_fed.experiment import Experiment
from lightning_fed.federation.checkpoint import Checkpoint, Checkpoints
from lightning_fed.federation.crew import Crew
from lightning_fed.federation.dispatch import Dispatcher, Job
from lightning_fed.federation.evaluation import Evaluation
from lightning_fed.federation.roster import Roster
from lightning_fed.federation.strategy import GlobalModel, choose_cohort
from lightning_fed.seeds import stream
from lightning_fed.tracking.records import FitReport, Released, RoundRecord, TrainedRound

Fitted = dict[int, tuple[FitReport, Any]]


class Driver:
    """Holds the rounds. Iterate over `rounds()` to run them.

    A round's evaluation runs beside the next round's training, so its record comes out then; its checkpoint
    is written before that training starts.

    Args:
        experiment, data, roster: the run's. model: the first global model. crew: the sites.
        checkpoints: where rounds are kept, or None.
        on_fit: called with each hospital's report as it comes in.
        on_close: called with each round when its checkpoint is in place.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: ImageData,
        roster: Roster,
        model: GlobalModel,
        crew: Crew,
        checkpoints: Checkpoints | None = None,
        on_fit: Callable[[FitReport], None] = lambda report: None,
        on_close: Callable[[TrainedRound], None] = lambda trained: None,
    ) -> None:
        self.experiment, self.data, self.roster, self.crew = experiment, data, roster, crew
        self.checkpoints, self.on_fit, self.on_close = checkpoints, on_fit, on_close
        self.dispatcher = Dispatcher(crew)
        self.model = model
        self.done: TrainedRound | None = None

    def resume(self) -> None:
        """Go on from the last whole checkpoint, if there is one; hospitals take up their own states."""
        checkpoint = self.checkpoints.last() if self.checkpoints is not None else None
        if checkpoint is None:
            return
        self.done, self.model.weights = checkpoint.trained, checkpoint.weights
        self.model.server.restore(checkpoint.server)
        last = self._last_rounds(self.done.round)
        restored: list[None] = []
        self.dispatcher.submit(
            Job(self.roster.site_of[hospital], "restore", (hospital, round), restored.append)
            for hospital, round in last.items()
        )
        self.dispatcher.run_until(lambda: len(restored) == len(last))

    def _last_rounds(self, upto: int) -> dict[int, int]:
        """The last round, up to `upto`, that each hospital trained in; cohorts are a function of the seed."""
        return {hospital: round for round in range(1, upto + 1) for hospital in self._cohort(round)}

    def rounds(self) -> Iterator[RoundRecord]:
        """Run what is left of the federation; after it `self.model` is the last global model."""
        done = self.done
        evaluation = self._evaluation(self.crew.put(self.model.weights)) if done is not None else None
        for round in range(done.round + 1 if done is not None else 1, self.experiment.federation.rounds + 1):
            fitted = self._start_round(round, evaluation)
            while len(fitted) < len(self._cohort(round)) or (evaluation and not evaluation.finished):
                self.dispatcher.step()
                if evaluation and done and evaluation.finished:
                    yield _record(done, evaluation)
                    evaluation = None
            done = self._close_round(round, fitted)
            evaluation = self._evaluation(self.crew.put(self.model.weights))
        if evaluation is not None and done is not None:
            self.dispatcher.submit(evaluation.jobs())
            self.dispatcher.run_until(lambda: evaluation.finished)
            yield _record(done, evaluation)

    def test(self) -> Released:
        """The present global model on the test split."""
        evaluation = Evaluation(
            self.experiment,
            self.data,
            self.roster,
            "test",
            self.crew.put(self.model.weights),
            hospitals=False,
        )
        self.dispatcher.submit(evaluation.jobs())
        self.dispatcher.run_until(lambda: evaluation.finished)
        return evaluation.released()

    @property
    def cohort_size(self) -> int:
        """Hospitals in each round."""
        return len(self._cohort(1))

    def _cohort(self, round: int) -> list[int]:
        return choose_cohort(self.experiment.federation, stream(self.experiment.seed, "cohort", round))

    def _evaluation(self, weights: Any) -> Evaluation:
        split = self.experiment.evaluation.split
        return Evaluation(self.experiment, self.data, self.roster, split, weights)

    def _start_round(self, round: int, evaluation: Evaluation | None) -> Fitted:
        """Queue the round: as many fits as there is room for, the last round's evaluation, the other fits."""
        fitted: Fitted = {}
        self._begun = time.perf_counter()
        weights = evaluation.weights if evaluation is not None else self.crew.put(self.model.weights)

        def arrived(result: tuple[FitReport, Any]) -> None:
            fitted[result[0].hospital] = result
            self._trained = time.perf_counter()
            self.on_fit(result[0])

        fits = [
            Job(self.roster.site_of[hospital], "fit", (hospital, round, weights), arrived)
            for hospital in self.roster.largest_first(self._cohort(round))
        ]
        slots = self.dispatcher.slots
        self.dispatcher.submit(fits[:slots])
        self.dispatcher.submit(evaluation.jobs() if evaluation is not None else [])
        self.dispatcher.submit(fits[slots:])
        return fitted

    def _close_round(self, round: int, fitted: Fitted) -> TrainedRound:
        """Aggregate in the order of hospitals, and rename the checkpoint into place."""
        begun = time.perf_counter()
        cohort = sorted(fitted)
        self.model.advance((fitted[h][0].images, self.crew.fetch(fitted[h][1])) for h in cohort)
        if not np.isfinite(self.model.weights).all():
            raise DivergedError(f"round {round}: the weights are not finite any more; lower training.lr")
        self.done = TrainedRound(
            round=round,
            reports=tuple(fitted[h][0] for h in cohort),
            train_seconds=self._trained - self._begun,
            aggregate_seconds=time.perf_counter() - begun,
        )
        if self.checkpoints is not None:
            self.checkpoints.store(Checkpoint(self.done, self.model.weights, self.model.server.state()))
        self.on_close(self.done)
        return self.done


def _record(trained: TrainedRound, evaluation: Evaluation) -> RoundRecord:
    return RoundRecord(trained, evaluation.released(), evaluation.hospital_scores(), evaluation.seconds)
