"""Lower bounds on a run's epsilon: from canaries in its releases, and from releases of two updates."""

from __future__ import annotations

import itertools
import math
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_fed.audit.bound import epsilon_of_rates, mu_of_rates, rates
from lightning_fed.audit.canaries import Sampled, audited, guesses_for
from lightning_fed.audit.checks import LEVEL, Check, poisson
from lightning_fed.experiment import Experiment
from lightning_fed.federation.protection import Permit, UpdateProtection
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.gaussian import gaussian_epsilon
from lightning_fed.privacy.ledger import Charge
from lightning_fed.studies.audit_view import Charged, run_watched, tensors_of, variance_of, with_images
from lightning_fed.studies.audit_watch import Release, Watch
from lightning_fed.studies.prepare import Prepared
from lightning_fed.tracking.console import say

Reals = NDArray[np.float64]
COORDINATES = 16
"""Of the updates whose release is called often."""
FAR = 100.0
"""Times the clipping norm, of those updates: the release has to clip them."""
MOST_WATCHED = 60
"""Rounds for gaps alone."""


@dataclass(frozen=True)
class Budget:
    """How much is tried.

    Args:
        rounds: on all images. steps: of a hospital in each of them whose sums are recomputed.
        images: of a hospital beside canaries. canaries: with gradients of their own.
        windows: of 1 / rate steps, in which canaries' gaps are seen.
        whole: whether canaries are watched for all rounds, and a bound comes of it.
        calls: of the release of an update, on each of two.
    """

    rounds: int
    steps: int
    images: int
    canaries: int
    windows: int
    whole: bool
    calls: int


@dataclass(frozen=True)
class Bounded:
    """A bound.

    Args:
        epsilon: is above that with confidence 0.95; None where none was sought. attacked: what it rests on, in
            words. checks: what was tested beside.
    """

    epsilon: float | None
    attacked: str
    checks: tuple[Check, ...] = ()


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


def bound_by_canaries(prepared: Prepared, budget: Budget, all_rounds: int, folder: Path) -> Bounded:
    """Canaries over the whole run, or as many rounds as their gaps need; and the test of how they are sampled."""
    roster = with_images(prepared.roster, budget.images)
    assert roster.doses is not None
    doses, delta = roster.doses, prepared.experiment.privacy.delta
    window = max(math.ceil(1 / (dose.rate * dose.steps)) for dose in doses)
    rounds = all_rounds if budget.whole else min(all_rounds, budget.windows * window, MOST_WATCHED)
    planted = plant(budget.canaries, len(doses), sum(tensors_of(prepared)))
    ways = [_sampled(prepared.experiment, dose, rounds) for dose in doses]
    groups = Counter(ways[hospital] for hospital in planted.hospital)
    guesses = guesses_for(groups, delta) if budget.whole else 0
    say(f"{rounds} rounds with {len(planted.coins)} canaries, half of them members, beside {budget.images} images")
    seen: dict[int, list[Reals]] = {hospital: [] for hospital in range(len(doses))}
    own = {hospital: planted.coordinate[planted.hospital == hospital] for hospital in seen}

    def look(release: Release) -> None:
        for hospital in release.hospitals:
            seen[hospital].append(release.vector[own[hospital]])

    run_watched(prepared, roster, Watch(look, planted.members), rounds, folder)
    alike = _alike(ways, planted, seen)
    sampling = _sampling(planted, alike)
    if not budget.whole:
        return Bounded(None, "", (sampling,))
    coins = np.concatenate([planted.coins[own] for own, _ in alike.values()])
    scores = np.concatenate([how.likelihood(seen) for how, (_, seen) in alike.items()])
    found = audited(coins, scores, guesses, delta)
    return Bounded(found.epsilon, f"{found.canaries} canaries: {found.told}", (sampling,))


def _sampled(experiment: Experiment, dose: Dose, rounds: int) -> Sampled:
    """How a hospital's members are in the releases, by what is claimed."""
    joint = dose.joint is not None
    together = experiment.federation.cohort_size if joint else 1
    charged = Charged(0, 0, dose.rate, dose.noise_multiplier, dose.adjacency)
    noise = variance_of(dose, charged, together)
    return Sampled(dose.rate, dose.steps if joint else 1, math.sqrt(noise), rounds * (1 if joint else dose.steps))


def _alike(
    ways: Sequence[Sampled], planted: Planted, seen: Mapping[int, list[Reals]]
) -> dict[Sampled, tuple[NDArray[np.int64], Reals]]:
    """Canaries, and what was seen of them (releases, canaries), of hospitals that sample alike together."""
    parts: dict[Sampled, list[tuple[NDArray[np.int64], Reals]]] = {}
    for hospital, vectors in seen.items():
        own = np.flatnonzero(planted.hospital == hospital)
        if vectors and len(own):  # a hospital that was asked less often has fewer
            way = replace(ways[hospital], releases=len(vectors))
            parts.setdefault(way, []).append((own, np.stack(vectors)))
    return {
        way: (np.concatenate([own for own, _ in some]), np.concatenate([seen for _, seen in some], axis=1))
        for way, some in parts.items()
    }


def _sampling(planted: Planted, alike: Mapping[Sampled, tuple[NDArray[np.int64], Reals]]) -> Check:
    """The members' presence in releases; of several kinds of hospitals the one that speaks most against it."""
    found = [
        poisson(seen[:, planted.coins[own]], how.rate, how.deviation, how.samples)
        for how, (own, seen) in alike.items()
        if planted.coins[own].any()
    ]
    if not found:
        return Check("sampling", True, "no member was asked for a release")
    worst = min(found, key=lambda check: check.values["p_value"])
    return replace(worst, passed=worst.values["p_value"] * len(found) >= LEVEL)


def bound_by_releases(experiment: Experiment, dose: Dose, budget: Budget, releases: int) -> Bounded:
    """The real release called on two updates that differ as far as neighbours may, told apart by a threshold.

    It lies in the middle, which is settled before any release. One round's rates are composed over all rounds as
    those of the Gaussian mechanism: a bound for noise that is normal, as the test of its distribution says.
    """
    bound = experiment.privacy.max_grad_norm
    protection = UpdateProtection(experiment, 0, 1, dose, None)
    target = np.zeros(COORDINATES, dtype=np.float32)
    target[0] = FAR * bound
    other = -target if dose.adjacency == "replace_one" else np.zeros_like(target)
    middle = 0.0 if dose.adjacency == "replace_one" else bound / 2
    calls = itertools.count()

    def released_above(update: Any) -> int:
        above = 0
        for _ in range(budget.calls):
            nonce = "" if experiment.privacy.reproducible else secrets.token_hex(16)
            charge = Charge(0, next(calls), 0, 1, 1.0, dose.noise_multiplier, "audit", nonce, "hospital")
            above += int(protection.protect(Permit(charge, protection.secret), update)[0] > middle)
        return above

    found = rates(released_above(target), released_above(other), budget.calls)
    distance = mu_of_rates(found) * math.sqrt(releases)
    delta = experiment.privacy.delta
    composed = gaussian_epsilon(1 / distance, 1, delta) if distance > 0 else 0.0
    told = f"found {found.true:.3f}, false {found.false:.3f} at the limits, composed as a Gaussian's"
    told = f"{budget.calls} releases of each of two updates: {told}"
    return Bounded(max(epsilon_of_rates(found, delta), composed), told)
