"""Simulate hospitals that train one image model together, with privacy that really holds.

>>> from lightning_fed import Experiment, run  # doctest: +SKIP
>>> result = run(Experiment())  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_fed.errors import FederationError, InputError
from lightning_fed.experiment import Experiment

if TYPE_CHECKING:
    from lightning_fed.tracking.results import Result

__all__ = ["Experiment", "FederationError", "InputError", "run"]
__version__ = "0.1.0"


def run(experiment: Experiment) -> Result:
    """Run one federation from start to end and return what `summary.json` holds.

    Raises:
        InputError: the experiment, a file that it names, or the cluster does not fit.
        FederationError: the federation could not finish; its last checkpoint is named.
    """
    # Imported here so that a Ray actor, which imports this package too, does not load the driver's libraries.
    from lightning_fed.studies.single import run_experiment

    return run_experiment(experiment)
