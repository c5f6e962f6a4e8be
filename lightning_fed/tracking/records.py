"""The plain records of a run: what `rounds.jsonl` and `summary.json` hold.

Every metric stands under `released` (a function of the global models alone, which everybody receives) or
under `diagnostic` (taken from hospitals' private images: a simulator may look, a real deployment may not).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any, Literal


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


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of those that there are, None of none."""
    found = [value for value in values if value is not None]
    return fmean(found) if found else None


@dataclass(frozen=True)
class TeacherScores:
    """Models that never left their hospitals, at the end of the run; diagnostic.

    Args:
        test_by_hospital: accuracy of each hospital's teacher on the test split; None of a hospital that never
            trained or is gone. own_by_hospital: on its held-out images, None also where it holds none out.
        test_mean, own_mean: over those that there are.
    """

    test_by_hospital: tuple[float | None, ...]
    own_by_hospital: tuple[float | None, ...]
    test_mean: float | None
    own_mean: float | None

    @property
    def text(self) -> str:
        """Such as `94.1 % on the test split, 95.0 % on their own images (diagnostic)`."""
        told = [
            f"{100 * mean:.1f} % on {where}"
            for mean, where in ((self.test_mean, "the test split"), (self.own_mean, "their own images"))
            if mean is not None
        ]
        return f"{', '.join(told) or 'none is left'} (diagnostic)"


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
    """The guarantee: `epsilon` is None when there is none, and `reason` says why.

    Args:
        mechanism, unit, adjacency: what is protected. epsilon, delta: of the worst hospital, for the whole run.
        epsilon_replace_one: where an image, or a hospital, is replaced by any other instead of blanked.
        epsilon_zero_out: where it is blanked. epsilon_by_hospital: at `delta`. accountant: that enforced.
        epsilon_rdp, epsilon_pld: by other accountants, the greatest of all hospitals. strict_delta: one in ten
            times the images of all hospitals. epsilon_strict_delta: at that. reproducible: whether the seed gives
            the noise away.
        sample_rate_by_hospital, steps_by_hospital, noise_multiplier_by_hospital, counted_survivors_by_hospital:
            what was charged; enough to compute epsilon with another library. The multiplier is of a hospital's own
            noise, and the sum carries it times the root of the counted survivors (1 but under `distributed`).
        distribution: of integer noise. epsilon_realised: with the noise of those that were in the sums.
        tuning_runs: from which the settings were chosen. epsilon_tuned: of releasing the best of as many, in the
            mean of their random number; None for one.
        epsilon_all_survivors: if all hospitals had been in every sum, and none colluded. budget: epsilon that was
            asked for. max_grad_norm: C.
        starts_from: weights that the run started from, which the guarantee does not cover.
        features: what the network knew that no image of a hospital taught it, at no cost in privacy; also told
            without a mechanism.
    """

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
    tuning_runs: int = 1
    epsilon_tuned: float | None = None
    distribution: str | None = None
    epsilon_realised: float | None = None
    epsilon_all_survivors: float | None = None
    epsilon_zero_out: float | None = None
    epsilon_rdp: float | None = None
    epsilon_pld: float | None = None
    strict_delta: float | None = None
    epsilon_strict_delta: float | None = None
    budget: float | None = None
    max_grad_norm: float | None = None
    starts_from: str | None = None
    features: str | None = None
    reason: str | None = "privacy.mechanism is none: no noise is added and nothing is guaranteed"


@dataclass(frozen=True)
class SecAggSummary:
    """The aggregation protocol and its cost.

    Args:
        protocol: its name. degree, threshold: of SecAgg+. dropped: losses of hospitals, over all rounds.
        upload_bytes_per_hospital: of vectors, in a round; the mean where they differ. seconds: wall time of
            exchanging keys and of aggregation, and the hospitals' work of quantising and masking, over all rounds.
        dropped_by_stage: the losses by stage. failed_rounds: rounds without a new model.
        saturated: coordinates that were clipped, over all rounds and hospitals; saturated_share: of all that were
            sent; both None where `evaluation.diagnostics` is false. ring_bits: of the sum.
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
    saturated: int | None = 0
    saturated_share: float | None = 0.0
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


Status = Literal["completed", "stopped_on_budget", "aborted"]


@dataclass(frozen=True)
class Result:
    """What `run` returns and `summary.json` holds.

    Args:
        status: how it ended. test: None of an aborted run, whose last model is tested when the run has gone on.
        reason: why it was aborted.
    """

    status: Status
    rounds: int
    hospitals: int
    seed: int
    test: TestScores | None
    hospital_accuracy: HospitalAccuracy | None
    data: DataSummary
    privacy: PrivacySummary
    secagg: SecAggSummary
    seconds: Seconds
    evaluation_split: str
    output: str
    versions: dict[str, str] = field(default_factory=dict)
    teachers: TeacherScores | None = None
    reason: str | None = None

    @property
    def tested(self) -> TestScores:
        """The test scores of a run that came to its end."""
        assert self.test is not None
        return self.test

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values."""
        return asdict(self)
