"""`lightning-fed run`: the experiment from files and words, then the federation, its preview or its rest."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning_fed.arguments import ExperimentParser, experiment_parser, read_experiment
from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment

CHANGEABLE = ("ray", "tracking")


def run_command(words: Sequence[str]) -> int:
    """Run a federation, print its plan (`--dry_run`), or go on with one (`--resume FOLDER`).

    Raises:
        InputError: the experiment does not fit.
        FederationError: the federation could not finish.
    """
    experiment, parsed = read_experiment(_parser(), words)
    if parsed.resume is not None:
        experiment = resumed(Path(parsed.resume), words)
    # Imported after the arguments are read, so that a wrong key is told at once.
    from lightning_fed.studies.plan import plan_lines
    from lightning_fed.studies.single import resolve, resume_hint, run_experiment

    if parsed.dry_run:
        print("\n".join(plan_lines(experiment)))
        return 0
    experiment = resolve(experiment)
    try:
        run_experiment(experiment, resume=parsed.resume is not None)
    except KeyboardInterrupt:
        print(f"lightning-fed: stopped; {resume_hint(Path(str(experiment.output)))}", file=sys.stderr)
        return 130
    return 0


def _parser() -> ExperimentParser:
    parser = experiment_parser("run")
    parser.add_argument("--dry_run", action="store_true", help="print what would run, and train nothing")
    parser.add_argument("--resume", metavar="FOLDER", type=str, help="go on with the run in this folder")
    return parser


def resumed(folder: Path, words: Sequence[str]) -> Experiment:
    """The experiment of a run folder, with the overrides that cannot change its result.

    Raises:
        InputError: the folder holds no run, the run is complete, or an override would change its result.
    """
    path = folder.expanduser() / "experiment.yaml"
    if not path.exists():
        raise InputError(f"--resume {folder}: no experiment.yaml in it; name the folder of a run")
    if (path.parent / "summary.json").exists():
        raise InputError(f"--resume {folder}: that run is complete; its result is in summary.json")
    for word in words:
        section = word.lstrip("-").split("=")[0].split(".")[0]
        if word.startswith("--") and section not in (*CHANGEABLE, "resume"):
            raise InputError(f"{word.split('=')[0]} cannot change in a resumed run; only ray.* and tracking.* can")
    stored, _ = read_experiment(_parser(), ["--config", str(path), *words])
    return replace(stored, output=str(folder.expanduser().resolve()))
