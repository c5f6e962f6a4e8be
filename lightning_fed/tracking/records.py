"""The plain records of a run: what `rounds.jsonl` and `summary.json` hold.

Every metric stands under `released` (a function of the global models alone, which everybody receives) or
under `diagnostic` (taken from hospitals' private images: a simulator may look, a real deployment may not).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class FitReport:
    """What a hospital tells of one round. All of it but its size and steps is diagnostic.

    Args:
        hospital, round: whose and when. images: it trained on. steps: optimizer steps.
        loss: mean training loss in nats. seconds: from weights received to update ready.
        saturated: coordinates clipped for secure aggregation. protect_seconds: of quantising and masking.
    """

    hospital: int
    round: int
    images: int
    steps: int
    loss: float
    seconds: float
    saturated: int = 0
    protect_seconds: float = 0.0


@dataclass(frozen=True)
class Dropped:
    """A hospital that was lost in a round, and the stage: `before_keys` ... `at_unmasking`.

    Up to `after_shares` its update is not in the sum; after that it is.
    """

    hospital: int
    stage: str


@dataclass(frozen=True)
class HospitalScore:
    """The global model on one hospital's held-out images; diagnostic."""

    hospital: int
    images: int
    accuracy: float
    loss: float
    seconds: float


@dataclass(frozen=True)
class Released:
    """Scores of the global model on a public split.

    Args:
        split: `validation` or `test`. accuracy, balanced_accuracy, auroc, per_class_accuracy: shares.
        loss: nats.
    """

    split: str
    accuracy: float
    balanced_accuracy: float
    auroc: float | None
    loss: float
    per_class_accuracy: tuple[float | None, ...]


@dataclass(frozen=True)
class TrainedRound:
    """A round whose new global model exists and is not yet evaluated.

    Args:
        round: counted from 1. reports: of those that trained, in the cohort's order.
        train_seconds: wall time of the hospitals' training. aggregate_seconds: wall time after it.
        setup_seconds: wall time of the exchange of keys before it. cohort: the hospitals that were asked.
        counted: those whose updates are in the new model. dropped: those that were lost, and where.
        refusals: what hospitals said no to. failed: why there is no new model; None where there is one.
    """

    round: int
    reports: tuple[FitReport, ...]
    train_seconds: float
    aggregate_seconds: float
    setup_seconds: float = 0.0
    cohort: tuple[int, ...] = ()
    counted: tuple[int, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    refusals: tuple[str, ...] = ()
    failed: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> TrainedRound:
        """The round that `as_dict` gave."""
        reports = tuple(FitReport(**report) for report in values["reports"])
        dropped = tuple(Dropped(**lost) for lost in values["dropped"])
        lists = {name: tuple(values[name]) for name in ("cohort", "counted", "refusals")}
        return TrainedRound(**{**values, **lists, "reports": reports, "dropped": dropped})


@dataclass(frozen=True)
class RoundRecord:
    """One line of `rounds.jsonl`."""

    trained: TrainedRound
    released: Released
    hospitals: tuple[HospitalScore, ...]
    evaluate_seconds: float

    @property
    def round(self) -> int:
        """Counted from 1."""
        return self.trained.round

    @property
    def train_loss(self) -> float | None:
        """Mean training loss over the images of those that trained, in nats; diagnostic."""
        reports = self.trained.reports
        images = sum(report.images for report in reports)
        return sum(report.loss * report.images for report in reports) / images if images else None

    def as_dict(self) -> dict[str, Any]:
        """The line as nested plain values, each metric under its tag."""
        return {
            "round": self.round,
            "cohort": [report.hospital for report in self.trained.reports],
            "images": [report.images for report in self.trained.reports],
            "steps": [report.steps for report in self.trained.reports],
            "seconds": {
                "train": self.trained.train_seconds,
                "aggregate": self.trained.aggregate_seconds,
                "evaluate": self.evaluate_seconds,
                "setup": self.trained.setup_seconds,
                "protect": sum(report.protect_seconds for report in self.trained.reports),
            },
            "aggregation": {
                "asked": list(self.trained.cohort),
                "counted": list(self.trained.counted),
                "dropped": [asdict(lost) for lost in self.trained.dropped],
                "refusals": list(self.trained.refusals),
                "failed": self.trained.failed,
            },
            "released": asdict(self.released),
            "diagnostic": {
                "train_loss": self.train_loss,
                "fits": [
                    {
                        "hospital": report.hospital,
                        "loss": report.loss,
                        "seconds": report.seconds,
                        "saturated": report.saturated,
                    }
                    for report in self.trained.reports
                ],
                "hospitals": [
                    {"hospital": score.hospital, "accuracy": score.accuracy, "loss": score.loss}
                    for score in self.hospitals
                ],
            },
        }


@dataclass(frozen=True)
class TestScores:
    """The last global model on the test split."""

    accuracy: float
    balanced_accuracy: float
    auroc: float | None
    loss: float
    per_class_accuracy: tuple[float | None, ...]


@dataclass(frozen=True)
class HospitalAccuracy:
    """The last global model on each hospital's held-out images: worst, best, mean, best minus worst."""

    worst: float
    best: float
    mean: float
    gap: float


@dataclass(frozen=True)
class DataSummary:
    """The images and their split; sizes are public by definition."""

    name: str
    title: str
    size: int
    rebuilt: bool
    class_names: tuple[str, ...]
    images_by_hospital: tuple[int, ...]
    classes_by_hospital: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class PrivacySummary:
    """The guarantee: `epsilon` is None when there is none, and `reason` says why."""

    mechanism: str = "none"
    unit: str | None = None
    adjacency: str | None = None
    epsilon: float | None = None
    delta: float | None = None
    epsilon_replace_one: float | None = None
    epsilon_by_hospital: tuple[float, ...] | None = None
    accountant: str | None = None
    reproducible: bool | None = None
    sample_rate_by_hospital: tuple[float, ...] | None = None
    steps_by_hospital: tuple[int, ...] | None = None
    noise_multiplier_by_hospital: tuple[float, ...] | None = None
    counted_survivors_by_hospital: tuple[int, ...] | None = None
    reason: str = "privacy.mechanism is none: no noise is added and nothing is guaranteed"


@dataclass(frozen=True)
class SecAggSummary:
    """The aggregation protocol and its cost.

    Args:
        protocol: its name. degree, threshold: of SecAgg+. dropped: losses of hospitals, over all rounds.
        upload_bytes_per_hospital: of vectors, in a round. seconds: wall time of exchanging keys and of
            aggregation, and the hospitals' work of quantising and masking, over all rounds.
        dropped_by_stage: the losses by stage. failed_rounds: rounds without a new model.
        saturated: coordinates that were clipped, over all rounds and hospitals. ring_bits: of the sum.
        warning: what is wrong with an unsafe choice that was asked for.
    """

    protocol: str
    degree: int | None
    threshold: int | None
    dropped: int
    upload_bytes_per_hospital: int
    seconds: float
    dropped_by_stage: dict[str, int] = field(default_factory=dict)
    failed_rounds: int = 0
    saturated: int = 0
    ring_bits: int | None = None
    warning: str | None = None


@dataclass(frozen=True)
class Seconds:
    """Wall seconds of the run; `evaluate` is work done beside the training, summed over workers."""

    total: float
    startup: float
    train: float
    aggregate: float
    evaluate: float


@dataclass(frozen=True)
class Result:
    """What `run` returns and `summary.json` holds."""

    status: Literal["completed", "stopped_on_budget", "aborted"]
    rounds: int
    hospitals: int
    seed: int
    test: TestScores
    hospital_accuracy: HospitalAccuracy | None
    data: DataSummary
    privacy: PrivacySummary
    secagg: SecAggSummary
    seconds: Seconds
    evaluation_split: str
    output: str
    versions: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values."""
        return asdict(self)
