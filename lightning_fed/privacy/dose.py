"""How much noise a hospital adds, how often, and what that costs: settled once for the whole run.

Light on purpose: actors receive it before they import anything heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Joint:
    """Noise that hospitals share out: integers, added inside the sum that secure aggregation opens.

    Gradients are put on a grid, of which `bound` steps are the clipping norm C.

    Args:
        distribution: of the noise: `skellam` or `discrete_gaussian`. coordinates: of the vector.
        bound: steps of the grid in C. counted: the fewest honest hospitals whose noise is in a sum that is opened.
        hospitals: the most whose vectors are summed. clamp: the greatest coordinate of a hospital's clipped sum,
            in steps of the grid; what is beyond is cut.
    """

    distribution: str
    coordinates: int
    bound: int
    counted: int
    hospitals: int
    clamp: int


@dataclass(frozen=True)
class Dose:
    """One hospital's noise and budget for the whole run.

    Args:
        unit: what the guarantee protects: `image` or `hospital`.
        rate: Poisson sampling rate of a release; 1 where nothing is sampled.
        noise_multiplier: standard deviation of the hospital's own noise over the sensitivity; 0 adds none.
        steps: releases in one round.
        most_steps: releases that the budget pays for; None where there is no budget.
        epsilon: the budget of the whole run; None where there is none.
        delta: of the guarantee.
        batch: public nominal batch, rate times images, by which clipped sums are divided.
        adjacency: of the neighbours for which the noise was made: `zero_out` or `replace_one`.
        joint: how the noise adds up inside the sum, None where each hospital's is enough by itself.
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
    joint: Joint | None = None

    @property
    def counted_survivors(self) -> int:
        """Hospitals whose noise is counted on: the deviation in the sum is the own one times its root."""
        return 1 if self.joint is None else self.joint.counted

    def affords(self, spent: int, steps: int) -> bool:
        """Whether `steps` more releases stay within the budget after `spent`."""
        return self.most_steps is None or spent + steps <= self.most_steps
