"""The plain records of a run's rounds: what `rounds.jsonl` holds.

Every metric stands under `released` (a function of the global models alone, which everybody receives) or
under `diagnostic` (taken from hospitals' private images: a simulator may look, a real deployment may not).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Spending:
    """What a hospital has spent of its privacy budget, and what a simulator may see of its noise.

    Args:
        steps: releases charged so far, over all rounds.
        clipped: share of gradients (or updates) longer than the clipping norm. median_norm: before clipping.
        signal_to_noise: norm of what was clipped over that of its noise. All but the steps is diagnostic.
    """

    steps: int
    clipped: float | None = None
    median_norm: float | None = None
    signal_to_noise: float | None = None


@dataclass(frozen=True)
class FitReport:
    """What a hospital tells of one round. All of it but its size, steps and epsilon is diagnostic.

    Args:
        hospital, round: whose and when. images: it trained on. steps: optimizer steps.
        loss: mean training loss in nats. seconds: from weights received to update ready.
        saturated: coordinates clipped for secure aggregation. These three are None without diagnostics.
        protect_seconds: of quantising and masking.
        spending: of its privacy budget; None without a mechanism. upload_bytes: of its update, where they are not
            the same for all.
    """

    hospital: int
    round: int
    images: int
    steps: int
    loss: float | None
    seconds: float | None
    saturated: int | None = 0
    protect_seconds: float = 0.0
    spending: Spending | None = None
    upload_bytes: int | None = None

    def without_diagnostics(self) -> FitReport:
        """What is left where `evaluation.diagnostics` is false."""
        spending = Spending(self.spending.steps) if self.spending else None
        return replace(self, loss=None, seconds=None, saturated=None, protect_seconds=0.0, spending=spending)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> FitReport:
        """The report of `dataclasses.asdict`."""
        spending = values["spending"]
        return FitReport(**{**values, "spending": Spending(**spending) if spending else None})


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
        spent: hospitals whose privacy budget did not pay for the round. late: those that it did not wait for.
        returned: those whose process had been lost, and that came back from their own states.
        simulated_seconds: until the round closed, where speeds are simulated.
        epsilon_by_hospital: of every hospital after the round, 0 before its first; None without noise.
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
    spent: tuple[int, ...] = ()
    late: tuple[int, ...] = ()
    returned: tuple[int, ...] = ()
    simulated_seconds: float | None = None
    epsilon_by_hospital: tuple[float, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> TrainedRound:
        """The round that `as_dict` gave."""
        reports = tuple(FitReport.from_dict(report) for report in values["reports"])
        dropped = tuple(Dropped(**lost) for lost in values["dropped"])
        names = ("cohort", "counted", "refusals", "spent", "late", "returned", "epsilon_by_hospital")
        lists = {name: tuple(values[name]) for name in names if values.get(name) is not None}
        return TrainedRound(**{**values, **lists, "reports": reports, "dropped": dropped})


@dataclass(frozen=True)
class RoundRecord:
    """One line of `rounds.jsonl`.

    Args:
        trained: the round. released: its model's scores, None where it was not measured.
        hospitals: scores on their held-out images. evaluate_seconds: of measuring.
    """

    trained: TrainedRound
    released: Released | None
    hospitals: tuple[HospitalScore, ...]
    evaluate_seconds: float

    @property
    def round(self) -> int:
        """Counted from 1."""
        return self.trained.round

    @property
    def train_loss(self) -> float | None:
        """Mean training loss over the images of those that trained, in nats; diagnostic."""
        told = [(report.loss, report.images) for report in self.trained.reports if report.loss is not None]
        images = sum(share for _, share in told)
        return sum(loss * share for loss, share in told) / images if images else None

    def _epsilon(self) -> dict[str, Any]:
        """The privacy that was spent until now; it depends on no image."""
        curve = self.trained.epsilon_by_hospital
        return {} if curve is None else {"epsilon": max(curve), "epsilon_by_hospital": list(curve)}

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
                **(
                    {} if self.trained.simulated_seconds is None else {"simulated": self.trained.simulated_seconds}
                ),
            },
            "aggregation": {
                "asked": list(self.trained.cohort),
                "counted": list(self.trained.counted),
                "dropped": [asdict(lost) for lost in self.trained.dropped],
                "refusals": list(self.trained.refusals),
                "failed": self.trained.failed,
                "spent": list(self.trained.spent),
                "late": list(self.trained.late),
                "returned": list(self.trained.returned),
            },
            "released": ({} if self.released is None else asdict(self.released)) | self._epsilon(),
            "diagnostic": {
                "train_loss": self.train_loss,
                "fits": [
                    {
                        "hospital": report.hospital,
                        "loss": report.loss,
                        "seconds": report.seconds,
                        "saturated": report.saturated,
                        **({} if report.upload_bytes is None else {"upload_bytes": report.upload_bytes}),
                        **_looked_at(report.spending),
                    }
                    for report in self.trained.reports
                    if report.loss is not None
                ],
                "hospitals": [
                    {"hospital": score.hospital, "accuracy": score.accuracy, "loss": score.loss}
                    for score in self.hospitals
                ],
            },
        }


def _looked_at(spending: Spending | None) -> dict[str, float | None]:
    """What a simulator may see of a hospital's noise."""
    if spending is None:
        return {}
    return {name: getattr(spending, name) for name in ("clipped", "median_norm", "signal_to_noise")}
