"""Read a run folder: `experiment.yaml`, `rounds.jsonl`, and `summary.json` when the run has ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lightning_fed.errors import InputError
from lightning_fed.report.revive import revive
from lightning_fed.report.run import Plan, RoundLine, Run
from lightning_fed.tracking.audits import Audits
from lightning_fed.tracking.files import ABORTED, RunFolder, read_rounds
from lightning_fed.tracking.results import Result

T = TypeVar("T")


def _accept(_: object) -> None:
    """Any record."""


def read_run(path: Path) -> Run:
    """The run in folder `path`.

    Raises:
        InputError: it holds no run, or one of its files is damaged; the message names the file.
    """
    folder = RunFolder(path)
    experiment = _read_experiment(folder.experiment)
    return Run(
        experiment=experiment,
        plan=_revive(Plan, experiment, folder.experiment),
        lines=_read_lines(folder.rounds),
        result=_read_json(Result, folder.summary, _check_shapes),
        audits=_read_json(Audits, folder.audit) or Audits(),
        reconstructions=_read_text(picture) if (picture := path / "figures" / "inversion.svg").exists() else None,
    )


def _read_experiment(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file, so this is no run folder; name one that a run has written")
    text = _read_text(path)
    try:
        experiment = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # the latter for a date such as 2025-99-99
        raise InputError(f"{path}: not YAML; put back the file that the run wrote") from error
    if not isinstance(experiment, dict):
        raise InputError(f"{path}: not an experiment; put back the file that the run wrote")
    return experiment


def _read_lines(path: Path) -> tuple[RoundLine, ...]:
    try:
        records = read_rounds(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return tuple(_revive(RoundLine, record, path) for record in records)


def _read_json(kind: type[T], path: Path, check: Callable[[T], None] = _accept) -> T | None:
    """The record in a file that need not be there."""
    if not path.exists():
        return None
    text = _read_text(path)
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: not JSON; put back the file, or remove it to report what there is") from error
    return _revive(kind, values, path, check)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text; put back the file that the run wrote") from error


def _revive(kind: type[T], values: object, path: Path, check: Callable[[T], None] = _accept) -> T:
    try:
        record = revive(kind, values)
        check(record)
    except ValueError as error:
        raise InputError(f"{path}: {error}; put back the file that the run wrote") from error
    return record


def _check_shapes(result: Result) -> None:
    """Raise ValueError unless the tables of classes and hospitals have a row and a cell for each."""
    data, classes = result.data, len(result.data.class_names)
    if (result.test is None) != (result.status == ABORTED):
        raise ValueError(f"test does not fit to status, {result.status}")
    if result.test is not None and len(result.test.per_class_accuracy) != classes:
        raise ValueError(f"test.per_class_accuracy has not the length of data.class_names, {classes}")
    if any(len(row) != classes for row in data.classes_by_hospital):
        raise ValueError(f"data.classes_by_hospital has not {classes} classes in each row")
    if not len(data.classes_by_hospital) == len(data.images_by_hospital) == result.hospitals:
        raise ValueError(f"data.classes_by_hospital or images_by_hospital has not {result.hospitals} rows")
