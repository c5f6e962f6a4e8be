"""What the noise costs that hospitals share out inside a secure sum, and how much of it a budget asks for.

A round's release is the sum over hospitals of vectors of whole numbers: each hospital's clipped sum of gradients
on a grid, rounded, with its own integer noise. Of that noise `Joint.counted` shares are counted, those of the
hospitals that must at least be in an opened sum without the ones that collude with the server. Shares beyond
them, and whatever is done with the sum, are processing of what was paid for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lightning_fed.errors import InputError
from lightning_fed.privacy import accounting, renyi
from lightning_fed.privacy.calibration import GREATEST_MULTIPLIER, TOLERANCE, noise_multiplier_for
from lightning_fed.privacy.dose import Dose, Joint
from lightning_fed.privacy.poisson import CACHED, PoissonGaussian
from lightning_fed.privacy.samplers import NOISES, RELATIVE_ERROR, TAIL, Integers, refuse_variance

ROUNDING = 1e-3
"""Of C, for the roundings of float32: in norms and sums, and in the gradients of other images, whose load an image
changes. The last is measured and not proved: with ResNet-9 of width 16 and real images, others moved by at most
5e-5 of C in 1,200 pairs of neighbours, and by 4e-7 in loads of 2 to 65 rows. In a load of one row they moved by
2.6 % at worst; where loads may hold three rows or more, only a sample of a single image is one (`DrawnPlan`)."""
GRID = 100
"""C is at least so many roots of the number of coordinates: rounding adds 1 % to the sensitivity at most."""
SMALLEST_BOUND = 2**12
SHARE_OF_DELTA = 1e-3
GREATEST_ERROR = 1e-3  # of epsilon
SMOOTH = 100.0
LOG_WRAP = -40 * math.log(2)
"""Chance that any coordinate of the whole run leaves the ring, its logarithm."""


def grid_bound(coordinates: int) -> int:
    """Steps of the grid in the clipping norm: a power of two."""
    return int(max(SMALLEST_BOUND, 2 ** math.ceil(math.log2(GRID * math.sqrt(coordinates)))))


def sensitivity(joint: Joint) -> tuple[float, float]:
    """How far one image moves a hospital's rounded sum: L2 and L1 norms in steps of the grid.

    For any fixed roundings of two sums x and y by floor(x + u), each coordinate of their difference is less than 1
    from x - y, hence `bound` and the root of the coordinates; not the smaller bounds for single rounded
    contributions (Kairouz, Liu & Steinke 2021). Of whole numbers, the L1 norm is the L2 norm's square at most.
    Cutting coordinates moves two sums no further apart.
    """
    l2 = joint.bound * (1 + ROUNDING) + math.sqrt(joint.coordinates)
    return l2, l2 * min(math.sqrt(joint.coordinates), l2)


def variance_of_one(joint: Joint, noise_multiplier: float) -> float:
    """Variance of one hospital's noise on each coordinate, in steps of the grid, squared."""
    return (noise_multiplier * sensitivity(joint)[0]) ** 2


def epsilon(
    joint: Joint, rate: float, noise_multiplier: float, steps: int, delta: float, accountant: str = "prv"
) -> float:
    """Epsilon of so many sampled releases of the sum, an upper bound.

    The accountant that enforces (`prv`) is, for `skellam`, Renyi divergence at whole orders (`renyi`). For
    `discrete_gaussian` it is PRV of a continuous Gaussian whose variance is smaller by `SMOOTH`. It holds, since
    the mechanism only processes what that Gaussian released:

    1. A sum of n discrete Gaussian numbers of variance v has a mass within exp(+-tau) of that of one of variance
       V = n v, tau = 10 sum_k exp(-2 pi^2 v k / (k+1)) (Kairouz, Liu & Steinke 2021, Theorem 1).
    2. Let t = x + g with x a whole number and g Gaussian of variance V - r^2, and draw a whole number y with
       chances in proportion to exp(-(y-t)^2 / 2 r^2). Those add up to sqrt(2 pi) r (1 + 2 sum_k exp(-2 pi^2 r^2
       k^2) cos(2 pi k t)) (Poisson's summation), which is within a factor 1 +- z of the first term, z < 3
       exp(-2 pi^2 r^2). So the chance of y, the integral over g of one Gaussian times another, is within a factor
       (1+z)/(1-z) of that of x with a discrete Gaussian number of variance V (Peikert 2010, Theorem 3.1).
    3. So every probability of a release is within exp(+-d(tau + 4z)) of that of a function of the Gaussian's
       release, for sampled sets as for fixed ones: at most 2 d (tau + 4 z) a step is added to epsilon. With r^2 =
       100, and v above 4,096, that is less than 1e-800.

    Both add what the sampler may be off (see `samplers`): 2 eta a draw to epsilon, tau (1 + exp(epsilon)) a draw
    to delta, for the draws of all hospitals.

    Args:
        noise_multiplier: of one hospital's noise. delta: of the whole run.
        accountant: `prv` enforces; `rdp` is Renyi divergence for either; `pld` that of the continuous Gaussian
            of the same variance, which is no bound here and tells what the accounting costs.

    Returns:
        infinity without noise, or where there are so many draws that what the sampler is off would count: more
        than 1e-3 of epsilon, or of delta.
    """
    if steps == 0 or rate == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    if accountant == "pld":
        together = noise_multiplier * math.sqrt(joint.counted)
        return accounting.epsilon(PoissonGaussian(rate, together, steps), delta, "pld")
    bound = _bound(joint, rate, noise_multiplier, steps, left_of(delta), accountant)
    return _with_errors(joint, steps, bound, delta)


def left_of(delta: float) -> float:
    """What is left of delta beside what the sampler may be off."""
    return delta * (1 - SHARE_OF_DELTA)


def gaussian_asked(joint: Joint, noise_multiplier: float, delta: float) -> tuple[float, float]:
    """Of which Gaussian's noise multiplier `epsilon` asks PRV for `discrete_gaussian`, and at which delta."""
    return gaussian_multiplier(joint, noise_multiplier), left_of(delta)


def _with_errors(joint: Joint, steps: int, bound: float, delta: float) -> float:
    """A bound at `delta` less `SHARE_OF_DELTA`, with what the sampler may be off; infinite where that counts."""
    draws = joint.coordinates * steps * joint.hospitals
    error = 2 * RELATIVE_ERROR * draws
    cut_off = draws * TAIL * (1 + math.exp(min(bound + error, 600)))
    # The other half of the share is for delta itself, which grows by exp(error).
    return bound + error if error <= GREATEST_ERROR and cut_off <= SHARE_OF_DELTA / 2 * delta else math.inf


def _bound(joint: Joint, rate: float, noise_multiplier: float, steps: int, delta: float, accountant: str) -> float:
    if joint.distribution == "discrete_gaussian" and accountant == "prv":
        gaussian = PoissonGaussian(rate, gaussian_multiplier(joint, noise_multiplier), steps)
        return accounting.epsilon(gaussian, delta)
    return renyi.epsilon_of_curve(steps * sampled_curve(joint, rate, noise_multiplier), delta)


def gaussian_multiplier(joint: Joint, noise_multiplier: float) -> float:
    """Noise multiplier of the continuous Gaussian whose release a sum with `discrete_gaussian` noise processes.

    Args:
        noise_multiplier: of one hospital's noise.
    """
    variance = variance_of_one(joint, noise_multiplier) * joint.counted
    return math.sqrt(max(variance - SMOOTH, 0.0)) / sensitivity(joint)[0]


@lru_cache(maxsize=CACHED)
def sampled_curve(joint: Joint, rate: float, noise_multiplier: float) -> renyi.Reals:
    """Renyi divergence of one sampled release, at `renyi.ORDERS`."""
    l2, l1 = sensitivity(joint)
    variance = variance_of_one(joint, noise_multiplier) * joint.counted
    if joint.distribution == "skellam":
        return renyi.sampled(renyi.skellam(l2, l1, variance), rate)
    curve = renyi.discrete_gaussian(l2, l1, variance, joint.counted, joint.coordinates)
    return renyi.sampled(curve, rate)


def noise_multiplier_of_one(joint: Joint, rate: float, steps: int, budget: float, delta: float) -> float:
    """The least noise multiplier of one hospital that keeps a run within a budget by `epsilon`.

    Raises:
        InputError: a budget too small for any noise, or too many draws of it.
    """
    draws = joint.coordinates * steps * joint.hospitals
    if 2 * RELATIVE_ERROR * draws > GREATEST_ERROR:
        raise InputError(
            f"privacy.mechanism 'distributed': {draws:.2g} draws of integer noise are more than the sampler's "
            "error allows; take fewer rounds or a smaller network"
        )

    def cost(log_multiplier: float) -> float:
        return epsilon(joint, rate, math.exp(log_multiplier), steps, delta)

    # A continuous Gaussian asks for less, but not for much less.
    low = math.log(noise_multiplier_for(budget, delta, rate, steps) / math.sqrt(joint.counted))
    high = low + TOLERANCE
    while cost(high) > budget:
        low, high = high, high + 0.25
        if high > math.log(GREATEST_MULTIPLIER):
            raise InputError(f"privacy.epsilon is {budget:g}: too small for {steps} steps; raise it")
    while high - low > TOLERANCE / 10:
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) <= budget else (middle, high)
    return math.exp(high)


def refuse_other_variances(joint: Joint, noise_multiplier: float) -> None:
    """Raise unless a hospital's noise can be drawn.

    Raises:
        InputError: its variance is too small or too great for the sampler.
    """
    refuse_variance(variance_of_one(joint, noise_multiplier))


def epsilon_replaced(joint: Joint, rate: float, noise_multiplier: float, steps: int, delta: float) -> float:
    """Epsilon where one image is replaced by any other, an upper bound: add/remove taken twice.

    For `discrete_gaussian` that of the Gaussian which it processes.
    """
    if steps == 0 or rate == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    if joint.distribution == "discrete_gaussian":
        gaussian = PoissonGaussian(rate, gaussian_multiplier(joint, noise_multiplier), steps)
        bound = accounting.epsilon_replace_one(gaussian, left_of(delta))
        return _with_errors(joint, steps, bound, delta)
    share = left_of(delta)
    twice = accounting.twice(lambda at: _bound(joint, rate, noise_multiplier, steps, at, "prv"), share)
    twice_as_far = replace(joint, bound=2 * joint.bound, coordinates=4 * joint.coordinates)
    unsampled = _bound(twice_as_far, 1.0, noise_multiplier / 2, steps, share, "rdp")
    return _with_errors(joint, steps, min(twice, unsampled), delta)


def epsilon_realised(
    joint: Joint, rate: float, noise_multiplier: float, steps_by_honest: Mapping[int, int], delta: float
) -> float:
    """Epsilon with the noise of the honest hospitals that were in the sums, not only of those counted on.

    What it lies below the charged epsilon is never paid back, and it is a description: no guarantee against a
    server that picks who drops out by what it has seen. By Renyi divergence, or by `epsilon` with the fewest of
    any round where that is less.

    Args:
        steps_by_honest: releases by the number of honest hospitals in their sums.
    """
    with_steps = {honest: steps for honest, steps in steps_by_honest.items() if steps}
    if not with_steps or noise_multiplier == 0:
        return 0.0 if noise_multiplier else math.inf
    joints = {honest: replace(joint, counted=honest) for honest in with_steps}
    steps = sum(with_steps.values())
    curve = sum(
        (with_steps[honest] * sampled_curve(joints[honest], rate, noise_multiplier) for honest in joints),
        np.zeros(len(renyi.ORDERS)),
    )
    mixed = _with_errors(joint, steps, renyi.epsilon_of_curve(curve, left_of(delta)), delta)
    return min(mixed, epsilon(joints[min(joints)], rate, noise_multiplier, steps, delta))


def greatest_sum(dose: Dose, rounds: int) -> int:
    """A magnitude that no coordinate of a round's sum passes in a run, but with a chance of 2^-40.

    Args:
        dose: of any hospital. rounds: of the run.
    """
    joint = dose.joint
    assert joint is not None
    signal = joint.hospitals * dose.steps * joint.clamp
    if dose.noise_multiplier == 0:
        return signal
    variance = variance_of_one(joint, dose.noise_multiplier) * joint.hospitals * dose.steps
    log_chance = LOG_WRAP - math.log(joint.coordinates * rounds)
    return signal + math.ceil(NOISES[joint.distribution](variance).reach(log_chance))


def mean_gradient(total: Integers, max_grad_norm: float, dose: Dose, batch: float) -> NDArray[np.float32]:
    """From the opened sum (parameters,) to the mean gradient float32 (parameters,), by the public nominal batch.

    Args:
        batch: rate times images times samples of the hospitals that are in the sum.
    """
    joint = dose.joint
    assert joint is not None
    return (total * (max_grad_norm / joint.bound / batch)).astype(np.float32)
