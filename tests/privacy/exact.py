"""Integer noise by other means than the package's: masses by recurrence, divergences by summation.

In one dimension, where sums over all integers can be had; nothing here comes from `lightning_fed`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import logsumexp

Reals = NDArray[np.float64]
SKELLAM, GAUSSIAN = "skellam", "discrete_gaussian"
BOTH = (SKELLAM, GAUSSIAN)
DIGITS = 40


def exact_masses(distribution: str, variance: float, reach: int) -> list[Decimal]:
    """Masses of 0 to `reach` over that of 0, in 40 digits.

    Skellam's by Miller's algorithm: I_{k-1} = I_{k+1} + 2k/V I_k from far outside, downwards, which is stable.
    """
    with localcontext() as context:
        context.prec = DIGITS
        v = Decimal(variance)
        if distribution == GAUSSIAN:
            return [(-Decimal(k * k) / (2 * v)).exp() for k in range(reach + 1)]
        above, here = Decimal(0), Decimal(1)
        found = []
        for k in range(reach + int(12 * math.sqrt(variance)), 0, -1):
            above, here = here, above + 2 * k / v * here
            if k <= reach + 1:
                found.append(here)
        return [mass / found[-1] for mass in reversed(found)]


def log_masses(distribution: str, variance: float, reach: int) -> Reals:
    """Logarithms of the probabilities of -reach to reach, float64 (2 reach + 1,)."""
    k = np.arange(reach + 1)
    if distribution == GAUSSIAN:
        half = -(k**2) / (2 * variance)
    else:
        half = np.cumsum([0.0, *_log_ratios(variance, reach)])
    whole = np.concatenate([half[:0:-1], half])
    result: Reals = whole - logsumexp(whole)
    return result


def _log_ratios(variance: float, reach: int) -> list[float]:
    """log I_k(V) / I_{k-1}(V) for k from 1 to `reach`, by the continued fraction from far outside."""
    ratio, found = 0.0, []
    for k in range(reach + int(12 * math.sqrt(variance)) + 50, 0, -1):
        ratio = 1 / (2 * k / variance + ratio)
        if k <= reach:
            found.append(math.log(ratio))
    return found[::-1]


def summed(log_p: Reals, shares: int) -> Reals:
    """Log masses of the sum of so many, on the same integers."""
    masses = single = np.exp(log_p)
    for _ in range(shares - 1):
        masses = np.convolve(masses, single)
    middle, reach = len(masses) // 2, len(single) // 2
    with np.errstate(divide="ignore"):
        result: Reals = np.log(masses[middle - reach : middle + reach + 1])
    return result


def shifted_pair(log_masses: Reals, shift: int) -> tuple[Reals, Reals]:
    """Log masses with and without a shift, on the integers that both know."""
    return log_masses[: len(log_masses) - shift], log_masses[shift:]


def mixed(rate: float, there: Reals, absent: Reals) -> Reals:
    """Log masses of a release whose record is there with a chance of `rate`."""
    if rate == 1:
        return there
    result: Reals = np.logaddexp(math.log(rate) + there, math.log1p(-rate) + absent)
    return result


def renyi(log_p: Reals, log_q: Reals, orders: Sequence[int]) -> Reals:
    """Renyi divergences of P from Q at whole orders, float64 (orders,)."""
    loss = log_p - log_q
    result: Reals = np.array([logsumexp(log_q + order * loss) / (order - 1) for order in orders])
    return result


def spared(pairs: Sequence[tuple[Reals, Reals]], epsilon: float, mesh: float = 2e-4) -> float:
    """Hockey-stick divergence of order exp(epsilon) of the releases together, from below.

    Each loss is rounded down to the mesh, its rarest values are left out, and the losses are added up by Fourier
    transforms. What rounding in those adds is below 1e-14.
    """
    losses = [_on_mesh(log_p, log_q, mesh) for log_p, log_q in pairs]
    lowest = sum(low for low, _ in losses)
    points = sum(len(chances) - 1 for _, chances in losses) + 1
    length = next_fast_len(points, real=True)
    spectrum = np.ones(length // 2 + 1, dtype=complex)
    for _, chances in losses:
        spectrum *= rfft(chances, length)
    together = np.maximum(irfft(spectrum, length)[:points], 0)
    total = (np.arange(points) + lowest) * mesh
    above = total > epsilon
    return float(together[above] @ -np.expm1(epsilon - total[above]))


def _on_mesh(log_p: Reals, log_q: Reals, mesh: float) -> tuple[int, Reals]:
    """The least loss in steps of the mesh, and the chances from it on."""
    likely = log_p > math.log(1e-13)
    steps = np.floor((log_p[likely] - log_q[likely]) / mesh).astype(int)
    lowest = int(steps.min())
    chances: Reals = np.bincount(steps - lowest, np.exp(log_p[likely])).astype(np.float64)
    return lowest, chances
