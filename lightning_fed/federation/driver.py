"""The driver: rounds of training, aggregation, checkpoint and evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lightning_fed.data.images import ImageData
from lightning_fed.errors import DivergedError, FederationError, InputError
from lightning_fed.experiment import Experiment
from lightning_fed.federation.aggregation import open_aggregation
from lightning_fed.federation.checkpoint import Checkpoint, Checkpoints
from lightning_fed.federation.crew import Crew
from lightning_fed.federation.dispatch import Dispatcher, Job
from lightning_fed.federation.evaluation import Evaluation
from lightning_fed.federation.faults import available, dropouts
from lightning_fed.federation.holding import hold_hospital
from lightning_fed.federation.protection import epsilon_after, ledger_of
from lightning_fed.federation.reach import Reach
from lightning_fed.federation.roster import Roster
from lightning_fed.federation.strategy import GlobalModel, choose_cohort
from lightning_fed.federation.timetable import Timetable, timetable
from lightning_fed.privacy.ledger import Ledger
from lightning_fed.secagg.conductor import STAGES
from lightning_fed.secagg.errors import RoundAbortedError
from lightning_fed.seeds import stream
from lightning_fed.tracking.records import Dropped, FitReport, Released, RoundRecord, TrainedRound
from lightning_fed.tracking.results import TeacherScores, mean_of


@dataclass
class OpenRound:
    """A round under way.

    Args:
        number: counted from 1. cohort: hospitals that are asked. begun: when. trained: when the last fit came in.
        setup_seconds: of exchanging keys. waiting: hospitals that train. reports: of those that have trained.
        failed: why there will be no new model. spent: hospitals whose privacy budget is.
        late: hospitals that it did not, or will not, wait for. timetable: by the simulated clock. jobs: of those
            that train.
    """

    number: int
    cohort: list[int]
    begun: float
    trained: float = 0.0
    setup_seconds: float = 0.0
    waiting: set[int] = field(default_factory=set)
    reports: dict[int, FitReport] = field(default_factory=dict)
    failed: str | None = None
    spent: list[int] = field(default_factory=list)
    late: set[int] = field(default_factory=set)
    timetable: Timetable | None = None
    jobs: dict[int, Job] = field(default_factory=dict)

    def give_up(self, hospital: int) -> None:
        """A hospital's training is no longer waited for."""
        self.waiting.discard(hospital)
        self.late.add(hospital)


class Driver:
    """Holds the rounds. Iterate over `rounds()` to run them.

    A round's evaluation runs beside the next round's training, so its record comes out then; its checkpoint
    is written before that training starts.

    Args:
        experiment, data, roster: the run's. model: the first global model. crew: the sites.
        checkpoints: where rounds are kept, or None.
        on_fit: called with each hospital's report as it comes in.
        on_close: called with each round when its checkpoint is in place.
        on_loss: called with which hospitals are lost, and why.
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
        on_loss: Callable[[str], None] = lambda told: None,
    ) -> None:
        self.experiment, self.data, self.roster, self.crew = experiment, data, roster, crew
        self.checkpoints, self.on_fit, self.on_close, self.on_loss = checkpoints, on_fit, on_close, on_loss
        patience = experiment.ray.startup_timeout
        self.dispatcher = Dispatcher(crew, self._revive, self._left, self._returned, patience)
        self._reach = Reach(experiment, roster, self.dispatcher)
        self.model = model
        self.aggregation = open_aggregation(
            experiment, len(model.weights), roster.doses, crew, self.dispatcher.slots, self._reach
        )
        self.done: TrainedRound | None = None
        self.stopped_on_budget = False
        self._epsilons = [0.0] * experiment.federation.hospitals
        self._charged: list[int] | None = None
        self._last_rounds: dict[int, int] = {}
        self._failed_in_a_row = 0
        self._back: set[int] = set()

    def resume(self) -> None:
        """Go on from the last whole checkpoint, if there is one; hospitals take up their own states.

        Raises:
            InputError: the experiment is not the one that the checkpoint was made under, or a state is missing.
        """
        checkpoint = self.checkpoints.last() if self.checkpoints is not None else None
        if checkpoint is None:
            return
        if checkpoint.fingerprint != self.experiment.fingerprint:
            raise InputError(
                f"experiment.yaml: it was changed after round {checkpoint.round}; put the run's own settings back "
                "(a resumed run changes ray.*, tracking.* and faults.max_failed_rounds only)"
            )
        self.done, self.model.weights = checkpoint.trained, checkpoint.weights
        self.model.server.restore(checkpoint.server)
        self.model.average, self.model.rounds = checkpoint.average, checkpoint.averaged
        self._epsilons = list(checkpoint.trained.epsilon_by_hospital or self._epsilons)
        self._last_rounds = dict(checkpoint.last_rounds)
        self._failed_in_a_row = checkpoint.failed_in_a_row
        self.aggregation.outside = dict(checkpoint.outside)
        restored = self._reach("restore", {hospital: (round,) for hospital, round in self._last_rounds.items()})
        for hospital in self._last_rounds:  # one whose process is gone takes it up when it comes back
            if hospital not in restored and self.roster.site_of[hospital] not in self.dispatcher.gone:
                raise FederationError(
                    f"hospital {hospital} did not take up its state in ray.startup_timeout "
                    f"({self.experiment.ray.startup_timeout:g} s)"
                )

    def _hospitals_of(self, site: int) -> list[int]:
        return [member.hospital for member in self.roster.groups[site]]

    def _revive(self, site: int) -> Any:
        hospitals = self._hospitals_of(site)
        rounds = {one: self._last_rounds[one] for one in hospitals if one in self._last_rounds}
        return self.crew.revive(site, rounds)

    def _left(self, site: int) -> None:
        hospitals = self._hospitals_of(site)
        named = f"hospital{'s' * (len(hospitals) > 1)} {', '.join(map(str, hospitals))}"
        self.on_loss(f"{named}: {self.dispatcher.gone[site]}; called back where there is room")
        self.aggregation.absent(hospitals)

    def _returned(self, site: int) -> None:
        self._back.update(self._hospitals_of(site))

    def _await_enough(self) -> None:
        """Wait for sites that are called back where too few hospitals are there without them."""
        self.dispatcher.recall()

        def enough() -> bool:
            there = (site for site in range(len(self.roster.groups)) if site not in self.dispatcher.gone)
            return sum(len(self.roster.groups[site]) for site in there) >= self.aggregation.fewest

        self.dispatcher.run_until(lambda: enough() or not self.dispatcher.expected)

    def rounds(self) -> Iterator[RoundRecord]:
        """Run what is left of the federation; after it `self.model` is the last global model."""
        done = self.done
        evaluation = self._evaluation_of(done)
        for number in range(done.round + 1 if done is not None else 1, self.experiment.federation.rounds + 1):
            able = self._able(number)
            if len(able) < self.aggregation.fewest:
                self.stopped_on_budget = True
                evaluation = evaluation or self._evaluation()  # of the last round after all
                break
            if done is not None and evaluation is None:
                yield RoundRecord(done, None, (), 0.0)
            round = self._start_round(number, able, evaluation)
            while round.waiting or (evaluation and not evaluation.finished):
                self.dispatcher.step()
                if evaluation and done and evaluation.finished:
                    yield _record(done, evaluation)
                    evaluation = None
            done = self._close_round(round)
            evaluation = self._evaluation_of(done)
        if evaluation is not None and done is not None:
            self.dispatcher.submit(evaluation.jobs())
            self.dispatcher.run_until(lambda: evaluation.finished)
            yield _record(done, evaluation)
        self._refuse_failure()

    def _refuse_failure(self) -> None:
        """Raise unless there is a model that rounds made, and the last rounds did not fail too often."""
        done, failed = self.done, self._failed_in_a_row
        if done is None:
            return
        if failed > self.experiment.faults.max_failed_rounds:
            raise FederationError(
                f"round {done.round} gave no new model ({done.failed}), the {failed}. in a row; "
                "faults.max_failed_rounds says how many may"
            )
        if failed == done.round:
            raise FederationError(f"no round of {failed} gave a new model ({done.failed}); there is none to test")

    def test(self) -> Released:
        """The present global model on the test split."""
        evaluation = Evaluation(
            self.experiment,
            self.data,
            self.roster,
            "test",
            self.crew.put(self.model.released),
            self.dispatcher,
            hospitals=False,
        )
        self.dispatcher.submit(evaluation.jobs())
        self.dispatcher.run_until(lambda: evaluation.finished)
        return evaluation.released()

    def teachers(self) -> TeacherScores | None:
        """What the hospitals' own teachers are worth; None without teachers."""
        if self.experiment.teacher is None:
            return None
        answers = self._reach("score_teacher", dict.fromkeys(sorted(self._last_rounds), ()))
        everybody = range(self.experiment.federation.hospitals)
        test, own = ([answers[one][which] if one in answers else None for one in everybody] for which in (0, 1))
        return TeacherScores(tuple(test), tuple(own), mean_of(test), mean_of(own))

    def _evaluation_of(self, done: TrainedRound | None) -> Evaluation | None:
        """The measurement that is due after a round, if one is."""
        if done is None:
            return None
        due = done.round % self.experiment.evaluation.every == 0
        return self._evaluation() if due or done.round == self.experiment.federation.rounds else None

    def _evaluation(self) -> Evaluation:
        split = self.experiment.evaluation.split
        weights = self.crew.put(self.model.released)
        return Evaluation(self.experiment, self.data, self.roster, split, weights, self.dispatcher)

    def _able(self, number: int) -> set[int]:
        """The hospitals whose privacy budget pays for a round.

        They are asked before the first one, which an earlier driver may have had them charge. Afterwards what they
        reported is counted here, so that nobody waits for one that is late; each refuses by its own ledger.
        """
        everybody, doses = range(self.experiment.federation.hospitals), self.roster.doses or ()
        if all(dose.most_steps is None for dose in doses):
            return set(everybody)  # nobody has a budget
        if self._charged is None:
            answers = self._reach("affords", dict.fromkeys(everybody, (number,)))
            self._charged = list(self.spent())
            return {hospital for hospital in everybody if answers.get(hospital, True)}
        pairs = enumerate(zip(doses, self._charged, strict=True))
        return {hospital for hospital, (dose, charged) in pairs if dose.affords(charged, dose.steps)}

    def spent(self) -> tuple[int, ...]:
        """Releases that each hospital's ledger was charged for; of one that is gone, by its ledger on disk."""
        everybody = range(self.experiment.federation.hospitals)
        answers = self._reach("spent", dict.fromkeys(everybody, ()))
        return tuple(
            answers[hospital] if hospital in answers else self._ledger(hospital).spent for hospital in everybody
        )

    def charged(self) -> tuple[int, ...]:
        """The same by the ledgers on disk, of a federation that may not answer any more, and is ended by this.

        Who still worked could charge more: each hospital's process has ended before its ledger is read.

        Raises:
            InputError: one of them is not in the run folder, or is damaged, or a process does not end.
        """
        self.crew.close()
        counts = []
        for hospital in range(self.experiment.federation.hospitals):
            if self.experiment.ray.enabled and self.checkpoints is not None:
                hold_hospital(self.checkpoints.folder.parent, hospital).close()
            counts.append(self._ledger(hospital).spent)
        return tuple(counts)

    def _ledger(self, hospital: int) -> Ledger:
        """The ledger that a hospital which is gone has left.

        Raises:
            InputError: it is not in the run folder.
        """
        assert self.roster.doses is not None
        output = None if self.checkpoints is None else self.checkpoints.folder.parent
        ledger = ledger_of(output, hospital, self.roster.doses[hospital])
        if hospital in self._last_rounds:
            ledger.require(self._last_rounds[hospital])
        return ledger

    def _spend(self, hospital: int, steps: int) -> None:
        """Note so many charged releases and their epsilon; done here, where equal hospitals ask once."""
        if self._charged is not None:
            self._charged[hospital] = steps
        if self.experiment.privacy.guarantees and self.roster.doses is not None:
            self._epsilons[hospital] = epsilon_after(self.roster.doses[hospital], steps)

    def _start_round(self, number: int, able: set[int], evaluation: Evaluation | None) -> OpenRound:
        """Queue the round: as many fits as there is room for, the last round's evaluation, the other fits."""
        experiment = self.experiment
        self._await_enough()
        there = available(experiment, number, able)
        cohort = choose_cohort(experiment.federation, stream(experiment.seed, "cohort", number), there)
        spent = [hospital for hospital in range(experiment.federation.hospitals) if hospital not in able]
        round = OpenRound(number, cohort, time.perf_counter(), spent=spent)
        gone = dropouts(experiment, number, cohort) | dict.fromkeys([*spent, *self._gone_for_good()], STAGES[0])
        try:
            training = self.aggregation.begin(number, cohort, gone)
        except RoundAbortedError as error:
            round.failed, training = str(error), []
        round.setup_seconds = time.perf_counter() - round.begun
        round.trained = time.perf_counter()
        round.waiting = set(training)
        round.timetable = timetable(experiment, self.roster, number, training)
        same = evaluation is not None and self.model.released is self.model.weights
        weights = evaluation.weights if evaluation and same else self.crew.put(self.model.weights)
        round.jobs = {
            hospital: self._fit(round, hospital, weights) for hospital in self.roster.largest_first(training)
        }
        fits = list(round.jobs.values())
        slots = self.dispatcher.slots
        self.dispatcher.submit(fits[:slots])
        self.dispatcher.submit(evaluation.jobs() if evaluation is not None else [])
        self.dispatcher.submit(fits[slots:])
        return round

    def _gone_for_good(self) -> list[int]:
        """Hospitals without which others must not train for nothing: of `additive`, which waits for the others."""
        if self.experiment.secagg.protocol != "additive":
            return []
        sites = set(self.dispatcher.gone) - self.dispatcher.expected
        return [hospital for site in sorted(sites) for hospital in self._hospitals_of(site)]

    def _fit(self, round: OpenRound, hospital: int, weights: Any) -> Job:
        parts = self.aggregation.parts

        def arrived(result: tuple[Any, ...]) -> None:
            report: FitReport | None = result[0]
            round.waiting.discard(hospital)
            if report is None:
                round.spent.append(hospital)
                self._has_spent_all(hospital)
                return
            self._trained(report)
            if round.timetable is not None and hospital in round.timetable.late:
                round.late.add(hospital)
                return
            round.reports[hospital] = report
            round.trained = time.perf_counter()
            weight = self.experiment.federation.weight(hospital, report.images)
            self.aggregation.take(hospital, weight, result[1:])
            self.on_fit(report)
            if round.timetable is None and len(round.reports) >= self.experiment.federation.enough:
                for other in sorted(round.waiting):
                    self.dispatcher.give_up(round.jobs[other])
                    given_up(other)

        def given_up(late: int) -> None:
            round.give_up(late)
            begun = round.jobs[late] in self.dispatcher.given_up
            if begun and self._charged is not None and self.roster.doses is not None:
                self._charged[late] += self.roster.doses[late].steps  # until it tells

        def afterwards(result: tuple[Any, ...]) -> None:
            if result[0] is not None:
                self._trained(result[0])
            else:
                self._has_spent_all(hospital)

        def lost(reason: str) -> None:
            if self.experiment.secagg.protocol == "plain" and hospital not in round.late:
                raise FederationError(reason)
            round.waiting.discard(hospital)
            if self.experiment.privacy.guarantees:  # it may have charged the round before it was lost
                self._spend(hospital, self._ledger(hospital).spent)

        experiment = self.experiment
        limit = experiment.real_timeout
        return Job(
            self.roster.site_of[hospital],
            "fit",
            (hospital, round.number, weights, parts),
            arrived,
            apart=parts,
            lost=lost,
            again=not experiment.secagg.masked,
            deadline=None if limit is None else time.monotonic() + limit,
            late=lambda: given_up(hospital),
            afterwards=afterwards,
            ahead=not experiment.closes_by_the_clock,  # or it would be charged for a round that is over
        )

    def _has_spent_all(self, hospital: int) -> None:
        """It says itself that its budget does not pay for a round."""
        if self._charged is not None and self.roster.doses is not None:
            self._charged[hospital] = self.roster.doses[hospital].most_steps or self._charged[hospital]

    def _trained(self, report: FitReport) -> None:
        """A hospital has trained, in time or not: what a resumed run must know of it."""
        self._last_rounds[report.hospital] = report.round
        if report.spending is not None:
            self._spend(report.hospital, report.spending.steps)

    def _close_round(self, round: OpenRound) -> TrainedRound:
        """Aggregate in the order of hospitals, and rename the checkpoint into place.

        Raises:
            DivergedError: the new weights are not finite.
            FederationError: more rounds in a row than may fail gave no new model.
        """
        begun = time.perf_counter()
        counted = self._aggregate(round)
        self.done = TrainedRound(
            round=round.number,
            reports=tuple(round.reports[hospital] for hospital in sorted(round.reports)),
            train_seconds=round.trained - round.begun - round.setup_seconds,
            aggregate_seconds=time.perf_counter() - begun,
            setup_seconds=round.setup_seconds,
            cohort=tuple(round.cohort),
            counted=counted,
            dropped=tuple(
                Dropped(*lost) for lost in sorted(self.aggregation.lost.items()) if lost[0] not in round.spent
            ),
            refusals=tuple(self.aggregation.refusals),
            failed=round.failed,
            spent=tuple(sorted(round.spent)),
            late=tuple(sorted(round.late)),
            returned=tuple(sorted(self._back)),
            simulated_seconds=None if round.timetable is None else round.timetable.seconds,
            epsilon_by_hospital=tuple(self._epsilons) if self.experiment.privacy.guarantees else None,
        )
        if self.checkpoints is not None:
            state = self.model.server.state()
            self.checkpoints.store(
                Checkpoint(
                    self.done,
                    self.model.weights,
                    state,
                    self._last_rounds,
                    self._failed_in_a_row,
                    dict(self.aggregation.outside),
                    self.model.average,
                    self.model.rounds,
                    self.experiment.fingerprint,
                )
            )
        self._back = set()
        self.on_close(self.done)
        if self._failed_in_a_row > self.experiment.faults.max_failed_rounds:
            self._refuse_failure()
        return self.done

    def _aggregate(self, round: OpenRound) -> tuple[int, ...]:
        """Move the model by the round's mean; the hospitals that are in it."""
        if round.failed is None:
            try:
                aggregate = self.aggregation.close()
            except RoundAbortedError as error:
                round.failed = str(error)
            else:
                self._failed_in_a_row = 0
                self.model.advance(aggregate.mean, round.number)
                if not np.isfinite(self.model.weights).all():
                    raise DivergedError(
                        f"round {round.number}: the weights are not finite any more; lower training.lr"
                    )
                return aggregate.counted
        self._failed_in_a_row += 1
        return ()


def _record(trained: TrainedRound, evaluation: Evaluation) -> RoundRecord:
    return RoundRecord(trained, evaluation.released(), evaluation.hospital_scores(), evaluation.seconds)
