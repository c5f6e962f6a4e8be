"""What it costs in privacy to choose among runs by their results."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq

from lightning_fed.errors import InputError
from lightning_fed.privacy import joint, renyi
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.poisson import ORDERS as DEFAULT_ORDERS
from lightning_fed.privacy.poisson import rdp_of_step
from lightning_fed.privacy.samplers import RELATIVE_ERROR

ORDERS = np.array(DEFAULT_ORDERS)


def epsilon_of_best(dose: Dose, steps: int, runs: float, delta: float | None = None) -> float:
    """Epsilon of releasing the best of a random number of runs, each on the same images with this dose.

    Papernot & Steinke 2022 (arXiv 2110.03620, Theorem 2 at eta = 0): the number K of runs is drawn from the
    logarithmic distribution P(K = k) in proportion to (1 - gamma)^k / k, before the first; any run may have other
    settings as long as it spends no more. Then for any two orders a > 1 and b >= 1 at which a run has Renyi
    divergences r(a) and r(b), the best has, at order a,

        r(a) + (1 - 1/b) r(b) + log(1/gamma) / b + log(E[K]) / (a - 1).

    Args:
        steps: releases of one run. runs: mean of K, at least 1. delta: another one than the dose's.

    Raises:
        InputError: fewer than one run.
    """
    if not runs >= 1:
        raise InputError(f"privacy.tuning_runs is {runs:g}: it must be 1 or greater")
    orders, curve = _curve(dose, steps)
    gamma = _gamma(runs)
    extra = float(np.min((1 - 1 / orders) * curve - math.log(gamma) / orders))
    whole = curve + extra + math.log(runs) / (orders - 1)
    at = dose.delta if delta is None else delta
    if dose.joint is not None:
        at = joint.left_of(at)
    bounds = whole + np.log1p(-1 / orders) - (math.log(at) + np.log(orders)) / (orders - 1)
    return max(float(bounds.min()), 0.0)


def _gamma(runs: float) -> float:
    """The parameter at which the logarithmic distribution has that mean: (1/gamma - 1) / log(1/gamma)."""
    if runs < 1 + 1e-9:
        return 1.0
    log_inverse = brentq(lambda x: math.log(math.expm1(x) / x) - math.log(runs), 1e-9, 200.0)
    return math.exp(-float(log_inverse))


def _curve(dose: Dose, steps: int) -> tuple[renyi.Reals, renyi.Reals]:
    """Orders, and Renyi divergences of a whole run at them.

    Probabilities that are off by a factor of exp(e) each add e (2 a - 1) / (a - 1) at order a.
    """
    if dose.joint is None:
        return ORDERS, steps * rdp_of_step(dose.rate, dose.noise_multiplier)
    if dose.joint.distribution == "skellam":
        orders = renyi.ORDERS.astype(float)
        step = joint.sampled_curve(dose.joint, dose.rate, dose.noise_multiplier)
    else:
        orders = ORDERS
        step = rdp_of_step(dose.rate, joint.gaussian_multiplier(dose.joint, dose.noise_multiplier))
    off = RELATIVE_ERROR * dose.joint.coordinates * steps * dose.joint.hospitals
    return orders, steps * step + off * (2 * orders - 1) / (orders - 1)
