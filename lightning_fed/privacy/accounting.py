"""What a run of DP-SGD, or of plain Gaussian releases, costs: epsilon at a given delta.

Adjacency is add/remove, which is also that of a blanked image (zero-out). Every figure is an upper bound, those of
PRV by a conjecture of which direction is the dearer one (`epsilon`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.privacy_accountant import NeighboringRelation

from lightning_fed.checks import one_of
from lightning_fed.errors import InputError
from lightning_fed.privacy.gaussian import check_delta, gaussian_epsilon
from lightning_fed.privacy.poisson import CACHED, PoissonGaussian, or_infinite, rdp_epsilon
from lightning_fed.privacy.prv import prv_epsilon

PLD_POINTS = 2**18
SMALLEST_PLD_DELTA = 1e-11  # below, rounding in PLD's own FFTs would count


def epsilon(mechanism: PoissonGaussian, delta: float, accountant: str = "prv") -> float:
    """The run's epsilon at `delta`, an upper bound; 0 without steps, infinite without noise.

    `prv`: Gopi, Lee & Wutschitz 2021 (arXiv 2106.02848, section 5) with Opacus's classes, its own error bound of
    min(0.01, epsilon / 500) included. Where no mesh of `prv.MOST_POINTS` holds that, the least of `pld`, `rdp` and
    the unsampled Gaussian: for epsilons below about 0.3 over thousands of steps or 0.01 over one, above about 500,
    for a delta below 1e-12 a step, and where Opacus fails. At rate 1 it is exact.
    `rdp`: Opacus's, 6 to 100 % above the others. `pld`: dp-accounting's, by Connect-the-Dots (Doroshenko et al.
    2022), pessimistic.

    `prv` composes the direction in which the image is removed, as Opacus does. The other is not above it at any
    Renyi order (Mironov, Talwar & Zhang 2019, arXiv 1908.10530, section 3); that it is not above it in epsilon
    after many steps is a conjecture (Lebeda et al. 2024, arXiv 2405.20769). `pld`, which the report shows beside,
    composes both, and in the tests' grid is never above `prv`.

    Raises:
        InputError: a value out of range, or an accountant that is none, `gdp` among them.
    """
    check_delta(delta)
    if accountant == "gdp":
        raise InputError(
            "privacy.accountant 'gdp' is no guarantee: a central limit, which may fall below the true epsilon; "
            "take 'prv'"
        )
    one_of("privacy", ("prv", "rdp", "pld"), accountant=accountant)
    trivial = _trivial(mechanism, delta)
    if trivial is not None:
        return trivial
    if accountant == "rdp":
        return rdp_epsilon(mechanism, delta)
    if accountant == "pld":
        return _pld(mechanism, delta, NeighboringRelation.ADD_OR_REMOVE_ONE)
    return _prv(mechanism, delta)


def answers(mechanism: PoissonGaussian, delta: float) -> str:
    """Whose bound `epsilon` gives by `prv`: its own, or `pld`, `rdp` or the `exact Gaussian` in its place."""
    if _trivial(mechanism, delta) is not None:
        return "exact Gaussian"
    given = epsilon(mechanism, delta)
    if given == prv_epsilon(mechanism, delta):
        return "prv"
    if given == gaussian_epsilon(mechanism.noise_multiplier, mechanism.steps, delta):
        return "exact Gaussian"
    return "rdp" if given == rdp_epsilon(mechanism, delta) else "pld"


def epsilon_replace_one(mechanism: PoissonGaussian, delta: float) -> float:
    """Epsilon for one image replaced by any other, an upper bound; 1.1 to 2.5 times that of add/remove.

    PLD of dp-accounting's pair for a step, (1-q) N(0) + q N(1) against (1-q) N(0) + q N(-1). It dominates: with
    clipped gradients g and g' and given the rest of the batch, the hockey-stick divergence of order c >= 1 is
    q E[(1 - a L(-g) - c L(g'-g))+] over a Gaussian u at g, with a = (c-1)(1-q)/q and
    L(v) = exp(<u-g, v> / s^2 - |v|^2 / 2s^2). It is convex in the sum, and the covariances |g|^2, <-g, g'-g> and
    |g'-g|^2 are all greatest, 1, 2 and 4, at g' = -g of norm 1: Kahane's convexity inequality (1986). Orders
    below 1 follow as the pair is its own mirror image; composition is that of Zhu, Dong & Wang 2022
    (arXiv 2106.08567), step by step, as Lebeda et al. 2024 (arXiv 2405.20769) demand.

    Where PLD fails: the lesser of the unsampled Gaussian at twice the sensitivity, and twice RDP's epsilon at
    delta / (1 + exp(epsilon)), add/remove taken twice (which would be 1.5 times as much at an epsilon of 5).

    Raises:
        InputError: a value out of range.
    """
    check_delta(delta)
    trivial = _trivial(replace(mechanism, noise_multiplier=mechanism.noise_multiplier / 2), delta)
    if trivial is not None:
        return trivial
    return _replace_one(mechanism, delta)


def _trivial(mechanism: PoissonGaussian, delta: float) -> float | None:
    if mechanism.steps == 0 or mechanism.rate == 0:
        return 0.0
    if mechanism.noise_multiplier == 0:
        return math.inf
    if mechanism.rate == 1:
        return gaussian_epsilon(mechanism.noise_multiplier, mechanism.steps, delta)
    return None


def _spread(rate: float, noise_multiplier: float) -> float:
    """Deviation of a step's privacy loss where that is small: the root of the chi-square divergence."""
    return rate * math.sqrt(math.expm1(min(noise_multiplier**-2, 100.0)))


def _reach(mechanism: PoissonGaussian, delta: float) -> float:
    """About the greatest privacy loss that counts, of a step and of all: what a mesh must hold, no bound."""
    rate, sigma, steps = mechanism.rate, mechanism.noise_multiplier, mechanism.steps
    spread = _spread(rate, sigma)
    exponent = (10 * sigma + 0.5) / sigma**2
    step = math.log1p(rate * math.expm1(exponent)) if exponent < 50 else exponent
    unsampled = gaussian_epsilon(sigma / 2, steps, delta)
    total = steps * spread**2 + 10 * math.sqrt(steps) * spread
    return max(step, min(2 * rdp_epsilon(mechanism, delta), unsampled, total))


@lru_cache(maxsize=CACHED)
def _pld(mechanism: PoissonGaussian, delta: float, relation: NeighboringRelation) -> float:
    """PLD on a mesh of 1/30 of a step's spread and 0.001 at most, which lifts epsilon by about 0.01 %."""
    if delta < SMALLEST_PLD_DELTA:
        return math.inf
    mesh = min(_spread(mechanism.rate, mechanism.noise_multiplier) / 30, 1e-3)
    mesh = max(mesh, _reach(mechanism, delta) / PLD_POINTS)
    if not 0 < mesh < 1:
        return math.inf

    def composed() -> float:
        step = privacy_loss_distribution.from_gaussian_mechanism(
            standard_deviation=mechanism.noise_multiplier,
            value_discretization_interval=mesh,
            sampling_prob=mechanism.rate,
            neighboring_relation=relation,
        )
        return float(step.self_compose(mechanism.steps).get_epsilon_for_delta(delta))

    return or_infinite(composed)


def _fallback(mechanism: PoissonGaussian, delta: float) -> float:
    """The least upper bound without PRV."""
    coarse = _coarse(mechanism, delta)
    return min(coarse, _pld(mechanism, delta, NeighboringRelation.ADD_OR_REMOVE_ONE)) if coarse > 0 else 0.0


def _coarse(mechanism: PoissonGaussian, delta: float) -> float:
    """The lesser of RDP's bound and the unsampled Gaussian's: sampling never costs."""
    return min(gaussian_epsilon(mechanism.noise_multiplier, mechanism.steps, delta), rdp_epsilon(mechanism, delta))


@lru_cache(maxsize=CACHED)
def _replace_one(mechanism: PoissonGaussian, delta: float) -> float:
    unsampled = gaussian_epsilon(mechanism.noise_multiplier / 2, mechanism.steps, delta)
    if unsampled == 0:
        return 0.0
    pair = _pld(mechanism, delta, NeighboringRelation.REPLACE_ONE)
    if math.isfinite(pair):
        return min(pair, unsampled)
    return min(unsampled, twice(lambda at: _coarse(mechanism, at), delta))


def twice(bound: Callable[[float], float], delta: float) -> float:
    """The least 2 e found with e = bound(delta1) and delta1 (1 + exp(e)) <= delta, add/remove taken twice."""
    log_low, log_high = math.log(delta) - 700, math.log(delta / 2)
    best = math.inf
    for _ in range(40):
        middle = (log_low + log_high) / 2
        once = bound(math.exp(middle)) if middle > -740 else math.inf
        if math.isfinite(once) and middle + float(np.logaddexp(0.0, once)) <= math.log(delta):
            best, log_low = min(best, 2 * once), middle
        else:
            log_high = middle
    return best


@lru_cache(maxsize=CACHED)
def _prv(mechanism: PoissonGaussian, delta: float) -> float:
    """An upper bound by PRV, by the fallbacks where it cannot."""
    bound = prv_epsilon(mechanism, delta)
    if bound is None:
        return _fallback(mechanism, delta)
    return min(bound, gaussian_epsilon(mechanism.noise_multiplier, mechanism.steps, delta))
