"""Small records of a run."""

from lightning_fed.tracking.records import Dropped, FitReport, HospitalScore, Released, RoundRecord, TrainedRound
from lightning_fed.tracking.results import (
    DataSummary,
    HospitalAccuracy,
    PrivacySummary,
    Result,
    SecAggSummary,
    Seconds,
    TestScores,
)

LOST = Dropped(1, "after_shares")


def trained(round: int) -> TrainedRound:
    reports = (FitReport(0, round, 300, 10, 0.5, 1.5), FitReport(2, round, 100, 4, 1.5, 0.5))
    return TrainedRound(round, reports, 2.0, 0.25, cohort=(0, 1, 2), counted=(0, 2), dropped=(LOST,))


def record(round: int, auroc: float | None = 0.75) -> RoundRecord:
    released = Released("validation", 0.625, 0.5, auroc, 1.25, (0.5, None))
    scores = (HospitalScore(0, 60, 0.7, 1.1, 0.1), HospitalScore(1, 30, 0.6, 1.2, 0.1))
    return RoundRecord(trained(round), released, scores, 0.5)


def result(epsilon: float | None = None) -> Result:
    return Result(
        status="completed",
        rounds=3,
        hospitals=3,
        seed=42,
        test=TestScores(0.9125, 0.85, 0.99, 0.25, (0.9, None)),
        hospital_accuracy=HospitalAccuracy(0.5, 0.9, 0.7, 0.4),
        data=DataSummary("bloodcells", "procedural blood cells", 28, False, ("a", "b"), (3, 4), ((1, 2), (2, 2))),
        privacy=PrivacySummary(epsilon=epsilon),
        secagg=SecAggSummary("plain", None, None, 0, 400, 0.5),
        seconds=Seconds(61.7, 3.0, 50.0, 1.0, 4.0),
        evaluation_split="validation",
        output="/runs/one",
    )
