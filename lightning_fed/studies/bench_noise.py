"""`lightning-fed bench noise`: how fast private noise is drawn, beside NumPy's normal numbers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from lightning_fed.checks import positive
from lightning_fed.privacy.samplers import NOISES, sampler_of
from lightning_fed.privacy.streams import KEY_BYTES, Stream

DRAWS = 2**21
DEVIATIONS = (2.0**13, 2.0**15, 2.0**17)
"""Of one hospital's noise in steps of the grid: from a small net with little noise to a large one with much."""


def bench_noise(rounds: int) -> dict[str, Any]:
    """Draws a second of each noise on one core, the fastest of some rounds, and as a share of NumPy's.

    Args:
        rounds: of `DRAWS` draws each.

    Raises:
        InputError: no rounds.
    """
    positive("bench", rounds=rounds)
    stream, plain = Stream(os.urandom(KEY_BYTES)), np.random.default_rng(0)
    floor = _rate(lambda: plain.standard_normal(DRAWS), rounds)
    figures: dict[str, Any] = {"numpy_normal_per_second": floor}
    table = Table("noise", "deviation", "million draws a second", "share of NumPy's normal")
    for distribution in NOISES:
        for deviation in DEVIATIONS:
            sampler = sampler_of(distribution, deviation**2)
            rate = _rate(lambda sampler=sampler: sampler.draw(stream, DRAWS), rounds)  # type: ignore[misc]
            figures.setdefault(distribution, {})[f"{deviation:g}"] = rate
            table.add_row(distribution, f"{deviation:g}", f"{rate / 1e6:.1f}", f"{rate / floor:.2f}")
    Console().print(table)
    return figures


def _rate(draw: Callable[[], object], rounds: int) -> float:
    """Draws a second of processor time."""
    seconds = []
    for _ in range(rounds + 1):
        begun = time.process_time()
        draw()
        seconds.append(time.process_time() - begun)
    return DRAWS / min(seconds[1:])
