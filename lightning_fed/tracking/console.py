"""What a person sees while a run goes on: a live display on a terminal, one plain line a round elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lightning_fed.tracking.records import FitReport, Released, RoundRecord
from lightning_fed.tracking.results import PrivacySummary, Result, SecAggSummary
from lightning_fed.tracking.rounding import delta_text, epsilon_text

STATUSES = {
    "completed": "completed",
    "stopped_on_budget": "stopped, as too few hospitals' privacy budgets pay for another round,",
    "aborted": "aborted",
}


class RunConsole:
    """A context manager around the rounds of a run.

    Args:
        rounds, hospitals_per_round: how much there is to do. first_round: the first to be done, from 1.
        console: where; standard output by default.
    """

    def __init__(
        self, rounds: int, hospitals_per_round: int, first_round: int = 1, console: Console | None = None
    ) -> None:
        self.rounds, self.per_round = rounds, hospitals_per_round
        self.console = console or Console(highlight=False)
        self.live = self.console.is_terminal
        self.progress = Progress(
            TextColumn("[bold]round {task.fields[round]}/" + str(rounds)),
            TextColumn("hospitals {task.fields[fitted]}/" + str(hospitals_per_round)),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[accuracy]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            expand=True,
        )
        # One step of the bar is one hospital's training, so that the time left is known early.
        self._task = self.progress.add_task(
            "",
            total=rounds * hospitals_per_round,
            completed=(first_round - 1) * hospitals_per_round,
            round=first_round,
            fitted=0,
            accuracy="",
        )
        self._fitted, self._round = 0, first_round

    def __enter__(self) -> RunConsole:
        if self.live:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.progress.stop()

    def fitted(self, report: FitReport) -> None:
        """A hospital has trained."""
        self._fitted = self._fitted + 1 if report.round == self._round else 1
        self._round = report.round
        completed = (report.round - 1) * self.per_round + self._fitted
        self.progress.update(self._task, completed=completed, round=report.round, fitted=self._fitted)

    def lost(self, told: str) -> None:
        """Hospitals are lost."""
        self.console.print(f"lost: {told}", soft_wrap=True, markup=False)

    def round_done(self, record: RoundRecord) -> None:
        """A round is evaluated."""
        if record.released is not None:
            told = f"accuracy {accuracy_text(record.released)}{_spent(record)}"
            self.progress.update(self._task, accuracy=told)
        if not self.live:
            self.console.print(round_line(record, self.rounds), soft_wrap=True)


def say(text: str) -> None:
    """A plain line on standard output."""
    Console(highlight=False).print(text, soft_wrap=True, markup=False)


def accuracy_text(scores: Released) -> str:
    """Such as `93.1 % (validation)`."""
    return f"{100 * scores.accuracy:.1f} % ({scores.split})"


def round_line(record: RoundRecord, rounds: int) -> str:
    """Such as `round  3/25  accuracy 61.2 % (validation)  loss 1.09  train 25.5 s  hospitals 10  epsilon 2.31`."""
    trained, scores = record.trained, record.released
    told = "" if scores is None else f"accuracy {accuracy_text(scores)}  loss {scores.loss:.3f}  "
    return (
        f"round {record.round:>{len(str(rounds))}}/{rounds}  {told}train {trained.train_seconds:.1f} s  "
        f"hospitals {len(trained.counted)}{_spent(record)}"
        + (f"  budget spent: {len(trained.spent)} left out" if trained.spent else "")
        + "".join(f"  {refusal}" for refusal in trained.refusals)
        + (f"  late {len(trained.late)}" if trained.late else "")
        + (f"  back {len(trained.returned)}" if trained.returned else "")
        + (f"  no new model: {trained.failed}" if trained.failed else "")
    )


def _spent(record: RoundRecord) -> str:
    """The worst hospital's epsilon until now, where there is one."""
    curve = record.trained.epsilon_by_hospital
    return f"  epsilon {epsilon_text(max(curve))}" if curve else ""


def result_lines(result: Result) -> list[str]:
    """What a finished run says of itself."""
    test = result.tested
    lines = [
        f"{STATUSES[result.status]} after {result.rounds} rounds in {result.seconds.total:.0f} s: "
        f"test accuracy {100 * test.accuracy:.2f} %, balanced {100 * test.balanced_accuracy:.2f} % "
        f"({result.data.title}, seed {result.seed})",
    ]
    if result.hospital_accuracy is not None:
        told = result.hospital_accuracy
        lines.append(
            f"hospitals' own accuracy: worst {100 * told.worst:.1f} %, best {100 * told.best:.1f} %, "
            f"mean {100 * told.mean:.1f} % (diagnostic)"
        )
    if result.teachers is not None:
        sent = result.secagg.upload_bytes_per_hospital / 1e6
        lines.append(f"hospitals' own teachers: mean {result.teachers.text}")
        lines.append(f"aggregation: low-rank updates, {sent:.2f} MB sent by a hospital in a round, in the mean")
    if result.secagg.protocol != "plain":
        lines.append(_aggregation_line(result.secagg))
    lines.append(_privacy_line(result.privacy))
    return lines


def _privacy_line(privacy: PrivacySummary) -> str:
    """Such as `privacy: epsilon 6.00 at delta 0.00019 for each image, whole run, worst hospital (prv)`."""
    if privacy.epsilon is None:
        return f"privacy: no guarantee; {privacy.reason}"
    return f"privacy: {_epsilon(privacy)}, whole run, worst hospital ({privacy.accountant})" + (
        "; simulation: the noise can be recomputed from the seed" if privacy.reproducible else ""
    )


def spent_line(privacy: PrivacySummary) -> str:
    """Such as `privacy spent until now: epsilon 2.10 at delta 0.00019 for each image, worst hospital`."""
    return f"privacy spent until now: {_epsilon(privacy)}, worst hospital"


def _epsilon(privacy: PrivacySummary) -> str:
    assert privacy.epsilon is not None
    delta = "" if privacy.delta is None else f" at delta {delta_text(privacy.delta)}"
    return f"epsilon {epsilon_text(privacy.epsilon)}{delta} for each {privacy.unit}"


def _aggregation_line(secagg: SecAggSummary) -> str:
    """Such as `aggregation: secagg_plus, degree 9, threshold 7; 3 dropped out (3 after shares); ...`."""
    agreed = "" if secagg.degree is None else f", degree {secagg.degree}, threshold {secagg.threshold}"
    stages = ", ".join(f"{count} {stage.replace('_', ' ')}" for stage, count in secagg.dropped_by_stage.items())
    return (
        f"aggregation: {secagg.protocol}{agreed}; {secagg.dropped} dropped out"
        + (f" ({stages})" if stages else "")
        + (f", rounds without a new model: {secagg.failed_rounds}" if secagg.failed_rounds else "")
        + f"; {secagg.upload_bytes_per_hospital / 1e6:.2f} MB sent by a hospital in a round, "
        f"{secagg.seconds:.1f} s of keys, masks and sums{_clipped(secagg)}"
    )


def _clipped(secagg: SecAggSummary) -> str:
    """Such as `; 12 coordinates clipped`."""
    if secagg.saturated is None or secagg.saturated_share is None:
        return ""
    told = f"; {secagg.saturated:,} coordinates clipped"
    share = secagg.saturated_share
    return told + (f" ({100 * share:.2g} %: raise secagg.clip)" if share > 0.01 else "")
