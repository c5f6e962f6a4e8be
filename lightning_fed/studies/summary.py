"""From the records of a run that has ended to `summary.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np

from lightning_fed.data.images import ImageData
from lightning_fed.experiment import Experiment
from lightning_fed.federation.enrolment import ring_of, unsafe_choice, upload_bytes
from lightning_fed.federation.roster import Roster
from lightning_fed.privacy.dose import Dose
from lightning_fed.studies.privacy_card import privacy_card
from lightning_fed.tracking.records import Released
from lightning_fed.tracking.results import (
    DataSummary,
    HospitalAccuracy,
    Result,
    SecAggSummary,
    Seconds,
    Status,
    TeacherScores,
    TestScores,
)
from lightning_fed.versions import versions

Lines = list[dict[str, Any]]


def summarise(
    experiment: Experiment,
    data: ImageData,
    roster: Roster,
    lines: Lines,
    test: Released | None,
    parameters: int,
    seconds: Seconds,
    spent: Sequence[int] = (),
    status: Status = "completed",
    teachers: TeacherScores | None = None,
    reason: str | None = None,
) -> Result:
    """The result of a run that has ended.

    Args:
        experiment, data, roster: the run's. lines: of `rounds.jsonl`. test: the last model on the test split, None
            where it could not come to that.
        parameters: length of an update. seconds: where the time went. spent: releases charged, by hospital.
        status: how it ended, and the reason where it was aborted.
        teachers: that stayed in the hospitals, if there are.
    """
    sizes = [len(member.train) for member in roster.members]
    return Result(
        status=status,
        rounds=len(lines),
        hospitals=experiment.federation.hospitals,
        seed=experiment.seed,
        test=None if test is None else _scores(test),
        hospital_accuracy=_hospital_accuracy(lines[-1]["diagnostic"]["hospitals"] if lines else []),
        data=summarise_data(data, roster),
        privacy=privacy_card(experiment, roster.doses, sizes, spent, [_counted(line) for line in lines]),
        secagg=summarise_secagg(experiment, lines, parameters, roster.doses[0] if roster.doses else None),
        seconds=seconds,
        evaluation_split=experiment.evaluation.split,
        output=str(experiment.output),
        versions=versions(),
        teachers=teachers,
        reason=reason,
    )


def _scores(test: Released) -> TestScores:
    scores = asdict(test)
    scores.pop("split")
    return TestScores(**scores)


def summarise_secagg(
    experiment: Experiment, lines: Lines, parameters: int, dose: Dose | None = None
) -> SecAggSummary:
    """The aggregation of a run and what it cost; see `SecAggSummary`."""
    measured = [
        fit["upload_bytes"] for line in lines for fit in line["diagnostic"]["fits"] if "upload_bytes" in fit
    ]
    stages = [lost["stage"] for line in lines for lost in line["aggregation"]["dropped"]]
    fits = [fit["saturated"] for line in lines for fit in line["diagnostic"]["fits"]]
    saturated = sum(fits) if experiment.evaluation.diagnostics else None
    plain, masked = (experiment.secagg.protocol == name for name in ("plain", "secagg_plus"))
    agreed = experiment.secagg.parameters(experiment.federation) if masked else None
    return SecAggSummary(
        protocol=experiment.secagg.protocol,
        degree=agreed.degree if agreed else None,
        threshold=agreed.threshold if agreed else None,
        dropped=len(stages),
        upload_bytes_per_hospital=(
            round(fmean(measured)) if measured else upload_bytes(experiment, parameters, dose)
        ),
        seconds=sum(line["seconds"][kind] for line in lines for kind in ("setup", "protect", "aggregate")),
        dropped_by_stage=dict(Counter(stages)),
        failed_rounds=sum(line["aggregation"]["failed"] is not None for line in lines),
        saturated=saturated,
        saturated_share=None if saturated is None else saturated / max(parameters * len(fits), 1),
        ring_bits=None if plain else ring_of(experiment, dose).ring_bits,
        warning=unsafe_choice(experiment),
    )


def sum_seconds(lines: Lines, startup: float, this_process: float, resumed_after: int) -> Seconds:
    """Where the time went; a resumed run counts the rounds that an earlier process finished.

    Args:
        lines: of `rounds.jsonl`. startup, this_process: wall seconds. resumed_after: last round done before.
    """
    train, aggregate, evaluate = (
        sum(line["seconds"][kind] for line in lines) for kind in ("train", "aggregate", "evaluate")
    )
    earlier = [line["seconds"] for line in lines if line["round"] <= resumed_after]
    before = sum(seconds["setup"] + seconds["train"] + seconds["aggregate"] for seconds in earlier)
    return Seconds(this_process + before, startup, train, aggregate, evaluate)


def summarise_data(data: ImageData, roster: Roster) -> DataSummary:
    """Sizes and classes of each hospital's training images, the held-out ones among them."""
    rows = [np.concatenate([member.train, member.validation]) for member in roster.members]
    classes = len(data.class_names)
    return DataSummary(
        name=data.name,
        title=data.title,
        size=data.size,
        rebuilt=data.rebuilt,
        class_names=data.class_names,
        images_by_hospital=tuple(len(row) for row in rows),
        classes_by_hospital=tuple(
            tuple(int(count) for count in np.bincount(data.train.labels[row], minlength=classes)) for row in rows
        ),
    )


def _counted(line: dict[str, Any]) -> list[int]:
    """The hospitals in a round's sum."""
    counted: list[int] = line["aggregation"]["counted"]
    return counted


def _hospital_accuracy(scores: Lines) -> HospitalAccuracy | None:
    if not scores:
        return None
    shares = [float(score["accuracy"]) for score in scores]
    return HospitalAccuracy(min(shares), max(shares), sum(shares) / len(shares), max(shares) - min(shares))
