"""How much noise a hospital adds, how often, and what that costs: settled once for the whole run.

Light on purpose: actors receive it before they import anything heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Dose:
    """One hospital's noise and budget for the whole run.

    Args:
        unit: what the guarantee protects: `image` or `hospital`.
        rate: Poisson sampling rate of a release; 1 where nothing is sampled.
        noise_multiplier: standard deviation of the noise over the sensitivity; 0 adds none.
        steps: releases in one round.
        most_steps: releases that the budget pays for; None where there is no budget.
        epsilon: the budget of the whole run; None where there is none.
        delta: of the guarantee.
        batch: public nominal batch, rate times images, by which clipped sums are divided.
        adjacency: of the neighbours for which the noise was made: `zero_out` or `replace_one`.
    """

    unit: Literal["image", "hospital"]
    rate: float
    noise_multiplier: float
    steps: int
    most_steps: int | None
    epsilon: float | None
    delta: float
    batch: float = 1.0
    adjacency: str = "zero_out"

    def affords(self, spent: int, steps: int) -> bool:
        """Whether `steps` more releases stay within the budget after `spent`."""
        return self.most_steps is None or spent + steps <= self.most_steps
