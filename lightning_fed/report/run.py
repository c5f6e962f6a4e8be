"""A run as the report sees it: the plan, a line for each round, and the summary when it is finished."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from lightning_fed.tracking.audits import Audits
from lightning_fed.tracking.records import Released
from lightning_fed.tracking.results import Result


@dataclass(frozen=True)
class Fit:
    """One hospital's training in one round: mean loss in nats, seconds, and what clipping did; diagnostic."""

    hospital: int
    loss: float
    seconds: float
    clipped: float | None = None
    median_norm: float | None = None
    signal_to_noise: float | None = None


@dataclass(frozen=True)
class Score:
    """The global model on one hospital's held-out images; diagnostic."""

    hospital: int
    accuracy: float
    loss: float | None = None


@dataclass(frozen=True)
class Diagnostic:
    """What only a simulator sees of a round."""

    train_loss: float | None
    fits: tuple[Fit, ...] = ()
    hospitals: tuple[Score, ...] = ()


@dataclass(frozen=True)
class RoundSeconds:
    """Wall seconds of training, aggregation and keys; `evaluate` ran beside the next round's training."""

    train: float
    aggregate: float
    evaluate: float
    setup: float = 0.0


@dataclass(frozen=True)
class RoundAggregation:
    """Whose updates are in the round's model, and why there is none if there is none."""

    counted: tuple[int, ...] = ()
    failed: str | None = None


@dataclass(frozen=True)
class RoundScores(Released):
    """Scores on a public split, and the privacy spent until then: of the worst hospital, and of each.

    A round that was not measured (`evaluation.every`) has no split.
    """

    split: str = ""
    accuracy: float = math.nan
    balanced_accuracy: float = math.nan
    auroc: float | None = None
    loss: float = math.nan
    per_class_accuracy: tuple[float | None, ...] = ()
    epsilon: float | None = None
    epsilon_by_hospital: tuple[float, ...] = ()


@dataclass(frozen=True)
class RoundLine:
    """One line of `rounds.jsonl`."""

    round: int
    cohort: tuple[int, ...]
    images: tuple[int, ...]
    seconds: RoundSeconds
    released: RoundScores
    aggregation: RoundAggregation = field(default_factory=RoundAggregation)
    diagnostic: Diagnostic = field(default_factory=lambda: Diagnostic(None))

    @property
    def accuracies(self) -> tuple[float, ...]:
        """The global model's accuracy at each hospital that was looked at; diagnostic."""
        return tuple(score.accuracy for score in self.diagnostic.hospitals)


@dataclass(frozen=True)
class PlannedData:
    """`data` of the experiment."""

    name: str


@dataclass(frozen=True)
class PlannedFederation:
    """`federation` of the experiment."""

    hospitals: int
    rounds: int


@dataclass(frozen=True)
class PlannedPrivacy:
    """`privacy` of the experiment."""

    mechanism: str = "none"
    epsilon: float | None = None
    delta: float | None = None
    max_grad_norm: float | None = None


@dataclass(frozen=True)
class Plan:
    """What the report needs of `experiment.yaml`."""

    data: PlannedData
    federation: PlannedFederation
    seed: int
    privacy: PlannedPrivacy = PlannedPrivacy()


@dataclass(frozen=True)
class Run:
    """A run folder, read.

    Args:
        experiment: the resolved experiment as it was written. plan: what the report needs of it.
        lines: the finished rounds. result: None while the run is unfinished. audits: of it.
        reconstructions: an audit's SVG of the images that it found.
    """

    experiment: dict[str, Any]
    plan: Plan
    lines: tuple[RoundLine, ...]
    result: Result | None
    audits: Audits = field(default_factory=Audits)
    reconstructions: str | None = None

    @property
    def title(self) -> str:
        """What the images are; it says so itself when they are rebuilt ones."""
        return self.result.data.title if self.result else self.plan.data.name

    @property
    def hospitals(self) -> int:
        """How many take part."""
        return self.result.hospitals if self.result else self.plan.federation.hospitals

    @property
    def scored(self) -> tuple[RoundLine, ...]:
        """The rounds whose models were measured."""
        return tuple(line for line in self.lines if line.released.split)

    @property
    def last(self) -> RoundLine | None:
        """The newest round whose model was measured."""
        return self.scored[-1] if self.scored else None

    @property
    def validation(self) -> float | None:
        """The last model's accuracy on the validation split, where it was measured there."""
        scores = self.last.released if self.last else None
        return scores.accuracy if scores and scores.split == "validation" else None

    @property
    def images(self) -> dict[int, int]:
        """How many images each hospital has, or trained on in its latest round while the run is unfinished."""
        if self.result:
            return dict(enumerate(self.result.data.images_by_hospital))
        return {who: count for line in self.lines for who, count in zip(line.cohort, line.images, strict=False)}

    @property
    def untested(self) -> bool:
        """Whether there are no test scores: the run is unfinished, or was aborted."""
        return self.result is None or self.result.test is None

    @property
    def fits(self) -> dict[int, Fit]:
        """Each hospital's latest training; diagnostic."""
        return {fit.hospital: fit for line in self.lines for fit in line.diagnostic.fits}

    @property
    def paid(self) -> tuple[RoundLine, ...]:
        """The rounds that tell what privacy was spent until then."""
        return tuple(line for line in self.lines if line.released.epsilon is not None)

    @property
    def class_accuracy(self) -> tuple[str, tuple[float | None, ...]]:
        """The split that the newest scores were taken on, and the accuracy of each class there; released."""
        if self.result and self.result.test:
            return "test", self.result.test.per_class_accuracy
        return (self.last.released.split, self.last.released.per_class_accuracy) if self.last else ("", ())

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the data, or numbers while the run is unfinished."""
        if self.result:
            return self.result.data.class_names
        return tuple(f"class {number}" for number in range(len(self.class_accuracy[1])))
