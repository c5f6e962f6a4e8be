"""The experiment as a whole: its sections, what holds between them, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_fed.errors import InputError
from lightning_fed.experiment.faults import Faults
from lightning_fed.experiment.federation import Federation
from lightning_fed.experiment.guarantees import check_privacy
from lightning_fed.experiment.images import Data
from lightning_fed.experiment.network import Model
from lightning_fed.experiment.privacy import Privacy
from lightning_fed.experiment.rules import check_faults, check_fedmic, check_robustness, check_secagg
from lightning_fed.experiment.running import Evaluation, Ray, Tracking
from lightning_fed.experiment.secagg import SecAgg
from lightning_fed.experiment.training import Training

GREATEST_SEED = 2**63 - 1
CHANGEABLE = ("ray", "tracking", "faults.max_failed_rounds")
PLACES = ("output", "data.root", "data.download", "model.start")


def may_change(key: str) -> bool:
    """Whether a key, or a section, may change when a run goes on: no weight depends on it."""
    return key != "ray.gpus_per_hospital" and f"{key}.".startswith(tuple(f"{name}." for name in CHANGEABLE))


@dataclass(frozen=True)
class Experiment:
    """One federation, from its images to its report.

    Args:
        data: images and their split. model: network. training: local training. federation: rounds.
        privacy: mechanism. secagg: aggregation protocol. faults: on purpose. evaluation: measurement.
        ray: placement. tracking: W&B.
        seed: of every random stream but the split's.
        output: the run's folder; null makes a new one under `runs/`.
    """

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    federation: Federation = field(default_factory=Federation)
    privacy: Privacy = field(default_factory=Privacy)
    secagg: SecAgg = field(default_factory=SecAgg)
    faults: Faults = field(default_factory=Faults)
    evaluation: Evaluation = field(default_factory=Evaluation)
    ray: Ray = field(default_factory=Ray)
    tracking: Tracking = field(default_factory=Tracking)
    seed: int = 42
    output: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= GREATEST_SEED:
            raise InputError(f"seed is {self.seed}: it must lie between 0 and {GREATEST_SEED}")
        for check in (check_secagg, check_fedmic, check_robustness, check_privacy, check_faults):
            check(self)

    @property
    def teacher(self) -> Model | None:
        """The network that stays in each hospital under `fedmic`."""
        if self.federation.strategy != "fedmic":
            return None
        distillation = self.federation.distillation
        return Model(
            name=distillation.teacher,
            width=distillation.teacher_width,
            test_time_augmentation=self.model.test_time_augmentation,
        )

    @property
    def counted_survivors(self) -> int:
        """Hospitals whose noise is in every opened sum and that do not collude."""
        return self.secagg.least_survivors(self.federation) - self.privacy.colluding_hospitals

    @property
    def real_timeout(self) -> float | None:
        """Seconds that a round's work may take by this machine's clock; None where a simulated one counts."""
        simulated = self.faults.stragglers.seconds_per_image is not None
        return None if simulated else self.federation.round_timeout

    @property
    def closes_by_the_clock(self) -> bool:
        """Whether how long hospitals really train decides whose updates a round counts."""
        simulated = self.faults.stragglers.seconds_per_image is not None
        return not simulated and (self.federation.round_timeout is not None or self.federation.over_selection > 1)

    @property
    def fingerprint(self) -> str:
        """A digest of all that a run's result depends on, so that a run goes on with the settings that it had."""
        sections = self.as_dict()
        values = {
            f"{name}.{key}": value
            for name, section in sections.items()
            if isinstance(section, dict)
            for key, value in section.items()
        } | {name: value for name, value in sections.items() if not isinstance(value, dict)}
        kept = {key: value for key, value in values.items() if not may_change(key) and key not in PLACES}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """The experiment as nested plain values, in the order of `experiment.yaml`."""
        return asdict(self)
