"""Lower bounds on epsilon from an attacker's guesses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
MESH = 0.01
"""Of epsilon, on which a bound is sought."""
GREATEST = 30.0


@dataclass(frozen=True)
class Rates:
    """How well two neighbours were told apart in independent runs: limits that hold at once with `CONFIDENCE`.

    Args:
        true: least rate at which the neighbour with the target was found. false: greatest rate at which the one
            without it was taken for it.
    """

    true: float
    false: float


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Chance of so many right guesses in one run of any (epsilon, delta)-private mechanism, an upper bound.

    Steinke, Nasr & Jagielski 2023 (arXiv 2305.08846), Theorem 5.2: each canary is a member by a coin of its own;
    for every rule by which the number of guesses was fixed beforehand,
    f(v) + 2 m delta max_i (f(v-i) - f(v)) / i, with f(v) the chance that of r guesses, each right with chance
    e^eps / (1 + e^eps), v or more are.

    Args:
        canaries: m, guessed at or not. guesses: r. right: v.
    """
    chance = 1 / (1 + math.exp(-epsilon))
    bound = float(stats.binom.sf(right - 1, guesses, chance))
    if delta > 0 and right > 0:
        below = np.arange(right - 1, -1, -1)
        gains = np.cumsum(stats.binom.pmf(below, guesses, chance)) / np.arange(1, right + 1)
        bound += 2 * canaries * delta * float(gains.max())
    return min(bound, 1.0)


@lru_cache(maxsize=4096)
def epsilon_of_guesses(canaries: int, guesses: int, right: int, delta: float) -> float:
    """The greatest epsilon below which every one is refuted with `CONFIDENCE`; 0 where none is."""
    low, high = 0, round(GREATEST / MESH)
    while low < high:  # p_value rises with epsilon but for its delta term: what is found is checked below
        middle = (low + high + 1) // 2
        refuted = p_value(canaries, guesses, right, middle * MESH, delta) <= 1 - CONFIDENCE
        low, high = (middle, high) if refuted else (low, middle - 1)
    for smaller in np.linspace(0, low * MESH, 50):
        if p_value(canaries, guesses, right, float(smaller), delta) > 1 - CONFIDENCE:
            return 0.0
    return low * MESH


def rates(found: int, taken: int, calls: int) -> Rates:
    """Clopper-Pearson limits, two of which share the error.

    Args:
        found: calls on the neighbour with the target that were told to be so. taken: calls on the one without it
            that were told to have it. calls: independent ones on each.
    """
    error = (1 - CONFIDENCE) / 2
    true = float(stats.beta.ppf(error, found, calls - found + 1)) if found else 0.0
    false = float(stats.beta.ppf(1 - error, taken + 1, calls - taken)) if taken < calls else 1.0
    return Rates(true, false)


def epsilon_of_rates(found: Rates, delta: float) -> float:
    """The least epsilon of any (epsilon, delta)-private mechanism that could be told apart so well."""
    pairs = ((found.true, found.false), (1 - found.false, 1 - found.true))
    told = [math.log((hit - delta) / miss) for hit, miss in pairs if hit > delta and miss > 0]
    return max([0.0, *told])


def mu_of_rates(found: Rates) -> float:
    """The least distance, in deviations, of two Gaussian releases that could be told apart so well."""
    return max(float(stats.norm.ppf(found.true) - stats.norm.ppf(found.false)), 0.0)
