"""`lightning-fed run`: the experiment from files and words, then the federation, its preview or its rest."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_fed import interrupts
from lightning_fed.arguments import read_experiment
from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment, may_change
from lightning_fed.paths import user_path
from lightning_fed.tracking.files import RunFolder

SWITCHES = "--dry_run prints what would run and trains nothing; --resume FOLDER goes on with the run in FOLDER"


@dataclass(frozen=True)
class Switches:
    """The words of `run` that are no keys of the experiment, and the words that are left."""

    dry_run: bool
    resume: str | None
    rest: tuple[str, ...]


def run_command(words: Sequence[str]) -> int:
    """Run a federation, print its plan (`--dry_run`), or go on with one (`--resume FOLDER`).

    Raises:
        InputError: the experiment does not fit.
        FederationError: the federation could not finish.
    """
    switches = read_switches(words)
    if switches.resume is None:
        experiment = read_experiment(switches.rest, epilog=SWITCHES)
    else:
        experiment = resumed(user_path(switches.resume), switches.rest)
    # Imported after the arguments are read, so that a wrong key is told at once.
    from lightning_fed.studies.plan import plan_lines
    from lightning_fed.studies.prepare import resolve
    from lightning_fed.studies.single import resume_hint, run_experiment

    if switches.dry_run:
        if switches.resume is None and experiment.output is not None:
            RunFolder(user_path(experiment.output).resolve()).refuse_existing()
        print("\n".join(plan_lines(experiment)))
        return 0
    experiment = resolve(experiment)
    try:
        with interrupts.taken_as_such():
            run_experiment(experiment, resume=switches.resume is not None)
    except KeyboardInterrupt:
        print(f"lightning-fed: stopped; {resume_hint(Path(str(experiment.output)))}", file=sys.stderr)
        return 130
    return 0


def read_switches(words: Sequence[str]) -> Switches:
    """Take `--dry_run` and `--resume FOLDER` (or `--resume=FOLDER`) out of the words.

    Raises:
        InputError: `--resume` names no folder.
    """
    rest = [word for word in words if word != "--dry_run"]
    resume = None
    for position, word in enumerate(rest):
        if word == "--resume" or word.startswith("--resume="):
            taken = 1 if "=" in word else 2
            resume = word.removeprefix("--resume=") if taken == 1 else "".join(rest[position + 1 : position + 2])
            if not resume or resume.startswith("--"):
                raise InputError("--resume: name the folder of a run after it")
            rest = [*rest[:position], *rest[position + taken :]]
            break
    return Switches("--dry_run" in words, resume, tuple(rest))


def resumed(folder: Path, words: Sequence[str]) -> Experiment:
    """The experiment of a run folder, with the overrides that cannot change its result.

    Raises:
        InputError: the folder holds no run, the run is complete, or an override would change its result.
    """
    path = folder / "experiment.yaml"
    if not path.exists():
        raise InputError(f"--resume {folder}: no experiment.yaml in it; name the folder of a run")
    if RunFolder(folder).complete:
        raise InputError(f"--resume {folder}: that run is complete; its result is in summary.json")
    for word in words:
        key = word.lstrip("-").split("=")[0]
        if word.startswith("--") and not may_change(key):
            raise InputError(
                f"--{key} cannot change in a resumed run; only ray.*, tracking.* and faults.max_failed_rounds can"
            )
    return replace(read_experiment(["--config", str(path), *words]), output=str(folder.resolve()))
