"""The Poisson-subsampled Gaussian, and its Renyi divergences."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from opacus.accountants import RDPAccountant
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

from lightning_fed.checks import in_range, not_negative
from lightning_fed.errors import InputError

Reals = NDArray[np.float64]

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


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of the libraries: their overflows, lost digits and orders at an end are dealt with."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def or_infinite(compute: Callable[[], float]) -> float:
    """A bound of a library, or infinity where it fails."""
    try:
        with quiet():
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
        [or_infinite(lambda order=order: _rdp_at(rate, noise_multiplier, order)) for order in ORDERS]  # type: ignore[misc]
    )


def _rdp_at(rate: float, noise_multiplier: float, order: float) -> float:
    return float(compute_rdp(q=rate, noise_multiplier=noise_multiplier, steps=1, orders=float(order)))


def rdp_epsilon(mechanism: PoissonGaussian, delta: float) -> float:
    """Epsilon by Opacus's RDP, infinite where that fails."""
    divergences = rdp_of_step(mechanism.rate, mechanism.noise_multiplier) * mechanism.steps
    return or_infinite(lambda: get_privacy_spent(orders=ORDERS, rdp=divergences, delta=delta)[0])
