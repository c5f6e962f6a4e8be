"""`lightning-fed paper`: the tables of arXiv 2412.00687, each number beside the printed one."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_fed.arguments import CommandParser, read_experiment
from lightning_fed.errors import InputError
from lightning_fed.paths import user_path
from lightning_fed.report.load import read_run
from lightning_fed.report.paper import Number, csv_rows, draw_paper, tables
from lightning_fed.studies.cells import Cell, list_cells, run_cells, tell_cells
from lightning_fed.studies.paper_grid import BUDGETS, IMAGES, GridCell, grid
from lightning_fed.studies.plan import image_seconds
from lightning_fed.studies.prepare import resolve
from lightning_fed.tracking.console import say
from lightning_fed.tracking.files import write_text_whole

QUESTIONS = ("RQ1", "RQ2", "RQ3", "RQ4", "RQ5")
FIRST_SEED = 42
SHAPE = 28, 3, 8
"""Pixels, channels and classes of BloodMNIST."""
SHORT = 12
"""Passes over the images, of which fewer are marked."""


@dataclass(frozen=True)
class Planned:
    """A cell of the grid and its runs, one for each seed."""

    cell: GridCell
    runs: tuple[Cell, ...]


EPILOG = (
    "Other words, such as --data.root FOLDER, are keys of the experiment and go to every run. Finished runs are "
    "kept: the same command goes on with the others, at another budget in another folder."
)


def paper_command(words: Sequence[str]) -> int:
    """Run the paper's grid and write its tables and figures: 0 done, 3 where a run failed.

    Raises:
        InputError: a run's experiment or the cluster does not fit; nothing has run.
    """
    parser = CommandParser("paper", paper_command.__doc__, EPILOG)
    parser.add_argument("--budget", choices=BUDGETS, default="laptop", help="widths, rounds and seeds")
    parser.add_argument("--only", choices=QUESTIONS, help="one research question")
    parser.add_argument("--output", help="folder; paper/<budget> if left out")
    parser.add_argument("--resume", action="store_true", help="go on, which the same command does in any case")
    parser.add_argument(
        "--dry_run", action="store_true", help="print the runs and the time they take, run nothing"
    )
    own, rest = parser.parse_known_args(list(words))
    budget = BUDGETS[own.budget]
    output = user_path(own.output or f"paper/{own.budget}").resolve()
    chosen = [cell for cell in grid(budget) if own.only is None or own.only in cell.questions]
    refuse_other_privacy(rest)
    planned = shared([plan(cell, budget.seeds, output, rest) for cell in chosen])
    runs = list({run.folder.path: run for one in planned for run in one.runs}.values())
    open_runs = [run for run in runs if not run.finished]
    tell_cells(f"paper, budget {own.budget}", runs, output)
    seconds = gradient_seconds(open_runs)
    if open_runs:
        minutes = math.fsum(seconds.values()) / 60
        say(f"about {minutes:.0f} CPU-minutes of gradients are left; evaluation and pretraining come to it")
    if own.dry_run:
        list_cells(runs, seconds)
        return 0
    # The longest first, so that none is left alone at the end.
    order = sorted(runs, key=lambda run: -seconds.get(run.name, 0.0))
    failed = run_cells(order, runs[0].experiment.ray, lambda: write_paper(planned, output, rest))
    say(write_paper(planned, output, rest))
    say(f"tables and figures: {output}/table.md, table.csv")
    return 3 if failed else 0


def refuse_other_privacy(words: Sequence[str]) -> None:
    """Raise where words for every run would make the columns' names lie.

    Raises:
        InputError: one of them is a key of `privacy`.
    """
    for word in words:
        if word.startswith("--privacy."):
            key = word.split("=")[0]
            raise InputError(f"paper: {key} is each column's own; use lightning-fed run or sweep for it")


def plan(cell: GridCell, seeds: int, output: Path, rest: Sequence[str]) -> Planned:
    """The runs of a cell.

    Raises:
        InputError: its words are no experiment.
    """
    runs = []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        name = f"{cell.name}-{seed}"
        words = [*cell.words, "--seed", str(seed), "--tracking.wandb", "disabled", *rest]
        run = Cell(name, resolve(read_experiment([*words, "--output", str(output / "runs" / name)])))
        runs.append(run)
    return Planned(cell, tuple(runs))


def shared(planned: Sequence[Planned]) -> list[Planned]:
    """The same with each run once: one that stands in two tables runs under its first name."""
    first: dict[str, Cell] = {}
    return [
        replace(one, runs=tuple(first.setdefault(run.experiment.fingerprint, run) for run in one.runs))
        for one in planned
    ]


def write_paper(planned: Sequence[Planned], output: Path, overrides: Sequence[str]) -> str:
    """The tables as they are now; figures and files beside."""
    numbers = [measured(one) for one in planned]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(csv_rows(numbers))
    output.mkdir(parents=True, exist_ok=True)
    write_text_whole(output / "table.csv", text.getvalue())
    told = tables(numbers, overrides)
    write_text_whole(output / "table.md", told + "\n")
    for picture in draw_paper(numbers):
        write_text_whole(output / f"{picture.name}.svg", picture.svg)
    return told


def measured(planned: Planned) -> Number:
    """What the finished runs of a cell gave."""
    cell, finished = planned.cell, [read_run(run.folder.path) for run in planned.runs if run.finished]
    results = [run.result for run in finished if run.result is not None]
    splits = [run.last.released.split for run in finished if run.last]
    return Number(
        questions=cell.questions,
        row=cell.row,
        column=cell.column,
        printed=cell.printed,
        how=how(planned.runs[0]),
        accuracies=tuple(result.tested.accuracy for result in results),
        best=tuple(max(line.released.accuracy for line in run.scored) for run in finished if run.scored),
        split=splits[0] if splits else "",
        validation=tuple(run.validation for run in finished if run.validation is not None),
        privacy=max((result.privacy for result in results), key=lambda one: one.epsilon or 0.0, default=None),
        short=passes(planned.runs[0]) < SHORT - 0.5,
        cut=any(result.status != "completed" for result in results),
        did_not_learn=any(
            result.tested.accuracy <= _majority(result.data.classes_by_hospital) for result in results
        ),
        seconds=math.fsum(result.seconds.total for result in results),
        uploaded=tuple(result.secagg.upload_bytes_per_hospital * result.rounds for result in results),
        teachers=tuple(result.teachers for result in results if result.teachers is not None),
        title=results[0].data.title if results else "",
    )


def how(run: Cell) -> str:
    """Such as `resnet9 16, from drawn cells, 12 passes in 70 rounds`."""
    model, rounds = run.experiment.model, run.experiment.federation.rounds
    start = ", from drawn cells" if model.pretrained else ""
    teacher = run.experiment.teacher
    taught = f", taught by {teacher.name} {teacher.width}" if teacher is not None else ""
    return f"{model.name} {model.width}{start}{taught}, {passes(run):.0f} passes in {rounds} rounds"


def gradient_seconds(runs: Sequence[Cell]) -> dict[str, float]:
    """CPU-seconds of all gradients of each run by its name, from a few steps of each network timed on noise."""
    of_network: dict[str, float] = {}
    found = {}
    for run in runs:
        training, teacher = run.experiment.training, run.experiment.teacher
        images, seconds = passes(run) * IMAGES * (1 - run.experiment.data.validation), 0.0
        for model in (replace(run.experiment.model, pretrained=None), *([teacher] if teacher else [])):
            batch, key = min(training.batch_size, 64), repr((model, training.precision))
            if key not in of_network:
                of_network[key] = image_seconds(model, training, batch, *SHAPE)
            seconds += images * of_network[key]
        found[run.name] = seconds
    return found


def passes(run: Cell) -> float:
    """Over all images, in the mean."""
    federation, privacy = run.experiment.federation, run.experiment.privacy
    if federation.local_steps is None:
        return float(federation.rounds * federation.local_epochs)
    together = 1 if privacy.mechanism == "distributed" else federation.hospitals
    images = run.experiment.training.batch_size * together * federation.rounds * federation.local_steps
    return images / IMAGES


def _majority(classes_by_hospital: Sequence[Sequence[int]]) -> float:
    """The largest class's share of the images, and one percent more: what naming it always would score."""
    totals = [sum(column) for column in zip(*classes_by_hospital, strict=True)]
    return float(max(totals) / sum(totals) + 0.01)
