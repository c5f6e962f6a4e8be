"""`lightning-fed audit epsilon`: whether a claimed epsilon can be true, by attacks on what is released."""

from __future__ import annotations

import math
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_fed.audit.bound import CONFIDENCE, epsilon_of_rates, mu_of_rates, rates
from lightning_fed.audit.canaries import Sampled, audited, guesses_for
from lightning_fed.audit.checks import (
    Check,
    holds_signal,
    poisson,
    steps,
    uncorrelated,
    variance,
    within_claim,
)
from lightning_fed.experiment import Experiment
from lightning_fed.federation.protection import Permit, UpdateProtection, epsilon_after
from lightning_fed.privacy.accounting import PoissonGaussian, gaussian_epsilon
from lightning_fed.privacy.accounting import epsilon as composed_epsilon
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.doses import most_rounds
from lightning_fed.privacy.ledger import Charge
from lightning_fed.privacy.streams import Secret
from lightning_fed.studies.audit_view import (
    Charged,
    Release,
    Watch,
    Watched,
    run_watched,
    variance_of,
    with_images,
)
from lightning_fed.studies.single import Prepared
from lightning_fed.tracking.audits import AuditCheck, EpsilonAudited
from lightning_fed.tracking.console import say

Reals = NDArray[np.float64]
TOLERANCE = 0.02
"""By which the second accountant's epsilon may lie above the claim: it composes a continuous Gaussian's steps."""
STRONG = 1 / 3
"""Of the claim, which the bound should reach for the audit to mean anything."""


@dataclass(frozen=True)
class Budget:
    """How much is tried.

    Args:
        rounds: on all images, whose sums are recomputed. images: of a hospital beside canaries.
        canaries: with gradients of their own. windows: of 1 / rate steps, in which canaries' gaps are seen.
        whole: whether canaries are watched for all rounds, and a bound comes of it.
        calls: of the release of an update, on each of two.
    """

    rounds: int
    images: int
    canaries: int
    windows: int
    whole: bool
    calls: int


BUDGETS = {
    "seconds": Budget(rounds=2, images=4, canaries=3000, windows=3, whole=False, calls=5000),
    "laptop": Budget(rounds=2, images=16, canaries=3000, windows=3, whole=True, calls=50_000),
    "full": Budget(rounds=10, images=10**9, canaries=3000, windows=3, whole=True, calls=500_000),
}
COORDINATES = 16
"""Of the updates whose release is called often."""
MOST_WATCHED = 60
"""Rounds for gaps alone."""


@dataclass
class EpsilonAudit:
    """What came of it.

    Args:
        mechanism: of the experiment. claimed: epsilon of the whole run. delta: of it. adversary: who attacks.
        checks: of seconds. bound: epsilon is above that with confidence 0.95; None where nothing was bounded.
        attacked: what the bound rests on, in words. seconds: it took. rounds: of the whole run.
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

    @property
    def refuted(self) -> bool:
        """Whether the claim cannot be true, or is not what was charged."""
        return any(not check.passed for check in self.checks) or (self.bound or 0.0) > self.claimed

    @property
    def verdict(self) -> str:
        """In a line."""
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
            tuple(AuditCheck(check.name, check.passed, check.told) for check in self.checks),
            self.bound,
            self.attacked,
            CONFIDENCE,
            self.verdict,
            self.refuted,
            self.seconds,
        )


def audit_epsilon(prepared: Prepared, budget: Budget) -> EpsilonAudit:
    """Attack what a federation releases; `prepared` is of `prepare_audit`."""
    begun, experiment = time.monotonic(), prepared.experiment
    assert prepared.roster.doses is not None
    rounds = most_rounds(experiment)
    doses = prepared.roster.doses
    audit = EpsilonAudit(
        experiment.privacy.mechanism,
        max(epsilon_after(dose, dose.steps * rounds) for dose in doses),
        experiment.privacy.delta,
        adversary_of(experiment),
        rounds,
    )
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        say(f"{budget.rounds} rounds on all images, whose clipped sums are recomputed one image at a time")
        _seconds(audit, prepared, budget, Path(folder) / "seconds")
        if experiment.privacy.mechanism == "update":
            say(f"{budget.calls} releases of each of two updates")
            _bound_update(audit, experiment, doses[0], budget)
        else:
            _bound_images(audit, prepared, budget, Path(folder) / "canaries")
    audit.seconds = time.monotonic() - begun
    return audit


def adversary_of(experiment: Experiment) -> str:
    """Who attacks, in words."""
    if experiment.privacy.mechanism == "distributed":
        return "the server: sees each opened sum, knows all images but the canaries"
    if experiment.privacy.mechanism == "record":
        return "the server: sees each noised step of a hospital in clear, knows all images but the canaries"
    return "the server: sees a hospital's updates in clear, knows all images of all hospitals"


def _seconds(audit: EpsilonAudit, prepared: Prepared, budget: Budget, folder: Path) -> None:
    """Noise, independence, signal, steps and composition, on some rounds with all images."""
    experiment, releases = prepared.experiment, list[Release]()
    rounds = min(budget.rounds, audit.rounds)
    watched = run_watched(prepared, prepared.roster, Watch(releases.append, recompute=True), rounds, folder)
    residuals = [one.vector - one.signal for one in releases if one.signal is not None]
    signals = [one.signal for one in releases if one.signal is not None]
    expected = [_expected(experiment, watched, one) for one in releases]
    audit.checks += [
        variance(residuals, expected),
        uncorrelated(residuals),
        holds_signal(residuals, signals, expected),
        _steps(releases, watched),
        _composition(audit, experiment, watched),
    ]


def _expected(experiment: Experiment, watched: Watched, release: Release) -> float:
    first = release.hospitals[0]
    return variance_of(
        experiment, watched.doses[first], _charge(watched, first, release.round), len(release.hospitals)
    )


def _charge(watched: Watched, hospital: int, round: int) -> Charged:
    found = [charge for charge in watched.ledgers[hospital] if charge.round == round]
    if not found:  # which the check of steps tells
        dose = watched.doses[hospital]
        return Charged(round, 0, dose.rate, dose.noise_multiplier, dose.adjacency)
    return found[-1]


def _steps(releases: Sequence[Release], watched: Watched) -> Check:
    """A sum holds as many sampled releases of a hospital as it takes steps in a round."""
    released: Counter[int] = Counter()
    for one in releases:
        for hospital in one.hospitals:
            dose = watched.doses[hospital]
            released[hospital] += dose.steps if dose.joint is not None else 1
    charged = {hospital: sum(one.steps for one in charges) for hospital, charges in watched.ledgers.items()}
    return steps(released, charged)


def _composition(audit: EpsilonAudit, experiment: Experiment, watched: Watched) -> Check:
    """All rounds of the run at the least noise that was charged, by dp-accounting."""
    composed: dict[tuple[float, float, int], float] = {}
    by_hospital = {}
    for hospital, charges in watched.ledgers.items():
        dose = watched.doses[hospital]
        if not charges:
            continue
        least = min(charge.noise_multiplier for charge in charges) * math.sqrt(dose.counted_survivors)
        key = max(charge.rate for charge in charges), least, max(charge.steps for charge in charges)
        if key not in composed:
            rate, noise, count = key
            mechanism = PoissonGaussian(rate, noise, count * audit.rounds)
            composed[key] = composed_epsilon(mechanism, experiment.privacy.delta, "pld")
        by_hospital[hospital] = composed[key]
    return within_claim(by_hospital, experiment.privacy.epsilon or audit.claimed, TOLERANCE)


@dataclass(frozen=True)
class Planted:
    """Canaries and where they are.

    Args:
        hospital: of each (canaries,). coordinate: of the gradient of each. coins: whether it is a member.
    """

    hospital: NDArray[np.int64]
    coordinate: NDArray[np.int64]
    coins: NDArray[np.bool_]

    @property
    def members(self) -> Mapping[int, NDArray[np.int64]]:
        """Coordinates of those that are members, by hospital."""
        return {
            int(hospital): self.coordinate[self.coins & (self.hospital == hospital)]
            for hospital in np.unique(self.hospital)
        }


def plant(canaries: int, hospitals: int, coordinates: int) -> Planted:
    """Canaries for all hospitals in turn, at coordinates of their own, by coins of the operating system."""
    random = np.random.default_rng(secrets.randbits(128))
    count = min(canaries, coordinates)
    return Planted(
        np.arange(count) % hospitals,
        random.choice(coordinates, count, replace=False),
        random.random(count) < 0.5,
    )


def _bound_images(audit: EpsilonAudit, prepared: Prepared, budget: Budget, folder: Path) -> None:
    """Canaries over the whole run, or as many rounds as their gaps need."""
    roster = with_images(prepared.roster, budget.images)
    assert roster.doses is not None
    doses = roster.doses
    window = max(math.ceil(1 / (dose.rate * dose.steps)) for dose in doses)
    rounds = audit.rounds if budget.whole else min(audit.rounds, budget.windows * window, MOST_WATCHED)
    planted = plant(budget.canaries, len(doses), len(prepared.model.weights))
    say(f"{rounds} rounds with {len(planted.coins)} canaries, half of them members, beside {budget.images} images")
    seen: dict[int, list[Reals]] = {hospital: [] for hospital in range(len(doses))}
    own = {hospital: planted.coordinate[planted.hospital == hospital] for hospital in seen}

    def look(release: Release) -> None:
        for hospital in release.hospitals:
            seen[hospital].append(release.vector[own[hospital]])

    watched = run_watched(prepared, roster, Watch(look, planted.members), rounds, folder)
    alike = _alike(prepared.experiment, watched, planted, seen)
    audit.checks.append(_sampling(planted, alike))
    if budget.whole:
        _bound_by_canaries(audit, planted, alike)


def _sampled(experiment: Experiment, watched: Watched, hospital: int, releases: int) -> Sampled:
    """How a hospital's members are in the releases."""
    dose = watched.doses[hospital]
    together = experiment.federation.cohort_size if dose.joint is not None else 1
    noise = variance_of(experiment, dose, _charge(watched, hospital, 1), together)
    return Sampled(dose.rate, dose.steps if dose.joint is not None else 1, math.sqrt(noise), releases)


def _alike(
    experiment: Experiment, watched: Watched, planted: Planted, seen: Mapping[int, list[Reals]]
) -> dict[Sampled, tuple[NDArray[np.int64], Reals]]:
    """Canaries, and what was seen of them (releases, canaries), of hospitals that sample alike together."""
    parts: dict[Sampled, list[tuple[NDArray[np.int64], Reals]]] = {}
    for hospital, vectors in seen.items():
        if vectors:
            how = _sampled(experiment, watched, hospital, len(vectors))
            own = np.flatnonzero(planted.hospital == hospital)
            parts.setdefault(how, []).append((own, np.stack(vectors)))
    return {
        how: (np.concatenate([own for own, _ in some]), np.concatenate([seen for _, seen in some], axis=1))
        for how, some in parts.items()
    }


def _sampling(planted: Planted, alike: Mapping[Sampled, tuple[NDArray[np.int64], Reals]]) -> Check:
    """The members' presence in releases; of several kinds of hospitals the one that speaks most against it."""
    found = [
        poisson(seen[:, planted.coins[own]], how.rate, how.deviation, how.samples)
        for how, (own, seen) in alike.items()
    ]
    return min(found, key=lambda check: check.values["p_value"])


def _bound_by_canaries(
    audit: EpsilonAudit, planted: Planted, alike: Mapping[Sampled, tuple[NDArray[np.int64], Reals]]
) -> None:
    guesses = guesses_for({how: len(own) for how, (own, _) in alike.items()}, audit.delta)
    coins = np.concatenate([planted.coins[own] for own, _ in alike.values()])
    scores = np.concatenate([how.likelihood(seen) for how, (_, seen) in alike.items()])
    found = audited(coins, scores, guesses, audit.delta)
    audit.bound = found.epsilon
    audit.attacked = f"{found.right} of {found.guesses} guesses right about {found.canaries} canaries"


def _bound_update(audit: EpsilonAudit, experiment: Experiment, dose: Dose, budget: Budget) -> None:
    """The real release called on two updates that differ as far as neighbours may, told apart by a threshold.

    It lies in the middle, which is settled before any release. One round's rates are composed over all rounds as
    those of the Gaussian mechanism.
    """
    bound = experiment.privacy.max_grad_norm
    protection = UpdateProtection(replace(experiment, seed=experiment.seed), 0, 1, dose, None)
    target = np.zeros(COORDINATES, dtype=np.float32)
    target[0] = bound
    other = -target if dose.adjacency == "replace_one" else np.zeros_like(target)
    middle = float(target[0] + other[0]) / 2
    secret = Secret.of_system()

    def released_above(update: Any) -> int:
        above = 0
        for call in range(budget.calls):
            charge = Charge(0, call, 0, 1, 1.0, dose.noise_multiplier, "audit", secrets.token_hex(16), "hospital")
            above += int(protection.protect(Permit(charge, secret), update)[0] > middle)
        return above

    found = rates(released_above(target), released_above(other), budget.calls)
    distance = mu_of_rates(found) * math.sqrt(audit.rounds)
    audit.bound = max(
        epsilon_of_rates(found, audit.delta),
        gaussian_epsilon(1 / distance, 1, audit.delta) if distance > 0 else 0.0,
    )
    audit.attacked = (
        f"{budget.calls} releases of each of two updates: found {found.true:.3f}, false {found.false:.3f}"
    )
