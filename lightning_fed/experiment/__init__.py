"""The typed experiment: one frozen dataclass for each subsystem, validated on construction.

`Experiment()` is `configs/quickstart.yaml`; a test keeps the two equal.
"""

from lightning_fed.experiment.faults import Availability, Dropout, Faults, Loss, Poison, Stragglers
from lightning_fed.experiment.federation import Distillation, Federation
from lightning_fed.experiment.images import Data
from lightning_fed.experiment.network import Model
from lightning_fed.experiment.privacy import Privacy
from lightning_fed.experiment.running import Evaluation, Ray, Tracking
from lightning_fed.experiment.secagg import SecAgg
from lightning_fed.experiment.training import Training
from lightning_fed.experiment.whole import PLACES, Experiment, may_change

__all__ = [
    "PLACES",
    "Availability",
    "Data",
    "Distillation",
    "Dropout",
    "Evaluation",
    "Experiment",
    "Faults",
    "Federation",
    "Loss",
    "Model",
    "Poison",
    "Privacy",
    "Ray",
    "SecAgg",
    "Stragglers",
    "Tracking",
    "Training",
    "may_change",
]
