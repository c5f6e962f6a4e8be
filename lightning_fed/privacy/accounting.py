"""What a run of DP-SGD, or of plain Gaussian releases, costs: epsilon at a given delta.

Adjacency is add/remove, which is also that of a blanked image (zero-out). Every figure is an upper bound, those of
PRV by a conjecture of which direction is the dearer one (`epsilon`).
"""

from __future__ import annotations

import logging
import math
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.privacy_accountant import NeighboringRelation
from numpy.typing import NDArray
from opacus.accountants import RDPAccountant
from opacus.accountants.analysis.prv import DiscretePRV, Domain, PoissonSubsampledGaussianPRV, discretize
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent
from scipy.fft import irfft, next_fast_len, rfft
from scipy.optimize import brentq
from scipy.special import erfcx, ndtr, ndtri

from lightning_fed.checks import in_range, not_negative, one_of
from lightning_fed.errors import InputError

Accountant = Literal["prv", "rdp", "pld"]
Reals = NDArray[np.float64]

EPSILON_ERROR = 0.01  # of PRV, at most; and at most this share of epsilon:
RELATIVE_ERROR = 1 / 500
DELTA_ERROR = 1 / 1000  # of PRV, in shares of delta
MOST_POINTS = 2**21  # of a mesh; where more would be needed PLD answers
GREATEST_LOSS = 600.0  # exp of a loss on the mesh stays finite
FFT_ERROR = 1e-15  # of delta, for each step composed by an FFT
PLD_POINTS = 2**18
SMALLEST_PLD_DELTA = 1e-11  # below, rounding in PLD's own FFTs would count
ORDERS = RDPAccountant.DEFAULT_ALPHAS
CACHED = 4096


@dataclass(frozen=True)
class PoissonGaussian:
    """Releases of a Poisson-subsampled Gaussian: DP-SGD.

    Args:
        rate: chance of an image to be in a step's batch, 0 to 1. noise_multiplier: deviation of the noise over the
            clipping bound. steps: releases, empty batches included.

    Raises:
        InputError: a value out of range.
    """

    rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        in_range("privacy", 0.0, 1.0, sample_rate=self.rate)
        not_negative("privacy", noise_multiplier=self.noise_multiplier)
        if self.steps != int(self.steps) or self.steps < 0:
            raise InputError(f"steps are {self.steps}: count whole steps from 0 on")


def epsilon(mechanism: PoissonGaussian, delta: float, accountant: str = "prv") -> float:
    """The run's epsilon at `delta`, an upper bound; 0 without steps, infinite without noise.

    `prv`: Gopi, Lee & Wutschitz 2021 (arXiv 2106.02848, section 5) with Opacus's classes, its own error bound of
    min(0.01, epsilon / 500) included. Where no mesh of `MOST_POINTS` holds that, the least of `pld`, `rdp` and the
    unsampled Gaussian: for epsilons below about 0.3 over thousands of steps or 0.01 over one, above about 500, for
    a delta below 1e-12 a step, and where Opacus fails. At rate 1 it is exact.
    `rdp`: Opacus's, 6 to 100 % above the others. `pld`: dp-accounting's, by Connect-the-Dots (Doroshenko et al.
    2022), pessimistic.

    `prv` composes the direction in which the image is removed, as Opacus does. The other is not above it at any
    Renyi order (Mironov, Talwar & Zhang 2019, arXiv 1908.10530, section 3); that it is not above it in epsilon
    after many steps is a conjecture (Lebeda et al. 2024, arXiv 2405.20769). `pld`, which the report shows beside,
    composes both, and in the tests' grid is never above `prv`.

    Raises:
        InputError: a value out of range, or an accountant that is none, `gdp` among them.
    """
    _check(delta)
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
        return _rdp(mechanism, delta)
    if accountant == "pld":
        return _pld(mechanism, delta, NeighboringRelation.ADD_OR_REMOVE_ONE)
    return _prv(mechanism, delta)


def answers(mechanism: PoissonGaussian, delta: float) -> str:
    """Whose bound `epsilon` gives by `prv`: its own, or `pld`, `rdp` or the `exact Gaussian` in its place."""
    if _trivial(mechanism, delta) is not None:
        return "exact Gaussian"
    given = epsilon(mechanism, delta)
    if given == _prv_on_fitting_mesh(mechanism, delta):
        return "prv"
    if given == gaussian_epsilon(mechanism.noise_multiplier, mechanism.steps, delta):
        return "exact Gaussian"
    return "rdp" if given == _rdp(mechanism, delta) else "pld"


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
    _check(delta)
    trivial = _trivial(replace(mechanism, noise_multiplier=mechanism.noise_multiplier / 2), delta)
    if trivial is not None:
        return trivial
    return _replace_one(mechanism, delta)


def gaussian_epsilon(noise_multiplier: float, releases: int, delta: float) -> float:
    """Epsilon of Gaussian releases without sampling, exact.

    Balle & Wang 2018 (arXiv 1805.06530, Theorem 8), which composes as one release at mu = sqrt(releases) /
    noise_multiplier. From 1e-9 to 1e9 without loss of digits that matter; rounded up in the twelfth.

    Args:
        noise_multiplier: deviation of the noise over the sensitivity.

    Raises:
        InputError: a value out of range.
    """
    _check(delta)
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


def _check(delta: float) -> None:
    if not 0 < delta < 1:
        raise InputError(f"privacy.delta is {delta}: it must lie between 0 and 1, and below 1 over the images")


def _trivial(mechanism: PoissonGaussian, delta: float) -> float | None:
    if mechanism.steps == 0 or mechanism.rate == 0:
        return 0.0
    if mechanism.noise_multiplier == 0:
        return math.inf
    if mechanism.rate == 1:
        return gaussian_epsilon(mechanism.noise_multiplier, mechanism.steps, delta)
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of the libraries: their overflows, lost digits and orders at an end are dealt with."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _or_infinite(compute: Callable[[], float]) -> float:
    """A bound of a library, or infinity where it fails."""
    try:
        with _quiet():
            bound = float(compute())
    except (ArithmeticError, ValueError, RuntimeError, MemoryError, IndexError):
        return math.inf
    return max(bound, 0.0) if not math.isnan(bound) else math.inf


@lru_cache(maxsize=CACHED)
def rdp_of_step(rate: float, noise_multiplier: float) -> Reals:
    """Opacus's Renyi divergences of one step; infinite at the orders where it breaks down.

    Returns:
        float64 (orders,).
    """
    return np.array(
        [_or_infinite(lambda order=order: _rdp_at(rate, noise_multiplier, order)) for order in ORDERS]  # type: ignore[misc]
    )


def _rdp_at(rate: float, noise_multiplier: float, order: float) -> float:
    return float(compute_rdp(q=rate, noise_multiplier=noise_multiplier, steps=1, orders=float(order)))


def _rdp(mechanism: PoissonGaussian, delta: float) -> float:
    divergences = rdp_of_step(mechanism.rate, mechanism.noise_multiplier) * mechanism.steps
    return _or_infinite(lambda: get_privacy_spent(orders=ORDERS, rdp=divergences, delta=delta)[0])


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
    return max(step, min(2 * _rdp(mechanism, delta), unsampled, total))


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

    return _or_infinite(composed)


def _fallback(mechanism: PoissonGaussian, delta: float) -> float:
    """The least upper bound without PRV."""
    coarse = _coarse(mechanism, delta)
    return min(coarse, _pld(mechanism, delta, NeighboringRelation.ADD_OR_REMOVE_ONE)) if coarse > 0 else 0.0


def _coarse(mechanism: PoissonGaussian, delta: float) -> float:
    """The lesser of RDP's bound and the unsampled Gaussian's: sampling never costs."""
    return min(gaussian_epsilon(mechanism.noise_multiplier, mechanism.steps, delta), _rdp(mechanism, delta))


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


@dataclass(frozen=True)
class _Mesh:
    """Where a step's privacy loss is put: `points` multiples of `width` around 0.

    By section 5 of Gopi et al. 2021, remark 5.6 for the range, as in Opacus's `PRVAccountant`.
    """

    width: float
    points: int
    delta_error: float

    def error(self, steps: int) -> float:
        """What the mesh may take from epsilon after some steps."""
        return self.width * math.sqrt(steps * math.log(12 / self.delta_error) / 2)

    @property
    def domain(self) -> Domain:
        half = self.points // 2 - 1
        return Domain(-half * self.width, (half + 1) * self.width, self.points)


@dataclass(frozen=True)
class _Step:
    """Opacus's privacy loss of one step with an exact mean, whose error would count once a step."""

    prv: PoissonSubsampledGaussianPRV

    def cdf(self, losses: Reals) -> Reals:
        result: Reals = self.prv.cdf(losses)
        return result

    def mean(self) -> float:
        """The Kullback-Leibler divergence, by the trapezoidal rule, which is exact to rounding here."""
        rate, sigma = self.prv.sample_rate, self.prv.noise_multiplier
        x = np.linspace(-12 * sigma, 12 * sigma + 1, 2**16 + 1)
        loss = np.log1p(rate * np.expm1((x - 0.5) / sigma**2))
        density = (1 - rate) * np.exp(-(x**2) / 2 / sigma**2) + rate * np.exp(-((x - 1) ** 2) / 2 / sigma**2)
        return float(loss @ density * (x[1] - x[0]) / math.sqrt(2 * math.pi) / sigma)


@lru_cache(maxsize=CACHED)
def _prv(mechanism: PoissonGaussian, delta: float) -> float:
    """An upper bound by PRV, by the fallbacks where it cannot."""
    bound = _prv_on_fitting_mesh(mechanism, delta)
    if bound is None:
        return _fallback(mechanism, delta)
    return min(bound, gaussian_epsilon(mechanism.noise_multiplier, mechanism.steps, delta))


@lru_cache(maxsize=CACHED)
def _prv_on_fitting_mesh(mechanism: PoissonGaussian, delta: float) -> float | None:
    """PRV with an error that fits the result: guessed from RDP, mended once where the guess was too coarse."""
    guess = _rdp(mechanism, delta)
    if not 0 < guess < GREATEST_LOSS or FFT_ERROR * mechanism.steps > delta * DELTA_ERROR:
        return None
    error = min(EPSILON_ERROR, guess * RELATIVE_ERROR * 0.75)
    bound = _prv_on(_mesh(mechanism, delta, error), mechanism, delta)
    if bound is None or error <= bound * RELATIVE_ERROR:
        return bound
    return _prv_on(_mesh(mechanism, delta, bound * RELATIVE_ERROR * 0.95), mechanism, delta)


def _mesh(mechanism: PoissonGaussian, delta: float, epsilon_error: float) -> _Mesh | None:
    """The mesh of that error; None where it would need too many points or too great a range."""
    delta_error = delta * DELTA_ERROR
    single = replace(mechanism, steps=1)
    reach = (
        max(_rdp(mechanism, delta_error / 4), _rdp(single, delta_error / 8 / mechanism.steps), epsilon_error) + 3
    )
    width = epsilon_error / math.sqrt(mechanism.steps * math.log(12 / delta_error) / 2)
    if not (reach < GREATEST_LOSS and width > 0 and 2 * reach / width < MOST_POINTS):
        return None
    return _Mesh(width, 2 * next_fast_len(math.ceil(reach / width) + 1), delta_error)


def _prv_on(mesh: _Mesh | None, mechanism: PoissonGaussian, delta: float) -> float | None:
    if mesh is None:
        return None
    prv = PoissonSubsampledGaussianPRV(mechanism.rate, mechanism.noise_multiplier)
    try:
        with _quiet():
            step: DiscretePRV = discretize(_Step(prv), mesh.domain)
            target = delta - mesh.delta_error - FFT_ERROR * mechanism.steps
            bound = _Powers(step).epsilon(mechanism.steps, target) + mesh.error(mechanism.steps)
    except (ArithmeticError, ValueError, RuntimeError, MemoryError):
        return None
    return bound if math.isfinite(bound) else None


class _Powers:
    """A step's discrete privacy loss composed with itself, from one Fourier transform."""

    def __init__(self, step: DiscretePRV) -> None:
        self._points = step.domain.size
        self._width = float(step.domain.dt)
        self._shift = float(step.domain.shifts)
        self._lowest = float(step.domain.t_min) - self._shift
        spectrum = rfft(step.pmf)
        with np.errstate(divide="ignore"):
            self._size = np.log(np.abs(spectrum))
        self._angle = np.angle(spectrum)

    def epsilon(self, count: int, delta: float) -> float:
        """The least epsilon of `count` steps at `delta`, on the mesh.

        Raises:
            RuntimeError: it lies beyond the mesh.
        """
        losses, chances = self._upper_half(count)
        above = np.cumsum(chances[::-1])[::-1]
        discounted = np.cumsum((chances * np.exp(-losses))[::-1])[::-1]

        def spared(index: int) -> float:
            return float(math.exp(losses[index]) * discounted[index] - above[index])

        first = bisect_left(range(len(losses)), -delta, key=spared)
        if first == len(losses) or not discounted[first] > 0:
            raise RuntimeError("epsilon lies beyond the mesh")
        if not above[first] > delta:
            return max(float(losses[first]), 0.0)
        exact = math.log((above[first] - delta) / discounted[first])
        return max(exact, 0.0)

    def _upper_half(self, count: int) -> tuple[Reals, Reals]:
        """The losses from about 0 on and their chances, float64 (points,) each."""
        alive = self._size * count > -80  # the rest is below a rounding
        spectrum = np.zeros(len(self._size), dtype=np.complex128)
        spectrum[alive] = np.exp(count * (self._size[alive] + 1j * self._angle[alive]))
        chances = irfft(spectrum, self._points)
        turn = count - 1 + (0 if count % 2 else self._points // 2)
        shift = self._shift * count
        start = max(math.floor((-shift - self._lowest) / self._width) - 1, 0)
        losses = self._lowest + shift + self._width * np.arange(start, self._points)
        return losses, np.roll(chances, turn)[start:]
