"""`lightning-fed sweep FILE`: the runs of a W&B sweep file on Ray side by side, without an account."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fed.arguments import CommandParser, check_keys, read_experiment
from lightning_fed.errors import InputError
from lightning_fed.paths import user_path
from lightning_fed.report.load import read_run
from lightning_fed.report.sweep import Measured, draw_sweep, table_of
from lightning_fed.studies.cells import Cell, list_cells, run_cells, tell_cells
from lightning_fed.studies.prepare import resolve
from lightning_fed.studies.sweep_file import METHODS, Point, SweepFile, read_sweep
from lightning_fed.tracking.console import say
from lightning_fed.tracking.files import write_text_whole

EPILOG = (
    "Other words, such as --data.root FOLDER, are keys of the experiment and go to every run. Finished runs are "
    "kept: the same command goes on with the others."
)


@dataclass(frozen=True)
class Planned:
    """One run of a sweep: its parameters and its cell."""

    point: Point
    cell: Cell


def sweep_command(words: Sequence[str]) -> int:
    """Run a sweep, or print its runs (`--dry_run`): 0 done, 3 where a run failed.

    Raises:
        InputError: the file, a run's experiment, or the cluster does not fit; nothing has run.
    """
    parser = CommandParser("sweep", sweep_command.__doc__, EPILOG)
    parser.add_argument("file", help="a sweep file in W&B's form, such as configs/sweeps/privacy_budget.yaml")
    parser.add_argument("--output", help="folder of all runs; runs/<name of the sweep> if left out")
    parser.add_argument("--method", choices=METHODS, help="instead of the file's")
    parser.add_argument("--runs", type=int, help="at most so many (grid), or exactly (random)")
    parser.add_argument("--sweep_seed", type=int, default=0, help="of the draws (random)")
    parser.add_argument("--dry_run", action="store_true", help="print the runs and run nothing")
    if words and words[0].startswith("--") and words[0] not in ("--help", "--dry_run"):
        raise InputError(f"sweep: the sweep file comes first, before {words[0]}")
    own, rest = parser.parse_known_args(list(words))
    if own.runs is not None and own.runs < 1:
        raise InputError(f"sweep: --runs is {own.runs}: it must be above 0")
    check_keys(rest)
    sweep = read_sweep(own.file)
    output = user_path(own.output or f"runs/{sweep.name}").resolve()
    points = sweep.points(own.runs, own.sweep_seed, own.method)
    planned = [plan(sweep, point, number, output, rest) for number, point in enumerate(points, 1)]
    if own.dry_run:
        list_cells([one.cell for one in planned])
        return 0
    return run_sweep(sweep, planned, output)


def plan(sweep: SweepFile, point: Point, number: int, output: Path, rest: Sequence[str]) -> Planned:
    """The cell of one run: as the agent would start it, offline, with further words last.

    Raises:
        InputError: its words are no experiment.
    """
    name = "-".join([f"{number:03d}", *(f"{key.rsplit('.')[-1]}={_tame(value)}" for key, value in point.items())])
    folder = output / name[:120]
    words = ["--tracking.group", sweep.name, *sweep.words_of(point), "--tracking.wandb", "offline", *rest]
    try:
        experiment = read_experiment([*words, "--output", str(folder)])
    except InputError as error:
        raise InputError(f"{sweep.path}, run {number}: {error}") from error
    return Planned(point, Cell(folder.name, resolve(experiment)))


def _tame(value: Any) -> str:
    """A value as a part of a folder's name."""
    text = f"{value:.4g}" if isinstance(value, float) else Path(str(value)).stem
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)


def run_sweep(sweep: SweepFile, planned: Sequence[Planned], output: Path) -> int:
    """Run what is open, then write the tables and the figure of all that are finished."""
    cells = [one.cell for one in planned]
    tell_cells(f"sweep {sweep.name}", cells, output)
    failed = run_cells(cells, cells[0].experiment.ray, lambda: write_tables(planned, output))
    measured = write_tables(planned, output)
    if measured:
        say(table_of(measured))
    say(f"tables and figure: {output}/sweep.md, sweep.csv, sweep.svg")
    return 3 if failed else 0


def write_tables(planned: Sequence[Planned], output: Path) -> list[Measured]:
    """`sweep.csv` with a line for each finished run, `sweep.md` over seeds, and the figure."""
    finished = [one for one in planned if one.cell.finished]
    measured = []
    for one in finished:
        run = read_run(one.cell.folder.path)
        assert run.result is not None
        measured.append(Measured.of(one.point, run.result, run.validation))
    if not measured:
        return measured
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(measured[0].head())
    writer.writerows(one.row() for one in measured)
    write_text_whole(output / "sweep.csv", text.getvalue())
    write_text_whole(output / "sweep.md", table_of(measured) + "\n")
    picture = draw_sweep(measured, measured[0].title)
    write_text_whole(output / "sweep.svg", picture.svg)
    assert picture.png is not None
    (output / "sweep.png").write_bytes(picture.png)
    return measured
