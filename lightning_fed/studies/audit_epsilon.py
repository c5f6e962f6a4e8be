"""`lightning-fed audit epsilon`: whether a claimed epsilon can be true, by attacks on what is released."""

from __future__ import annotations

import math
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_fed.audit.bound import CONFIDENCE
from lightning_fed.audit.checks import (
    Check,
    gaussian,
    holds_signal,
    served,
    sizes,
    steps,
    unchanged,
    uncorrelated,
    variance,
    within_claim,
)
from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment
from lightning_fed.federation.protection import epsilon_after
from lightning_fed.privacy.accounting import epsilon as composed_epsilon
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.doses import most_rounds
from lightning_fed.privacy.poisson import PoissonGaussian
from lightning_fed.privacy.trial import dropouts_of
from lightning_fed.studies.audit_bounds import Bounded, Budget, bound_by_canaries, bound_by_releases
from lightning_fed.studies.audit_mislabelled import bound_by_images
from lightning_fed.studies.audit_view import Charged, Watched, run_watched, tensors_of, variance_of
from lightning_fed.studies.audit_watch import Held, Release, Watch
from lightning_fed.studies.prepare import Prepared
from lightning_fed.tracking.audits import AuditCheck, EpsilonAudited
from lightning_fed.tracking.console import say

Reals = NDArray[np.float64]
TOLERANCE = 0.02
"""By which the second accountant's epsilon may lie above the claim: it composes a continuous Gaussian's steps."""
STRONG = 1 / 3
"""Of the claim, which the bound should reach for the audit to mean anything."""


BUDGETS = {
    "seconds": Budget(rounds=2, steps=2, images=4, canaries=3000, windows=3, whole=False, calls=5000),
    "laptop": Budget(rounds=2, steps=4, images=16, canaries=3000, windows=3, whole=True, calls=50_000),
    "full": Budget(rounds=10, steps=10, images=64, canaries=3000, windows=3, whole=True, calls=500_000),
}
ONLY_MODEL = "whoever has the final model, and knows which images may have been mislabelled and how"
SIMULATION = "; the noise follows from the seed (privacy.reproducible), and whoever knows it can take it off"


@dataclass
class EpsilonAudit:
    """What came of it.

    Args:
        mechanism: of the experiment. claimed: epsilon of the whole run. delta: of it. adversary: who attacks.
        checks: of seconds. bound: epsilon is above that with confidence 0.95; None where nothing was bounded.
        attacked: what the bound rests on, in words. seconds: it took. rounds: of the whole run.
        reproducible: whether the noise follows from the seed.
    """

    mechanism: str
    claimed: float
    delta: float
    adversary: str
    rounds: int
    checks: list[Check] = field(default_factory=list)
    bound: float | None = None
    attacked: str = ""
    seconds: float = 0.0
    reproducible: bool = False

    def conclude(self, found: Bounded, begun: float) -> None:
        """Take in a bound and what was tested beside; `begun` is of the monotonic clock."""
        self.checks += found.checks
        self.bound, self.attacked = found.epsilon, found.attacked
        self.seconds = time.monotonic() - begun

    @property
    def refuted(self) -> bool:
        """Whether the claim cannot be true, or is not what was charged."""
        return any(not check.passed for check in self.checks) or (self.bound or 0.0) > self.claimed

    @property
    def verdict(self) -> str:
        """In a line."""
        return self._found + SIMULATION * self.reproducible

    @property
    def _found(self) -> str:
        failed = [check.name for check in self.checks if not check.passed]
        if failed:
            return f"the claim does not hold: {', '.join(failed)}"
        if self.bound is not None and self.bound > self.claimed:
            return f"the claim does not hold: epsilon is above {self.bound:.2f}"
        if self.bound is None:
            return "nothing speaks against the claim; no bound was sought"
        if self.bound < STRONG * self.claimed:
            return f"nothing speaks against the claim, but the bound {self.bound:.2f} is too weak to mean much"
        return f"the claim may be true: epsilon is above {self.bound:.2f}, claimed is {self.claimed:.2f} at most"

    def record(self) -> EpsilonAudited:
        """For `audit.json`."""
        return EpsilonAudited(
            self.mechanism,
            self.claimed,
            self.delta,
            self.adversary,
            tuple(AuditCheck(check.name, check.passed, check.told, check.values) for check in self.checks),
            self.bound,
            self.attacked,
            CONFIDENCE,
            self.verdict,
            self.refuted,
            self.seconds,
        )


def audit_epsilon(prepared: Prepared, budget: Budget) -> EpsilonAudit:
    """Attack what a federation releases; `prepared` is of `prepare_audit`.

    Raises:
        InputError: the network draws at random, so that its gradients cannot be recomputed.
    """
    begun, experiment, doses = time.monotonic(), prepared.experiment, prepared.roster.doses
    assert doses is not None
    if experiment.privacy.by_images and dropouts_of(prepared.classifier.network):
        raise InputError(
            "audit epsilon: the network has dropout, and its gradients cannot be recomputed; take the dropout "
            "out, or name --canaries images"
        )
    rounds = most_rounds(experiment)
    audit = _claim(prepared, rounds, adversary_of(experiment))
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        say(f"{min(budget.rounds, rounds)} rounds on all images, clipped sums recomputed one image at a time")
        _seconds(audit, prepared, budget, Path(folder) / "seconds")
        if experiment.privacy.mechanism == "update":
            say(f"{budget.calls} releases of each of two updates")
            found = bound_by_releases(experiment, doses[0], budget, whole_run(experiment, doses[0], rounds))
        else:
            found = bound_by_canaries(prepared, budget, rounds, Path(folder) / "canaries")
    audit.conclude(found, begun)
    return audit


def audit_by_images(prepared: Prepared, budget: Budget) -> EpsilonAudit:
    """Attack the final model alone, by images with wrong labels; `prepared` is of `prepare_audit`.

    Raises:
        InputError: the mechanism protects no images.
    """
    begun, experiment = time.monotonic(), prepared.experiment
    if not experiment.privacy.by_images:
        raise InputError(
            "audit epsilon: --canaries images: privacy.mechanism 'update' protects hospitals; leave the option out"
        )
    rounds = most_rounds(experiment)
    audit = _claim(prepared, rounds, ONLY_MODEL)
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        trained = experiment.federation.rounds if budget.whole else min(budget.rounds, rounds)
        audit.conclude(bound_by_images(prepared, trained, Path(folder) / "images"), begun)
    return audit


def _claim(prepared: Prepared, rounds: int, adversary: str) -> EpsilonAudit:
    """The audit of an experiment, of which nothing is found yet."""
    experiment = prepared.experiment
    spent = epsilon_of_run(experiment, prepared.roster.doses or ())
    return EpsilonAudit(
        experiment.privacy.mechanism,
        min(spent, experiment.privacy.epsilon or math.inf),
        experiment.privacy.delta,
        adversary,
        rounds,
        reproducible=experiment.privacy.reproducible,
    )


def epsilon_of_run(experiment: Experiment, doses: Sequence[Dose]) -> float:
    """Of the worst hospital, all rounds together."""
    rounds = most_rounds(experiment)
    return max(epsilon_after(dose, whole_run(experiment, dose, rounds)) for dose in doses)


def whole_run(experiment: Experiment, dose: Dose, rounds: int) -> int:
    """Releases of a hospital over so many rounds; as many as its budget pays for where its noise was given."""
    wanted = dose.steps * rounds
    given = experiment.privacy.noise_multiplier is not None and dose.most_steps is not None
    return min(wanted, dose.most_steps or 0) if given else wanted


def adversary_of(experiment: Experiment) -> str:
    """Who attacks, in words."""
    knows = "in the tests of seconds it knows all images and samples too"
    if experiment.privacy.mechanism == "distributed":
        return f"a server that sees the opened sums of all hospitals, none lost and none colluding; {knows}"
    if experiment.privacy.mechanism == "record":
        return f"whoever sees each noised step of a hospital in clear, as the accountant assumes; {knows}"
    return "whoever sees a hospital's updates in clear, and knows what they were before clipping and noise"


def _seconds(audit: EpsilonAudit, prepared: Prepared, budget: Budget, folder: Path) -> None:
    """Noise, independence, signal, images, steps and composition, on some rounds with all images."""
    experiment, releases = prepared.experiment, list[Release]()
    released: Counter[int] = Counter()
    doses = prepared.roster.doses or ()

    def look(release: Release) -> None:
        for hospital in release.hospitals:
            released[hospital] += doses[hospital].steps if doses[hospital].joint is not None else 1
        if release.held is not None:
            releases.append(release)

    watch = Watch(look, recompute=budget.steps)
    watched = run_watched(prepared, prepared.roster, watch, min(budget.rounds, audit.rounds), folder)
    held = [one.held for one in releases if one.held is not None]
    signals = [one.signal for one in held]
    residuals = [one.vector - signal for one, signal in zip(releases, signals, strict=True)]
    expected = [_expected(experiment, watched, one) for one in releases]
    charged = {hospital: sum(one.steps for one in charges) for hospital, charges in watched.ledgers.items()}
    audit.checks += [
        variance(residuals, expected, tensors_of(prepared)),
        gaussian(residuals, expected),
        uncorrelated(residuals),
        _told_clipping(holds_signal(residuals, signals, expected), held),
        steps(released, charged),
        _composition(audit, experiment, watched),
    ]
    if experiment.privacy.by_images:
        pairs = [(one.drawn, one.served) for one in held]
        audit.checks += [served(pairs, all(one.as_drawn for one in held)), sizes(watch.counts)]
    if experiment.privacy.mechanism == "record":
        audit.checks.append(unchanged(watch.differences))


def _told_clipping(check: Check, held: Sequence[Held]) -> Check:
    """With the gradients, or updates, that clipping had to shorten: without any it was not tried."""
    longer = sum(one.longer for one in held)
    return replace(check, told=f"{check.told}; {longer} had to be clipped")


def _expected(experiment: Experiment, watched: Watched, release: Release) -> float:
    first = release.hospitals[0]
    charge = _charge(watched, first, release.round)
    return variance_of(watched.doses[first], charge, len(release.hospitals))


def _charge(watched: Watched, hospital: int, round: int) -> Charged:
    found = [charge for charge in watched.ledgers[hospital] if charge.round == round]
    if not found:  # which the check of steps tells
        dose = watched.doses[hospital]
        return Charged(round, 0, dose.rate, dose.noise_multiplier, dose.adjacency)
    return found[-1]


def _composition(audit: EpsilonAudit, experiment: Experiment, watched: Watched) -> Check:
    """All rounds at the least noise that was charged, in units of C, by dp-accounting."""
    counted = 1
    if experiment.privacy.mechanism == "distributed":
        counted = watched.least - experiment.privacy.colluding_hospitals
    composed: dict[tuple[float, float, int], float] = {}
    by_hospital = {}
    for hospital, charges in watched.ledgers.items():
        if not charges:
            continue
        dose = watched.doses[hospital]
        least = min(charges, key=lambda charge: charge.noise_multiplier)
        if experiment.privacy.mechanism == "update":
            noise = least.noise_multiplier
        else:
            samples = dose.steps if dose.joint is not None else 1
            noise = math.sqrt(variance_of(dose, least, counted) / samples)
        count = whole_run(experiment, replace(dose, steps=max(charge.steps for charge in charges)), audit.rounds)
        key = max(charge.rate for charge in charges), noise, count
        if key not in composed:
            composed[key] = composed_epsilon(PoissonGaussian(*key), experiment.privacy.delta, "pld")
        by_hospital[hospital] = composed[key]
    return within_claim(by_hospital, audit.claimed, TOLERANCE)
