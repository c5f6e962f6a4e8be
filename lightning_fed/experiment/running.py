"""Where a run is placed, measured and recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightning_fed.checks import in_range, literals, positive


@dataclass(frozen=True)
class Evaluation:
    """Where the global model is measured, and how often.

    Args:
        split: `validation`, or `test` to read the test split every round as the paper does.
        every: rounds from one measurement to the next; the last round is measured in any case.
        batch_size: images in one evaluation step and in one shard of the work.
        diagnostics: hospitals tell loss, clipping, time and accuracy on their own images, exact functions of
            private images that no guarantee covers; false: nothing leaves a hospital beside its update. Who has
            how many images of which class the simulator itself knows, as it shares them out.
    """

    split: Literal["validation", "test"] = "validation"
    every: int = 1
    batch_size: int = 256
    diagnostics: bool = True

    def __post_init__(self) -> None:
        literals("evaluation", self)
        positive("evaluation", every=self.every, batch_size=self.batch_size)


@dataclass(frozen=True)
class Ray:
    """Where the hospitals run.

    Args:
        enabled: false runs the same hospitals one after another in this process.
        address: null starts a local Ray; `auto` joins the running cluster; or `host:port`.
        cpus_per_hospital: CPUs of one hospital while it trains.
        gpus_per_hospital: GPUs (fractions too) of one hospital while it trains.
        hospitals_per_actor: hospitals that share one process and train in turn; the result is the same.
        startup_timeout: seconds to wait for all hospitals to be placed and built.
    """

    enabled: bool = True
    address: str | None = None
    cpus_per_hospital: float = 1.0
    gpus_per_hospital: float = 0.0
    hospitals_per_actor: int = 1
    startup_timeout: float = 300.0

    def __post_init__(self) -> None:
        positive("ray", cpus_per_hospital=self.cpus_per_hospital, startup_timeout=self.startup_timeout)
        positive("ray", hospitals_per_actor=self.hospitals_per_actor)
        in_range("ray", 0, 1, gpus_per_hospital=self.gpus_per_hospital)


@dataclass(frozen=True)
class Tracking:
    """Where the run is recorded beside its own folder.

    Args:
        wandb: `offline` needs no account; `wandb sync` uploads it later. Keys come from the environment only.
        project: W&B project.
        group: W&B group, such as a sweep's name.
        name: W&B run name; null takes the output folder's.
    """

    wandb: Literal["disabled", "offline", "online"] = "offline"
    project: str = "lightning-fed"
    group: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        literals("tracking", self)
