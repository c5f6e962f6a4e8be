"""Canaries: records that are members or not by a coin, and guesses at which were, from scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lightning_fed.audit.bound import epsilon_of_guesses

Reals = NDArray[np.float64]
Coins = NDArray[np.bool_]
SHARES = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 0.75)
"""Of the canaries, one of which may be guessed at."""
REHEARSALS = 15


@dataclass(frozen=True)
class Guessed:
    """An audit of one run.

    Args:
        canaries, guesses, right: how many. epsilon: lower bound, at `bound.CONFIDENCE`. most: what it would be
            if all guesses were right.
    """

    canaries: int
    guesses: int
    right: int
    epsilon: float
    most: float

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.right} of {self.guesses} guesses right, where all would have shown {self.most:.2f}"


def guess(scores: Reals, guesses: int) -> NDArray[np.int8]:
    """1 for the highest half of `guesses` scores (canaries,), -1 for the lowest half, 0 for no guess."""
    order = np.argsort(scores, kind="stable")
    made = np.zeros(len(scores), dtype=np.int8)
    made[order[: guesses // 2]] = -1
    made[order[len(scores) - (guesses - guesses // 2) :]] = 1
    return made


def audited(coins: Coins, scores: Reals, guesses: int, delta: float) -> Guessed:
    """What guesses are worth.

    Args:
        coins: whether each canary was a member (canaries,). scores: that speak for it. guesses: how many to make,
            fixed before the scores were seen.
    """
    made = guess(scores, guesses)
    right = int(((made == 1) & coins).sum() + ((made == -1) & ~coins).sum())
    bound, most = (epsilon_of_guesses(len(coins), guesses, count, delta) for count in (right, guesses))
    return Guessed(len(coins), guesses, right, bound, most)


@dataclass(frozen=True)
class Sampled:
    """Releases in which a member is by Poisson's chances, and others are not, under Gaussian noise.

    Args:
        rate: chance to be in one sample. samples: of a release, which add up. deviation: of the noise, where a
            member's contribution is 1. releases: how many.
    """

    rate: float
    samples: int
    deviation: float
    releases: int

    def likelihood(self, seen: Reals) -> Reals:
        """How much likelier what was seen of canaries is where they are members: log of the ratio (canaries,).

        Args:
            seen: (releases, canaries).
        """
        times = np.arange(self.samples + 1)
        chances = stats.binom.logpmf(times, self.samples, self.rate)
        exponents = [
            chance + (2 * seen * count - count**2) / (2 * self.deviation**2)
            for chance, count in zip(chances, times, strict=True)
        ]
        return np.asarray(np.logaddexp.reduce(exponents, axis=0).sum(0), dtype=np.float64)

    def rehearse(self, coins: Coins, random: np.random.Generator) -> Reals:
        """What would be seen (releases, canaries)."""
        shape = self.releases, len(coins)
        return random.binomial(self.samples, self.rate, shape) * coins + self.deviation * random.standard_normal(
            shape
        )


def guesses_for(groups: Mapping[Sampled, int], delta: float, seed: int = 0) -> int:
    """How many guesses promise the best bound, by rehearsals that know nothing of the run.

    Args:
        groups: how many canaries are watched in which way.
    """
    random, canaries = np.random.default_rng(seed), sum(groups.values())
    sizes = sorted({max(2, 2 * round(share * canaries / 2)) for share in SHARES})
    worth = np.zeros(len(sizes))
    for _ in range(REHEARSALS):
        coins = {group: random.random(count) < 0.5 for group, count in groups.items()}
        scores = [group.likelihood(group.rehearse(own, random)) for group, own in coins.items()]
        everything = np.concatenate(list(coins.values())), np.concatenate(scores)
        worth += [audited(*everything, size, delta).epsilon for size in sizes]
    return sizes[int(worth.argmax())]
