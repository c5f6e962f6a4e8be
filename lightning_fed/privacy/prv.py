"""Epsilon of a subsampled Gaussian by its privacy loss as a random variable (PRV).

Gopi, Lee and Wutschitz 2021 (arXiv 2106.02848, section 5), with Opacus's classes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from opacus.accountants.analysis.prv import DiscretePRV, Domain, PoissonSubsampledGaussianPRV, discretize
from scipy.fft import irfft, next_fast_len, rfft

from lightning_fed.privacy.poisson import CACHED, PoissonGaussian, Reals, quiet, rdp_epsilon

EPSILON_ERROR = 0.01  # at most; and at most this share of epsilon:
RELATIVE_ERROR = 1 / 500
DELTA_ERROR = 1 / 1000  # in shares of delta
MOST_POINTS = 2**21  # of a mesh
GREATEST_LOSS = 600.0  # exp of a loss on the mesh stays finite
FFT_ERROR = 1e-15  # of delta, for each step composed by an FFT


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
def prv_epsilon(mechanism: PoissonGaussian, delta: float) -> float | None:
    """PRV with an error that fits the result, or None where no mesh holds that.

    The error is guessed from RDP, and mended once where the guess was too coarse.
    """
    guess = rdp_epsilon(mechanism, delta)
    if not 0 < guess < GREATEST_LOSS or FFT_ERROR * mechanism.steps > delta * DELTA_ERROR:
        return None
    error = min(EPSILON_ERROR, guess * RELATIVE_ERROR * 0.75)
    bound = _on_mesh(_mesh(mechanism, delta, error), mechanism, delta)
    if bound is None or error <= bound * RELATIVE_ERROR:
        return bound
    return _on_mesh(_mesh(mechanism, delta, bound * RELATIVE_ERROR * 0.95), mechanism, delta)


def _mesh(mechanism: PoissonGaussian, delta: float, epsilon_error: float) -> _Mesh | None:
    """The mesh of that error; None where it would need too many points or too great a range."""
    delta_error = delta * DELTA_ERROR
    single = replace(mechanism, steps=1)
    of_all = rdp_epsilon(mechanism, delta_error / 4)
    of_one = rdp_epsilon(single, delta_error / 8 / mechanism.steps)
    reach = max(of_all, of_one, epsilon_error) + 3
    width = epsilon_error / math.sqrt(mechanism.steps * math.log(12 / delta_error) / 2)
    if not (reach < GREATEST_LOSS and width > 0 and 2 * reach / width < MOST_POINTS):
        return None
    return _Mesh(width, 2 * next_fast_len(math.ceil(reach / width) + 1), delta_error)


def _on_mesh(mesh: _Mesh | None, mechanism: PoissonGaussian, delta: float) -> float | None:
    if mesh is None:
        return None
    prv = PoissonSubsampledGaussianPRV(mechanism.rate, mechanism.noise_multiplier)
    try:
        with quiet():
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
