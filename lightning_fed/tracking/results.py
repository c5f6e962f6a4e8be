"""The plain result of a run: what `run` returns and `summary.json` holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, Literal


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
