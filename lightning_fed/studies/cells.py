"""Many runs, each in a folder of its own: finished ones are kept, cut ones go on, and none runs twice."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_fed.arguments import read_experiment
from lightning_fed.errors import FederationError, InputError
from lightning_fed.experiment import Experiment, Ray
from lightning_fed.federation.side_by_side import side_by_side
from lightning_fed.studies.single import run_experiment
from lightning_fed.tracking.console import say
from lightning_fed.tracking.files import RunFolder


@dataclass(frozen=True)
class Cell:
    """One run.

    Args:
        name: of its folder. experiment: resolved, with `output` that folder.
    """

    name: str
    experiment: Experiment

    @property
    def folder(self) -> RunFolder:
        """Where it runs."""
        return RunFolder(Path(str(self.experiment.output)))

    @property
    def finished(self) -> bool:
        """Whether its result is there."""
        return self.folder.complete

    @property
    def log(self) -> Path:
        """What the run says."""
        return self.folder.path.with_name(f"{self.folder.path.name}.log")

    def refuse_another(self) -> None:
        """Raise where the folder holds a run of another experiment.

        Raises:
            InputError: it does.
        """
        if not self.folder.experiment.exists():
            return
        kept = read_experiment(["--config", str(self.folder.experiment)])
        if _identity(kept) != _identity(self.experiment):
            raise InputError(
                f"{self.folder.path}: holds a run with other settings; name another --output, or remove it"
            )


def _identity(experiment: Experiment) -> tuple[str, ...]:
    """All that a result depends on, the places of its files too: other images may lie in another."""
    return experiment.fingerprint, str(experiment.data.root), str(experiment.model.start)


def tell_cells(title: str, cells: Sequence[Cell], output: Path) -> None:
    """Say how many runs there are in a folder, and how many of them are finished."""
    finished = sum(cell.finished for cell in cells)
    say(f"{title}: {len(cells)} runs, {finished} finished before; folder {output}")


def list_cells(cells: Sequence[Cell], seconds: Mapping[str, float] | None = None) -> None:
    """Say the runs by name, one a line.

    Args:
        seconds: of their gradients, by name, where somebody knows.
    """
    for cell in cells:
        time = f"  {seconds[cell.name] / 60:.1f} CPU-minutes" if seconds and cell.name in seconds else ""
        say(f"{cell.name}{time}{'  (finished)' * cell.finished}")


def run_cells(cells: Sequence[Cell], settings: Ray, write: Callable[[], object]) -> list[Cell]:
    """Run what is not finished, side by side where there is room, and say how each ended; those that failed.

    Each federation works in one process: its result is the same as with a process for each hospital, and the
    machine is filled by runs.

    Args:
        settings: of the cluster; a run takes what one hospital would. write: called when a run has ended, to
            write what all that are finished give.

    Raises:
        InputError: a folder holds a run with other settings, or the cluster does not fit; nothing has run.
    """
    for cell in cells:
        cell.refuse_another()
    open_cells = [cell for cell in cells if not cell.finished]
    failed: list[Cell] = []
    if not open_cells:
        return failed
    for ended, (place, outcome) in enumerate(side_by_side(settings, run_cell, open_cells), 1):
        cell = open_cells[place]
        write()
        told = "done" if outcome is None else f"failed: {outcome}; see {cell.log}"
        say(f"{ended}/{len(open_cells)}  {cell.name}  {told}")
        if outcome is not None:
            failed.append(cell)
    if failed:
        say(f"{len(failed)} runs failed; the same command tries them again")
    return failed


def run_cell(cell: Cell) -> None:
    """Run or resume one cell in this process; what it says goes to its log.

    Raises:
        InputError, FederationError: as the run raises them.
    """
    experiment = replace(cell.experiment, ray=replace(cell.experiment.ray, enabled=False))
    cell.log.parent.mkdir(parents=True, exist_ok=True)
    with cell.log.open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            run_experiment(experiment, resume=cell.folder.experiment.exists())
        except (InputError, FederationError) as error:
            print(f"lightning-fed: {error}")
            raise
        except Exception as error:  # of the user's own network, of a full disk: the other runs go on
            traceback.print_exc()
            raise FederationError(f"{type(error).__name__}: {error}") from None
