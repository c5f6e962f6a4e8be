"""What Gaussian releases without sampling cost: exact."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import erfcx, ndtr, ndtri

from lightning_fed.checks import not_negative
from lightning_fed.errors import InputError


def gaussian_epsilon(noise_multiplier: float, releases: int, delta: float) -> float:
    """Epsilon of Gaussian releases without sampling, exact.

    Balle & Wang 2018 (arXiv 1805.06530, Theorem 8), which composes as one release at mu = sqrt(releases) /
    noise_multiplier. From 1e-9 to 1e9 without loss of digits that matter; rounded up in the twelfth.

    Args:
        noise_multiplier: deviation of the noise over the sensitivity.

    Raises:
        InputError: a value out of range.
    """
    check_delta(delta)
    not_negative("privacy", noise_multiplier=noise_multiplier)
    if releases < 0:
        raise InputError(f"releases are {releases}: count whole releases from 0 on")
    if releases == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    mu = math.sqrt(releases) / noise_multiplier
    target = math.log(delta)
    lowest = -mu / 2  # epsilon 0
    if _gaussian_log_delta(lowest, mu) <= target:
        return 0.0
    highest = float(-ndtri(delta)) + 1e-6
    a = float(brentq(lambda x: _gaussian_log_delta(x, mu) - target, lowest, highest, xtol=1e-14, rtol=1e-14))
    return max(mu * (a + mu / 2), 0.0) * (1 + 1e-12)


def gaussian_log_delta(epsilon: float, noise_multiplier: float, releases: int = 1) -> float:
    """The logarithm of the least delta of Gaussian releases at `epsilon` (Balle & Wang 2018, Theorem 8)."""
    mu = math.sqrt(releases) / noise_multiplier
    return _gaussian_log_delta(epsilon / mu - mu / 2, mu)


def _gaussian_log_delta(a: float, mu: float) -> float:
    """log(Phi(-a) - exp(epsilon) Phi(-a-mu)) at a = epsilon/mu - mu/2, where exp(epsilon) phi(a+mu) = phi(a)."""
    if a < -5:
        spared = math.exp(-a * a / 2) * float(erfcx((a + mu) / math.sqrt(2))) / 2
        return math.log1p(-(float(ndtr(a)) + spared))
    mills = float(erfcx(a / math.sqrt(2))) - float(erfcx((a + mu) / math.sqrt(2)))
    return -a * a / 2 + math.log(mills / 2) if mills > 0 else -math.inf


def check_delta(delta: float) -> None:
    """Raise `InputError` unless it is a chance between 0 and 1."""
    if not 0 < delta < 1:
        raise InputError(f"privacy.delta is {delta}: it must lie between 0 and 1, and below 1 over the images")
