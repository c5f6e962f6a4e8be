"""What a person sees while a run goes on: a live display on a terminal, one plain line a round elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeft

from lightning_fed.tracking.records import FitReport, Result, RoundRecord


class RunConsole:
    """A context manager around a run.

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
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeLeft(),
            console=self.console,
        )
        done = first_round - 1
        self._rounds = self.progress.add_task("rounds", total=rounds, completed=done, note="")
        self._fits = self.progress.add_task("hospitals", total=hospitals_per_round, note="training")
        self._training = first_round

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
        if report.round != self._training:
            self._training = report.round
            self.progress.reset(self._fits, total=self.per_round, note=f"training, round {report.round}")
        self.progress.advance(self._fits)

    def round_done(self, record: RoundRecord) -> None:
        """A round is evaluated."""
        self.progress.update(self._rounds, completed=record.round, note=f"accuracy {accuracy_text(record)}")
        if not self.live:
            self.console.print(round_line(record, self.rounds), soft_wrap=True)

    def say(self, text: str) -> None:
        """A plain line, above the display."""
        self.console.print(text, soft_wrap=True, markup=False)


def accuracy_text(record: RoundRecord) -> str:
    """Such as `93.1 % (validation)`."""
    return f"{100 * record.released.accuracy:.1f} % ({record.released.split})"


def round_line(record: RoundRecord, rounds: int) -> str:
    """Such as `round  3/25  accuracy 61.2 % (validation)  loss 1.090  train 25.5 s  hospitals 10`."""
    trained = record.trained
    return (
        f"round {record.round:>{len(str(rounds))}}/{rounds}  accuracy {accuracy_text(record)}  "
        f"loss {record.released.loss:.3f}  train {trained.train_seconds:.1f} s  "
        f"hospitals {len(trained.reports)}"
    )


def result_lines(result: Result) -> list[str]:
    """What a finished run says of itself."""
    lines = [
        f"{result.status} after {result.rounds} rounds in {result.seconds.total:.0f} s: "
        f"test accuracy {100 * result.test.accuracy:.2f} %, balanced {100 * result.test.balanced_accuracy:.2f} % "
        f"({result.data.title}, seed {result.seed})",
    ]
    if result.hospital_accuracy is not None:
        told = result.hospital_accuracy
        lines.append(
            f"hospitals' own accuracy: worst {100 * told.worst:.1f} %, best {100 * told.best:.1f} %, "
            f"mean {100 * told.mean:.1f} % (diagnostic)"
        )
    if result.privacy.epsilon is None:
        lines.append(f"privacy: no guarantee; {result.privacy.reason}")
    return lines
