"""One federation from start to end: what `lightning-fed run` and `lightning_fed.run` do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_fed.errors import DivergedError, FederationError, InputError
from lightning_fed.experiment import Experiment
from lightning_fed.federation.assembly import open_crew
from lightning_fed.federation.checkpoint import Checkpoints
from lightning_fed.federation.driver import Driver
from lightning_fed.federation.enrolment import enrol, save_identities, unsafe_choice
from lightning_fed.federation.holding import hold_hospital
from lightning_fed.federation.state import HospitalStates
from lightning_fed.interrupts import stop_if_asked
from lightning_fed.models.export import save_model
from lightning_fed.models.vector import load_vector
from lightning_fed.report.load import read_run
from lightning_fed.report.page import write_report
from lightning_fed.studies.prepare import Prepared, prepare, resolve
from lightning_fed.studies.summary import sum_seconds, summarise
from lightning_fed.tracking.console import RunConsole, result_lines, say, spent_line
from lightning_fed.tracking.files import ABORTED, RunFolder, read_rounds
from lightning_fed.tracking.records import Released
from lightning_fed.tracking.results import Result, Status, TeacherScores
from lightning_fed.tracking.wandb import WandbRun


def run_experiment(experiment: Experiment, resume: bool = False) -> Result:
    """Run a federation, or with `resume` go on with the one in `experiment.output`.

    Raises:
        InputError: the experiment, a file that it names, or the cluster does not fit; nothing is written.
        FederationError: a hospital was lost; the last good checkpoint is named.
    """
    begun = time.perf_counter()
    experiment = resolve(experiment)
    folder = RunFolder(Path(str(experiment.output)))
    if resume:
        refuse_lost(folder, experiment)
    else:
        folder.refuse_existing()
    prepared = prepare(experiment)
    asked = experiment
    experiment, identities = enrol(experiment, prepared.roster, folder.path if resume else None)
    prepared = replace(prepared, experiment=experiment)
    if not resume:
        folder.create(asked.as_dict())
    processes = len(prepared.roster.groups) if experiment.ray.enabled else 1
    where = "one process" if processes == 1 else f"{processes} processes"
    say(f"{prepared.data.title}: {experiment.federation.hospitals} hospitals start in {where}")
    say(f"run folder: {folder.path}")
    for warning in _warnings(asked, experiment):
        say(f"warning: {warning}")
    with _Start(folder, new=not resume) as start:
        start.hold()
        tracker = start.enter_context(WandbRun(experiment, folder.path))
        try:
            save_identities(folder.path, identities)
            if not experiment.ray.enabled:  # a process of Ray's does so for its own hospitals
                for hospital in range(experiment.federation.hospitals):
                    start.enter_context(hold_hospital(folder.path, hospital))
            crew = start.enter_context(closing(open_crew(experiment, prepared.data, prepared.roster, folder.path)))
            prepared = replace(prepared, data=prepared.data.without_pixels())  # the sites have them: kept once
            checkpoints = Checkpoints(folder.path)
            driver = Driver(experiment, prepared.data, prepared.roster, prepared.model, crew, checkpoints)
            if resume:
                driver.resume()
                tell_resumption(driver)
        except FederationError as error:
            hint = resume_hint(folder.path) if resume else "nothing was written yet"
            raise FederationError(f"{error}; {hint}") from error
        start.done()
        if folder.forget_aborted():
            tracker.forget_aborted()
        return _run_rounds(prepared, driver, folder, tracker, begun)


def _warnings(asked: Experiment, experiment: Experiment) -> Iterator[str]:
    """What whoever started a run should know of it, that is no error."""
    unsafe = unsafe_choice(experiment)
    if unsafe is not None:
        yield unsafe
    if asked.faults.poison.hospitals:
        named = ", ".join(map(str, asked.faults.poison.hospitals))
        yield f"faults.poison: what hospitals {named} send is poisoned ({asked.faults.poison.kind})"
    if asked.privacy.guarantees and asked.closes_by_the_clock:
        yield "who is counted in a round depends on how long hospitals train, which the guarantee does not cover"
    if asked.privacy.epsilon is not None and not asked.privacy.guarantees:
        yield "privacy.epsilon is not used: nothing adds noise"


def refuse_lost(folder: RunFolder, experiment: Experiment) -> None:
    """Raise where a run that goes on has lost rounds: before its hospitals start, and take up their states.

    Raises:
        InputError: a record is damaged or missing, or no checkpoint is left of rounds that were finished.
    """
    checkpoints = Checkpoints(folder.path)
    read_run(folder.path)  # what the page will need
    last = checkpoints.last()
    if last is not None:
        folder.refuse_missing(before=last.round)
        return
    hospitals = range(experiment.federation.hospitals)
    # A hospital trains a round when the checkpoint of the round before is there.
    trained = [max(HospitalStates(folder.path, one).rounds(), default=0) - 1 for one in hospitals]
    recorded = [line["round"] for line in read_rounds(folder.rounds)]
    finished = max([*trained, *recorded])
    if finished > 0:
        raise InputError(f"{checkpoints.folder}: the checkpoint of round {finished} is missing; put it back")


def tell_resumption(driver: Driver) -> None:
    """Say where a run goes on, and which of its checkpoints were damaged."""
    checkpoints = driver.checkpoints
    for damaged in checkpoints.damaged if checkpoints is not None else []:
        say(f"warning: {damaged}")
    say(
        f"goes on after round {driver.done.round}, whose measurement and line are made again"
        if driver.done
        else "goes on from the beginning"
    )


class _Start(ExitStack):
    """What a run opens; a new run's folder goes again if it could not start."""

    def __init__(self, folder: RunFolder, new: bool) -> None:
        super().__init__()
        self.folder, self.new = folder, new

    def hold(self) -> None:
        """Hold the folder, and be the one who takes it back."""
        self.enter_context(self.folder.held())
        self.callback(self._take_back)

    def done(self) -> None:
        """The run has started: from now on its folder stays."""
        self.new = False

    def _take_back(self) -> None:
        if self.new:
            self.folder.remove_unstarted()


@dataclass(frozen=True)
class _Records:
    """What a run's summary is made of.

    Args:
        begun: when its process began. startup: seconds that it took to start. resumed_after: the last round that
            an earlier process closed.
    """

    prepared: Prepared
    driver: Driver
    folder: RunFolder
    begun: float
    startup: float
    resumed_after: int

    def summary(
        self,
        test: Released | None,
        spent: Callable[[], tuple[int, ...]],
        status: Status,
        teachers: TeacherScores | None = None,
        reason: str | None = None,
    ) -> Result:
        """The run as it is now; `spent` tells what hospitals were charged for, where there is a mechanism."""
        prepared, lines = self.prepared, read_rounds(self.folder.rounds)
        return summarise(
            prepared.experiment,
            prepared.data,
            prepared.roster,
            lines,
            test,
            len(self.driver.model.weights),
            sum_seconds(lines, self.startup, time.perf_counter() - self.begun, self.resumed_after),
            spent() if prepared.roster.doses is not None else (),
            status,
            teachers,
            reason,
        )


def _run_rounds(prepared: Prepared, driver: Driver, folder: RunFolder, tracker: WandbRun, begun: float) -> Result:
    done = driver.done.round if driver.done else 0
    records = _Records(prepared, driver, folder, begun, time.perf_counter() - begun, done)
    try:
        _train(prepared, driver, folder, tracker)
        test, teachers = driver.test(), driver.teachers()
        status: Status = "stopped_on_budget" if driver.stopped_on_budget else "completed"
        result = records.summary(test, driver.spent, status, teachers)
        load_vector(prepared.classifier.network, driver.model.released)
        save_model(prepared.classifier, folder.path / "model.ckpt")
        folder.finish(result)
    except (FederationError, InputError, OSError) as error:
        _leave_aborted(records, tracker, str(error))
        if isinstance(error, (DivergedError, InputError)):
            raise
        if isinstance(error, OSError):
            raise _unwritten(error, resume_hint(folder.path)) from error
        raise FederationError(f"{error}; {resume_hint(folder.path)}") from error
    _tell(folder, result)
    tracker.summarise(result)
    return result


def _leave_aborted(records: _Records, tracker: WandbRun, reason: str) -> None:
    """Leave the summary of a run that cannot go on by itself: what it did, what privacy it spent until then.

    Whatever hinders that must not hide why the run ended.
    """
    try:
        result = records.summary(None, records.driver.charged, ABORTED, reason=reason)
        records.folder.finish(result)
        if result.privacy.epsilon is not None:
            say(spent_line(result.privacy))
        tracker.summarise(result)
    except Exception as error:
        with contextlib.suppress(OSError):
            say(f"warning: the summary of what was spent until now is not complete ({error})")


def _unwritten(error: OSError, hint: str) -> FederationError:
    """Of a disk that is full, or of another reason why a file of the run could not be written."""
    if error.errno is None:  # none of the system's, such as a time-out
        raise error
    file = error.filename or "a file of the run"
    return FederationError(f"{file}: cannot be written ({error.strerror}); {hint}")


def _train(prepared: Prepared, driver: Driver, folder: RunFolder, tracker: WandbRun) -> None:
    """All rounds that are left, each recorded as it comes out."""
    federation = prepared.experiment.federation
    done = driver.done.round if driver.done else 0
    folder.keep_rounds(before=done)
    with RunConsole(federation.rounds, federation.cohort_size, done + 1) as console:
        driver.on_fit, driver.on_loss = console.fitted, console.lost
        for record in driver.rounds():
            folder.add_round(record)
            tracker.log_round(record)
            console.round_done(record)
            stop_if_asked()


def _tell(folder: RunFolder, result: Result) -> None:
    """Write the page of a run that is complete, and say what came out."""
    try:
        page = write_report(folder.path)
    except (OSError, InputError) as error:
        told = f"the run is complete, without its page ({error})"
        raise FederationError(f"{told}; write it by: lightning-fed report {folder.path}") from error
    for line in [*result_lines(result), f"report: {page}"]:
        say(line)


def resume_hint(output: Path) -> str:
    """What is there of a run that was cut short, and the line that goes on with it."""
    if not RunFolder(output).experiment.exists():
        return "nothing was written yet"
    last = Checkpoints(output).rounds()
    where = f"the last good checkpoint is of round {last[-1]}" if last else "no round was finished"
    return f"{where}; go on with: lightning-fed run --resume {output}"
