"""The noise that a budget asks for, and the steps that it pays for."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from scipy.optimize import brentq

from lightning_fed.checks import in_range, positive
from lightning_fed.errors import InputError
from lightning_fed.privacy.accounting import epsilon as epsilon_of
from lightning_fed.privacy.gaussian import gaussian_epsilon, gaussian_log_delta
from lightning_fed.privacy.poisson import CACHED, PoissonGaussian

GREATEST_MULTIPLIER = 1e4
"""Noise of one step that drowns ten thousand images, each at the clipping bound: nothing is learnt beyond it."""
GREATEST_EPSILON = 1e6
TOLERANCE = 1e-4  # of epsilon, from below; noise falls no slower than epsilon rises
MOST_TRIALS = 60


@lru_cache(maxsize=CACHED)
def noise_multiplier_for(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The least noise multiplier that keeps steps of DP-SGD within a budget by `accounting.epsilon`.

    Starts from the central limit's (Bu et al. 2020, arXiv 1911.11607), which is no bound but has the
    right slope, and goes on by secants of log epsilon over log multiplier: mostly three to five evaluations.

    Args:
        epsilon, delta: the budget of the whole run. rate: chance of an image to be in a step's batch, above 0.

    Returns:
        a multiplier whose epsilon lies between 0.9999 and 1 times that asked for (0.995 at the points where
        `accounting.epsilon` passes from one accountant to the next).

    Raises:
        InputError: a value out of range, or a budget too small for `GREATEST_MULTIPLIER`, with the smallest that
            would do.
    """
    _check(epsilon, delta, steps)
    in_range("privacy", 0.0, 1.0, sample_rate=rate)
    if rate == 0:
        raise InputError("privacy.sample_rate is 0: nothing would be learnt, set it above 0")
    if rate == 1:
        return gaussian_noise_multiplier_for(epsilon, delta, steps)
    return _search(epsilon, delta, rate, steps)


def gaussian_noise_multiplier_for(epsilon: float, delta: float, releases: int) -> float:
    """The least noise multiplier, deviation over sensitivity, of so many Gaussian releases; exact to 1e-10.

    The inverse of `gaussian.gaussian_epsilon` (Balle & Wang 2018), rounded up.

    Raises:
        InputError: a value out of range, or a budget too small for `GREATEST_MULTIPLIER`.
    """
    _check(epsilon, delta, releases)
    if gaussian_epsilon(GREATEST_MULTIPLIER, releases, delta) > epsilon:
        raise _too_small(epsilon, gaussian_epsilon(GREATEST_MULTIPLIER, releases, delta), releases)
    target = math.log(delta)
    high = GREATEST_MULTIPLIER / math.sqrt(releases)  # of one release, as all of them together
    low = high
    while gaussian_log_delta(epsilon, low) <= target:
        high, low = low, low / 2
    found = _bisected(epsilon, target, low, high) if low < high else high
    return min(found * math.sqrt(releases) * (1 + 1e-10), GREATEST_MULTIPLIER)


def smallest_epsilon(delta: float, rate: float, steps: int = 1) -> float:
    """The epsilon of so many steps at `GREATEST_MULTIPLIER`: no smaller budget is accepted.

    Raises:
        InputError: a value out of range.
    """
    return epsilon_of(PoissonGaussian(rate, GREATEST_MULTIPLIER, steps), delta)


def affordable_steps(cost: Callable[[int], float], epsilon: float, at_most: int) -> int:
    """The most steps, `at_most` or fewer, that a budget pays for; 0 where none.

    Args:
        cost: epsilon of so many steps.

    Raises:
        InputError: a budget out of range.
    """
    positive("privacy", epsilon=epsilon)
    if cost(at_most) <= epsilon:
        return at_most
    paid, unpaid = 0, at_most
    while unpaid - paid > 1:
        middle = (paid + unpaid) // 2
        paid, unpaid = (middle, unpaid) if cost(middle) <= epsilon else (paid, middle)
    return paid


def _check(epsilon: float, delta: float, steps: int) -> None:
    positive("privacy", epsilon=epsilon)
    in_range("privacy", 0.0, GREATEST_EPSILON, epsilon=epsilon)
    if not 0 < delta < 1:
        raise InputError(f"privacy.delta is {delta}: it must lie between 0 and 1, and below 1 over the images")
    if steps < 1:
        raise InputError(f"steps are {steps}: a budget is spent over one step or more")


def _too_small(asked: float, smallest: float, steps: int) -> InputError:
    counted = "one step" if steps == 1 else f"{steps} steps"
    rounded = math.ceil(smallest * 1e6) / 1e6 if smallest > 1e-3 else smallest * 1.001
    return InputError(
        f"privacy.epsilon is {asked:g}: too small for {counted} at any noise multiplier up to "
        f"{GREATEST_MULTIPLIER:g}; the smallest that would do is {rounded:.6g}"
    )


def _bisected(epsilon: float, log_delta: float, low: float, high: float) -> float:
    """The multiplier of one release between two, on the safe side to 1e-12."""
    for _ in range(MOST_TRIALS):
        if high - low <= 1e-12 * high:
            break
        middle = math.sqrt(low * high)
        low, high = (low, middle) if gaussian_log_delta(epsilon, middle) <= log_delta else (middle, high)
    return high


def _search(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """Secants between a multiplier that is too small and one that will do; bisection where they leave the two."""
    target = math.log(epsilon * (1 - TOLERANCE / 2))
    trials: list[tuple[float, float]] = []  # log multiplier, log of its epsilon over the target
    low, high = -math.inf, math.inf
    at = math.log(_central_limit(epsilon, delta, rate, steps))
    for _ in range(MOST_TRIALS):
        at = min(at, math.log(GREATEST_MULTIPLIER))
        cost = epsilon_of(PoissonGaussian(rate, math.exp(at), steps), delta)
        if epsilon * (1 - TOLERANCE) <= cost <= epsilon:
            return math.exp(at)
        if cost <= epsilon:
            high = min(high, at)
        elif at == math.log(GREATEST_MULTIPLIER):
            raise _too_small(epsilon, smallest_epsilon(delta, rate, steps), steps)
        else:
            low = max(low, at)
        if high - low < TOLERANCE / 100:
            break  # a step of the curve, as where epsilon reaches 0
        trials.append((at, math.log(cost) - target if 0 < cost < math.inf else math.nan))
        at = _next(trials, low, high)
    return math.exp(high)


def _next(trials: list[tuple[float, float]], low: float, high: float) -> float:
    at, excess = trials[-1]
    slope = -1.5
    if len(trials) > 1 and trials[-2][0] != at:
        slope = (excess - trials[-2][1]) / (at - trials[-2][0])
    proposed = at - excess / slope if slope < -0.2 else math.nan
    proposed = min(max(proposed, at - 1), at + 1)
    if low < proposed < high:
        return proposed
    if math.isinf(low):
        return high - 1
    return low + 1 if math.isinf(high) else (low + high) / 2


def _central_limit(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """A first guess: mu = rate sqrt(steps (exp(1/sigma^2) - 1)), the Gaussian to which many steps tend."""
    log_mu = float(
        brentq(lambda x: gaussian_log_delta(epsilon, math.exp(-x)) - math.log(delta), -20.0, 20.0, xtol=1e-6)
    )
    mu = math.exp(log_mu)
    return 1 / math.sqrt(math.log1p(mu * mu / (rate * rate * steps)))
