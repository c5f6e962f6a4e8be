"""Renyi differential privacy of integer noise at whole orders, sampled or not, and epsilon from it."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

Reals = NDArray[np.float64]

ORDERS: NDArray[np.int64] = np.arange(2, 257)
"""Whole orders without a gap: the bound for a sampled release at one of them needs all below it."""


def skellam(l2: float, l1: float, variance: float) -> Reals:
    """Divergence of order `ORDERS` of integers with Skellam noise, shifted by integers of norms `l2` and `l1`.

    Agarwal, Kairouz & Liu 2021 (arXiv 2110.04995, Theorem 3.5), all in steps of the grid.

    Args:
        variance: of the noise on each coordinate, the sum of all that is counted on.

    Returns:
        float64 (orders,).
    """
    over = np.minimum(((2 * ORDERS - 1) * l2**2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))
    bound: Reals = ORDERS * l2**2 / (2 * variance) + over
    return bound


def discrete_gaussian(l2: float, l1: float, variance: float, shares: int, coordinates: int) -> Reals:
    """Divergence of order `ORDERS` of integers with a sum of equal discrete Gaussian numbers.

    Kairouz, Liu & Steinke 2021 (arXiv 2102.06387, Proposition 5 and Theorem 1), in steps of the grid. Their tau,
    by which such a sum differs from a discrete Gaussian, is nothing at the variances in use, but it is counted.

    Args:
        variance: of the sum on each coordinate. shares: numbers in the sum. coordinates: of the vector.
    """
    each = variance / shares
    tau = 10 * sum(math.exp(-2 * math.pi**2 * each * k / (k + 1)) for k in range(1, shares))
    p2, p1 = l2 / math.sqrt(variance), l1 / math.sqrt(variance)
    bound: Reals = np.minimum.reduce(
        [
            ORDERS / 2 * p2**2 + tau * coordinates,
            ORDERS / 2 * (p2**2 + 2 * p1 * tau + tau**2 * coordinates),
            ORDERS / 2 * (p2 + math.sqrt(coordinates) * tau) ** 2,
        ]
    )
    return bound


def sampled(curve: Reals, rate: float) -> Reals:
    """Divergence of a release of a Poisson sample, from that of the release itself, with noise symmetric around 0.

    With P the release without a record and Q with it, a record that is removed costs what the binomial expansion
    of E_P ((1 - q) + q Q/P)^a says, term by term, as E_P (Q/P)^j is exp((j-1) D_j): the formula of Zhu & Wang 2019
    (ICML, Theorem 6). One that is added costs no more: to turn noise and shifted noise around the middle of the
    shift swaps P and Q (Mironov, Talwar & Zhang 2019, arXiv 1908.10530, Theorem 5). Point by point: where Q/P is
    t >= 1 it is 1/t at the turned point, which has t times the chance; with u = 1 - q + q t, u' = 1 - q + q/t and
    c = a - 1/2 both give the removed record sqrt(u) sinh(c ln u) - t sqrt(u') sinh(c ln 1/u') more, twice. That is
    0 at c = 1/2, and as u u' >= 1 the first sinh grows no slower in c. So the factor of 3 of Zhu & Wang's Theorem
    5, which is for any mechanism, is not needed. Sampling never costs: the curve is a bound too.

    That is for one shift. Given the other images' samples and the roundings, a release is noise shifted by a fixed
    vector of integers, so that turning maps the lattice onto itself; the divergence of the mixtures over both is
    at most the greatest of the parts (it is quasi-convex in the pair); and the curve grows with the shift's norms.

    Args:
        curve: float64 (orders,) at `ORDERS`. rate: chance of each record to be in the sample.
    """
    if rate == 0:
        return np.zeros_like(curve)
    if rate == 1:
        return curve
    log_terms = _log_binomials() + ORDERS * math.log(rate)
    log_terms = log_terms + (ORDERS[:, None] - ORDERS) * math.log1p(-rate) + (ORDERS - 1) * curve
    first = (ORDERS - 1) * math.log1p(-rate) + np.log1p(rate * (ORDERS - 1))
    together = np.logaddexp(first, logsumexp(log_terms, axis=1))
    bound: Reals = np.minimum(together / (ORDERS - 1), curve)
    return bound


@lru_cache(maxsize=1)
def _log_binomials() -> Reals:
    """Logarithms of order over j for j in `ORDERS`, float64 (orders, orders); -inf where j is above the order."""
    order, j = ORDERS[:, None].astype(float), ORDERS.astype(float)
    inside = j <= order
    logs = gammaln(order + 1) - gammaln(j + 1) - gammaln(np.where(inside, order - j, 0) + 1)
    table: Reals = np.where(inside, logs, -np.inf)
    return table


def epsilon_of_curve(curve: Reals, delta: float) -> float:
    """The least epsilon at `delta` of divergences at `ORDERS` (Canonne, Kamath & Steinke 2020, Proposition 12)."""
    bounds = curve + np.log1p(-1 / ORDERS) - (math.log(delta) + np.log(ORDERS)) / (ORDERS - 1)
    return max(float(bounds.min()), 0.0)
