"""A hospital's differential privacy in the federation: what it charges, draws and lets out in each round."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_fed.data.datamodule import DrawnPlan
from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment
from lightning_fed.models.classifier import Classifier
from lightning_fed.models.vector import Vector
from lightning_fed.privacy.digest import digest
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.ledger import Charge, Ledger
from lightning_fed.privacy.steps import StepDiagnostics
from lightning_fed.privacy.streams import Secret, Stream
from lightning_fed.privacy.update import add_noise, clip
from lightning_fed.tracking.records import Spending

Integers = NDArray[np.int64]
Sum = NDArray[np.float64]


@dataclass(frozen=True)
class Permit:
    """A paid round and the noise that belongs to it.

    Args:
        charge: on disk. secret: of the hospital.
    """

    charge: Charge
    secret: Secret

    def stream(self, purpose: str) -> Stream:
        """The stream of one purpose: bound to the charge's inputs, so that it never serves different ones."""
        charge = self.charge
        names = (charge.hospital, charge.round, charge.attempt, charge.inputs, charge.nonce)
        return self.secret.stream(purpose, *names)


def ledger_of(output: Path | None, hospital: int, dose: Dose, reproducible: bool = False) -> Ledger:
    """A hospital's ledger in a run folder, or one in memory."""
    path = None if output is None else output / "hospitals" / str(hospital) / "ledger.jsonl"
    return Ledger(path, hospital, dose, reproducible)


@lru_cache(maxsize=4096)
def epsilon_after(dose: Dose, steps: int) -> float:
    """Epsilon of a hospital that was charged for so many releases."""
    from lightning_fed.privacy.doses import epsilon_of  # SciPy, which a run without a mechanism does not need

    return epsilon_of(dose, steps)


class Protection(ABC):
    """The ledger and the secret of one hospital, and how a mechanism uses them.

    Args:
        experiment: the whole run's. hospital: whose. images: it trains on. dose: its noise.
        output: run folder that holds the hospital's own, None to keep everything in memory.
    """

    def __init__(
        self, experiment: Experiment, hospital: int, images: int, dose: Dose, output: Path | None
    ) -> None:
        self.experiment, self.hospital, self.images, self.dose = experiment, hospital, images, dose
        folder = None if output is None else output / "hospitals" / str(hospital)
        self.ledger = ledger_of(output, hospital, dose, experiment.privacy.reproducible)
        self.secret = self._secret(folder)

    def _secret(self, folder: Path | None) -> Secret:
        if self.experiment.privacy.reproducible:
            return Secret.of_seed(self.experiment.seed, self.hospital)
        if folder is None:
            return Secret.of_system()
        return Secret.kept(folder / "noise.key", may_make=not self.ledger.charges)

    def begin(self, round: int, weights: Vector, state: Any, anew: bool = False) -> Permit:
        """Charge a round before it is trained.

        Args:
            weights: received (parameters,). state: of the optimizer and all else that the round depends on.
            anew: for fresh noise, where the round was charged before.

        Raises:
            BudgetSpentError: the budget does not pay for it.
        """
        charge = self.ledger.charge(round, digest(self._settings(), weights, state), anew)
        return Permit(charge, self.secret)

    def marks(self) -> dict[str, str | None]:
        """What a hospital's state says of its ledger and key, so that no others are put in their place."""
        return {"ledger": self.ledger.head, "key": self.secret.mark}

    def require(self, round: int, state: dict[str, Any]) -> None:
        """Raise unless ledger and key are those of a round's state.

        Raises:
            InputError: they are not.
        """
        self.ledger.require(round, state.get("ledger"))
        if state.get("key") not in (None, self.secret.mark):
            raise InputError(
                f"hospitals/{self.hospital}/noise.key: not the key that hospital {self.hospital} drew round "
                f"{round}'s noise from; put its own back"
            )

    def _settings(self) -> dict[str, Any]:
        """What of the experiment a hospital's round depends on."""
        values = self.experiment.as_dict()
        return {name: values[name] for name in ("model", "training", "federation", "privacy", "seed")}

    @abstractmethod
    def plan(self, permit: Permit) -> DrawnPlan | None:
        """The round's batches, None where the mechanism does not draw them."""

    @abstractmethod
    def prepare(self, permit: Permit) -> None:
        """Before the training."""

    @abstractmethod
    def protect(self, permit: Permit, made: Any) -> Vector | Integers:
        """What is let out (parameters,) of what the local work made."""

    @abstractmethod
    def spending(self) -> Spending:
        """What was spent, after the round."""

    def release(self, permit: Permit, released: Vector | Integers) -> bool:
        """Note what is about to leave; False where it must not, since something else left for the same charge."""
        return self.ledger.release(permit.charge, released.tobytes())


class SampledProtection(Protection):
    """Each image, by Poisson samples and an engine that lives as long as the hospital.

    Args:
        classifier: the hospital's own, into which the engine is put.
    """

    def __init__(
        self,
        experiment: Experiment,
        hospital: int,
        images: int,
        dose: Dose,
        output: Path | None,
        classifier: Classifier,
    ) -> None:
        super().__init__(experiment, hospital, images, dose, output)
        self.install(classifier)

    @abstractmethod
    def install(self, classifier: Classifier) -> None:
        """Make the engine and put it into the classifier."""

    def plan(self, permit: Permit) -> DrawnPlan:
        """A round's samples: each image in each of them by a chance of its own."""
        drawn, charge, images = permit.stream("sampling"), permit.charge, self.images
        draws = tuple(np.flatnonzero(drawn.uniform(images) < self.dose.rate) for _ in range(self.dose.steps))
        views = self.experiment.training.views
        load = max(1, self.experiment.privacy.physical_batch_size // views)
        return DrawnPlan(draws, images, load, views, self.experiment.seed, charge.hospital, charge.round)


class RecordProtection(SampledProtection):
    """DP-SGD in the hospital: noise in each step."""

    def install(self, classifier: Classifier) -> None:
        """The engine's optimizer becomes the classifier's."""
        from lightning_fed.privacy.engine import RecordEngine  # Opacus, which other mechanisms do not need

        experiment, optimizer = self.experiment, classifier.configure_optimizers()
        views = experiment.training.views
        self.engine = RecordEngine(classifier.network, optimizer, experiment.privacy, self.dose, views)
        classifier.optimizer, classifier.example_wise = self.engine.optimizer, self.engine

    def prepare(self, permit: Permit) -> None:
        """Hand the round's noise to the engine."""
        self._before = self.ledger.spent - permit.charge.steps
        self.engine.begin_round(permit.stream("noise"), self._before)

    def protect(self, permit: Permit, made: Vector) -> Vector:
        """The update as it is: its noise came with each step.

        Raises:
            RuntimeError: the engine took other steps than were charged; nothing is released.
            InputError: the network's buffers have changed, which no noise covers.
        """
        self.engine.refuse_running_statistics()
        taken = self.engine.steps_accounted - self._before
        if taken != permit.charge.steps:
            raise RuntimeError(f"{taken} noised steps where {permit.charge.steps} were charged")
        return made

    def spending(self) -> Spending:
        """Steps, and what they looked like."""
        return spending_of(self.ledger, self.engine.optimizer.diagnostics)


class UpdateProtection(Protection):
    """A hospital's whole update: clipped to C and noised once a round, running statistics among its numbers."""

    _seen: tuple[float, float | None] = (0.0, None)

    def plan(self, permit: Permit) -> None:
        """The hospital's own batches."""

    def prepare(self, permit: Permit) -> None:
        """Nothing."""

    def protect(self, permit: Permit, made: Vector) -> Vector:
        """The clipped update with its noise; noise alone where the update is not finite.

        To stop because of such an update would tell of it.
        """
        update = made if np.isfinite(made).all() else np.zeros_like(made)
        privacy = self.experiment.privacy
        clipped, norm = clip(update, privacy.max_grad_norm)
        deviation = self.dose.noise_multiplier * privacy.deviation_per_multiplier
        if deviation == 0:
            self._seen = norm, None
            return clipped
        released = add_noise(clipped, deviation, permit.stream("noise"))
        self._seen = norm, float(np.linalg.norm(clipped) / np.linalg.norm(released - clipped))
        return released

    def spending(self) -> Spending:
        """Releases, and what the last one looked like."""
        norm, ratio = self._seen
        return Spending(self.ledger.spent, float(norm > self.experiment.privacy.max_grad_norm), norm, ratio)


class DistributedProtection(SampledProtection):
    """Clipped sums at the round's weights, with the hospital's share of the noise in the whole sum."""

    def install(self, classifier: Classifier) -> None:
        """The engine adds up the classifier's gradients."""
        from lightning_fed.privacy.sums import GradientSums  # Opacus, which other mechanisms do not need

        experiment = self.experiment
        self.engine = GradientSums(classifier.network, experiment.privacy, experiment.training.views)
        classifier.example_wise = self.engine

    def prepare(self, permit: Permit) -> None:
        """A new round's sums."""
        self.engine.begin_round()

    def protect(self, permit: Permit, made: list[Sum]) -> Integers:
        """The sum of the samples' sums on the grid, each with noise of its own.

        Args:
            made: float64 (parameters,) of each sample.

        Returns:
            int64 (parameters,).

        Raises:
            RuntimeError: other samples than were charged; nothing is released.
        """
        from lightning_fed.privacy.sums import add_share, on_grid

        if len(made) != permit.charge.steps:
            raise RuntimeError(f"{len(made)} clipped sums where {permit.charge.steps} were charged")
        bound, dose = self.experiment.privacy.max_grad_norm, self.dose
        rounding, noise = permit.stream("rounding"), permit.stream("noise")
        total = np.zeros(len(made[0]), dtype=np.int64)
        for one in made:
            signal = on_grid(one, bound, dose, rounding)
            noised = add_share(signal, dose, noise)
            self.engine.diagnostics.step(_norm(signal), _norm(noised - signal))
            total += noised
        return total

    def spending(self) -> Spending:
        """Samples, and what they looked like."""
        return spending_of(self.ledger, self.engine.diagnostics)


def _norm(vector: Integers) -> float:
    return float(np.linalg.norm(vector.astype(np.float64)))


def spending_of(ledger: Ledger, seen: StepDiagnostics) -> Spending:
    """What was charged, beside what a simulator saw."""
    return Spending(ledger.spent, seen.clipped, seen.median_norm, seen.signal_to_noise)


def doses_of(experiment: Experiment, sizes: Sequence[int], coordinates: int = 0) -> tuple[Dose, ...] | None:
    """Each hospital's noise, None without a mechanism; see `lightning_fed.privacy.doses`."""
    if experiment.privacy.mechanism == "none":
        return None
    from lightning_fed.privacy import doses  # SciPy and Opacus, which a run without a mechanism does not need

    return doses.doses_of(experiment, sizes, coordinates)


def check_record(classifier: Classifier, experiment: Experiment, size: int) -> None:
    """Raise `InputError` unless the classifier's network can be trained image by image.

    Args:
        size: of an image, in pixels.
    """
    from lightning_fed.privacy.trial import refuse_unbounded

    network = copy.deepcopy(classifier.network).train()
    generator = torch.Generator().manual_seed(0)
    channels = int(classifier.hparams["in_channels"])
    images = torch.rand(3, channels, size, size, generator=generator) * 2 - 1
    refuse_unbounded(network, images, experiment.privacy.clipping)


def protection_of(
    experiment: Experiment,
    hospital: int,
    images: int,
    dose: Dose | None,
    output: Path | None,
    classifier: Classifier,
) -> Protection | None:
    """The protection that an experiment asks for, None for mechanism `none`.

    Raises:
        InputError: a ledger or key is damaged or missing, or the network cannot be trained so.
    """
    if dose is None:
        return None
    if experiment.privacy.mechanism == "distributed":
        return DistributedProtection(experiment, hospital, images, dose, output, classifier)
    if experiment.privacy.mechanism == "update":
        return UpdateProtection(experiment, hospital, images, dose, output)
    return RecordProtection(experiment, hospital, images, dose, output, classifier)
